//! Architectures that are alone in their family.

use serde_json::{Value, json};

use super::{ATTENTION, Architecture, BASE, Names};

/// Query, key and value are one matrix, gate and up another, in files of both kinds.
pub const PHI3: Architecture = Architecture {
    gguf: "phi3",
    model_type: "phi3",
    class: "Phi3ForCausalLM",
    layer: &[PHI3_LAYER, ATTENTION],
    rest: |facts| {
        let window = facts.field("attention.sliding_window");
        // Files say 0 for none.
        let window = if window.as_u64() == Some(0) { Value::Null } else { window };
        json!({ "hidden_act": "silu", "sliding_window": window })
    },
    ..BASE
};

const PHI3_LAYER: Names = &[
    ("attn_qkv", "self_attn.qkv_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.gate_up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

pub const STARCODER2: Architecture = Architecture {
    gguf: "starcoder2",
    model_type: "starcoder2",
    class: "Starcoder2ForCausalLM",
    layer: &[STARCODER2_LAYER, ATTENTION],
    fields: &[("norm_epsilon", "attention.layer_norm_epsilon")],
    rest: |facts| json!({ "hidden_act": "gelu_pytorch_tanh", "use_bias": facts.has("blk.0.attn_q.bias") }),
    ..BASE
};

const STARCODER2_LAYER: Names =
    &[("ffn_norm", "post_attention_layernorm"), ("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")];

/// Norms come after attention and feed-forward only.
pub const OLMO2: Architecture = Architecture {
    gguf: "olmo2",
    model_type: "olmo2",
    class: "Olmo2ForCausalLM",
    layer: &[OLMO2_LAYER, ATTENTION],
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

const OLMO2_LAYER: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
