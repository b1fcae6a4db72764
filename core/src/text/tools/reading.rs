//! Parses calls from the tags of a text: decides which tags belong to calls and which are part of a value.

use super::{
    Arguments, RawCall, Rejection, RejectionReason,
    calls::missing_name,
    function,
    markup::{Kind, Markup, Style, Tag},
    verbatim::{Reading, ambiguous},
};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Parses a text that begins with a call, by the rules of [`super::verbatim`].
pub(super) fn read(markup: &Markup, text: &str, tools: &[Value]) -> Result<Reading, Rejection> {
    let mut reader = Reader { markup, text, tags: markup.tags(text), tools, quotes: Quotes::None };
    let mut is_doubtful = false;
    for quotes in [Quotes::None, Quotes::Tags, Quotes::Frames] {
        reader.quotes = quotes;
        match reader.all(false) {
            Some((reading, true)) => return Ok(reading),
            Some(_) => is_doubtful = true,
            None => {}
        }
    }
    let name = reader.tags.iter().find_map(|tag| match &tag.kind {
        Kind::CallStart(name) if !name.is_empty() => Some(name.clone()),
        _ => None,
    });
    reader.quotes = Quotes::Tags;
    if is_doubtful || reader.all(true).is_some() {
        return Err(Rejection { name, ..ambiguous() });
    }
    reader.one().ok_or_else(|| {
        let end = markup.end();
        let message = format!("expected {}..{}..{end}, every tag in its place", markup.call[0], markup.value[1]);
        let malformed = Rejection { name, ..Rejection::malformed(message) };
        if text.contains(end) { malformed } else { malformed.with(RejectionReason::IncompleteOutput) }
    })
}

/// Which tags a value may contain.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Quotes {
    /// None: every tag is where the format has it.
    None,
    /// Tags after which the text does not continue as the format requires.
    Tags,
    /// The same, and frames with both their tags.
    Frames,
}

struct Reader<'a> {
    markup: &'a Markup,
    text: &'a str,
    tags: Vec<Tag>,
    tools: &'a [Value],
    quotes: Quotes,
}

/// A call whose arguments are being read.
struct Call<'a> {
    name: &'a str,
    /// The parameters that the tool's schema declares, if it has a list of them.
    declared: Option<&'a Map<String, Value>>,
    is_framed: bool,
    arguments: Vec<(String, String)>,
}

/// The calls of a reading, and whether the calls that begin and end in their values match.
struct Calls {
    calls: Vec<Result<RawCall, Rejection>>,
    are_balanced: bool,
}

impl Call<'_> {
    fn has(&self, key: &str) -> bool {
        self.arguments.iter().any(|(known, _)| known == key)
    }

    /// Whether `key` is a parameter of the tool that has no value yet.
    fn awaits(&self, key: &str) -> bool {
        !self.has(key) && self.declared.is_none_or(|declared| declared.contains_key(key))
    }
}

impl<'a> Reader<'a> {
    /// All calls, if the whole text is calls followed by text without tags. `with_text` allows text between calls.
    /// Several calls are certain only if all have names, and no value contains the end of a call that begins outside.
    fn all(&self, with_text: bool) -> Option<(Reading, bool)> {
        let mut calls = Calls { calls: Vec::new(), are_balanced: true };
        let mut i = 0;
        while let Some(tag) = self.tags.get(i) {
            if !with_text && !self.is_blank_before(i) {
                return None;
            }
            match tag.kind {
                Kind::FrameStart => {
                    let mut is_end;
                    (i, is_end) = self.call(i + 1, true, &mut calls)?;
                    while matches!(self.kind(i), Some(Kind::CallStart(_))) {
                        (i, is_end) = self.call(i, true, &mut calls)?;
                    }
                    if i < self.tags.len() {
                        let is_blank = is_end || self.is_blank_before(i);
                        (self.kind(i) == Some(&Kind::FrameEnd) && is_blank).then_some(())?;
                        i += 1;
                    }
                }
                Kind::CallStart(_) => {
                    (i, _) = self.call(i, false, &mut calls)?;
                    // A model that forgets the start of the frame may still write its end.
                    if self.kind(i) == Some(&Kind::FrameEnd) && self.is_blank_before(i) {
                        i += 1;
                    }
                }
                _ => return None,
            }
        }
        let end = self.tags.last().map_or(0, |tag| tag.end);
        let Calls { calls, are_balanced } = calls;
        let is_certain = calls.len() == 1 || are_balanced && calls.iter().all(Result::is_ok);
        (!calls.is_empty()).then_some((Reading { calls, end }, is_certain))
    }

