//! One turn of a conversation, for callers whose turns are plain text.

use serde_json::{Value, json};

/// A turn with a role and text. Richer turns (tool calls, image parts) are written as JSON, in the
/// shape that chat templates read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    /// Instructions for the model.
    pub fn system(content: impl Into<String>) -> Message {
        Message::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Message {
        Message::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message::new("assistant", content)
    }

    /// What a tool answered.
    pub fn tool(content: impl Into<String>) -> Message {
        Message::new("tool", content)
    }
}

impl From<Message> for Value {
    fn from(message: Message) -> Value {
        json!({ "role": message.role, "content": message.content })
    }
}

/// What is rendered when a model has no chat template: the texts of all turns, a blank line
/// between them. Parts that are not text are left out.
pub fn plain_prompt(messages: &[Value]) -> String {
    let texts = messages.iter().filter_map(|message| message.get("content")).flat_map(texts);
    texts.collect::<Vec<_>>().join("\n\n")
}

fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_template_the_texts_are_joined() {
        let parts = json!({ "role": "user", "content": [
            { "type": "image" }, { "type": "text", "text": "What is this?" },
        ]});
        let messages = [Message::system("Be brief.").into(), parts];
        assert_eq!(plain_prompt(&messages), "Be brief.\n\nWhat is this?");
    }
}
