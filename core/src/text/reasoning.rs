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

/// Splits the reasoning at the beginning of an answer from the rest. White space around the tags is part of neither.
/// After the first visible text, all that follows is text: a tag there is quoted.
#[derive(Clone, Debug)]
pub(crate) struct ReasoningStream {
    format: ReasoningFormat,
    /// The tags that begin calls, if there are tools.
    calls: Vec<&'static str>,
    state: State,
    /// Whether the last thing that came was a tag, so that white space is skipped.
    is_at_edge: bool,
    held: String,
    /// How much of the held text has been searched for the end of the reasoning.
    seen: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    /// At the beginning or after reasoning, before any text.
    Start,
    Inside,
    /// In reasoning, when the held text begins with a tag of `calls`.
    Call,
    Text,
}

/// What remains at the end of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Unfinished {
    pub pieces: Vec<Piece>,
    /// The text from the first tag of a call on, if that tag is in reasoning without an end.
    pub calls: Option<String>,
}

impl ReasoningStream {
    /// A stream at the beginning of an answer. `is_open` if the prompt ended with the tag that begins reasoning. `calls`
    /// are the tags that begin calls, if there are tools.
    pub fn new(format: ReasoningFormat, is_open: bool, calls: Vec<&'static str>) -> ReasoningStream {
        let state = if is_open { State::Inside } else { State::Start };
        ReasoningStream { format, calls, state, is_at_edge: is_open, held: String::new(), seen: 0 }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        merged(pieces)
    }

    /// Ends the text.
    pub fn finish(&mut self) -> Unfinished {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Call => Unfinished { pieces: Vec::new(), calls: Some(rest) },
            State::Start if self.is_at_edge => text(rest.trim_start().to_owned()),
            State::Start | State::Text => text(rest),
            State::Inside => Unfinished { pieces: merged(vec![Piece::Reasoning(rest)]), calls: None },
        }
    }

    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Start => self.start(),
            State::Inside | State::Call => self.inside(pieces),
            State::Text => {
                pieces.push(Piece::Text(std::mem::take(&mut self.held)));
                false
            }
        }
    }

    fn start(&mut self) -> bool {
        let rest = self.held.trim_start();
        let tags = [(&self.format.start, State::Inside), (&self.format.end, State::Start)];
        if let Some((tag, state)) = tags.into_iter().find(|(tag, _)| rest.starts_with(tag.as_str())) {
            // An end tag without a start belongs to reasoning that the prompt closed or the model left out.
            self.held = rest[tag.len()..].to_owned();
            (self.state, self.is_at_edge) = (state, true);
            return true;
        }
        if tags.iter().any(|(tag, _)| tag.starts_with(rest)) {
            return false;
        }
        if self.is_at_edge {
            self.held = rest.to_owned();
        }
        self.state = State::Text;
        true
    }

    fn inside(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let end = self.format.end.as_str();
        let from = (0..=self.seen).rev().find(|at| self.held.is_char_boundary(*at)).unwrap_or_default();
        if let Some(at) = self.held[from..].find(end).map(|at| from + at) {
            let rest = self.held.split_off(at + end.len());
            let mut reasoning = std::mem::replace(&mut self.held, rest);
            reasoning.truncate(at);
            self.say(reasoning, pieces);
            (self.state, self.is_at_edge, self.seen) = (State::Start, true, 0);
            return true;
        }
        if self.state == State::Inside {
            let call = self.calls.iter().filter_map(|tag| self.held.find(tag)).min();
            let tags = self.calls.iter().copied().chain([end]);
            let shown = call.unwrap_or_else(|| self.held.len() - beginning_of(&self.held, tags));
            let rest = self.held.split_off(shown);
            let reasoning = std::mem::replace(&mut self.held, rest);
            self.say(reasoning, pieces);
            if call.is_some() {
                self.state = State::Call;
            }
        }
        self.seen = self.held.len().saturating_sub(self.format.end.len());
        false
    }

    fn say(&mut self, mut reasoning: String, pieces: &mut Vec<Piece>) {
        if self.is_at_edge {
            reasoning = reasoning.trim_start().to_owned();
            self.is_at_edge = reasoning.is_empty();
        }
        pieces.push(Piece::Reasoning(reasoning));
    }
}

fn text(text: String) -> Unfinished {
    Unfinished { pieces: merged(vec![Piece::Text(text)]), calls: None }
}

/// Removes end tags of reasoning from the visible text. An end tag after a start tag in the text is kept: both are
/// quoted.
#[derive(Clone, Debug)]
pub(crate) struct StrayTags {
    format: ReasoningFormat,
    is_open: bool,
    held: String,
}

