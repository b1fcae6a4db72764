//! The Gemma family: norms are stored as 1 + w, and two of them sit after their branch.

use serde_json::json;

use super::super::config::Facts;
use super::{ATTENTION, Architecture, BASE, MLP, Names, layer_types};

pub const GEMMA: Architecture = Architecture {
    gguf: "gemma",
    model_type: "gemma",
    class: "GemmaForCausalLM",
    norms_plus_one: true,
    rest: |_| json!({ "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh" }),
    ..BASE
};

const SANDWICH: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

pub const GEMMA2: Architecture = Architecture {
    gguf: "gemma2",
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    layer: &[SANDWICH, ATTENTION, MLP],
    rest: |facts| {
        json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": query_scale(facts, 46),
            "layer_types": layer_types(facts, 2),
            "attn_logit_softcapping": facts.field("attn_logit_softcapping"),
            "final_logit_softcapping": facts.field("final_logit_softcapping"),
        })
    },
    ..GEMMA
};

pub const GEMMA3: Architecture = Architecture {
    gguf: "gemma3",
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    rest: |facts| {
        let local = facts.field("rope.freq_base_swa");
        json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": query_scale(facts, 62),
            "layer_types": layer_types(facts, 6),
            "rope_local_base_freq": if local.is_null() { json!(10000.0) } else { local },
            "attn_logit_softcapping": null,
            "final_logit_softcapping": facts.field("final_logit_softcapping"),
        })
    },
    ..GEMMA2
};

/// Attention is scaled by head_dim, but in the 27B models, which their depth gives away, by the
/// width per head.
fn query_scale(facts: &Facts, layers_of_27b: usize) -> usize {
    if facts.layers == layers_of_27b { facts.hidden_size / facts.heads } else { facts.head_dim }
}
