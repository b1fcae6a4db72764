//! The Gemma family: norms are stored as 1 + w, and two of them sit after their branch.

use serde_json::json;

use super::super::{Value, config::Facts};
use super::{ATTENTION, Architecture, BASE, MLP, Names, layer_types};
use crate::reference::ops::erf;

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

/// Norms are stored as they are; the projections of streams are one tensor.
pub const GEMMA3N: Architecture = Architecture {
    gguf: "gemma3n",
    model_type: "gemma3n_text",
    class: "Gemma3nForCausalLM",
    root: &[
        ("per_layer_token_embd", "model.embed_tokens_per_layer"),
        ("per_layer_model_proj", "model.per_layer_model_projection"),
        ("per_layer_proj_norm", "model.per_layer_projection_norm"),
        ("altup_proj", "model.altup_projections.*"),
        ("altup_unembd_proj", "model.altup_unembed_projections.*"),
    ],
    layer: &[GEMMA3N_LAYER, SANDWICH, ATTENTION, MLP],
    fields: &[
        ("altup_active_idx", "altup.active_idx"),
        ("altup_num_inputs", "altup.num_inputs"),
        ("hidden_size_per_layer_input", "embedding_length_per_layer_input"),
        ("num_kv_shared_layers", "attention.shared_kv_layers"),
    ],
    norms_plus_one: false,
    rest: |facts| {
        let local = facts.field("rope.freq_base_swa");
        let rows = |name| facts.tensors.get(name).and_then(|(shape, _)| shape.first());
        json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": layer_types(facts, 5),
            "rope_local_base_freq": if local.is_null() { json!(10000.0) } else { local },
            "final_logit_softcapping": facts.field("final_logit_softcapping"),
            "laurel_rank": rows("blk.0.laurel_l.weight"),
            "vocab_size_per_layer_input": rows("per_layer_token_embd.weight"),
            "activation_sparsity_pattern": sparsity(facts),
        })
    },
    ..GEMMA2
};

const GEMMA3N_LAYER: Names = &[
    ("inp_gate", "per_layer_input_gate"),
    ("proj", "per_layer_projection"),
    ("post_norm", "post_per_layer_input_norm"),
    ("altup_correct_coef", "altup.correction_coefs"),
    ("altup_correct_scale.weight", "altup.correct_output_scale"),
    ("altup_predict_coef", "altup.prediction_coefs"),
    ("altup_router", "altup.modality_router"),
    ("altup_router_norm", "altup.router_norm"),
    ("laurel_l", "laurel.linear_left"),
    ("laurel_r", "laurel.linear_right"),
    ("laurel_post_norm", "laurel.post_laurel_norm"),
];

/// The share of a gate's elements that do not count, layer by layer. Files say how many standard deviations above the
/// mean those are that do.
fn sparsity(facts: &Facts) -> Vec<f32> {
    let scales = facts.get("activation_sparsity_scale").and_then(Value::as_array).unwrap_or_default();
    let scale = |i: usize| scales.get(i).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY);
    (0..facts.layers).map(|i| 0.5 + 0.5 * erf((scale(i) / std::f64::consts::SQRT_2) as f32)).collect()
}

/// Attention is scaled by head_dim, but in the 27B models, which their depth gives away, by the
/// width per head.
fn query_scale(facts: &Facts, layers_of_27b: usize) -> usize {
    if facts.layers == layers_of_27b { facts.hidden_size / facts.heads } else { facts.head_dim }
}