impl StrayTags {
    /// A filter at the beginning of the text.
    pub fn new(format: ReasoningFormat) -> StrayTags {
        StrayTags { format, is_open: false, held: String::new() }
    }

    /// Takes the next piece of text and returns what is shown.
    pub fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut shown = String::new();
        let [start, end] = [self.format.start.as_str(), self.format.end.as_str()];
        while let Some((at, tag)) = [start, end].into_iter().filter_map(|tag| Some((self.held.find(tag)?, tag))).min() {
            let is_shown = tag == start || self.is_open;
            self.is_open = tag == start;
            shown += &self.held[..if is_shown { at + tag.len() } else { at }];
            self.held.drain(..at + tag.len());
        }
        let undecided = beginning_of(&self.held, [start, end].into_iter());
        let rest = self.held.split_off(self.held.len() - undecided);
        shown + &std::mem::replace(&mut self.held, rest)
    }

    /// Ends the text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(is_open: bool, text: &str, cut: usize) -> Vec<Piece> {
        let format = ReasoningFormat::new("<think>", "</think>");
        let mut stream = ReasoningStream::new(format, is_open, vec!["<call>"]);
        let chars: Vec<char> = text.chars().collect();
        let mut pieces: Vec<Piece> = chars.chunks(cut).flat_map(|c| stream.push(&String::from_iter(c))).collect();
        let Unfinished { pieces: rest, calls } = stream.finish();
        pieces.extend(rest);
        pieces.extend(calls.map(|calls| Piece::Text(format!("calls: {calls}"))));
        merged(pieces)
    }

    #[test]
    fn reasoning_is_told_apart() {
        let (text, reasoning) = (|t: &str| Piece::Text(t.into()), |t: &str| Piece::Reasoning(t.into()));
        for (is_open, answer, expected) in [
            (false, "Hi", vec![text("Hi")]),
            (false, "  Hi", vec![text("  Hi")]),
            (false, "<think>\nWell\n</think>\n\nHi", vec![reasoning("Well\n"), text("Hi")]),
            (true, "\nWell</think>Hi <b>", vec![reasoning("Well"), text("Hi <b>")]),
            (false, "<think>\n\n</think>\n\nHi", vec![text("Hi")]),
            (false, "a <thin ice", vec![text("a <thin ice")]),
            (false, "<think>cut", vec![reasoning("cut")]),
            (false, "<think>a</think><think>c</think>d", vec![reasoning("ac"), text("d")]),
            (false, "<think>a</think>\n", vec![reasoning("a")]),
            (false, "<thi", vec![text("<thi")]),
        ] {
            for cut in [1, 2, 3, 7, 100] {
                assert_eq!(run(is_open, answer, cut), expected, "{answer} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn a_tag_after_text_is_quoted() {
        for answer in
            ["a<think>b</think>c", "Models write <think> first.", "<think>x</think>Use <think>, then </think>."]
        {
            for cut in [1, 4, 100] {
                let expected = answer.strip_prefix("<think>x</think>").unwrap_or(answer);
                let found = run(false, answer, cut);
                assert_eq!(found.last(), Some(&Piece::Text(expected.to_owned())), "{answer} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn calls_within_reasoning_wait_for_its_end() {
        let (text, reasoning) = (|t: &str| Piece::Text(t.into()), |t: &str| Piece::Reasoning(t.into()));
        for (answer, expected) in [
            ("<think>a<call>b</think>c", vec![reasoning("a<call>b"), text("c")]),
            ("<think>a<call>b<call>c</think>", vec![reasoning("a<call>b<call>c")]),
            ("<think>a<call>b", vec![reasoning("a"), text("calls: <call>b")]),
            ("<think>a<call", vec![reasoning("a<call")]),
            ("<call>b</think>c", vec![text("<call>b</think>c")]),
        ] {
            for cut in [1, 4, 100] {
                assert_eq!(run(false, answer, cut), expected, "{answer} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn ends_that_are_left_over_are_not_shown() {
        for (start, end) in KNOWN {
            for (answer, expected) in [
                ("Hello] there", "Hello there"),
                ("Hello[ a ] b ] c", "Hello[ a ] b  c"),
                ("[[]]", "[[]"),
                ("a ]", "a "),
            ] {
                let tags = |text: &str| text.replace('[', "\0").replace(']', end).replace('\0', start);
                let (answer, expected) = (tags(answer), tags(expected));
                for cut in [1, 2, 5, 100] {
                    let mut stray = StrayTags::new(ReasoningFormat::new(start, end));
                    let chars: Vec<char> = answer.chars().collect();
                    let shown: String = chars.chunks(cut).map(|c| stray.push(&String::from_iter(c))).collect();
                    assert_eq!(shown + &stray.finish(), expected, "{answer} in pieces of {cut}");
                }
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
