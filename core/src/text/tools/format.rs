//! The formats in which models write tool calls, and which one a model uses.

use super::{RawCall, Rejection, calls, json, markup, python, verbatim::Verbatim};
use std::{fmt, str::FromStr};

/// How a model writes tool calls.
///
/// Most formats escape strings, and a call is reported as soon as it is complete. `XmlFunction`, `Qwen3_5` in its XML
/// form, `Glm4`, `MinimaxM2`, `Atem` and the Gemmas' formats do not: what a value contains depends on the text after it.
/// Their calls with values are reported at the end of the answer, and an answer that can be read in more than one way is
/// rejected. Text that imitates the end of a call and the beginning of another one exactly cannot be told from calls of
/// the model. With such a format, a program should ask its user before it runs a tool that can do harm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ToolCallFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`: Qwen 2 and 3, Granite and many more.
    Json,
    /// `<tool_call><function=n><parameter=k>v</parameter></function></tool_call>`: Qwen 3 Coder, Nemotron.
    XmlFunction,
    /// Either of the two above in the same frame: Qwen 3.5.
    Qwen3_5,
    /// `<|tool_call_start|>[f(a='v')]<|tool_call_end|>`: LFM 2.
    Lfm2,
    /// `<tool_call>n<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`: GLM 4.
    Glm4,
    /// `<start_function_call>call:n{k:<escape>v<escape>}<end_function_call>`: FunctionGemma.
    Gemma,
    /// `<|tool_call>call:n{k:<|"|>v<|"|>}<tool_call|>`: Gemma 4.
    Gemma4,
    /// `[TOOL_CALLS]n[ARGS]{..}`, or a list of objects: Mistral.
    Mistral,
    /// `<|python_tag|>{"name": .., "parameters": {..}}`: Llama 3.
    Llama3,
    /// `<|tool_calls_section_begin|><|tool_call_begin|>functions.n:0<|tool_call_argument_begin|>{..}`: Kimi K2.
    KimiK2,
    /// `<minimax:tool_call><invoke name="n"><parameter name="k">v</parameter></invoke>`: MiniMax M2.
    MinimaxM2,
    /// `<|channel|>commentary to=functions.n<|message|>{..}<|call|>`: gpt-oss, in OpenAI's Harmony.
    GptOss,
    /// `<atem:function_calls><atem:invoke name="n"><atem:parameter name="k">v</atem:parameter>`: Muse.
    Atem,
}

use ToolCallFormat::*;

/// Names in mlx-swift-lm, then those of mlx-lm's `tool_parser_type`.
const NAMES: [(&str, ToolCallFormat); 20] = [
    ("json", Json),
    ("xml_function", XmlFunction),
    ("qwen3_5", Qwen3_5),
    ("lfm2", Lfm2),
    ("glm4", Glm4),
    ("gemma", Gemma),
    ("gemma4", Gemma4),
    ("mistral", Mistral),
    ("llama3", Llama3),
    ("kimi_k2", KimiK2),
    ("minimax_m2", MinimaxM2),
    ("gpt_oss", GptOss),
    ("atem", Atem),
    ("json_tools", Json),
    ("qwen3_coder", XmlFunction),
    ("pythonic", Lfm2),
    ("glm47", Glm4),
    ("function_gemma", Gemma),
    ("harmony", GptOss),
    ("muse_spark", Atem),
];

/// What a call stands between. A frame without an end goes on until the answer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub start: &'static str,
    pub end: Option<&'static str>,
    /// Whether the tags are part of the call.
    pub is_call: bool,
}

const fn frame(start: &'static str, end: &'static str) -> Frame {
    Frame { start, end: Some(end), is_call: false }
}

const KIMI_SECTION_END: &str = "<|tool_calls_section_end|>";
const TOOL_CALL: Frame = frame("<tool_call>", "</tool_call>");
/// Models that write XML forget the frame around it now and then.
const FUNCTION: Frame = Frame { start: "<function=", end: Some("</function>"), is_call: true };

impl ToolCallFormat {
    /// All of them.
    pub const ALL: [ToolCallFormat; 13] =
        [Json, XmlFunction, Qwen3_5, Lfm2, Glm4, Gemma, Gemma4, Mistral, Llama3, KimiK2, MinimaxM2, GptOss, Atem];

    /// The format that a chat template shows, most specific signature first; then what the vocabulary tells.
    pub fn infer(template: &str, has_token: impl Fn(&str) -> bool) -> Option<ToolCallFormat> {
        let has = |signature: &str| template.contains(signature);
        let shown = match () {
            _ if has("<minimax:tool_call>") => Some(MinimaxM2),
            _ if has("<|tool_call>") && has("<tool_call|>") => Some(Gemma4),
            _ if has("<start_function_call>") => Some(Gemma),
            _ if has("<arg_key>") => Some(Glm4),
            _ if has("<|tool_list_start|>") || has("<|tool_call_start|>") => Some(Lfm2),
            _ if has("<tool_call>\\n<function=") || has("<tool_call>\n<function=") => Some(XmlFunction),
            _ if has("<|tool_calls_section_begin|>") => Some(KimiK2),
            _ if has("[TOOL_CALLS]") => Some(Mistral),
            _ if has("<atem:function_calls>") => Some(Atem),
            _ if has("<|channel|>commentary") || (has("<|channel|>") && has("<|constrain|>")) => Some(GptOss),
            _ if has("<tool_call>") && has("tool_call.name") => Some(Json),
            _ => None,
        };
        let tokens = [("<|tool_call_start|>", Lfm2), ("<|python_tag|>", Llama3)];
        shown.or_else(|| tokens.into_iter().find(|(token, _)| has_token(token)).map(|(_, format)| format))
    }

