//! An answer taken apart as it comes: what is to be seen, what the model says to itself, what it wants to be called.

use super::{
    ReasoningFormat, Tokenizer,
    reasoning::{ReasoningStream, StrayTags},
    tools::{Harmony, Piece, ToolCallFormat, ToolCallStream, merged},
};
use serde_json::Value;

/// How a model writes what is not plain text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AnswerFormat {
    /// Tool calls. They are only parsed if there are tools.
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
    /// Reasoning and calls are marked by tags in the text.
    Tagged(Box<Tagged>),
}

/// The stages of a tagged answer: reasoning is split off, calls are parsed from the rest, and end tags of reasoning that
/// are left over are removed from the text.
#[derive(Clone, Debug)]
pub(crate) struct Tagged {
    reasoning: Option<ReasoningStream>,
    /// `None` without tools: then everything is text.
    calls: Option<ToolCallStream>,
    stray: Option<StrayTags>,
}

impl AnswerStream {
    /// `prompt_end` is the last text of the prompt, which may have begun the reasoning.
    pub fn new(format: AnswerFormat, tools: Vec<Value>, prompt_end: &str) -> AnswerStream {
        let calls = format.tool_calls.unwrap_or(ToolCallFormat::Json);
        if calls == ToolCallFormat::GptOss {
            return AnswerStream::Harmony(Harmony::new(tools));
        }
        let call_tags = if tools.is_empty() { Vec::new() } else { calls.start_tags() };
        let stray = format.reasoning.clone().map(StrayTags::new);
        let reasoning = format.reasoning.map(|r| {
            let is_open = prompt_end.trim_end().ends_with(&r.start);
            ReasoningStream::new(r, is_open, call_tags)
        });
        let calls = (!tools.is_empty()).then(|| ToolCallStream::new(calls, tools));
        AnswerStream::Tagged(Box::new(Tagged { reasoning, calls, stray }))
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        match self {
            AnswerStream::Harmony(harmony) => harmony.push(text),
            AnswerStream::Tagged(tagged) => tagged.push(text),
        }
    }

    /// Ends the text. Unless it `is_complete`, it was cut off.
    pub fn finish(&mut self, is_complete: bool) -> Vec<Piece> {
        match self {
            AnswerStream::Harmony(harmony) => harmony.finish(is_complete),
            AnswerStream::Tagged(tagged) => tagged.finish(is_complete),
        }
    }
}

impl Tagged {
    fn push(&mut self, text: &str) -> Vec<Piece> {
        let parts = match &mut self.reasoning {
            Some(reasoning) => reasoning.push(text),
            None => vec![Piece::Text(text.to_owned())],
        };
        let pieces = self.through(parts);
        merged(self.cleaned(pieces))
    }

    fn finish(&mut self, is_complete: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if let Some(rest) = self.reasoning.as_mut().map(ReasoningStream::finish) {
            pieces = self.through(rest.pieces);
            pieces.extend(rest.calls.map(|calls| self.ends_reasoning(calls, is_complete)).unwrap_or_default());
        }
        pieces.extend(self.calls.iter_mut().flat_map(|calls| calls.finish(is_complete)));
        let mut pieces = self.cleaned(pieces);
        pieces.extend(self.stray.as_mut().map(|stray| Piece::Text(stray.finish())));
        merged(pieces)
    }

    /// Handles reasoning without an end, from the first tag of a call on. If the model ended the answer and there is a
    /// call, the reasoning ended before it. Otherwise all of the text is reasoning.
    fn ends_reasoning(&mut self, text: String, is_complete: bool) -> Vec<Piece> {
        let mut calls = self.calls.clone().filter(|_| is_complete);
        let mut pieces = calls.as_mut().map(|calls| calls.push(&text)).unwrap_or_default();
        pieces.extend(calls.as_mut().map(|calls| calls.finish(is_complete)).unwrap_or_default());
        let is_call = |piece: &Piece| match piece {
            Piece::Call(_) => true,
            Piece::Rejected(rejected) => rejected.name.is_some(),
            _ => false,
        };
        if pieces.iter().any(is_call) { pieces } else { vec![Piece::Reasoning(text)] }
    }

    /// Parses calls from the text that is not reasoning.
    fn through(&mut self, parts: Vec<Piece>) -> Vec<Piece> {
        let Some(calls) = &mut self.calls else { return parts };
        let each = |part| match part {
            Piece::Text(text) => calls.push(&text),
            other => vec![other],
        };
        parts.into_iter().flat_map(each).collect()
    }

