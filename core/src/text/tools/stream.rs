//! Parses tool calls from a text while it is generated.

mod end;

use super::{
    Piece, RawCall, RejectedToolCall, Rejection, RejectionReason, ToolCallFormat,
    calls::{self, ARGS, CALL_ID},
    format::Frame,
    function, json,
    scanner::Scanner,
    verbatim::{Settled, Verbatim},
};
use end::cut_off;
use serde_json::Value;

/// The most bytes of an answer beginning with `{` that are held back until its object is closed.
const MAX_BARE: usize = 32 << 10;
/// The most bytes that are searched for the first value of a call in a format that does not escape values.
const MAX_HEAD: usize = 4 << 10;

/// Splits a text into calls and other text.
///
/// Text that may be the beginning of a tag is held back until more has come. The result does not depend on how the
/// text is cut into pieces. A call is complete as soon as it is closed in formats that escape strings, and at the end
/// of the answer in those that do not (see [`super::verbatim`]).
#[derive(Clone, Debug)]
pub(crate) struct ToolCallStream {
    format: ToolCallFormat,
    tools: Vec<Value>,
    state: State,
    /// The text that has not been decided. In a frame, it begins with the frame's first tag.
    held: String,
}

#[derive(Clone, Debug)]
enum State {
    /// Only white space has come.
    Start,
    Text,
    /// After the first tag of a frame, before any other character.
    Head(Frame),
    /// In a frame with an end tag, in a format that escapes strings.
    Framed(Frame, Scanner),
    /// In a call without an end tag, which ends with its last bracket.
    Single(Scanner),
    /// In a malformed call without an end tag: it extends to the end of the answer.
    Broken,
    /// In a frame of a format that does not escape values, before the first value.
    Verbatim(Verbatim),
    /// The same from the first value on, up to the end of the answer.
    Rest(Verbatim),
    /// In an object that may be a call without tags. The number is that of the bytes of separators before it, if it
    /// follows another call.
    Bare(Option<usize>, Scanner),
    /// After a call without an end tag, where another one may follow.
    Behind,
}

impl ToolCallStream {
    /// A stream at the beginning of an answer. Calls of tools that are not in `tools` are rejected.
    pub fn new(format: ToolCallFormat, tools: Vec<Value>) -> ToolCallStream {
        ToolCallStream { format, tools, state: State::Start, held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        merged(pieces)
    }

    /// Ends the text. Unless it `is_complete`, it was cut off, and a call that is still open is rejected.
    pub fn finish(&mut self, is_complete: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        if matches!(self.state, State::Bare(behind, _) if is_complete || behind.is_none()) {
            self.state = State::Text;
            while self.step(&mut pieces) {}
        }
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text | State::Start => pieces.push(Piece::Text(held)),
            State::Bare(skipped, _) => {
                let body = &held[skipped.unwrap_or_default()..];
                pieces.push(cut_off("the end of the call", None, body));
            }
            State::Behind => {
                // Separators after the last call are part of the syntax of calls.
                let rest =
                    held.trim_start_matches(|c: char| c.is_whitespace() || self.format.separators().contains(&c));
                pieces.push(Piece::Text(if rest.is_empty() { String::new() } else { held }));
            }
            State::Head(frame) | State::Framed(frame, _) => self.close(frame, &held, is_complete, &mut pieces),
            State::Single(_) | State::Broken => self.close_single(&held, is_complete, &mut pieces),
            State::Verbatim(verbatim) | State::Rest(verbatim) => {
                self.close_verbatim(verbatim, &held, is_complete, &mut pieces);
            }
        }
        merged(pieces)
    }

