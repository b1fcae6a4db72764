//! Tool calls out of a text as it comes.

use super::{Piece, RawCall, RejectedToolCall, Rejection, RejectionReason, ToolCallFormat, format::Frame, json};
use serde_json::Value;

/// How long an answer that begins with `{` is held back to see whether it is a call.
const MAX_BARE: usize = 32 << 10;

/// Splits a text into calls and what is none.
///
/// What may be the beginning of a tag is held back until it is clear that it is not one. How the text is cut into
/// pieces makes no difference.
#[derive(Clone, Debug)]
pub(crate) struct ToolCallStream {
    format: ToolCallFormat,
    tools: Vec<Value>,
    state: State,
    /// What came and is not decided; within a frame, what came of it.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing but blanks has come.
    Start,
    Text,
    Frame(Frame),
    /// The answer began with `{`.
    Bare,
}

impl ToolCallStream {
    /// At the beginning of an answer. With `tools`, calls of others are rejected.
    pub fn new(format: ToolCallFormat, tools: Vec<Value>) -> ToolCallStream {
        ToolCallStream { format, tools, state: State::Start, held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces, false) {}
        merged(pieces)
    }

    /// Ends the text. Unless it `is_complete`, it was cut off, and a call that is open has not been said in full.
    pub fn finish(&mut self, is_complete: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while self.step(&mut pieces, true) {}
        if self.state == State::Bare {
            self.state = State::Text;
            while self.step(&mut pieces, true) {}
        }
        match self.state {
            State::Frame(frame) => self.close(frame, is_complete, &mut pieces),
            _ => pieces.push(Piece::Text(std::mem::take(&mut self.held))),
        }
        merged(pieces)
    }

    /// Goes on from one state to the next, if what is held allows it.
    fn step(&mut self, pieces: &mut Vec<Piece>, is_last: bool) -> bool {
        match self.state {
            State::Start => self.start(),
            State::Text => self.text(pieces),
            State::Frame(frame) => self.frame(frame, pieces, is_last),
            State::Bare => self.bare(pieces),
        }
    }

    fn start(&mut self) -> bool {
        let Some(first) = self.held.trim_start().chars().next() else { return false };
        let may_be_bare = first == '{' && self.format.may_be_bare() && !self.tools.is_empty();
        self.state = if may_be_bare { State::Bare } else { State::Text };
        true
    }

