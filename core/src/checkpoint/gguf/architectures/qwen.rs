//! The Qwen family.

use serde_json::json;

use super::{ATTENTION, Architecture, BASE, EXPERTS, MLP, Names};

pub const QWEN2: Architecture = Architecture {
    gguf: "qwen2",
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    rest: |_| json!({ "hidden_act": "silu", "use_sliding_window": false }),
    ..BASE
};

pub const QWEN2_MOE: Architecture = Architecture {
    gguf: "qwen2moe",
    model_type: "qwen2_moe",
    class: "Qwen2MoeForCausalLM",
    layer: &[ATTENTION, MLP, EXPERTS, SHARED],
    fields: &[
        ("num_experts", "expert_count"),
        ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ],
    rest: |_| json!({ "hidden_act": "silu", "use_sliding_window": false, "norm_topk_prob": false }),
    ..BASE
};

const SHARED: Names = &[
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
];

pub const QWEN3: Architecture = Architecture { gguf: "qwen3", model_type: "qwen3", class: "Qwen3ForCausalLM", ..QWEN2 };

pub const QWEN3_MOE: Architecture = Architecture {
    gguf: "qwen3moe",
    model_type: "qwen3_moe",
    class: "Qwen3MoeForCausalLM",
    layer: &[ATTENTION, MLP, EXPERTS],
    fields: &[("num_experts", "expert_count")],
    rest: |_| json!({ "hidden_act": "silu", "use_sliding_window": false, "norm_topk_prob": true }),
    ..BASE
};
