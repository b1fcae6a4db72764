//! What quantizers say of a model in files of their own, beside config.json.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Result;
use crate::checkpoint::json::read_json;

/// What a file means as `quantization_config`, if anything.
type Meaning = fn(&Value) -> Option<Value>;

/// All such files: GPTQ's (AutoGPTQ, GPTQModel), AutoRound's, AWQ's (AutoAWQ) and ModelOpt's.
const FILES: [(&str, Meaning); 4] = [
    ("quantize_config.json", gptq),
    ("quantization_config.json", named),
    ("quant_config.json", awq),
    ("hf_quant_config.json", modelopt),
];

/// Adds to the `quantization_config` of `config` what the model's folder says elsewhere. What config.json says itself counts, as in
/// transformers; what another method says is of another time.
pub(in crate::checkpoint) fn complete(folder: &Path, config: &mut Value) -> Result<()> {
    let Some(root) = config.as_object_mut().filter(|root| !root.contains_key("quantization")) else { return Ok(()) };
    let is_inner = !root.contains_key("quantization_config")
        && root.get("text_config").and_then(|text| text.get("quantization_config")).is_some();
    let root = if is_inner { root.get_mut("text_config").and_then(Value::as_object_mut) } else { Some(root) };
    let Some(root) = root else { return Ok(()) };
    let mut own = root.get("quantization_config").and_then(Value::as_object).cloned().unwrap_or_default();
    // ModelOpt's own key, where it leaves out the method.
    if own.contains_key("quant_algo") {
        own.entry("quant_method").or_insert("modelopt".into());
    }
    for (name, meaning) in FILES {
        let path = folder.join(name);
        if path.exists()
            && let Some(Value::Object(found)) = meaning(&read_json(&path)?)
        {
            merge(&mut own, found);
        }
    }
    if !own.is_empty() {
        root.insert("quantization_config".into(), Value::Object(own));
    }
    Ok(())
}

fn merge(own: &mut Map<String, Value>, found: Map<String, Value>) {
    if own.is_empty() || own.get("quant_method") == found.get("quant_method") {
        for (key, value) in found {
            own.entry(key).or_insert(value);
        }
    }
}

/// AutoGPTQ's has no method: it knew one only.
fn gptq(file: &Value) -> Option<Value> {
    with_method(file, file.get("quant_method").and_then(Value::as_str).unwrap_or("gptq"))
}

fn named(file: &Value) -> Option<Value> {
    with_method(file, file.get("quant_method")?.as_str()?)
}

/// AutoAWQ's has names of its own for bits and groups.
fn awq(file: &Value) -> Option<Value> {
    let mut meaning = with_method(file, file.get("quant_method").and_then(Value::as_str).unwrap_or("awq"))?;
    for (theirs, ours) in [("w_bit", "bits"), ("q_group_size", "group_size")] {
        if let Some(value) = file.get(theirs) {
            meaning[ours] = value.clone();
        }
    }
    Some(meaning)
}

/// ModelOpt's has everything a level deeper; its algorithm may be null where nothing but the cache is quantized.
fn modelopt(file: &Value) -> Option<Value> {
    with_method(file.get("quantization")?, "modelopt")
}

fn with_method(file: &Value, method: &str) -> Option<Value> {
    let mut meaning = file.as_object()?.clone();
    meaning.insert("quant_method".into(), method.into());
    Some(Value::Object(meaning))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// config.json of a folder with one more file.
    fn completed(config: Value, file: &str, content: Value) -> Value {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), content.to_string()).unwrap();
        let mut config = config;
        complete(folder.path(), &mut config).unwrap();
        config
    }

    #[test]
    fn methods_are_found_in_whichever_file_says_them() {
        let v2 = || json!({ "bits": 4, "checkpoint_format": "gptq_v2" });
        for (own, file, content, wanted) in [
            (
                json!({}),
                "quantize_config.json",
                v2(),
                json!({ "quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2" }),
            ),
            // Completed, and not overruled.
            (
                json!({ "quantization_config": { "quant_method": "gptq", "bits": 8 } }),
                "quantize_config.json",
                v2(),
                json!({ "quant_method": "gptq", "bits": 8, "checkpoint_format": "gptq_v2" }),
            ),
            (
                json!({ "quantization_config": { "quant_method": "gptq", "checkpoint_format": "gptq" } }),
                "quantize_config.json",
                v2(),
                json!({ "quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq" }),
            ),
            (
                json!({ "quantization_config": { "quant_method": "fp8" } }),
                "quantize_config.json",
                v2(),
                json!({ "quant_method": "fp8" }),
            ),
            (
                json!({ "quantization_config": null }),
                "quantization_config.json",
                json!({ "quant_method": "auto-round", "packing_format": "auto_round" }),
                json!({ "quant_method": "auto-round", "packing_format": "auto_round" }),
            ),
            (
                json!({ "quantization_config": { "quant_algo": "NVFP4" } }),
                "hf_quant_config.json",
                json!({ "quantization": { "quant_algo": "FP8", "group_size": 16 } }),
                json!({ "quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16 }),
            ),
            (
                json!({}),
                "quant_config.json",
                json!({ "w_bit": 4, "q_group_size": 64, "version": "GEMM" }),
                json!({ "quant_method": "awq", "w_bit": 4, "q_group_size": 64, "version": "GEMM", "bits": 4, "group_size": 64 }),
            ),
            (
                json!({}),
                "hf_quant_config.json",
                json!({ "producer": {}, "quantization": { "quant_algo": "FP8" } }),
                json!({ "quant_method": "modelopt", "quant_algo": "FP8" }),
            ),
        ] {
            assert_eq!(completed(own, file, content)["quantization_config"], wanted, "{file}");
        }
    }

    #[test]
    fn a_text_models_own_description_is_completed_where_it_stands() {
        let config = json!({ "text_config": { "quantization_config": { "quant_method": "gptq" } } });
        let completed = completed(config, "quantize_config.json", json!({ "format": "gptq_v2" }));
        assert_eq!(
            completed,
            json!({ "text_config": { "quantization_config": { "quant_method": "gptq", "format": "gptq_v2" } } })
        );
    }

    #[test]
    fn what_is_no_description_is_passed_over() {
        for (config, file, content) in [
            (json!({}), "hf_quant_config.json", json!({ "producer": {} })),
            (json!({}), "quantization_config.json", json!({ "bits": 4 })),
            (json!({ "quantization": { "bits": 4 } }), "quantize_config.json", json!({ "bits": 4 })),
        ] {
            assert_eq!(completed(config.clone(), file, content), config, "{file}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("quantize_config.json"), "{").unwrap();
        let error = complete(folder.path(), &mut json!({})).unwrap_err().to_string();
        assert!(error.contains("quantize_config.json") && error.contains("not JSON"), "{error}");
    }
}
