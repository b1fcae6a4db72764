//! A tiny llama that can be talked to: random weights, and a tokenizer of single characters.

use serde_json::{Map, Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

/// What marks turns.
const TEMPLATE: &str = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}\
                        {% if add_generation_prompt %}<s>assistant: {% endif %}";

/// The folder of such a model. It has 97 tokens: three special ones, and the characters from the space to `}`.
pub fn chat_model() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write_chat_model(folder.path());
    folder
}

/// Writes it into a folder that exists.
pub fn write_chat_model(folder: &Path) {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/llama/tied");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(weights.join(name), folder.join(name)).expect("copied");
    }
    for (name, value) in [("tokenizer.json", tokenizer()), ("tokenizer_config.json", config())] {
        fs::write(folder.join(name), value.to_string()).expect("written");
    }
}

fn tokenizer() -> Value {
    let special = ["<unk>", "<s>", "</s>"];
    let characters = (' '..='}').map(String::from);
    let vocab = special.into_iter().map(String::from).chain(characters);
    let vocab: Map<String, Value> = vocab.enumerate().map(|(id, token)| (token, id.into())).collect();
    let added = special.iter().enumerate().map(|(id, token)| {
        json!({
            "id": id, "content": token, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [],
        },
    })
}

fn config() -> Value {
    json!({
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}