    /// Reads the call that begins with tag `i`. Returns the index of the next tag, and whether that tag also ends the
    /// last value.
    fn call(&self, i: usize, is_framed: bool, calls: &mut Calls) -> Option<(usize, bool)> {
        let mut call = self.begin(i, is_framed).filter(|_| !is_framed || self.is_blank_before(i))?;
        let mut i = i + 1;
        // Whether tag `i` ends the value before it, so that the text before the tag is that value.
        let mut is_end = false;
        loop {
            match self.kind(i) {
                Some(_) if !is_end && !self.is_blank_before(i) => return None,
                Some(Kind::ValueStart(key)) if !call.has(key) => {
                    let (end, next) = self.value(i, &call)?;
                    let value = self.between(i, end).to_owned();
                    call.arguments.push((key.clone(), value));
                    calls.are_balanced &= self.is_balanced(i, end);
                    (i, is_end) = (next, next == end);
                    continue;
                }
                Some(Kind::CallEnd) => {
                    (i, is_end) = (i + 1, false);
                    break;
                }
                Some(Kind::FrameEnd) if is_framed => break,
                Some(_) => return None,
                None if self.is_blank_before(i) => break,
                None => return None,
            }
        }
        calls.calls.push(self.raw(call));
        Some((i, is_end))
    }