    fn text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let found = self.format.frames().iter().filter_map(|f| Some((self.held.find(f.start)?, f)));
        if let Some((at, frame)) = found.min_by_key(|(at, _)| *at) {
            let rest = self.held.split_off(at);
            pieces.push(Piece::Text(std::mem::replace(&mut self.held, rest)));
            if !frame.is_call {
                self.held.drain(..frame.start.len());
            }
            self.state = State::Frame(*frame);
            return true;
        }
        let tags = self.format.frames().iter().map(|f| f.start);
        let rest = self.held.split_off(self.held.len() - beginning_of(&self.held, tags));
        pieces.push(Piece::Text(std::mem::replace(&mut self.held, rest)));
        false
    }

    fn frame(&mut self, frame: Frame, pieces: &mut Vec<Piece>, is_last: bool) -> bool {
        let Some(end) = frame.end else { return false };
        let ends: Vec<usize> = self.held.match_indices(end).map(|(at, _)| at).collect();
        let past = |at: usize| if frame.is_call { at + end.len() } else { at };
        // A tag within a string of JSON is part of an argument. But a string that is never closed would hide
        // everything behind it: then the first tag counts.
        let is_open = |at: &usize| {
            let body = &self.held[..*at];
            body.trim_start().starts_with(['{', '[']) && json::ends_in_string(body)
        };
        let at = ends.iter().find(|at| !is_open(at)).or(ends.first().filter(|_| is_last));
        let Some(&at) = at else { return false };
        let rest = self.held.split_off(at + end.len());
        let mut body = std::mem::replace(&mut self.held, rest);
        body.truncate(past(at));
        self.calls(&body, true, pieces);
        self.state = State::Text;
        true
    }

    /// The answer ended within a frame. If the model ended it, what is there may be whole calls nevertheless; if it was
    /// cut off, nobody knows what else was to come.
    fn close(&mut self, frame: Frame, is_complete: bool, pieces: &mut Vec<Piece>) {
        let mut body = std::mem::take(&mut self.held);
        self.state = State::Text;
        let Some(end) = frame.end else { return self.calls(&body, is_complete, pieces) };
        body.truncate(body.len() - beginning_of(&body, [end].into_iter()));
        if is_complete {
            return self.calls(&body, false, pieces);
        }
        let name = self.format.parse(&body).into_iter().next().and_then(|raw| match raw {
            Ok(raw) => Some(raw.name),
            Err(rejection) => rejection.name,
        });
        let (reason, text) = (RejectionReason::IncompleteOutput, body.trim().to_owned());
        let message = format!("expected {end}, found none: the answer was cut off");
        pieces.push(Piece::Rejected(RejectedToolCall { reason, message, name, text }));
    }

    /// An answer that is a JSON object: a call without its tags, or JSON.
    fn bare(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(end) = json::object_end(&self.held) else {
            let is_long = self.held.len() > MAX_BARE;
            self.state = if is_long { State::Text } else { State::Bare };
            return is_long;
        };
        let raw = json::first(self.held[..end].trim_start()).and_then(|(value, _)| json::call(value));
        match raw.and_then(|raw| raw.check(&self.tools, || self.format.new_id())) {
            Ok(call) => {
                pieces.push(Piece::Call(call));
                let rest = self.held.split_off(end);
                self.held = rest.trim_start().trim_start_matches(';').to_owned();
                self.state = State::Start;
            }
            Err(_) => self.state = State::Text,
        }
        true
    }

    /// Checks the calls of a frame. One that was not `is_whole` failed because it was cut off.
    fn calls(&self, body: &str, is_whole: bool, pieces: &mut Vec<Piece>) {
        for raw in self.format.parse(body) {
            pieces.push(checked(raw, &self.tools, self.format, body, is_whole));
        }
    }
}

/// The call as an event.
pub(super) fn checked(
    raw: Result<RawCall, Rejection>,
    tools: &[Value],
    format: ToolCallFormat,
    text: &str,
    is_whole: bool,
) -> Piece {
    match raw.and_then(|raw| raw.check(tools, || format.new_id())) {
        Ok(call) => Piece::Call(call),
        Err(Rejection { reason, message, name }) => {
            let syntax = [RejectionReason::MalformedSyntax, RejectionReason::IncompleteOutput];
            let reason = match reason {
                r if syntax.contains(&r) && is_whole => RejectionReason::MalformedSyntax,
                r if syntax.contains(&r) => RejectionReason::IncompleteOutput,
                r => r,
            };
            Piece::Rejected(RejectedToolCall { reason, message, name, text: text.trim().to_owned() })
        }
    }
}

/// The length of the longest end of `text` that begins one of `tags`.
pub(crate) fn beginning_of<'a>(text: &str, tags: impl Iterator<Item = &'a str>) -> usize {
    let longest = |tag: &'a str| {
        let beginnings = tag.char_indices().map(|(end, _)| &tag[..end]).rev();
        beginnings.into_iter().find(|beginning| text.ends_with(beginning)).map_or(0, str::len)
    };
    tags.map(longest).max().unwrap_or(0)
}

/// Without empty texts, and with those that follow each other joined.
pub(crate) fn merged(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (out.last_mut(), piece) {
            (_, Piece::Text(t) | Piece::Reasoning(t)) if t.is_empty() => {}
            (Some(Piece::Text(before)), Piece::Text(text)) => *before += &text,
            (Some(Piece::Reasoning(before)), Piece::Reasoning(text)) => *before += &text,
            (_, piece) => out.push(piece),
        }
    }
    out
}
