//! An answer taken apart as it comes: what is to be seen, what the model says to itself, what it wants to be called.

use super::{
    ReasoningFormat, Tokenizer,
    reasoning::ReasoningStream,
    tools::{Harmony, Piece, ToolCallFormat, ToolCallStream, merged},
};
use serde_json::Value;

/// How a model writes what is not plain text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AnswerFormat {
    /// Tool calls; where nobody knows, they are looked for only if there are tools.
    pub tool_calls: Option<ToolCallFormat>,
    /// Reasoning.
    pub reasoning: Option<ReasoningFormat>,
}

impl AnswerFormat {
    /// The special tokens that are tags and so part of the text to take apart.
    pub fn tags(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let reasoning = self.reasoning.iter().flat_map(|r| [r.start.as_str(), r.end.as_str()]);
        let calls = self.tool_calls.unwrap_or(ToolCallFormat::Json).tags();
        // A tag may go on behind its token: `<|channel>thought`.
        let token = |tag: &str| {
            let whole = tokenizer.token_to_id(tag);
            whole.or_else(|| tokenizer.token_to_id(&tag[..=tag.find('>')?]))
        };
        reasoning.chain(calls).filter_map(token).collect()
    }
}

/// Takes one answer apart.
#[derive(Clone, Debug)]
pub(crate) enum AnswerStream {
    /// Each part names its channel.
    Harmony(Harmony),
    /// Tags in the text. Calls within reasoning are none.
    Tagged(Option<ReasoningStream>, Option<ToolCallStream>),
}

impl AnswerStream {
    /// `prompt_end` is the last text of the prompt, which may have begun the reasoning.
    pub fn new(format: AnswerFormat, tools: Vec<Value>, prompt_end: &str) -> AnswerStream {
        if format.tool_calls == Some(ToolCallFormat::GptOss) {
            return AnswerStream::Harmony(Harmony::new(tools));
        }
        let fallback = (!tools.is_empty()).then_some(ToolCallFormat::Json);
        let calls = format.tool_calls.or(fallback).map(|format| ToolCallStream::new(format, tools));
        let reasoning = format.reasoning.map(|r| {
            let is_open = prompt_end.trim_end().ends_with(&r.start);
            ReasoningStream::new(r, is_open)
        });
        AnswerStream::Tagged(reasoning, calls)
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        match self {
            AnswerStream::Harmony(harmony) => harmony.push(text),
            AnswerStream::Tagged(reasoning, calls) => {
                let parts = match reasoning {
                    Some(reasoning) => reasoning.push(text),
                    None => vec![Piece::Text(text.to_owned())],
                };
                merged(through(calls, parts))
            }
        }
    }

    /// Ends the text. Unless it `is_complete`, it was cut off.
    pub fn finish(&mut self, is_complete: bool) -> Vec<Piece> {
        match self {
            AnswerStream::Harmony(harmony) => harmony.finish(is_complete),
            AnswerStream::Tagged(reasoning, calls) => {
                let parts = reasoning.as_mut().map(ReasoningStream::finish).unwrap_or_default();
                let mut pieces = through(calls, parts);
                pieces.extend(calls.iter_mut().flat_map(|calls| calls.finish(is_complete)));
                merged(pieces)
            }
        }
    }
}

fn through(calls: &mut Option<ToolCallStream>, parts: Vec<Piece>) -> Vec<Piece> {
    let Some(calls) = calls else { return parts };
    let each = |part| match part {
        Piece::Text(text) => calls.push(&text),
        other => vec![other],
    };
    parts.into_iter().flat_map(each).collect()
}