    /// Removes end tags of reasoning that are left over. Held text comes before a call that follows it.
    fn cleaned(&mut self, pieces: Vec<Piece>) -> Vec<Piece> {
        let Some(stray) = &mut self.stray else { return pieces };
        let each = |piece| match piece {
            Piece::Text(text) => vec![Piece::Text(stray.push(&text))],
            other => vec![Piece::Text(stray.finish()), other],
        };
        pieces.into_iter().flat_map(each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::ToolCallFormat::*;
    use serde_json::json;

    const NOW: [(ToolCallFormat, &str); 6] = [
        (Json, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"),
        (XmlFunction, "<tool_call>\n<function=now>\n<parameter=zone>\nUTC\n</parameter>\n</function>\n</tool_call>"),
        (Glm4, "<tool_call>now\n<arg_key>zone</arg_key>\n<arg_value>UTC</arg_value>\n</tool_call>"),
        (Lfm2, "<|tool_call_start|>[now(zone='UTC')]<|tool_call_end|>"),
        (KimiK2, "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}<|tool_call_end|>"),
        (Mistral, "[TOOL_CALLS]now[ARGS]{}"),
    ];

    fn tools() -> Vec<Value> {
        vec![json!({ "name": "now", "parameters": { "properties": { "zone": { "type": "string" } } } })]
    }

    /// The reasoning, the text, and the numbers of calls and rejections. They must not depend on how the answer is cut.
    fn heard(
        format: ToolCallFormat,
        tools: Vec<Value>,
        prompt_end: &str,
        answer: &str,
        is_complete: bool,
    ) -> (String, String, usize, usize) {
        let reasoning = Some(ReasoningFormat::new("<think>", "</think>"));
        let format = AnswerFormat { tool_calls: Some(format), reasoning };
        let chars: Vec<char> = answer.chars().collect();
        let run = |cut: usize| {
            let mut stream = AnswerStream::new(format.clone(), tools.clone(), prompt_end);
            let mut pieces: Vec<Piece> =
                chars.chunks(cut.min(chars.len())).flat_map(|c| stream.push(&String::from_iter(c))).collect();
            pieces.extend(stream.finish(is_complete));
            pieces.into_iter().fold((String::new(), String::new(), 0, 0), |mut all, piece| {
                match piece {
                    Piece::Reasoning(text) => all.0 += &text,
                    Piece::Text(text) => all.1 += &text,
                    Piece::Call(_) => all.2 += 1,
                    Piece::Rejected(_) => all.3 += 1,
                }
                all
            })
        };
        let once = run(usize::MAX);
        assert_eq!([run(1), run(4)], [once.clone(), once.clone()], "{answer}");
        once
    }

    fn parts(reasoning: &str, text: &str, calls: usize) -> (String, String, usize, usize) {
        (reasoning.to_owned(), text.to_owned(), calls, 0)
    }

    #[test]
    fn a_call_ends_reasoning_that_has_no_other_end() {
        for (format, call) in NOW {
            for (prompt_end, start) in [("<think>\n", ""), ("", "<think>\n")] {
                let heard = |answer: String, is_complete| heard(format, tools(), prompt_end, &answer, is_complete);
                let open = format!("{start}plan\n{call}");
                assert_eq!(heard(open.clone(), true), parts("plan\n", "", 1), "{open}");
                assert_eq!(heard(format!("{open}\nDone."), true), parts("plan\n", "\nDone.", 1), "{open}");
                // The end of the reasoning may have been cut off.
                let cut = format!("plan\n{call}");
                assert_eq!(heard(open.clone(), false), parts(&cut, "", 0), "{open}");
                // A call in reasoning that ends is a draft.
                let draft = format!("{start}plan\n{call}</think>\n\nNo.");
                assert_eq!(heard(draft.clone(), true), parts(&cut, "No.", 0), "{draft}");
                let both = format!("{start}plan\n{call}</think>\n{call}");
                assert_eq!(heard(both.clone(), true), parts(&cut, "", 1), "{both}");
            }
        }
        let answer = "<think>A call begins with <tool_call> there";
        assert_eq!(heard(Json, tools(), "", answer, true), parts(&answer["<think>".len()..], "", 0));
    }

    #[test]
    fn without_tools_calls_are_text() {
        for (format, call) in NOW {
            let answer = format!("The format is {call} as shown.");
            assert_eq!(heard(format, Vec::new(), "", &answer, true), parts("", &answer, 0));
            let open = format!("<think>plan {call}");
            assert_eq!(heard(format, Vec::new(), "", &open, true), parts(&open["<think>".len()..], "", 0));
        }
    }

    #[test]
    fn tags_of_reasoning_are_shown_where_they_are_quoted() {
        for (answer, reasoning, text) in [
            ("</think>Hi", "", "Hi"),
            ("\n</think>\n\nHi", "", "Hi"),
            ("<think>a</think></think>Hi</think>", "a", "Hi"),
            ("Hi</think> there", "", "Hi there"),
            ("Write <think> before it and </think> behind it.", "", "Write <think> before it and </think> behind it."),
            ("a<think>b", "", "a<think>b"),
        ] {
            assert_eq!(heard(Json, tools(), "", answer, true), parts(reasoning, text, 0), "{answer}");
            assert_eq!(heard(Json, Vec::new(), "", answer, true), parts(reasoning, text, 0), "{answer}");
        }
    }

    #[test]
    fn tags_of_reasoning_within_arguments_are_part_of_them() {
        for zone in ["</think>", "a <think> b", "<think>a</think>", "a </think> b </think>"] {
            for (format, call) in [
                (Json, json!({ "name": "now", "arguments": { "zone": zone } }).to_string()),
                (XmlFunction, format!("<function=now><parameter=zone>{zone}</parameter></function>")),
            ] {
                let answer = format!("<tool_call>{call}</tool_call>");
                let reasoning = Some(ReasoningFormat::new("<think>", "</think>"));
                let format = AnswerFormat { tool_calls: Some(format), reasoning };
                let mut stream = AnswerStream::new(format, tools(), "");
                let mut pieces = stream.push(&answer);
                pieces.extend(stream.finish(true));
                let [Piece::Call(call)] = &pieces[..] else { panic!("{answer}: {pieces:?}") };
                assert_eq!(call.arguments["zone"], zone);
            }
        }
    }
}
