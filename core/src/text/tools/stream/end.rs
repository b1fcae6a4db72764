//! Handles calls that are open when an answer ends.

use super::{
    super::{Piece, RawCall, Rejection, RejectionReason, format::Frame, verbatim::Verbatim},
    ToolCallStream, beginning_of, checked, rejected,
};

impl ToolCallStream {
    /// Ends the answer within a frame. If the model ended it, the calls may be complete without the end tag; if it was
    /// cut off, they are rejected.
    pub(super) fn close(&mut self, frame: Frame, held: &str, is_complete: bool, pieces: &mut Vec<Piece>) {
        let Some(end) = frame.end else { return self.close_single(held, is_complete, pieces) };
        let body = self.body(frame, &held[..held.len() - beginning_of(held, [end].into_iter())]);
        if !is_complete {
            let name = named(self.format.parse(body));
            return pieces.push(cut_off(end, name, self.bare_text(body)));
        }
        let Some((body, text)) = body.split_once(end) else {
            return pieces.extend(self.format.parse(body).into_iter().map(|raw| {
                let raw = raw.map_err(|r| if r.is_syntax() { r.with(RejectionReason::IncompleteOutput) } else { r });
                checked(raw, &self.tools, self.format, body)
            }));
        };
        let parsed = self.format.parse(body).into_iter().find_map(Result::err);
        let rejection = parsed.unwrap_or_else(|| Rejection::malformed(format!("{end} stands within a string")));
        self.reject(rejection.with(RejectionReason::MalformedSyntax), body, text, held, pieces);
    }

    /// Ends the answer within a call without an end tag.
    pub(super) fn close_single(&mut self, held: &str, is_complete: bool, pieces: &mut Vec<Piece>) {
        let body = self.unframed(held);
        if is_complete {
            return self.calls(body, true, pieces);
        }
        pieces.push(cut_off("the end of the call", named(self.format.parse(body)), self.bare_text(body)));
    }

    /// Ends the answer within a frame of a format that does not escape values.
    pub(super) fn close_verbatim(
        &mut self,
        verbatim: Verbatim,
        held: &str,
        is_complete: bool,
        pieces: &mut Vec<Piece>,
    ) {
        let end = verbatim.end();
        let (body, partial) = held.split_at(held.len() - beginning_of(held, self.format.tags().into_iter()));
        let read = verbatim.read(body, &self.tools);
        if !is_complete {
            let name = match read {
                Ok(reading) => named(reading.calls),
                Err(rejection) => rejection.name,
            };
            return pieces.push(cut_off(end, name, self.bare_text(held)));
        }
        match read {
            Ok(reading) => {
                let (calls, text) = body.split_at(reading.end);
                let calls = self.bare_text(calls);
                pieces.extend(reading.calls.into_iter().map(|raw| checked(raw, &self.tools, self.format, calls)));
                // The beginning of a tag is an unfinished end tag, unless there is text before it.
                let text = if text.trim().is_empty() { text.to_owned() } else { format!("{text}{partial}") };
                pieces.push(Piece::Text(text));
            }
            Err(rejection) => {
                let (first, text) = held.split_once(end).unwrap_or((held, ""));
                self.reject(rejection, first, text, held, pieces);
            }
        }
    }

    /// Rejects a malformed call. `body` extends to its first end tag, and `text` follows that tag. If there are tags in
    /// `text`, they may be part of an argument, so the rejection contains all of it.
    fn reject(&self, rejection: Rejection, body: &str, text: &str, all: &str, pieces: &mut Vec<Piece>) {
        let tags = self.format.frames().iter().flat_map(|f| [Some(f.start), f.end]).flatten();
        let is_apart = tags.into_iter().all(|tag| !text.contains(tag));
        let (body, text) = if is_apart { (body, text) } else { (all, "") };
        pieces.push(rejected(rejection, self.bare_text(body)));
        pieces.push(Piece::Text(text.to_owned()));
    }

    /// The text of a call without the tags around it.
    pub(super) fn bare_text<'a>(&self, text: &'a str) -> &'a str {
        let frames = self.format.frames().iter().filter(|frame| !frame.is_call);
        let mut bare = text.trim();
        for frame in frames {
            bare = bare.strip_prefix(frame.start).unwrap_or(bare);
            bare = frame.end.and_then(|end| bare.strip_suffix(end)).unwrap_or(bare);
        }
        bare.trim()
    }
}

/// The name of the first call.
fn named(calls: Vec<Result<RawCall, Rejection>>) -> Option<String> {
    calls.into_iter().next().and_then(|raw| match raw {
        Ok(raw) => Some(raw.name),
        Err(rejection) => rejection.name,
    })
}

pub(super) fn cut_off(end: &str, name: Option<String>, text: &str) -> Piece {
    let message = format!("expected {end}, found none: the answer was cut off");
    rejected(Rejection { reason: RejectionReason::IncompleteOutput, message, name }, text)
}
