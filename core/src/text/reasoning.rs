//! What a model says to itself before it answers.

use super::tools::{Piece, beginning_of, merged};

/// The tags between which a model reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReasoningFormat {
    /// Before it.
    pub start: String,
    /// After it.
    pub end: String,
}

/// Tags of models that there are.
const KNOWN: [(&str, &str); 7] = [
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
];

impl ReasoningFormat {
    /// What stands between `start` and `end`.
    pub fn new(start: impl Into<String>, end: impl Into<String>) -> ReasoningFormat {
        ReasoningFormat { start: start.into(), end: end.into() }
    }

    /// The tags that a chat template shows, or that are tokens of their own.
    pub fn infer(template: &str, has_token: impl Fn(&str) -> bool) -> Option<ReasoningFormat> {
        let shown = KNOWN.iter().find(|(start, end)| template.contains(start) || template.contains(end));
        let found = shown.or_else(|| KNOWN.iter().find(|(start, end)| has_token(start) && has_token(end)));
        found.map(|(start, end)| ReasoningFormat::new(*start, *end))
    }

    /// The tags that begin with `start`, the name that architectures give their format.
    pub(crate) fn named(start: &str) -> Option<ReasoningFormat> {
        KNOWN.iter().find(|(known, _)| *known == start).map(|(start, end)| ReasoningFormat::new(*start, *end))
    }
}

/// Splits a text into reasoning and the rest, as it comes. Line breaks around the tags are no part of either.
#[derive(Clone, Debug)]
pub(crate) struct ReasoningStream {
    format: ReasoningFormat,
    is_inside: bool,
    /// Whether blanks are still to be skipped.
    is_at_edge: bool,
    held: String,
}

impl ReasoningStream {
    /// At the beginning of an answer; `is_open` if the prompt ended on the tag that begins reasoning.
    pub fn new(format: ReasoningFormat, is_open: bool) -> ReasoningStream {
        ReasoningStream { format, is_inside: is_open, is_at_edge: is_open, held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        loop {
            let tag = if self.is_inside { &self.format.end } else { &self.format.start };
            let Some(at) = self.held.find(tag.as_str()) else { break };
            let rest = self.held.split_off(at + tag.len());
            let mut text = std::mem::replace(&mut self.held, rest);
            text.truncate(at);
            self.say(text, &mut pieces);
            self.is_inside = !self.is_inside;
            self.is_at_edge = true;
        }
        let tag = if self.is_inside { &self.format.end } else { &self.format.start };
        let undecided = beginning_of(&self.held, [tag.as_str()].into_iter());
        let rest = self.held.split_off(self.held.len() - undecided);
        let text = std::mem::replace(&mut self.held, rest);
        self.say(text, &mut pieces);
        merged(pieces)
    }

    /// Ends the text.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.held);
        self.say(rest, &mut pieces);
        merged(pieces)
    }

    fn say(&mut self, mut text: String, pieces: &mut Vec<Piece>) {
        if self.is_at_edge {
            text = text.trim_start().to_owned();
            self.is_at_edge = text.is_empty();
        }
        pieces.push(if self.is_inside { Piece::Reasoning(text) } else { Piece::Text(text) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(is_open: bool, text: &str, cut: usize) -> Vec<Piece> {
        let mut stream = ReasoningStream::new(ReasoningFormat::new("<think>", "</think>"), is_open);
        let chars: Vec<char> = text.chars().collect();
        let mut pieces: Vec<Piece> = chars.chunks(cut).flat_map(|c| stream.push(&String::from_iter(c))).collect();
        pieces.extend(stream.finish());
        merged(pieces)
    }

    #[test]
    fn reasoning_is_told_apart() {
        let (text, reasoning) = (|t: &str| Piece::Text(t.into()), |t: &str| Piece::Reasoning(t.into()));
        for (is_open, answer, expected) in [
            (false, "Hi", vec![text("Hi")]),
            (false, "<think>\nWell\n</think>\n\nHi", vec![reasoning("Well\n"), text("Hi")]),
            (true, "\nWell</think>Hi <b>", vec![reasoning("Well"), text("Hi <b>")]),
            (false, "<think>\n\n</think>\n\nHi", vec![text("Hi")]),
            (false, "a <thin ice", vec![text("a <thin ice")]),
            (false, "<think>cut", vec![reasoning("cut")]),
            (false, "<think>a</think>b<think>c</think>d", vec![reasoning("a"), text("b"), reasoning("c"), text("d")]),
            (false, "odd </think> here", vec![text("odd </think> here")]),
        ] {
            for cut in [1, 2, 3, 7, 100] {
                assert_eq!(run(is_open, answer, cut), expected, "{answer} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn tags_are_found_in_templates_and_vocabularies() {
        let infer = |template: &str, token: &str| ReasoningFormat::infer(template, |t| t.contains(token));
        assert_eq!(infer("{{ '<think>' }}", "none").unwrap().end, "</think>");
        assert_eq!(infer("content.split('</think>')", "none").unwrap().start, "<think>");
        assert_eq!(infer("plain", "THINK]").unwrap().start, "[THINK]");
        assert_eq!(infer("plain", "none"), None);
    }
}
