//! What a model is asked.

use crate::text::Message;
use serde_json::{Map, Value};

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

    fn new(prompt: Prompt) -> UserInput {
        UserInput { prompt, tools: Vec::new(), additional_context: Map::new() }
    }
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
}

impl From<Vec<u32>> for LmInput {
    fn from(tokens: Vec<u32>) -> LmInput {
        LmInput { tokens, ..LmInput::default() }
    }
}
