//! Llamas of any size with random weights.

use serde_json::json;
use tamarack::checkpoint::{Checkpoint, Format};

/// The sizes of a llama.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Width.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the MLP.
    pub feed_forward: usize,
    /// Tokens.
    pub vocabulary: usize,
}

/// Such a llama, its matrices in `format`.
pub fn llama(s: Sizes, format: Format) -> Checkpoint {
    let config = json!({
        "model_type": "llama", "hidden_size": s.hidden, "intermediate_size": s.feed_forward,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim, "vocab_size": s.vocabulary, "tie_word_embeddings": false,
    });
    let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let mut index = vec![("model.norm.weight".to_owned(), vec![s.hidden])];
    for name in ["model.embed_tokens", "lm_head"] {
        index.push((format!("{name}.weight"), vec![s.vocabulary, s.hidden]));
    }
    for i in 0..s.layers {
        let layer = [
            ("input_layernorm", vec![s.hidden]),
            ("post_attention_layernorm", vec![s.hidden]),
            ("self_attn.q_proj", vec![q, s.hidden]),
            ("self_attn.k_proj", vec![kv, s.hidden]),
            ("self_attn.v_proj", vec![kv, s.hidden]),
            ("self_attn.o_proj", vec![s.hidden, q]),
            ("mlp.gate_proj", vec![s.feed_forward, s.hidden]),
            ("mlp.up_proj", vec![s.feed_forward, s.hidden]),
            ("mlp.down_proj", vec![s.hidden, s.feed_forward]),
        ];
        index.extend(layer.map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape)));
    }
    Checkpoint::synthetic(config, index, format).unwrap_or_else(|e| panic!("{e}"))
}