    /// Whether everything that `other` reads is read by this one, too.
    pub(crate) fn includes(self, other: ToolCallFormat) -> bool {
        self == other || (self == Qwen3_5 && matches!(other, Json | XmlFunction))
    }

    /// Special tokens that are part of calls, and so of the text that is parsed.
    pub(crate) fn tags(self) -> Vec<&'static str> {
        let inner: &[&str] = match self {
            Gemma => &["<escape>"],
            Gemma4 => &["<|\"|>"],
            Glm4 => &["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
            Mistral => &["[ARGS]", "[CALL_ID]"],
            KimiK2 => &["<|tool_call_argument_begin|>"],
            GptOss => {
                &["<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"]
            }
            _ => &[],
        };
        let frames = self.frames().iter().flat_map(|f| [Some(f.start), f.end]).flatten();
        frames.chain(inner.iter().copied()).collect()
    }

    /// The tags that begin calls.
    pub(crate) fn start_tags(self) -> Vec<&'static str> {
        self.frames().iter().map(|frame| frame.start).collect()
    }

    pub(super) fn frames(self) -> &'static [Frame] {
        match self {
            Json | Glm4 => &[TOOL_CALL],
            XmlFunction | Qwen3_5 => &[TOOL_CALL, FUNCTION],
            Lfm2 => const { &[frame("<|tool_call_start|>", "<|tool_call_end|>")] },
            Gemma => const { &[frame("<start_function_call>", "<end_function_call>")] },
            Gemma4 => const { &[frame("<|tool_call>", "<tool_call|>")] },
            Mistral => &[Frame { start: "[TOOL_CALLS]", end: None, is_call: false }],
            Llama3 => &[Frame { start: "<|python_tag|>", end: None, is_call: false }],
            KimiK2 => {
                // Some answers have calls without the section around them.
                const CALL: Frame = Frame { start: calls::KIMI_BEGIN, end: Some(calls::KIMI_END), is_call: true };
                const { &[frame("<|tool_calls_section_begin|>", KIMI_SECTION_END), CALL] }
            }
            MinimaxM2 => const { &[frame("<minimax:tool_call>", "</minimax:tool_call>")] },
            Atem => const { &[frame("<atem:function_calls>", "</atem:function_calls>")] },
            GptOss => &[],
        }
    }

    /// Whether an answer that begins with `{` may be a call whose tags the model forgot.
    pub(super) fn may_be_bare(self) -> bool {
        matches!(self, Json | Llama3)
    }

    /// The characters other than white space that may separate calls without an end tag.
    pub(super) fn separators(self) -> &'static [char] {
        if self.may_be_bare() { &[';', ','] } else { &[] }
    }

    /// An end tag that may follow calls without its start tag.
    pub(super) fn orphan(self) -> Option<&'static str> {
        (self == KimiK2).then_some(KIMI_SECTION_END)
    }

    /// The quotes around strings.
    pub(super) fn quotes(self) -> &'static [char] {
        if self == Lfm2 { &['"', '\''] } else { &['"'] }
    }

    /// The format of values if they are not escaped. `first` is the first character after the tag.
    pub(super) fn verbatim(self, first: char) -> Option<Verbatim> {
        match self {
            Qwen3_5 | Glm4 if matches!(first, '{' | '[') => None,
            XmlFunction | Qwen3_5 => Some(Verbatim::Markup(&markup::FUNCTION)),
            Glm4 => Some(Verbatim::Markup(&markup::PAIRS)),
            MinimaxM2 => Some(Verbatim::Markup(&markup::MINIMAX)),
            Atem => Some(Verbatim::Markup(&markup::ATEM)),
            Gemma => Some(Verbatim::Gemma(["<start_function_call>", "<end_function_call>"], "<escape>")),
            Gemma4 => Some(Verbatim::Gemma(["<|tool_call>", "<tool_call|>"], "<|\"|>")),
            Json | Lfm2 | Mistral | Llama3 | KimiK2 | GptOss => None,
        }
    }

    /// Parses the calls between the tags of a format that escapes strings. A syntax error is one rejection without
    /// calls, because it is unknown where the calls end.
    pub(super) fn parse(self, body: &str) -> Vec<Result<RawCall, Rejection>> {
        match self {
            Lfm2 => python::calls(body),
            Mistral => calls::mistral(body),
            KimiK2 => calls::kimi(body),
            _ => json::calls(body),
        }
    }

    /// An id for a call that has none. Mistral's templates insist on nine letters and digits.
    pub(super) fn new_id(self) -> String {
        match self {
            Mistral => {
                let digits = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
                let mut rest: u128 = rand::random();
                let mut next = || {
                    let digit = digits[(rest % digits.len() as u128) as usize];
                    rest /= digits.len() as u128;
                    digit as char
                };
                (0..9).map(|_| next()).collect()
            }
            _ => format!("call_{:032x}", rand::random::<u128>()),
        }
    }
}

impl FromStr for ToolCallFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<ToolCallFormat, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
        found.ok_or_else(|| {
            let names: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            format!("no tool-call format `{name}`: there are {}", names.join(", "))
        })
    }
}

impl fmt::Display for ToolCallFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}
