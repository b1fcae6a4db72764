//! Mixtures of experts that are alone in their family.

use serde_json::{Value, json};

use super::{ATTENTION, Architecture, BASE, EXPERTS, MLP, Names};

pub const OLMOE: Architecture = Architecture {
    gguf: "olmoe",
    model_type: "olmoe",
    class: "OlmoeForCausalLM",
    layer: &[ATTENTION, MLP, EXPERTS],
    fields: &[("num_experts", "expert_count")],
    rest: |_| json!({ "hidden_act": "silu", "norm_topk_prob": false }),
    ..BASE
};

/// Layers that predict further tokens come last and count as layers.
pub const GLM4_MOE: Architecture = Architecture {
    gguf: "glm4moe",
    model_type: "glm4_moe",
    class: "Glm4MoeForCausalLM",
    layer: &[GLM4_MOE_LAYER, ATTENTION, MLP, EXPERTS],
    fields: &[
        ("n_routed_experts", "expert_count"),
        ("n_shared_experts", "expert_shared_count"),
        ("first_k_dense_replace", "leading_dense_block_count"),
        ("routed_scaling_factor", "expert_weights_scale"),
        ("norm_topk_prob", "expert_weights_norm"),
        ("n_group", "expert_group_count"),
        ("topk_group", "expert_group_used_count"),
    ],
    rest: |facts| {
        let further = facts.field("nextn_predict_layers").as_u64().unwrap_or(0);
        json!({
            "hidden_act": "silu",
            "num_hidden_layers": (facts.layers as u64).saturating_sub(further),
            "use_qk_norm": facts.has("blk.0.attn_q_norm.weight"),
        })
    },
    ..BASE
};

const GLM4_MOE_LAYER: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
    ("nextn.eh_proj", "eh_proj"),
    ("nextn.enorm", "enorm"),
    ("nextn.hnorm", "hnorm"),
    ("nextn.embed_tokens", "embed_tokens"),
    ("nextn.shared_head_head", "shared_head.head"),
    ("nextn.shared_head_norm", "shared_head.norm"),
];

/// Files leave out that the ends of YaRN's ramp are not rounded.
pub const GPT_OSS: Architecture = Architecture {
    gguf: "gpt-oss",
    model_type: "gpt_oss",
    class: "GptOssForCausalLM",
    layer: &[GPT_OSS_LAYER, ATTENTION],
    fields: &[("num_local_experts", "expert_count")],
    rest: |facts| match facts.field("rope.scaling.factor") {
        Value::Null => Value::Null,
        factor => json!({ "rope_scaling": {
            "rope_type": "yarn",
            "factor": factor,
            "truncate": false,
            "original_max_position_embeddings": facts.field("rope.scaling.original_context_length"),
        }}),
    },
    ..BASE
};

const GPT_OSS_LAYER: Names = &[
    ("attn_sinks.weight", "self_attn.sinks"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_gate_inp", "mlp.router"),
    ("ffn_gate_exps", "mlp.experts.gate_proj"),
    ("ffn_up_exps", "mlp.experts.up_proj"),
    ("ffn_down_exps", "mlp.experts.down_proj"),
];
