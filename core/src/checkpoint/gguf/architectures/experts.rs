//! Mixtures of experts that are alone in their family.

use serde_json::{Value, json};

use super::super::config::Facts;
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
    layer: &[GLM4_MOE_LAYER, SHARED_EXPERTS, ATTENTION, MLP, EXPERTS],
    fields: ROUTING,
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

const ROUTING: Names = &[
    ("n_routed_experts", "expert_count"),
    ("n_shared_experts", "expert_shared_count"),
    ("first_k_dense_replace", "leading_dense_block_count"),
    ("routed_scaling_factor", "expert_weights_scale"),
    ("norm_topk_prob", "expert_weights_norm"),
    ("n_group", "expert_group_count"),
    ("topk_group", "expert_group_used_count"),
];

const SHARED_EXPERTS: Names = &[
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
];

const GLM4_MOE_LAYER: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
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
    rest: |facts| match facts.field("rope.scaling.type") == "yarn" {
        false => Value::Null,
        true => json!({ "rope_scaling": {
            "rope_type": "yarn",
            "factor": facts.field("rope.scaling.factor"),
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

/// V2 and V3, which the router tells apart. The two halves of `kv_b_proj` are apart, as MLX has them.
pub const DEEPSEEK: Architecture = Architecture {
    gguf: "deepseek2",
    model_type: "deepseek_v3",
    class: "DeepseekV3ForCausalLM",
    layer: &[DEEPSEEK_LAYER, SHARED_EXPERTS, ATTENTION, MLP, EXPERTS],
    fields: ROUTING,
    rest: deepseek,
    ..BASE
};

const DEEPSEEK_LAYER: Names = &[
    ("attn_q_a", "self_attn.q_a_proj"),
    ("attn_q_a_norm", "self_attn.q_a_layernorm"),
    ("attn_q_b", "self_attn.q_b_proj"),
    ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
    ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
    ("attn_kv_b", "self_attn.kv_b_proj"),
    ("attn_k_b", "self_attn.embed_q"),
    ("attn_v_b", "self_attn.unembed_out"),
];

fn deepseek(facts: &Facts) -> Value {
    const SIGMOID: u64 = 2;
    let number = |key: &str| facts.field(key).as_u64();
    // Files that keep attention's two forms apart say the sizes of the expanded one under `_mla`.
    let expanded = |key: &str| number(&format!("{key}_mla")).or_else(|| number(key)).unwrap_or(0);
    let rope = number("rope.dimension_count").unwrap_or(0);
    let first = number("leading_dense_block_count").unwrap_or(0);
    let is_third = number("expert_gating_func") == Some(SIGMOID) || facts.has(&format!("blk.{first}.exp_probs_b.bias"));
    let is_grouped = number("expert_group_count").is_some_and(|n| n > 1);
    let mut config = json!({
        "model_type": if is_third { "deepseek_v3" } else { "deepseek_v2" },
        "architectures": [if is_third { "DeepseekV3ForCausalLM" } else { "DeepseekV2ForCausalLM" }],
        "hidden_act": "silu",
        "num_key_value_heads": facts.heads,
        "head_dim": rope,
        "partial_rotary_factor": 1.0,
        "q_lora_rank": facts.field("attention.q_lora_rank"),
        "kv_lora_rank": facts.field("attention.kv_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": expanded("attention.key_length").saturating_sub(rope),
        "v_head_dim": expanded("attention.value_length"),
        "topk_method": if is_grouped { "group_limited_greedy" } else { "greedy" },
        "norm_topk_prob": facts.field("expert_weights_norm").as_bool().unwrap_or(false),
        "routed_scaling_factor": facts.field("expert_weights_scale").as_f64().unwrap_or(1.0),
    });
    // Of YaRN's two magnitudes files have one; published models have both the same.
    if let Some(tenth) = facts.field("rope.scaling.yarn_log_multiplier").as_f64()
        && facts.field("rope.scaling.type") == "yarn"
    {
        config["rope_scaling"] = json!({
            "type": "yarn",
            "factor": facts.field("rope.scaling.factor"),
            "original_max_position_embeddings": facts.field("rope.scaling.original_context_length"),
            "mscale": 10.0 * tenth,
            "mscale_all_dim": 10.0 * tenth,
        });
    }
    config
}
