//! Plugin libraries as cargo builds them, and a small model to record.

use serde_json::{Value, json};
use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
    process::Command,
};
use tamarack_api::Index;

/// The dynamic library of the workspace's package `package`. Cargo builds it beside the rlib that the
/// tests link; it is built here only where it is missing.
pub fn library(package: &str) -> PathBuf {
    let name = format!("{DLL_PREFIX}{}{DLL_SUFFIX}", package.replace('-', "_"));
    let program = std::env::current_exe().expect("a test has a path");
    let find = || program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
    find()
        .or_else(|| {
            build(package, program.parent()?.parent()?);
            find()
        })
        .unwrap_or_else(|| panic!("{name} is neither beside {} nor above", program.display()))
}

/// Builds into the profile's folder, `TARGET/debug` for the profile `dev`.
fn build(package: &str, folder: &Path) {
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--package", package, "--profile", if profile == "debug" { "dev" } else { profile }])
        .arg("--target-dir")
        .arg(folder.parent().unwrap_or(folder))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.is_ok_and(|s| s.success()), "cargo build --package {package} failed");
}

/// A small llama: its `config.json`, and the tensors that belong to it.
pub fn llama(model_type: &str, tied: bool) -> (Value, Index) {
    let config = json!({
        "model_type": model_type, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "vocab_size": 64, "tie_word_embeddings": tied, "sliding_window": 7,
    });
    let mut index = Index::from([
        ("model.embed_tokens.weight".to_owned(), vec![64, 32]),
        ("model.norm.weight".to_owned(), vec![32]),
    ]);
    if !tied {
        index.insert("lm_head.weight".into(), vec![64, 32]);
    }
    for i in 0..2 {
        for (name, shape) in [
            ("input_layernorm", vec![32]),
            ("post_attention_layernorm", vec![32]),
            ("self_attn.q_proj", vec![32, 32]),
            ("self_attn.k_proj", vec![16, 32]),
            ("self_attn.v_proj", vec![16, 32]),
            ("self_attn.o_proj", vec![32, 32]),
            ("mlp.gate_proj", vec![48, 32]),
            ("mlp.up_proj", vec![48, 32]),
            ("mlp.down_proj", vec![32, 48]),
        ] {
            index.insert(format!("model.layers.{i}.{name}.weight"), shape);
        }
    }
    (config, index)
}
