//! `tamarack debug compare`.

use crate::support::{goldens, run, tamarack, text};
use serde_json::Value;

#[test]
fn modules_are_compared_with_a_file() {
    let (model, modules) = (goldens("architectures/qwen3/biases"), goldens("modules.safetensors"));
    let arguments = ["debug", "compare", text(&model), "--with", text(&modules)];
    let printed = run(tamarack(&arguments)).expect("all agree");
    assert!(printed.contains("model.layers.1.self_attn.q_norm") && printed.ends_with("All 25 agree.\n"), "{printed}");

    let other = [&arguments[..], &["--tokens", "1,5,9,2,8", "--json"]].concat();
    let outcome = run(tamarack(&other));
    assert_eq!(outcome.code, Some(1));
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(report["first"], "model.embed_tokens", "{report}");
    let error = outcome.stderr;
    assert!(error.contains("error: model.embed_tokens: the first result that differs, recorded at "), "{error}");
}

#[test]
fn a_device_is_compared_with_the_oracle() {
    let model = goldens("architectures/qwen3/biases");
    let printed = run(tamarack(&["debug", "compare", text(&model), "--tokens", "1,5,9,2"])).expect("they agree");
    assert_eq!(printed, "The logits agree.\n");
}
