//! Llama and those whose files look the same.

use serde_json::json;

use super::{ATTENTION, Architecture, BASE, Names};

pub const LLAMA: Architecture = Architecture {
    gguf: "llama",
    model_type: "llama",
    class: "LlamaForCausalLM",
    adjacent_pairs: true,
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

/// Arrives as llama; the sliding window tells it apart.
pub const MISTRAL: Architecture = Architecture {
    when: Some("attention.sliding_window"),
    model_type: "mistral",
    class: "MistralForCausalLM",
    ..LLAMA
};

/// Arrives as llama; the experts tell it apart.
pub const MIXTRAL: Architecture = Architecture {
    when: Some("expert_count"),
    model_type: "mixtral",
    class: "MixtralForCausalLM",
    layer: &[ATTENTION, MIXTRAL_EXPERTS],
    fields: &[("num_local_experts", "expert_count")],
    ..LLAMA
};

const MIXTRAL_EXPERTS: Names = &[
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate_inp", "block_sparse_moe.gate"),
    ("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj"),
    ("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj"),
    ("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj"),
];

pub const GRANITE: Architecture = Architecture {
    gguf: "granite",
    model_type: "granite",
    class: "GraniteForCausalLM",
    fields: &[
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("attention_multiplier", "attention.scale"),
        ("logits_scaling", "logit_scale"),
    ],
    ..LLAMA
};

pub const SMOLLM3: Architecture = Architecture {
    gguf: "smollm3",
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    rest: |_| json!({ "hidden_act": "silu", "no_rope_layer_interval": 4, "use_sliding_window": false }),
    ..LLAMA
};

/// The writer has split its fused projection, so that nothing but the name is left of the difference.
pub const INTERNLM2: Architecture = Architecture { gguf: "internlm2", ..LLAMA };

pub const MINICPM: Architecture = Architecture {
    gguf: "minicpm",
    model_type: "minicpm",
    class: "MiniCPMForCausalLM",
    fields: &[("scale_emb", "embedding_scale")],
    // Files have the factors that these fields stand for.
    rest: |facts| {
        let factor = |key, absent| facts.field(key).as_f64().filter(|f| *f > 0.0).unwrap_or(absent);
        json!({
            "hidden_act": "silu",
            "scale_depth": factor("residual_scale", 1.0) * (facts.layers as f64).sqrt(),
            "dim_model_base": facts.hidden_size as f64 / factor("logit_scale", 1.0),
        })
    },
    ..LLAMA
};
