//! What a model is asked.

use crate::{
    Error, Result,
    exec::Media,
    image::{Image, Sampling, Video, is_address},
    text::Message,
};
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
    /// Images, in the order of the `image` parts of the conversation. Where it has no such part, they come before the
    /// text of the user's last turn.
    pub images: Vec<Image>,
    /// How images, and frames of videos, are prepared, where the model leaves a choice.
    pub image_options: ImageOptions,
    /// Videos, likewise in the order of the `video` parts; else they come before the text, after images.
    pub videos: Vec<Video>,
    /// Which of their frames are looked at, where the model's files are not to decide.
    pub sampling: Sampling,
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

    /// One more video: a folder of frames, an animated image, or a [`Video`].
    pub fn video(mut self, video: impl Into<Video>) -> UserInput {
        self.videos.push(video.into());
        self
    }

    /// Pixels that a prepared image, or frame of a video, has at most.
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
        UserInput {
            prompt,
            tools: Vec::new(),
            additional_context: Map::new(),
            images: Vec::new(),
            image_options: ImageOptions::default(),
            videos: Vec::new(),
            sampling: Sampling::default(),
        }
    }

    /// Gives every image and video a part of the conversation, and every part that names an address what is there.
    pub(crate) fn place_media(&mut self) -> Result<()> {
        let Prompt::Messages(turns) = &mut self.prompt else { return Ok(()) };
        let given = std::mem::take(&mut self.images);
        // What comes without a part of its own goes before the text, videos after images.
        let videos =
            placed(turns, "video", std::mem::take(&mut self.videos), |part| address(part, "video").map(Video::parse))?;
        self.images = placed(turns, "image", given, |part| address(part, "image").map(Image::parse))?;
        self.videos = videos;
        Ok(())
    }
}

/// What parts of a kind stand for, in their order: what one names itself, or else the next that is `given`. If there
/// are no parts, the user's last turn begins with one for each.
fn placed<T>(turns: &mut [Value], kind: &str, given: Vec<T>, own: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
    let (mut given, mut found, mut parts) = (given.into_iter(), Vec::new(), 0);
    for part in turns.iter_mut().flat_map(|turn| parts_of(turn, kind)) {
        parts += 1;
        found.extend(own(part).or_else(|| given.next()));
        // What templates know.
        *part = json!({ "type": kind });
    }
    let rest: Vec<T> = given.collect();
    if parts == 0 && !rest.is_empty() {
        let user = turns.iter_mut().rfind(|turn| turn["role"] == "user");
        let Some(content) = user.and_then(|turn| turn.get_mut("content")) else {
            return Err(Error::Request(format!("{kind}s need a turn of the user to come with")));
        };
        let text = match content.take() {
            Value::Array(parts) => parts,
            text => vec![json!({ "type": "text", "text": text })],
        };
        *content = rest.iter().map(|_| json!({ "type": kind })).chain(text).collect();
        return Ok(rest);
    }
    if parts != found.len() || !rest.is_empty() {
        let came = found.len() + rest.len();
        return Err(Error::Request(format!("the conversation has {parts} parts for {kind}s, {came} {kind}s came")));
    }
    Ok(found)
}

/// The parts of a turn that are of this kind.
fn parts_of<'a>(turn: &'a mut Value, kind: &'a str) -> impl Iterator<Item = &'a mut Value> {
    let parts = turn.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten();
    parts.filter(move |part| part["type"].as_str().is_some_and(|t| t == kind || t.strip_suffix("_url") == Some(kind)))
}

/// The address that a part of this kind names.
fn address<'a>(part: &'a Value, kind: &str) -> Option<&'a str> {
    let by_url = &part[format!("{kind}_url")];
    let named = [&by_url["url"], by_url, &part["url"], &part[kind]];
    named.into_iter().find_map(Value::as_str).filter(|found| is_address(found))
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
