//! Rotary embedding: what GGUF spreads over metadata and tensors, as `rope_scaling`.

use serde_json::{Map, Value as Json, json};

use super::config::Facts;
use crate::checkpoint::tensor::Data;

/// Longer lists of factors than any head has: not read.
const MAX_FACTORS: usize = 4096;

/// Adds `partial_rotary_factor` and `rope_scaling` to `config`.
pub(super) fn fields(facts: &Facts, config: &mut Map<String, Json>) -> Result<(), String> {
    if let Some(n) = facts.field("rope.dimension_count").as_u64()
        && n != facts.head_dim as u64
    {
        config.insert("partial_rotary_factor".into(), json!(n as f64 / facts.head_dim as f64));
    }
    let original = facts.field("rope.scaling.original_context_length");
    if !original.is_null() {
        config.insert("original_max_position_embeddings".into(), original.clone());
    }
    let linear = linear(facts)?;
    let times = |factors: Vec<f32>| factors.into_iter().map(|factor| f64::from(factor) * linear).collect::<Vec<_>>();
    let mut scaling = match (factors(facts, "rope_freqs.weight")?, factors(facts, "rope_factors_long.weight")?) {
        (Some(factors), _) => json!({ "rope_type": "factors", "factors": times(factors) }),
        (None, Some(long)) => {
            let short = factors(facts, "rope_factors_short.weight")?;
            let short = short.ok_or("rope_factors_short.weight: expected beside rope_factors_long, found none")?;
            json!({ "rope_type": "longrope", "long_factor": times(long), "short_factor": times(short) })
        }
        (None, None) if facts.field("rope.scaling.type") == "yarn" => yarn(facts, original),
        (None, None) if magnitude(facts).is_some() => {
            let rotating = facts.field("rope.dimension_count").as_u64().unwrap_or(facts.head_dim as u64);
            let pairs = usize::try_from(rotating).unwrap_or(0).min(facts.head_dim) / 2;
            json!({ "rope_type": "factors", "factors": vec![linear; pairs] })
        }
        (None, None) if linear != 1.0 => json!({ "rope_type": "linear", "factor": linear }),
        (None, None) => Json::Null,
    };
    // Not a multiple of what the type itself has, but for YaRN.
    if let (Some(magnitude), Some(scaling)) = (magnitude(facts), scaling.as_object_mut()) {
        scaling.entry("attention_factor").or_insert(json!(magnitude));
    }
    if !scaling.is_null() {
        config.insert("rope_scaling".into(), scaling);
    }
    Ok(())
}

/// What frequencies are divided by. A type that the file does not name is linear, and every type but `yarn` and `none` divides
/// (`llama_model::load_hparams` in llama.cpp's src/llama-model.cpp and `llama_context` in its src/llama-context.cpp).
fn linear(facts: &Facts) -> Result<f64, String> {
    match facts.field("rope.scaling.type").as_str() {
        Some("none" | "yarn") => Ok(1.0),
        None | Some("linear" | "longrope") => Ok(factor(facts).unwrap_or(1.0)),
        Some(other) => {
            let key = format!("{}.rope.scaling.type", facts.arch.gguf);
            Err(format!("{key}: expected none, linear, yarn or longrope, found `{other}`"))
        }
    }
}

/// `rope.scaling.factor`, or under its first name; 0 stands for none.
fn factor(facts: &Facts) -> Option<f64> {
    let keys = ["rope.scaling.factor", "rope.scale_linear"];
    let factor = keys.into_iter().find_map(|key| facts.field(key).as_f64());
    factor.filter(|factor| *factor != 0.0)
}

/// What llama.cpp multiplies cosines and sines by, whatever the type.
fn magnitude(facts: &Facts) -> Option<f64> {
    facts.field("rope.scaling.attn_factor").as_f64().filter(|own| *own != 1.0)
}

/// YaRN (arXiv:2309.00071) as metadata describes it.
fn yarn(facts: &Facts, original: Json) -> Json {
    let factor = factor(facts).unwrap_or(1.0);
    let mut yarn = Map::new();
    let mut put = |name: &str, value: Json| (!value.is_null()).then(|| yarn.insert(name.into(), value));
    put("rope_type", json!("yarn"));
    put("factor", json!(factor));
    put("original_max_position_embeddings", original);
    put("beta_fast", facts.field("rope.scaling.yarn_beta_fast"));
    put("beta_slow", facts.field("rope.scaling.yarn_beta_slow"));
    // llama.cpp multiplies YaRN's own attention factor (section 3.4) by that of the file.
    if let Some(own) = magnitude(facts) {
        put("attention_factor", json!(own * (0.1 * factor.max(1.0).ln() + 1.0)));
    }
    Json::Object(yarn)
}

/// The numbers in the tensor `name`: what each inverse frequency is divided by.
fn factors(facts: &Facts, name: &str) -> Result<Option<Vec<f32>>, String> {
    let Some((shape, data)) = facts.tensors.get(name) else { return Ok(None) };
    let (Data::Dense(dtype, bytes), [count]) = (data, &shape[..]) else {
        return Err(format!("{name}: expected a vector of floats"));
    };
    if *count > MAX_FACTORS {
        return Err(format!("{name}: expected {MAX_FACTORS} factors at most, found {count}"));
    }
    let mut factors = vec![0.0; *count];
    dtype.decode(bytes, &mut factors);
    match factors.iter().find(|f| !f.is_finite() || **f <= 0.0) {
        Some(bad) => Err(format!("{name}: expected positive factors, found {bad}")),
        None => Ok(Some(factors)),
    }
}
