//! Cohere's Command models: one norm a layer, before attention and feed-forward side by side.

use serde_json::json;

use super::{Architecture, BASE, layer_types};

pub const COHERE: Architecture = Architecture {
    gguf: "command-r",
    model_type: "cohere",
    class: "CohereForCausalLM",
    fields: &[("logit_scale", "logit_scale")],
    rest: |facts| json!({ "hidden_act": "silu", "use_qk_norm": facts.has("blk.0.attn_q_norm.weight") }),
    ..BASE
};

pub const COHERE2: Architecture = Architecture {
    gguf: "cohere2",
    model_type: "cohere2",
    class: "Cohere2ForCausalLM",
    rest: |facts| json!({ "hidden_act": "silu", "layer_types": layer_types(facts, 4) }),
    ..COHERE
};