    fn begin(&self, i: usize, is_framed: bool) -> Option<Call<'_>> {
        let Some(Kind::CallStart(name)) = self.kind(i) else { return None };
        let mut tools = self.tools.iter().map(function);
        let tool = tools.find(|tool| tool.get("name").and_then(Value::as_str) == Some(name));
        let declared = tool.and_then(|tool| tool.get("parameters")?.get("properties")?.as_object());
        Some(Call { name, declared, is_framed, arguments: Vec::new() })
    }

    fn raw(&self, call: Call<'_>) -> Result<RawCall, Rejection> {
        if call.name.is_empty() {
            return Err(missing_name());
        }
        let mut arguments = call.arguments;
        if self.markup.style == Style::Assigned {
            arguments.iter_mut().for_each(|(_, value)| *value = without_breaks(value).to_owned());
        }
        let arguments = Arguments::Text(arguments, self.markup.untyped);
        Ok(RawCall { id: None, name: call.name.to_owned(), arguments })
    }

    /// For the value that begins with tag `i`: the index of the tag that ends it, and of the tag to read next. The two
    /// are the same where the model forgot the value's own end.
    fn value(&self, i: usize, call: &Call<'_>) -> Option<(usize, usize)> {
        let Some(Kind::ValueStart(key)) = self.kind(i) else { return None };
        let awaits = |other: &str| other != key && call.awaits(other);
        let (frame_start, frame_end) = match self.markup.frame {
            Some(_) => (Kind::FrameStart, Kind::FrameEnd),
            None => (Kind::CallStart(String::new()), Kind::CallEnd),
        };
        let is_same = |a: &Kind, b: &Kind| std::mem::discriminant(a) == std::mem::discriminant(b);
        let mut depth = 0;
        for (at, tag) in self.tags.iter().enumerate().skip(i + 1) {
            if self.quotes == Quotes::Frames {
                if is_same(&tag.kind, &frame_start) {
                    depth += 1;
                } else if depth > 0 && is_same(&tag.kind, &frame_end) {
                    depth -= 1;
                    continue;
                }
                if depth > 0 {
                    continue;
                }
            }
            match &tag.kind {
                Kind::ValueEnd => match self.kind(at + 1) {
                    _ if !self.is_blank_before(at + 1) => {}
                    None => return Some((at, at + 1)),
                    // A parameter cannot occur twice: one of the two is part of a value, and it is unknown which.
                    Some(Kind::ValueStart(next)) if next == key || call.has(next) => return None,
                    Some(Kind::ValueStart(next)) if self.quotes == Quotes::None || awaits(next) => {
                        return Some((at, at + 1));
                    }
                    Some(Kind::CallEnd) if self.may_end(at + 1, call) => return Some((at, at + 1)),
                    Some(Kind::FrameEnd) if call.is_framed && self.is_last(at + 1) => return Some((at, at + 1)),
                    Some(_) => {}
                },
                // From here on, the tag ends the value only if the value's own end was forgotten.
                _ if self.markup.style != Style::Assigned || !self.begins_line(i, at) => {}
                Kind::ValueStart(next) if awaits(next) => return Some((at, at)),
                Kind::CallEnd | Kind::FrameEnd if self.is_last(at) => return Some((at, at)),
                _ => {}
            }
            if self.quotes == Quotes::None {
                return None;
            }
        }
        None
    }

    /// A single call whose last value extends to the last closing tags of the text, unless it may end before calls.
    fn one(&self) -> Option<Reading> {
        let is_framed = self.kind(0) == Some(&Kind::FrameStart);
        let mut i = usize::from(is_framed);
        let mut call = self.begin(i, is_framed).filter(|_| self.is_blank_before(i))?;
        i += 1;
        let ends = if is_framed {
            &[Kind::ValueEnd, Kind::CallEnd, Kind::FrameEnd][..]
        } else {
            &[Kind::ValueEnd, Kind::CallEnd]
        };
        let last = self.tags.len().checked_sub(ends.len())?;
        let is_end_at =
            |at: usize, n: usize| self.kind(at + n) == ends.get(n) && (n == 0 || self.is_blank_before(at + n));
        (0..ends.len()).all(|n| is_end_at(last, n)).then_some(())?;
        loop {
            let Some(Kind::ValueStart(key)) = self.kind(i).filter(|_| self.is_blank_before(i)) else { return None };
            // A parameter cannot occur twice: one of the two is part of a value, and it is unknown which.
            let is_start = |tag: &&Tag| matches!(&tag.kind, Kind::ValueStart(other) if other == key);
            if call.has(key) || self.tags.iter().filter(is_start).count() > 1 && !call.arguments.is_empty() {
                return None;
            }
            let next = (i + 1..last).find(|at| match self.kind(at + 1) {
                Some(Kind::ValueStart(next)) => {
                    self.kind(*at) == Some(&Kind::ValueEnd)
                        && self.is_blank_before(at + 1)
                        && next != key
                        && call.awaits(next)
                }
                _ => false,
            });
            let value = self.between(i, next.unwrap_or(last)).to_owned();
            call.arguments.push((key.clone(), value));
            match next {
                Some(at) => i = at + 1,
                None => break,
            }
        }
        let mut seen = HashSet::new();
        let may_end =
            |at: usize| (0..ends.len()).all(|n| is_end_at(at, n)) && self.are_calls(at + ends.len(), &mut seen);
        if (i + 1..last).any(may_end) {
            return None;
        }
        let end = self.tags.last()?.end;
        Some(Reading { calls: vec![self.raw(call)], end })
    }

    /// Whether every end of a call within the value between two tags belongs to a call that begins in the value. An end
    /// is at least two closing tags in a row.
    fn is_balanced(&self, i: usize, end: usize) -> bool {
        let mut open = 0_usize;
        let mut is_closed = false;
        for at in i + 1..end {
            let follows = at > i + 1 && self.is_blank_before(at);
            let is_end = match (self.kind(at - 1), self.kind(at)) {
                (_, Some(Kind::CallStart(_))) => {
                    open += 1;
                    false
                }
                (before, Some(Kind::CallEnd)) => open > 0 || follows && before == Some(&Kind::ValueEnd),
                (Some(Kind::CallEnd), Some(Kind::FrameEnd)) => follows && !is_closed,
                (Some(Kind::ValueEnd), Some(Kind::FrameEnd)) => follows,
                _ => false,
            };
            if is_end && open == 0 {
                return false;
            }
            open -= usize::from(is_end);
            is_closed = is_end;
        }
        true
    }

    /// Whether the text from tag `i` on is calls. `seen` contains the tags from which it is known not to be.
    fn are_calls(&self, mut i: usize, seen: &mut HashSet<usize>) -> bool {
        while i < self.tags.len() {
            let is_framed = self.kind(i) == Some(&Kind::FrameStart);
            if !seen.insert(i) || !self.is_blank_before(i) {
                return false;
            }
            let mut calls = Calls { calls: Vec::new(), are_balanced: true };
            let Some((next, is_end)) = self.call(i + usize::from(is_framed), is_framed, &mut calls) else {
                return false;
            };
            let is_closed = self.kind(next) == Some(&Kind::FrameEnd) && (is_end || self.is_blank_before(next));
            i = next + usize::from(is_closed);
        }
        true
    }

    /// Whether tag `i`, which ends a call, is followed by what the format allows there.
    fn may_end(&self, i: usize, call: &Call<'_>) -> bool {
        let next = self.kind(i + 1);
        let fits = next.is_none() || matches!(next, Some(Kind::FrameEnd | Kind::CallStart(_)));
        !call.is_framed || fits && self.is_blank_before(i + 1)
    }

    /// Whether tag `i`, which ends a call or a frame, is followed by the end of the text or by another frame.
    fn is_last(&self, i: usize) -> bool {
        let fits = match self.kind(i + 1) {
            Some(Kind::FrameEnd) => self.kind(i) == Some(&Kind::CallEnd) && self.is_last(i + 1),
            Some(Kind::FrameStart) => self.kind(i) == Some(&Kind::FrameEnd),
            next => next.is_none(),
        };
        fits && self.is_blank_before(i + 1)
    }

    /// Whether tag `at` is placed as the tags of this call are: at the beginning of a line, if value `i` is.
    fn begins_line(&self, i: usize, at: usize) -> bool {
        let value = self.between(i, at);
        !value.starts_with('\n') || value.ends_with('\n')
    }

    fn kind(&self, i: usize) -> Option<&Kind> {
        self.tags.get(i).map(|tag| &tag.kind)
    }

    /// The text between two tags.
    fn between(&self, i: usize, next: usize) -> &'a str {
        let end = self.tags.get(next).map_or(self.text.len(), |tag| tag.start);
        &self.text[self.tags[i].end..end]
    }

    /// Whether only white space precedes tag `i`, or the end of the text if there is no such tag.
    fn is_blank_before(&self, i: usize) -> bool {
        let start = i.checked_sub(1).and_then(|before| self.tags.get(before)).map_or(0, |tag| tag.end);
        let end = self.tags.get(i).map_or(self.text.len(), |tag| tag.start);
        self.text[start..end].trim().is_empty()
    }
}

/// Removes the line breaks that the format puts around a value.
fn without_breaks(value: &str) -> &str {
    let value = value.strip_prefix('\n').unwrap_or(value);
    value.strip_suffix('\n').unwrap_or(value)
}
