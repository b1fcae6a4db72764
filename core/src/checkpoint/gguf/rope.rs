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
    let scaling = match (factors(facts, "rope_freqs.weight")?, factors(facts, "rope_factors_long.weight")?) {
        (Some(factors), _) => json!({ "rope_type": "factors", "factors": factors }),
        (None, Some(long)) => {
            let short = factors(facts, "rope_factors_short.weight")?;
            let short = short.ok_or("rope_factors_short.weight: expected beside rope_factors_long, found none")?;
            json!({ "rope_type": "longrope", "long_factor": long, "short_factor": short })
        }
        (None, None) => described(facts, original),
    };
    if !scaling.is_null() {
        config.insert("rope_scaling".into(), scaling);
    }
    Ok(())
}

/// `rope_scaling` from metadata alone.
fn described(facts: &Facts, original: Json) -> Json {
    let kind = facts.field("rope.scaling.type");
    // Before there was a type, linear was the only one.
    let old = facts.field("rope.scale_linear");
    let factor = if old.is_null() { facts.field("rope.scaling.factor") } else { old.clone() };
    match kind.as_str().or((!old.is_null()).then_some("linear")) {
        Some("linear") => json!({ "rope_type": "linear", "factor": factor }),
        Some("yarn") => {
            let mut yarn = Map::new();
            let mut put = |name: &str, value: Json| (!value.is_null()).then(|| yarn.insert(name.into(), value));
            put("rope_type", json!("yarn"));
            put("original_max_position_embeddings", original);
            put("beta_fast", facts.field("rope.scaling.yarn_beta_fast"));
            put("beta_slow", facts.field("rope.scaling.yarn_beta_slow"));
            // llama.cpp multiplies YaRN's own attention factor (arXiv:2309.00071, section 3.4) by this one.
            if let (Some(own), Some(factor)) = (facts.field("rope.scaling.attn_factor").as_f64(), factor.as_f64())
                && own != 1.0
            {
                put("attention_factor", json!(own * (0.1 * factor.max(1.0).ln() + 1.0)));
            }
            put("factor", factor);
            Json::Object(yarn)
        }
        _ => Json::Null,
    }
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
