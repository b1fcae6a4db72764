//! The tokenizer of a real model, built from GGUF metadata, gives transformers' token ids.
//!
//! The golden holds the tokens and merges of SmolLM2 that its prompts can reach.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use tamarack::checkpoint::gguf::{Metadata, Value};
use tamarack::text::Tokenizer;

#[derive(Deserialize)]
struct Golden {
    size: usize,
    chat_template: String,
    tokens: BTreeMap<usize, String>,
    special: Vec<usize>,
    merges: Vec<String>,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    messages: Option<Vec<Json>>,
    rendered: String,
    prompt_ids: Vec<u32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../goldens/smollm2-tokenizer.json")).unwrap()
}

fn tokenizer(golden: &Golden) -> Tokenizer {
    let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    let token = |id| golden.tokens.get(&id).cloned().unwrap_or(format!("<unused {id}>"));
    let kind = |id| Value::U64(if golden.special.contains(&id) { 3 } else { 1 });
    let entries = [
        ("ggml.model", Value::String("gpt2".into())),
        ("ggml.pre", Value::String("smollm".into())),
        ("ggml.tokens", texts((0..golden.size).map(token).collect())),
        ("ggml.token_type", Value::Array((0..golden.size).map(kind).collect())),
        ("ggml.merges", texts(golden.merges.clone())),
        ("ggml.bos_token_id", Value::U64(1)),
        ("ggml.eos_token_id", Value::U64(2)),
        ("ggml.add_bos_token", Value::Bool(false)),
        ("chat_template", Value::String(golden.chat_template.clone())),
    ];
    let metadata = entries.map(|(key, value)| (format!("tokenizer.{key}"), value));
    Tokenizer::from_gguf(&Metadata(metadata.into())).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let golden = golden();
    let tokenizer = tokenizer(&golden);
    for prompt in &golden.prompts {
        assert_eq!(tokenizer.encode(&prompt.rendered, true).unwrap(), prompt.prompt_ids);
        assert_eq!(tokenizer.decode(&prompt.prompt_ids, false).unwrap(), prompt.rendered);
        if let Some(messages) = &prompt.messages {
            let ids = tokenizer.apply_chat_template(messages, None, true, &Map::new()).unwrap();
            assert_eq!(ids, prompt.prompt_ids);
        }
    }
    assert!(golden.prompts.iter().any(|prompt| prompt.messages.is_some()));
}
