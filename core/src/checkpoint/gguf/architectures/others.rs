//! Architectures that are alone in their family.

use serde_json::{Value, json};

use super::{ATTENTION, Architecture, BASE, MLP, Names, layer_types};

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

pub const ERNIE4_5: Architecture = Architecture {
    gguf: "ernie4_5",
    model_type: "ernie4_5",
    class: "Ernie4_5ForCausalLM",
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

/// Norms as in OLMo 2; the small models see everything in every layer.
pub const EXAONE4: Architecture = Architecture {
    gguf: "exaone4",
    model_type: "exaone4",
    class: "Exaone4ForCausalLM",
    rest: |facts| {
        let window = facts.field("attention.sliding_window");
        let types = if window.is_null() { Value::Null } else { json!(layer_types(facts, 4)) };
        json!({ "hidden_act": "silu", "sliding_window": window, "layer_types": types })
    },
    ..OLMO2
};

/// Four norms a layer; gate and up are one matrix.
pub const GLM4: Architecture = Architecture {
    gguf: "glm4",
    model_type: "glm4",
    class: "Glm4ForCausalLM",
    layer: &[GLM4_LAYER, ATTENTION],
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

const GLM4_LAYER: Names = &[
    ("post_attention_norm", "post_self_attn_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_mlp_layernorm"),
    ("ffn_up", "mlp.gate_up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

pub const HUNYUAN: Architecture = Architecture {
    gguf: "hunyuan-dense",
    model_type: "hunyuan_v1_dense",
    class: "HunYuanDenseV1ForCausalLM",
    layer: &[HUNYUAN_NORMS, ATTENTION, MLP],
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

const HUNYUAN_NORMS: Names =
    &[("attn_q_norm", "self_attn.query_layernorm"), ("attn_k_norm", "self_attn.key_layernorm")];

pub const PHI: Architecture = Architecture {
    gguf: "phi2",
    model_type: "phi",
    class: "PhiForCausalLM",
    root: &[("output_norm", "model.final_layernorm")],
    layer: &[PHI_LAYER, ATTENTION],
    rest: |_| json!({ "hidden_act": "gelu_new" }),
    ..BASE
};

const PHI_LAYER: Names = &[("attn_output", "self_attn.dense"), ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2")];

pub const SEED_OSS: Architecture = Architecture {
    gguf: "seed_oss",
    model_type: "seed_oss",
    class: "SeedOssForCausalLM",
    layer: &[&[("post_attention_norm", "post_attention_layernorm")], ATTENTION, MLP],
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

/// Norms have no weights.
pub const OLMO: Architecture = Architecture {
    gguf: "olmo",
    model_type: "olmo",
    class: "OlmoForCausalLM",
    fields: &[("clip_qkv", "attention.clamp_kqv")],
    adjacent_pairs: true,
    rest: |_| json!({ "hidden_act": "silu" }),
    ..BASE
};

/// The parameters of the activation are metadata.
pub const APERTUS: Architecture = Architecture {
    gguf: "apertus",
    model_type: "apertus",
    class: "ApertusForCausalLM",
    layer: &[&[("attn_norm", "attention_layernorm"), ("ffn_norm", "feedforward_layernorm")], ATTENTION, MLP],
    numbers: &[
        ("xielu.alpha_p", "mlp.act_fn.alpha_p"),
        ("xielu.alpha_n", "mlp.act_fn.alpha_n"),
        ("xielu.beta", "mlp.act_fn.beta"),
        ("xielu.eps", "mlp.act_fn.eps"),
    ],
    rest: |_| json!({ "hidden_act": "xielu" }),
    ..BASE
};

/// Layers without key heads are convolutions.
pub const LFM2: Architecture = Architecture {
    gguf: "lfm2",
    model_type: "lfm2",
    class: "Lfm2ForCausalLM",
    root: &[("token_embd_norm", "model.embedding_norm"), ("output_norm", "model.embedding_norm")],
    layer: &[LFM2_LAYER, ATTENTION],
    fields: &[("norm_eps", "attention.layer_norm_rms_epsilon"), ("conv_L_cache", "shortconv.l_cache")],
    rest: |facts| {
        let heads = facts.field("attention.head_count_kv");
        let of = |i: usize| heads.get(i).unwrap_or(&heads).as_u64().unwrap_or(0);
        let kind = |i| if of(i) == 0 { "conv" } else { "full_attention" };
        json!({
            "num_key_value_heads": (0..facts.layers).map(of).max(),
            "layer_types": (0..facts.layers).map(kind).collect::<Vec<_>>(),
            "block_auto_adjust_ff_dim": false,
        })
    },
    ..BASE
};

const LFM2_LAYER: Names = &[
    ("attn_norm", "operator_norm"),
    ("attn_q_norm", "self_attn.q_layernorm"),
    ("attn_k_norm", "self_attn.k_layernorm"),
    ("attn_output", "self_attn.out_proj"),
    ("shortconv.conv", "conv.conv"),
    ("shortconv.in_proj", "conv.in_proj"),
    ("shortconv.out_proj", "conv.out_proj"),
    ("ffn_norm", "ffn_norm"),
    ("ffn_gate", "feed_forward.w1"),
    ("ffn_up", "feed_forward.w3"),
    ("ffn_down", "feed_forward.w2"),
];
