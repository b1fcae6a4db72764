//! Directories with damaged JSON.

use serde_json::{Value, json};

use crate::{Case, damaged, tensors};

pub fn good() -> Vec<(&'static str, Vec<u8>)> {
    let map = json!({ "a.weight": "one.safetensors", "head.weight": "one.safetensors" });
    vec![
        ("config.json", config(json!(3), json!(32)).to_string().into_bytes()),
        ("model.safetensors.index.json", json!({ "weight_map": map }).to_string().into_bytes()),
        ("one.safetensors", tensors::good()),
    ]
}

fn config(bits: Value, group: Value) -> Value {
    json!({ "model_type": "llama", "quantization": { "bits": bits, "group_size": group, "b": false } })
}

pub fn index() -> Vec<Case> {
    let (_, good) = good().remove(1);
    let mut cases = damaged("index", &good, good.len(), 60, 12);
    let targets =
        ["", ".", "..", "/", "../one.safetensors", "a/b.safetensors", "a\\b.safetensors", "c:one.safetensors"];
    let files =
        ["none.safetensors", "folder.safetensors", "config.json", "model.safetensors.index.json", "\u{0}.safetensors"];
    for target in targets.iter().chain(&files) {
        let json = json!({ "weight_map": { "head.weight": target } });
        cases.push((format!("index to {target:?}"), json.to_string().into_bytes()));
    }
    for json in [json!(null), json!([]), json!({}), json!({ "weight_map": [] }), json!({ "weight_map": { "t": 1 } })] {
        cases.push((format!("index {json}"), json.to_string().into_bytes()));
    }
    let many: serde_json::Map<_, _> =
        (0..5000).map(|i| (format!("t{i}"), json!(format!("f{i}.safetensors")))).collect();
    cases.push(("index of 5000 absent files".into(), json!({ "weight_map": many }).to_string().into_bytes()));
    cases.push(("index nested".into(), "{\"weight_map\":".repeat(100_000).into_bytes()));
    cases
}

pub fn configs() -> Vec<Case> {
    let (_, good) = good().remove(0);
    let mut cases = damaged("config", &good, good.len(), 100, 12);
    let values =
        [json!(null), json!(0), json!(-3), json!(1e300), json!(u64::MAX), json!("3"), json!([3]), json!(3.5), json!(7)];
    for value in values {
        cases.push((format!("bits {value}"), config(value.clone(), json!(32)).to_string().into_bytes()));
        cases.push((format!("group {value}"), config(json!(3), value).to_string().into_bytes()));
    }
    for json in
        [json!(null), json!(3), json!({}), json!({ "quantization": [] }), json!({ "quantization": { "bits": 3 } })]
    {
        cases.push((format!("config {json}"), json.to_string().into_bytes()));
    }
    cases.push(("config nested".into(), "[".repeat(1_000_000).into_bytes()));
    cases.push(("config not UTF-8".into(), b"{\"a\":\"\xff\"}".to_vec()));
    cases
}