    /// Moves to the next state, if the held text allows it.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match &mut self.state {
            State::Start => self.start(),
            State::Text => self.text(pieces),
            State::Head(frame) => {
                let frame = *frame;
                self.head(frame)
            }
            State::Framed(frame, scanner) => {
                let (frame, scanner) = (*frame, scanner.clone());
                self.framed(frame, scanner, pieces)
            }
            State::Single(scanner) => match scanner.close(&self.held) {
                Some(end) => self.single(end, pieces),
                None => false,
            },
            State::Verbatim(verbatim) => {
                let verbatim = *verbatim;
                self.verbatim(verbatim, pieces)
            }
            State::Bare(behind, scanner) => {
                let behind = *behind;
                match scanner.close(&self.held) {
                    Some(end) => self.bare(behind, end, pieces),
                    None => self.give_up(),
                }
            }
            State::Behind => self.behind(),
            State::Broken | State::Rest(_) => false,
        }
    }

    fn start(&mut self) -> bool {
        let Some(first) = self.held.trim_start().chars().next() else { return false };
        let may_be_bare = first == '{' && self.format.may_be_bare() && !self.tools.is_empty();
        self.state = if may_be_bare { State::Bare(None, Scanner::new(self.format.quotes(), 0)) } else { State::Text };
        true
    }

    fn text(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let found = self.format.frames().iter().filter_map(|f| Some((self.held.find(f.start)?, f)));
        if let Some((at, frame)) = found.min_by_key(|(at, _)| *at) {
            let rest = self.held.split_off(at);
            pieces.push(Piece::Text(std::mem::replace(&mut self.held, rest)));
            self.state = State::Head(*frame);
            return true;
        }
        let tags = self.format.frames().iter().map(|f| f.start);
        let rest = self.held.split_off(self.held.len() - beginning_of(&self.held, tags));
        pieces.push(Piece::Text(std::mem::replace(&mut self.held, rest)));
        false
    }

    /// Decides how a frame is read, by the first character after its tag.
    fn head(&mut self, frame: Frame) -> bool {
        let body = self.held[frame.start.len()..].trim_start();
        let Some(first) = body.chars().next() else { return false };
        if let Some(verbatim) = self.format.verbatim(first) {
            self.state = State::Verbatim(verbatim);
            return true;
        }
        let at = match (frame.end, self.format) {
            (None, ToolCallFormat::Mistral) if first != '{' && !calls::is_list(body) => {
                // A name precedes the arguments. `[ARGS]` is a tag and not a list.
                let Some(at) = self.held.find('{') else { return false };
                at
            }
            _ => frame.start.len(),
        };
        let scanner = Scanner::new(self.format.quotes(), at);
        self.state = if frame.end.is_some() {
            State::Framed(frame, scanner)
        } else if first.is_alphabetic() && self.format == ToolCallFormat::Llama3 {
            State::Broken
        } else {
            State::Single(scanner)
        };
        true
    }

    /// Reads calls up to their end tag. A tag within a string is part of an argument, and a tag within open brackets may
    /// be, so the frame does not end there.
    fn framed(&mut self, frame: Frame, mut scanner: Scanner, pieces: &mut Vec<Piece>) -> bool {
        let Some(tag) = frame.end else { return false };
        while let Some((at, _)) = scanner.find(&self.held, &[tag]) {
            let body = self.body(frame, &self.held[..at]);
            // Doubled braces may be closed only once.
            if scanner.is_balanced() || json::is_doubled(body) && self.format.parse(body).iter().all(Result::is_ok) {
                self.calls(body, true, pieces);
                self.held.drain(..at + tag.len());
                self.state = if frame.is_call { State::Behind } else { State::Text };
                return true;
            }
        }
        self.state = State::Framed(frame, scanner);
        false
    }

    /// The text of a frame without its first tag, unless that is part of the call.
    fn body<'a>(&self, frame: Frame, text: &'a str) -> &'a str {
        if frame.is_call { text } else { text.strip_prefix(frame.start).unwrap_or(text) }
    }

    /// Reads a call without an end tag, which is closed at `end`.
    fn single(&mut self, end: usize, pieces: &mut Vec<Piece>) -> bool {
        let body = self.unframed(&self.held[..end]);
        if self.format.parse(body).iter().any(|raw| raw.as_ref().is_err_and(Rejection::is_syntax)) {
            self.state = State::Broken;
            return true;
        }
        self.calls(body, true, pieces);
        self.held.drain(..end);
        self.state = State::Behind;
        true
    }

    fn unframed<'a>(&self, text: &'a str) -> &'a str {
        let frame = self.format.frames().iter().find(|frame| text.starts_with(frame.start));
        frame.map_or(text, |frame| &text[frame.start.len()..])
    }

    /// Decides what follows a call without an end tag: another call, perhaps after separators, or text.
    fn behind(&mut self) -> bool {
        let separators = self.format.separators();
        let rest = self.held.trim_start_matches(|c: char| c.is_whitespace() || separators.contains(&c));
        let skipped = self.held.len() - rest.len();
        let tags = || self.format.frames().iter().map(|f| f.start).chain(self.format.orphan());
        if tags().any(|tag| tag.starts_with(rest)) && !tags().any(|tag| tag == rest) {
            return false;
        }
        if let Some(orphan) = self.format.orphan().filter(|orphan| rest.starts_with(orphan)) {
            self.held.drain(..skipped + orphan.len());
            return true;
        }
        if tags().any(|tag| rest.starts_with(tag)) {
            self.held.drain(..skipped);
        } else if self.format.may_be_bare() && rest.starts_with('{') {
            self.state = State::Bare(Some(skipped), Scanner::new(self.format.quotes(), skipped));
            return true;
        } else if self.format == ToolCallFormat::Mistral {
            match self.is_named(rest) {
                // Only the first of several calls needs the tag.
                Some(true) => self.held = format!("{}{rest}", self.format.frames()[0].start),
                Some(false) => {}
                None => return false,
            }
        }
        self.state = State::Text;
        true
    }

    /// Whether a text begins with a name and arguments in Mistral's format. `None` if more text is needed to tell.
    fn is_named(&self, text: &str) -> Option<bool> {
        let end = text.find(|c: char| !(c.is_alphanumeric() || "_-.:".contains(c))).unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        let is_tool = || self.tools.iter().any(|t| function(t).get("name").and_then(Value::as_str) == Some(name));
        match after {
            _ if name.is_empty() => Some(false),
            _ if [ARGS, CALL_ID].iter().any(|tag| after.starts_with(tag)) => Some(true),
            _ if [ARGS, CALL_ID].iter().any(|tag| tag.starts_with(after)) => None,
            _ => Some(after.starts_with('{') && is_tool()),
        }
    }

    /// Reads an object without tags, which is a call or other JSON. After a call, an object with a name is always one.
    fn bare(&mut self, behind: Option<usize>, end: usize, pieces: &mut Vec<Piece>) -> bool {
        let body = &self.held[behind.unwrap_or_default()..end];
        let raw = json::calls(body).into_iter().next();
        let is_call = behind.is_some() && raw.as_ref().is_some_and(|raw| raw.is_ok());
        match raw.map(|raw| checked(raw, &self.tools, self.format, body)) {
            Some(piece) if is_call || matches!(piece, Piece::Call(_)) => {
                pieces.push(piece);
                self.held.drain(..end);
                self.state = State::Behind;
            }
            // Tags within the object are part of its strings.
            _ => {
                pieces.push(Piece::Text(self.held.drain(..end).collect()));
                self.state = State::Text;
            }
        }
        true
    }

    /// Stops waiting for the end of an object without tags if it is too long.
    fn give_up(&mut self) -> bool {
        let is_long = self.held.len() > MAX_BARE;
        if is_long {
            self.state = State::Text;
        }
        is_long
    }

    /// Reads calls of a format that does not escape values, as long as there is no value.
    fn verbatim(&mut self, verbatim: Verbatim, pieces: &mut Vec<Piece>) -> bool {
        match verbatim.settled(&self.held) {
            Settled::NotYet if self.held.len() <= MAX_HEAD => return false,
            Settled::NotYet | Settled::Never => self.state = State::Rest(verbatim),
            Settled::Until(end) => match verbatim.read(&self.held[..end], &self.tools) {
                Ok(reading) => {
                    let text = self.bare_text(&self.held[..end]).to_owned();
                    let each = |raw| checked(raw, &self.tools, self.format, &text);
                    pieces.extend(reading.calls.into_iter().map(each));
                    self.held.drain(..end);
                    self.state = State::Text;
                }
                Err(_) => self.state = State::Rest(verbatim),
            },
        }
        true
    }

    /// Parses and checks calls. Unless the text `is_whole`, a syntax error means that it is incomplete.
    fn calls(&self, body: &str, is_whole: bool, pieces: &mut Vec<Piece>) {
        let reason = if is_whole { RejectionReason::MalformedSyntax } else { RejectionReason::IncompleteOutput };
        for raw in self.format.parse(body) {
            let raw = raw.map_err(|r| if r.is_syntax() { r.with(reason) } else { r });
            pieces.push(checked(raw, &self.tools, self.format, self.bare_text(body)));
        }
    }
}

fn rejected(Rejection { reason, message, name }: Rejection, text: &str) -> Piece {
    Piece::Rejected(RejectedToolCall { reason, message, name, text: text.trim().to_owned() })
}

/// Checks a call against the tools.
pub(super) fn checked(raw: Result<RawCall, Rejection>, tools: &[Value], format: ToolCallFormat, text: &str) -> Piece {
    match raw.and_then(|raw| raw.check(tools, || format.new_id())) {
        Ok(call) => Piece::Call(call),
        Err(rejection) => rejected(rejection, text),
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

/// Removes empty texts and joins adjacent ones.
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
