//! Tool calls: how models write them, and getting them out of an answer as it comes.

mod calls;
mod format;
mod gemma;
mod harmony;
mod json;
mod literal;
mod markup;
mod python;
mod reading;
mod scanner;
mod schema;
mod stream;
#[cfg(test)]
mod tests;
mod verbatim;

pub use format::ToolCallFormat;
pub(crate) use harmony::Harmony;
pub(crate) use stream::{ToolCallStream, beginning_of, merged};

use serde_json::{Map, Value, json};
use std::fmt;

/// A call that a model asks for.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ToolCall {
    /// Tells calls apart: the model's own id where it gives one.
    pub id: String,
    /// Which tool.
    pub name: String,
    /// Its arguments by name, of the types that the tool's schema asks for.
    pub arguments: Map<String, Value>,
}

impl ToolCall {
    /// The call as chat templates read it, in the `tool_calls` of an assistant's turn.
    pub fn to_message(&self) -> Value {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        json!({ "type": "function", "id": self.id, "function": function })
    }
}

/// Something that looked like a call and is none.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct RejectedToolCall {
    /// The kind of mistake.
    pub reason: RejectionReason,
    /// What exactly is wrong.
    pub message: String,
    /// The tool that was named, if any was.
    pub name: Option<String>,
    /// What the model wrote, without the tags around it.
    pub text: String,
}

/// Why a call was rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionReason {
    /// It is not written in the model's own format.
    MalformedSyntax,
    /// The answer ended in the middle of it.
    IncompleteOutput,
    /// It names no tool.
    MissingToolName,
    /// It names a tool that was not offered.
    UndeclaredTool,
    /// Its arguments are no object, or not what the tool's schema asks for.
    InvalidArguments,
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RejectionReason::MalformedSyntax => "malformed_syntax",
            RejectionReason::IncompleteOutput => "incomplete_output",
            RejectionReason::MissingToolName => "missing_tool_name",
            RejectionReason::UndeclaredTool => "undeclared_tool",
            RejectionReason::InvalidArguments => "invalid_arguments",
        })
    }
}

/// A part of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Piece {
    /// What the user is to see.
    Text(String),
    /// What the model says to itself.
    Reasoning(String),
    /// A call.
    Call(ToolCall),
    /// What was to be one.
    Rejected(RejectedToolCall),
}

/// Why a parser found no call.
#[derive(Clone, PartialEq, Debug)]
struct Rejection {
    reason: RejectionReason,
    message: String,
    name: Option<String>,
}

impl Rejection {
    fn malformed(message: impl Into<String>) -> Rejection {
        Rejection { reason: RejectionReason::MalformedSyntax, message: message.into(), name: None }
    }

    /// Whether the syntax is wrong, so that the end of the call is unknown.
    fn is_syntax(&self) -> bool {
        matches!(self.reason, RejectionReason::MalformedSyntax | RejectionReason::IncompleteOutput)
    }

    fn with(self, reason: RejectionReason) -> Rejection {
        Rejection { reason, ..self }
    }
}

/// A call as a format's parser finds it, before the tools that there are have been asked.
#[derive(Clone, PartialEq, Debug)]
struct RawCall {
    id: Option<String>,
    name: String,
    arguments: Arguments,
}

/// Arguments as they are written.
#[derive(Clone, PartialEq, Debug)]
enum Arguments {
    /// As literals, whose syntax shows their types.
    Literal(literal::Literal),
    /// As text.
    Text(Vec<(String, String)>, schema::Untyped),
}

impl RawCall {
    /// The call, if there is such a tool and the arguments suit it.
    fn check(self, tools: &[Value], new_id: impl FnOnce() -> String) -> Result<ToolCall, Rejection> {
        let RawCall { id, name, arguments } = self;
        let wrong = |reason, message| Err(Rejection { reason, message, name: Some(name.clone()) });
        let tool = tools.iter().map(function).find(|f| f.get("name").and_then(Value::as_str) == Some(&name));
        if tool.is_none() && !tools.is_empty() {
            let names: Vec<&str> = tools.iter().filter_map(|t| function(t).get("name")?.as_str()).collect();
            let message = format!("expected one of {}, found {name}", names.join(", "));
            return wrong(RejectionReason::UndeclaredTool, message);
        }
        match schema::arguments(arguments, tool.and_then(|t| t.get("parameters"))) {
            Ok(arguments) => Ok(ToolCall { id: id.unwrap_or_else(new_id), name, arguments }),
            Err(message) => wrong(RejectionReason::InvalidArguments, message),
        }
    }
}

/// A tool's own part of its specification: `{"type": "function", "function": {..}}`, or what is within.
fn function(tool: &Value) -> &Value {
    tool.get("function").filter(|f| f.is_object()).unwrap_or(tool)
}
