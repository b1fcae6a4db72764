//! Small tokenizers for tests, as GGUF files describe them.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::Tokenizer;
use crate::checkpoint::gguf::{Metadata, Value};

/// Metadata from keys below `tokenizer.ggml.` and values.
pub fn metadata(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Metadata {
    let full = |(key, value)| (format!("tokenizer.ggml.{key}"), value);
    Metadata(entries.into_iter().map(full).collect())
}

pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::Array(texts.into_iter().map(|text| Value::String(text.into())).collect())
}

pub fn numbers(numbers: impl IntoIterator<Item = u64>) -> Value {
    Value::Array(numbers.into_iter().map(Value::U64).collect())
}

/// Byte-level BPE over all bytes, some pairs of them, and two special tokens, 0 and 1.
pub fn byte_level() -> Metadata {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort();
    let pairs = ["h e", "Ġ he", "Ã ©", "â Ĥ", "Ġ ð"];
    let special = ["<s>", "<|end of turn|>"].map(String::from);
    let merged = pairs.map(|pair| pair.replace(' ', ""));
    let tokens: Vec<String> = special.into_iter().chain(alphabet.into_iter().map(String::from)).chain(merged).collect();
    let kinds = (0..tokens.len()).map(|id| if id < 2 { 3 } else { 1 });
    metadata([
        ("model", Value::String("gpt2".into())),
        ("pre", Value::String("gpt-2".into())),
        ("token_type", numbers(kinds)),
        ("tokens", texts(tokens)),
        ("merges", texts(pairs)),
        ("bos_token_id", Value::U64(0)),
        ("eos_token_id", Value::U64(1)),
    ])
}

/// SentencePiece BPE with byte fallback: `<unk>`, `<s>`, `</s>`, 256 bytes, and pieces whose scores
/// fall from `he` on.
pub fn sentencepiece() -> Metadata {
    let pieces = ["he", "▁t", "▁the", "er", "▁", "t", "h", "e", "r", "é", "!"];
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let special = ["<unk>", "<s>", "</s>"].map(String::from);
    let tokens: Vec<String> = special.into_iter().chain(bytes).chain(pieces.map(String::from)).collect();
    let kinds = (0..tokens.len()).map(|id| match id {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    });
    let scores = (0..tokens.len()).map(|id| Value::F64(-(id as f64))).collect();
    metadata([
        ("model", Value::String("llama".into())),
        ("token_type", numbers(kinds)),
        ("scores", Value::Array(scores)),
        ("tokens", texts(tokens)),
        ("bos_token_id", Value::U64(1)),
        ("eos_token_id", Value::U64(2)),
        ("eot_token_id", Value::U64(262)),
    ])
}

pub fn tokenizer(metadata: &Metadata) -> Tokenizer {
    Tokenizer::from_gguf(metadata).unwrap()
}
