//! Formats that do not escape values: the XML-like ones and the Gemmas'.
//!
//! These formats write a string as it is, so a value may contain the tags of the format itself. A model that copies a
//! file into an argument copies the tags in it, and whoever wrote that file must not be able to call tools. Which tag
//! ends a value can only be decided from what follows it. The text from the first such call on is therefore kept until
//! the answer ends, and read as a whole:
//!
//! 1. Calls follow each other with only white space between them, and text comes only after the last call. This is
//!    what chat templates require ("reply in the following format with NO suffix", Qwen 3 Coder).
//! 2. The text after the last call contains no tag. A tag that is left over there is the end of a call that a value
//!    closed before: the value contained a closing tag, and the model then wrote its own.
//! 3. If every tag is where the format has it, that is the reading. Otherwise some tags are part of values: a closing
//!    tag that is not followed by what the format requires, and a frame that is complete within a value. If tags are
//!    still left over, the last value of the first call extends to the last closing tag, and this is the only call.
//! 4. Of several calls, no value contains the end of a call that does not begin in the same value.
//! 5. A text that none of these rules explains, or that two explain, is one rejection. So is an answer that was cut
//!    off.
//!
//! One case remains. A value may close the call and open another one so that the model's own closing tags complete
//! that one. The text is then identical to two calls that the model means, and two calls are read. Tokens do not tell
//! the cases apart either, because tokenizers turn the tags in a prompt into the same special tokens. A program whose
//! tools can do harm should ask its user before it runs a call of a model with such a format.

use super::{RawCall, Rejection, gemma, markup::Markup, reading};
use serde_json::Value;

/// A format that does not escape values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verbatim {
    Markup(&'static Markup),
    /// The tags around calls, and the tag on both sides of a string.
    Gemma([&'static str; 2], &'static str),
}

impl Verbatim {
    /// Parses a text that begins with the tag of a call.
    pub fn read(self, text: &str, tools: &[Value]) -> Result<Reading, Rejection> {
        match self {
            Verbatim::Markup(markup) => reading::read(markup, text, tools),
            Verbatim::Gemma(tags, mark) => gemma::read(text, tags, mark),
        }
    }

    /// The tag that ends a call.
    pub fn end(self) -> &'static str {
        match self {
            Verbatim::Markup(markup) => markup.end(),
            Verbatim::Gemma([_, end], _) => end,
        }
    }

    /// Where calls end that no later text can change, because they have no strings.
    pub fn settled(self, text: &str) -> Settled {
        match self {
            Verbatim::Markup(markup) => markup.settled(text),
            Verbatim::Gemma([_, end], mark) => {
                let quote = [text.find(mark), text.find(['"', '\''])].into_iter().flatten().min();
                match text.find(end) {
                    Some(at) if quote.is_none_or(|quote| at < quote) => Settled::Until(at + end.len()),
                    _ if quote.is_some() => Settled::Never,
                    _ => Settled::NotYet,
                }
            }
        }
    }
}

/// The calls of a text.
#[derive(Debug)]
pub(super) struct Reading {
    pub calls: Vec<Result<RawCall, Rejection>>,
    /// The position after the calls, where other text begins.
    pub end: usize,
}

/// Whether calls can be read before the answer ends.
#[derive(Debug, PartialEq)]
pub(super) enum Settled {
    /// Those up to this position.
    Until(usize),
    NotYet,
    /// A value has begun, and only the end of the answer decides where it ends.
    Never,
}

/// The rejection of a text that can be read in more than one way.
pub(super) fn ambiguous() -> Rejection {
    Rejection::malformed(
        "expected calls with only white space between them, found a tag or text that may be part of an argument",
    )
}
