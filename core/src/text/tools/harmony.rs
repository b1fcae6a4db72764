//! Harmony, the format of gpt-oss: every part of an answer says which channel it is for.
//! <https://github.com/openai/harmony>

use super::{
    Piece, RawCall, Rejection, RejectionReason, ToolCallFormat, json,
    scanner::Scanner,
    stream::{beginning_of, checked, merged},
};
use serde_json::Value;

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const ROLE: &str = "assistant";
const RECIPIENT: &str = "to=";
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
    Call(String, Scanner),
}

impl Harmony {
    /// A stream at the beginning of an answer. Calls of tools that are not in `tools` are rejected. Without tools there
    /// are no calls, and messages with a recipient are text.
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
            // An incomplete header is not shown.
            State::Header if rest.contains("<|") => {}
            State::Header if may_be_header(&rest) && (!is_complete || rest.contains("to=functions.")) => {}
            State::Header | State::Text => pieces.push(Piece::Text(rest)),
            State::Reasoning => pieces.push(Piece::Reasoning(rest)),
            State::Call(name, _) => self.close(&name, &rest, is_complete, &mut pieces),
        }
        merged(pieces)
    }

    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let found = match &mut self.state {
            State::Header => return self.header(),
            State::Call(name, scanner) => {
                // A tag within a string is part of an argument, and a tag within open brackets may be.
                let (at, end) = loop {
                    match scanner.find(&self.held, &ENDS) {
                        Some(found) if scanner.is_balanced() => break found,
                        Some(_) => {}
                        None => return false,
                    }
                };
                let call = call(name, &self.held[..at], &self.tools, RejectionReason::MalformedSyntax);
                pieces.push(call);
                (at, end)
            }
            State::Text | State::Reasoning => {
                let found = ENDS.iter().filter_map(|end| Some((self.held.find(end)?, *end))).min();
                let shown = match found {
                    Some((at, _)) => at,
                    None => self.held.len() - beginning_of(&self.held, ENDS.into_iter()),
                };
                let text = self.held[..shown].to_owned();
                pieces.push(if self.state == State::Text { Piece::Text(text) } else { Piece::Reasoning(text) });
                let Some(found) = found else {
                    self.held.drain(..shown);
                    return false;
                };
                found
            }
        };
        let (at, end) = found;
        self.held.drain(..if end == CHANNEL { at } else { at + end.len() });
        self.state = State::Header;
        true
    }

    /// Reads a header such as `<|channel|>commentary to=functions.f <|constrain|>json<|message|>`. The prompt ends with
    /// `<|start|>assistant`, so the answer may begin with the recipient: ` to=functions.f<|channel|>..`.
    fn header(&mut self) -> bool {
        let found = self.held.find(MESSAGE);
        if !may_be_header(&self.held[..found.unwrap_or(self.held.len())]) {
            // Some answers have no header.
            self.state = State::Text;
            return true;
        }
        let Some(at) = found else { return false };
        let header = self.held[..at].to_owned();
        self.held.drain(..at + MESSAGE.len());
        let word = |text: &str| -> String { text.chars().take_while(|c| !c.is_whitespace() && *c != '<').collect() };
        let recipient = header.split(RECIPIENT).nth(1).map(word).filter(|name| !name.is_empty());
        let channel = header.split(CHANNEL).nth(1).map(str::trim_start).map(word);
        // A message with a recipient is a call on every channel: models also write them on `analysis`.
        self.state = match (recipient.filter(|_| !self.tools.is_empty()), channel.as_deref()) {
            (Some(name), _) => {
                let name = name.strip_prefix("functions.").unwrap_or(&name).to_owned();
                State::Call(name, Scanner::new(ToolCallFormat::GptOss.quotes(), 0))
            }
            (None, Some("analysis")) => State::Reasoning,
            _ => State::Text,
        };
        true
    }

    /// Ends the answer within a call. If there is an end tag within open brackets and another message after it, that
    /// message may be part of an argument, so all of it is one rejection.
    fn close(&mut self, name: &str, text: &str, is_complete: bool, pieces: &mut Vec<Piece>) {
        let reason = if is_complete { RejectionReason::MalformedSyntax } else { RejectionReason::IncompleteOutput };
        let text = &text[..text.len() - beginning_of(text, ENDS.into_iter())];
        let found = ENDS.iter().filter_map(|end| Some((text.find(end)?, *end))).min();
        match found.filter(|(at, _)| is_complete && !text[*at..].contains(MESSAGE)) {
            Some((at, end)) => {
                pieces.push(call(name, &text[..at], &self.tools, reason));
                self.held = text[at + end.len()..].to_owned();
                pieces.extend(self.finish(is_complete));
            }
            None if text.trim().is_empty() && !is_complete => {
                let message = "expected the arguments, found none: the answer was cut off".to_owned();
                let rejection = Rejection { reason, message, name: Some(name.to_owned()) };
                pieces.push(checked(Err(rejection), &self.tools, ToolCallFormat::GptOss, text));
            }
            None => pieces.push(call(name, text, &self.tools, reason)),
        }
    }
}

/// Whether a text can be the beginning of a header: `assistant`, a recipient, and tags, of which each is optional.
fn may_be_header(text: &str) -> bool {
    let text = text.trim_start();
    if ROLE.starts_with(text) {
        return true;
    }
    let rest = text.strip_prefix(ROLE).unwrap_or(text).trim_start();
    let begins_tag = |rest: &str| "<|".starts_with(rest) || rest.starts_with("<|");
    let Some(name) = rest.strip_prefix(RECIPIENT) else { return RECIPIENT.starts_with(rest) || begins_tag(rest) };
    let word_end = |text: &str| text.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(text.len());
    // The type of the content may follow without `<|constrain|>`.
    let rest = name[word_end(name)..].trim_start();
    let kind_end = word_end(rest);
    begins_tag(rest) || kind_end == rest.len() || begins_tag(rest[kind_end..].trim_start())
}

/// The call in a message to a tool.
fn call(name: &str, text: &str, tools: &[Value], reason: RejectionReason) -> Piece {
    let raw = json::arguments(text, name).map(|arguments| RawCall { id: None, name: name.to_owned(), arguments });
    checked(raw.map_err(|rejection: Rejection| rejection.with(reason)), tools, ToolCallFormat::GptOss, text)
}
