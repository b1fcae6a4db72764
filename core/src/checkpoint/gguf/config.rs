//! GGUF metadata as the config.json that HuggingFace would have.

use serde_json::{Map, Value as Json, json};

use super::architectures::{ALL, Architecture};
use super::{Ends, Metadata, Stored, Value, rope};

/// Fields that mean the same in every architecture: HuggingFace name, metadata key.
const FIELDS: &[(&str, &str)] = &[
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("max_position_embeddings", "context_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("sliding_window", "attention.sliding_window"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
];

/// Tensors that are configuration: they end in `rope_scaling`.
pub(super) const IS_CONFIG: &[&str] = &["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Larger models than any: keeps what a hostile file claims from being allocated.
const MAX_LAYERS: usize = 4096;

/// What a GGUF file says, and the sizes that tables derive fields from (none of them zero).
pub(super) struct Facts<'a> {
    /// The table for this file.
    pub arch: &'static Architecture,
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of a query or key head.
    pub head_dim: usize,
    /// Key-values.
    pub metadata: &'a Metadata,
    /// Tensors under their GGUF names.
    pub tensors: &'a Stored,
}

impl<'a> Facts<'a> {
    /// Finds the table for a file, and its sizes.
    pub fn new(metadata: &'a Metadata, tensors: &'a Stored) -> Result<Facts<'a>, String> {
        let gguf = metadata.str("general.architecture").ok_or("general.architecture: expected text, found none")?;
        let fits = |a: &&&'static Architecture| {
            a.gguf == gguf && a.when.is_none_or(|key| metadata.u64(&format!("{gguf}.{key}")).is_some_and(|n| n > 0))
        };
        let arch = ALL.iter().find(fits).ok_or_else(|| {
            let mut known: Vec<_> = ALL.iter().map(|a| a.gguf).collect();
            known.dedup();
            format!("general.architecture: `{gguf}` is not supported; supported are {}", known.join(", "))
        })?;
        let mut facts = Facts { arch, layers: 0, hidden_size: 0, heads: 0, head_dim: 0, metadata, tensors };
        facts.layers = facts.size("block_count")?;
        if facts.layers > MAX_LAYERS {
            return Err(format!("{gguf}.block_count: expected {MAX_LAYERS} at most, found {}", facts.layers));
        }
        facts.hidden_size = facts.size("embedding_length")?;
        facts.heads = facts.size("attention.head_count")?;
        facts.head_dim = match facts.get("attention.key_length") {
            Some(_) => facts.size("attention.key_length")?,
            None if facts.hidden_size.is_multiple_of(facts.heads) => facts.hidden_size / facts.heads,
            None => {
                let (d, h) = (facts.hidden_size, facts.heads);
                return Err(format!("{gguf}.attention.head_count: {h} heads do not divide embedding_length {d}"));
            }
        };
        Ok(facts)
    }

    /// The metadata at `key`, given without the architecture's prefix.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("{}.{key}", self.arch.gguf))
    }

    /// The same as JSON; null if absent.
    pub fn field(&self, key: &str) -> Json {
        self.get(key).map_or(Json::Null, json)
    }

    /// The numbers at `key`, in full, one for each layer.
    pub fn numbers(&self, key: &str) -> Result<Vec<f32>, String> {
        let list = self.metadata.array(key).unwrap_or_default();
        let numbers: Option<Vec<f32>> = list.iter().map(|n| n.as_f64().map(|n| n as f32)).collect();
        numbers
            .filter(|n| n.len() == self.layers)
            .ok_or_else(|| format!("{key}: expected a number for each of {} layers, found {}", self.layers, list.len()))
    }

    /// Whether the file has the tensor `name`, a GGUF name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The positive number at `key`, or that all layers agree on.
    fn size(&self, key: &str) -> Result<usize, String> {
        let value = self.get(key).map(|value| match value {
            Value::Array(layers) if layers.windows(2).all(|w| w[0] == w[1]) => layers.first().unwrap_or(value),
            value => value,
        });
        let size = value.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        let key = format!("{}.{key}", self.arch.gguf);
        size.map(|n| n as usize).ok_or_else(|| match value {
            Some(Value::Array(_)) | None => format!("{key}: expected a positive integer, found none"),
            Some(value) => format!("{key}: expected a positive integer, found {value:?}"),
        })
    }

    /// config.json.
    pub fn config(&self) -> Result<Json, String> {
        let mut config = Map::new();
        config.insert("model_type".into(), json!(self.arch.model_type));
        config.insert("architectures".into(), json!([self.arch.class]));
        for (field, key) in FIELDS.iter().chain(self.arch.fields) {
            if let Some(value) = self.get(key) {
                config.insert((*field).into(), self.per_layer(key, value)?);
            }
        }
        config.insert("head_dim".into(), json!(self.head_dim));
        config.insert("tie_word_embeddings".into(), json!(!self.has("output.weight")));
        let embedding = self.tensors.get("token_embd.weight").and_then(|(shape, _)| shape.first());
        let vocab_size = *embedding.ok_or("token_embd.weight: expected the embedding table, found none")?;
        config.insert("vocab_size".into(), json!(vocab_size));
        self.token_ids(vocab_size, &mut config);
        rope::fields(self, &mut config)?;
        if let Json::Object(rest) = (self.arch.rest)(self) {
            config.extend(rest);
        }
        Ok(Json::Object(config))
    }

    /// A field that may be a list with an entry for each layer; one number if all agree.
    fn per_layer(&self, key: &str, value: &Value) -> Result<Json, String> {
        let Value::Array(layers) = value else { return Ok(json(value)) };
        if layers.len() != self.layers {
            let (gguf, want, found) = (self.arch.gguf, self.layers, layers.len());
            return Err(format!("{gguf}.{key}: expected an entry for each of {want} layers, found {found}"));
        }
        let same = layers.windows(2).all(|w| w[0] == w[1]);
        Ok(if same { json(&layers[0]) } else { json(value) })
    }

    /// The special tokens; every token that ends a generation is an `eos_token_id`.
    fn token_ids(&self, vocab_size: usize, config: &mut Map<String, Json>) {
        let id = |name: &str| {
            let id = self.metadata.u64(&format!("tokenizer.ggml.{name}_token_id"))?;
            let known = id < vocab_size as u64;
            if !known {
                tracing::warn!("tokenizer.ggml.{name}_token_id: ignored, {id} is not among {vocab_size} tokens");
            }
            known.then_some(id)
        };
        let found = Ends::of(self.metadata).ends;
        let (eos, ends) = (id("eos"), found.into_iter().map(u64::from).filter(|end| *end < vocab_size as u64));
        let (mut ends, others): (Vec<u64>, Vec<u64>) = ends.partition(|end| Some(*end) == eos);
        ends.extend(others);
        match ends[..] {
            [] => {}
            [one] => drop(config.insert("eos_token_id".into(), json!(one))),
            _ => drop(config.insert("eos_token_id".into(), json!(ends))),
        }
        for (field, name) in [("bos_token_id", "bos"), ("pad_token_id", "padding")] {
            if let Some(id) = id(name) {
                config.insert(field.into(), json!(id));
            }
        }
    }
}

/// A metadata value as JSON. Floats become the shortest decimal of their f32: 1e-5, not
/// 9.999999747378752e-6.
pub(super) fn json(value: &Value) -> Json {
    match value {
        Value::U64(n) => json!(n),
        Value::I64(n) => json!(n),
        Value::F64(x) => {
            let short = *x as f32;
            let x = if f64::from(short) == *x { short.to_string().parse().unwrap_or(*x) } else { *x };
            json!(x)
        }
        Value::Bool(b) => json!(b),
        Value::String(s) => json!(s),
        Value::Array(items) => Json::Array(items.iter().map(json).collect()),
    }
}
