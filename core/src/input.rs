//! What a model is asked.

use crate::{Error, Result, exec::Media, image::Image, text::Message};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tamarack_api::ImageOptions;

/// A conversation or a text, before the chat template and the tokenizer.
///
/// ```
/// use tamarack::{UserInput, text::Message};
///
/// let question = UserInput::from("Why is the sky blue?");
/// let conversation = UserInput::messages([Message::system("Be brief."), Message::user("Why?")]);
/// let text = UserInput::raw("Once upon a time");
/// # assert_ne!(question, conversation);
/// # assert_ne!(question, text);
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct UserInput {
    /// What is asked.
    pub prompt: Prompt,
    /// JSON schemas of the tools that the model may call, as chat templates take them.
    pub tools: Vec<Value>,
    /// What else the chat template reads: `enable_thinking`, `documents` and the like.
    pub additional_context: Map<String, Value>,
    /// Images, in the order of the `image` parts of the conversation. Where it has no such part, they come before the text of
    /// the user's last turn.
    pub images: Vec<Image>,
    /// How images are prepared, where the model leaves a choice.
    pub image_options: ImageOptions,
}

/// What is asked of a model.
#[derive(Clone, PartialEq, Debug)]
pub enum Prompt {
    /// Turns of a conversation, objects with `role` and `content`, for the chat template.
    Messages(Vec<Value>),
    /// Text to go on with, as it is.
    Raw(String),
}

impl UserInput {
    /// A conversation: [`Message`]s, or JSON objects for turns that hold more than text.
    pub fn messages(turns: impl IntoIterator<Item = impl Into<Value>>) -> UserInput {
        Self::new(Prompt::Messages(turns.into_iter().map(Into::into).collect()))
    }

    /// Text to go on with: no chat template, only the special tokens that every text of the model has.
    pub fn raw(text: impl Into<String>) -> UserInput {
        Self::new(Prompt::Raw(text.into()))
    }

    /// Tools that the model may call.
    pub fn tools(mut self, tools: impl IntoIterator<Item = Value>) -> UserInput {
        self.tools.extend(tools);
        self
    }

    /// Something that the chat template reads.
    pub fn context(mut self, name: impl Into<String>, value: impl Into<Value>) -> UserInput {
        self.additional_context.insert(name.into(), value.into());
        self
    }

    /// One more image.
    ///
    /// ```
    /// use tamarack::UserInput;
    ///
    /// let question = UserInput::from("What differs?").image("before.jpg").image("after.jpg");
    /// # assert_eq!(question.images.len(), 2);
    /// ```
    pub fn image(mut self, image: impl Into<Image>) -> UserInput {
        self.images.push(image.into());
        self
    }

    /// Pixels that a prepared image has at most.
    pub fn max_pixels(mut self, pixels: usize) -> UserInput {
        self.image_options.max_pixels = Some(pixels);
        self
    }

    /// Whether a large or long image is looked at in parts, too, by a model that can.
    pub fn crops(mut self, crops: bool) -> UserInput {
        self.image_options.crops = Some(crops);
        self
    }

    fn new(prompt: Prompt) -> UserInput {
        let (tools, additional_context, images) = (Vec::new(), Map::new(), Vec::new());
        UserInput { prompt, tools, additional_context, images, image_options: ImageOptions::default() }
    }

    /// Gives every image a part of the conversation, and every part that names an address its image.
    pub(crate) fn place_images(&mut self) -> Result<()> {
        let Prompt::Messages(turns) = &mut self.prompt else { return Ok(()) };
        let mut given = std::mem::take(&mut self.images).into_iter();
        let mut parts = 0;
        for part in turns.iter_mut().flat_map(parts_of) {
            parts += 1;
            match address(part) {
                Some(url) => self.images.push(Image::Url(url)),
                None => self.images.extend(given.next()),
            }
            // What templates know.
            *part = json!({ "type": "image" });
        }
        let rest: Vec<Image> = given.collect();
        if parts == 0 && !rest.is_empty() {
            let user = turns.iter_mut().rfind(|turn| turn["role"] == "user");
            let Some(content) = user.and_then(|turn| turn.get_mut("content")) else {
                return Err(Error::Request("images need a turn of the user to come with".to_owned()));
            };
            let text = match content.take() {
                Value::Array(parts) => parts,
                text => vec![json!({ "type": "text", "text": text })],
            };
            *content = rest.iter().map(|_| json!({ "type": "image" })).chain(text).collect();
            self.images = rest;
        } else if parts != self.images.len() || !rest.is_empty() {
            let found = self.images.len() + rest.len();
            return Err(Error::Request(format!("the conversation has {parts} parts for images, {found} images came")));
        }
        Ok(())
    }
}

/// The parts of a turn that are images.
fn parts_of(turn: &mut Value) -> impl Iterator<Item = &mut Value> {
    let parts = turn.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten();
    parts.filter(|part| matches!(part["type"].as_str(), Some("image" | "image_url")))
}

/// The address that such a part names.
fn address(part: &Value) -> Option<String> {
    let named = [&part["image_url"]["url"], &part["image_url"], &part["url"], &part["image"]];
    let found = named.into_iter().find_map(Value::as_str)?;
    ["data:", "https:", "http:"].iter().any(|scheme| found.starts_with(scheme)).then(|| found.to_owned())
}

/// One turn of the user.
impl From<&str> for UserInput {
    fn from(prompt: &str) -> UserInput {
        UserInput::messages([Message::user(prompt)])
    }
}

/// One turn of the user.
impl From<String> for UserInput {
    fn from(prompt: String) -> UserInput {
        UserInput::messages([Message::user(prompt)])
    }
}

impl From<Vec<Message>> for UserInput {
    fn from(turns: Vec<Message>) -> UserInput {
        UserInput::messages(turns)
    }
}

/// What a model runs on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LmInput {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// Tools that the model may call.
    pub tools: Vec<Value>,
    /// Whether the answer is a turn of a conversation, whose reasoning and tool calls are told apart from its text.
    pub is_chat: bool,
    /// Its images, and where its tokens are.
    pub media: Option<Arc<Media>>,
}

impl From<Vec<u32>> for LmInput {
    fn from(tokens: Vec<u32>) -> LmInput {
        LmInput { tokens, ..LmInput::default() }
    }
}
