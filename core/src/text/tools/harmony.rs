//! Harmony, the format of gpt-oss: every part of an answer says which channel it is for.
//! <https://github.com/openai/harmony>

use super::{
    Piece, RawCall, ToolCallFormat, json,
    stream::{beginning_of, checked, merged},
};
use serde_json::Value;

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
/// What ends a message: its own end, or the header of the next one.
const ENDS: [&str; 5] = ["<|end|>", "<|call|>", "<|return|>", "<|start|>", CHANNEL];

/// Splits an answer into reasoning (the channel `analysis`), calls (messages to somebody) and text (all else).
#[derive(Clone, Debug)]
pub(crate) struct Harmony {
    tools: Vec<Value>,
    state: State,
    held: String,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Up to `<|message|>`.
    Header,
    Text,
    Reasoning,
    /// A message to this tool.
    Call(String),
}

impl Harmony {
    /// At the beginning of an answer. With `tools`, calls of others are rejected.
    pub fn new(tools: Vec<Value>) -> Harmony {
        Harmony { tools, state: State::Header, held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        merged(pieces)
    }

    /// Ends the text. Unless it `is_complete`, it was cut off.
    pub fn finish(&mut self, is_complete: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::Header) {
            // A header that is not finished is nothing that anybody is to see.
            State::Header if rest.contains("<|") => {}
            State::Header | State::Text => pieces.push(Piece::Text(rest)),
            State::Reasoning => pieces.push(Piece::Reasoning(rest)),
            State::Call(name) => pieces.push(self.call(&name, &rest, is_complete)),
        }
        merged(pieces)
    }

    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        if self.state == State::Header {
            return self.header();
        }
        let found = ENDS.iter().filter_map(|end| Some((self.held.find(end)?, *end))).min();
        let Some((at, end)) = found else {
            if !matches!(self.state, State::Call(_)) {
                let rest = self.held.split_off(self.held.len() - beginning_of(&self.held, ENDS.into_iter()));
                let text = std::mem::replace(&mut self.held, rest);
                pieces.push(self.piece(text));
            }
            return false;
        };
        let rest = self.held.split_off(at);
        let text = std::mem::replace(&mut self.held, rest);
        if end != CHANNEL {
            self.held.drain(..end.len());
        }
        pieces.push(match &self.state {
            State::Call(name) => self.call(name, &text, true),
            _ => self.piece(text),
        });
        self.state = State::Header;
        true
    }

    /// Reads a header such as `<|channel|>commentary to=functions.f <|constrain|>json<|message|>`.
    fn header(&mut self) -> bool {
        let Some(at) = self.held.find(MESSAGE) else {
            // Some answers have none at all.
            let plain = self.held.trim_start();
            let is_plain = plain.len() > "assistant".len() && !plain.contains('<');
            if is_plain {
                self.state = State::Text;
            }
            return is_plain;
        };
        let header = self.held[..at].to_owned();
        self.held.drain(..at + MESSAGE.len());
        let word = |text: &str| -> String { text.chars().take_while(|c| !c.is_whitespace() && *c != '<').collect() };
        let recipient = header.split("to=").nth(1).map(word).filter(|name| !name.is_empty());
        let channel = header.split(CHANNEL).nth(1).map(str::trim_start).map(word);
        self.state = match (recipient, channel.as_deref()) {
            (Some(name), _) => State::Call(name.strip_prefix("functions.").unwrap_or(&name).to_owned()),
            (None, Some("analysis")) => State::Reasoning,
            _ => State::Text,
        };
        true
    }

    fn piece(&self, text: String) -> Piece {
        if self.state == State::Reasoning { Piece::Reasoning(text) } else { Piece::Text(text) }
    }

    fn call(&self, name: &str, text: &str, is_whole: bool) -> Piece {
        let raw = match json::first(text.trim()) {
            Ok((arguments, _)) => Ok(RawCall::json(name, arguments)),
            Err(rejection) => Err(super::Rejection { name: Some(name.to_owned()), ..rejection }),
        };
        checked(raw, &self.tools, ToolCallFormat::GptOss, text, is_whole)
    }
}
