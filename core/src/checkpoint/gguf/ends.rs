//! Tokens that end a generation, and what is no text.
//!
//! Converters write one `eos_token_id`, and often not the token that ends a turn; types of tokens are wrong as often. So tokens are
//! found by their text, whatever their type, as llama.cpp does (`llama_vocab::impl::load` in src/llama-vocab.cpp, and
//! <https://github.com/ggml-org/llama.cpp/issues/9606>).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Metadata, Value};

/// A control token (`tokenizer.ggml.token_type`).
pub(crate) const CONTROL: u64 = 3;
/// A token that is text.
pub(crate) const NORMAL: u64 = 1;

/// Texts of tokens that end a generation.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Tokens of filling in the middle: key, texts of which the first that is there counts where the file does not have the key,
/// and whether it ends a generation.
const FILL: [(&str, &[&str], bool); 6] = [
    (
        "fim_pre_token_id",
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        false,
    ),
    (
        "fim_suf_token_id",
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        false,
    ),
    (
        "fim_mid_token_id",
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        false,
    ),
    ("fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"], true),
    ("fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"], true),
    ("fim_sep_token_id", &["<|file_sep|>"], true),
];

/// What the texts of a vocabulary say.
#[derive(Default, PartialEq, Debug)]
pub(crate) struct Ends {
    /// Tokens that end a generation, by their keys or by their texts.
    pub ends: BTreeSet<u32>,
    /// Types that count instead of the file's.
    pub types: BTreeMap<u32, u64>,
}

impl Ends {
    /// Of the tokens that `metadata` lists.
    pub fn of(metadata: &Metadata) -> Ends {
        let tokens = metadata.array("tokenizer.ggml.tokens").unwrap_or_default();
        let named: HashSet<&str> = FILL.iter().flat_map(|(_, texts, _)| *texts).chain(&ENDS).copied().collect();
        let ids = (0..).zip(tokens).filter_map(|(id, token)| Some((token.as_str()?, id)));
        let ids: BTreeMap<&str, u32> = ids.filter(|(token, _)| named.contains(token)).collect();
        let key = |key: &str| {
            let id = metadata.get(&format!("tokenizer.ggml.{key}")).and_then(Value::as_u64)?;
            u32::try_from(id).ok().filter(|id| tokens.is_empty() || (*id as usize) < tokens.len())
        };
        let mut found = Ends::default();
        found.ends.extend(["eos_token_id", "eot_token_id", "eom_token_id"].into_iter().filter_map(key));
        for (name, texts, ends) in FILL {
            let by_key = key(name);
            let id = by_key.or_else(|| texts.iter().find_map(|text| ids.get(text).copied()));
            found.types.extend(id.filter(|_| by_key.is_none()).map(|id| (id, CONTROL)));
            found.ends.extend(id.filter(|_| ends));
        }
        for id in ENDS.iter().filter_map(|text| ids.get(text).copied()) {
            found.ends.insert(id);
            found.types.insert(id, CONTROL);
        }
        found.exceptions(&ids);
        found
    }

    /// In gpt-oss and Solar Open `<|end|>` ends one of several messages, and Gemma 4's `</s>` is a tag of HTML.
    fn exceptions(&mut self, ids: &BTreeMap<&str, u32>) {
        let ends = |text: &str| ids.get(text).is_some_and(|id| self.ends.contains(id));
        let calls = ends("<|call|>") || ends("<|calls|>");
        let messages = calls && (ends("<|return|>") || ends("<|flush|>"));
        let is_gemma = ends("<|tool_response>");
        if let Some(end) = ids.get("<|end|>").filter(|_| messages) {
            self.ends.remove(end);
        }
        if let Some(tag) = ids.get("</s>").filter(|_| is_gemma) {
            self.ends.remove(tag);
            self.types.insert(*tag, NORMAL);
        }
    }
}
