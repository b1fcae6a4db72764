//! One table for each architecture of GGUF files: names, what the writer changed, and what the
//! metadata leaves unsaid. To read another architecture, add a table and its name to [`ALL`].

mod cohere;
mod experts;
mod gemma;
mod llama;
mod others;
mod qwen;

use serde_json::{Value, json};

use super::config::Facts;

/// How a GGUF architecture becomes a HuggingFace model.
pub(super) struct Architecture {
    /// `general.architecture` of its files.
    pub gguf: &'static str,
    /// Metadata that tells it from the next table of the same `gguf`, without the prefix.
    pub when: Option<&'static str>,
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// `architectures` in config.json.
    pub class: &'static str,
    /// Names outside the layers, beyond `token_embd`, `output_norm` and `output`. A `*` stands for the index where
    /// HuggingFace has a tensor for each index of the first dimension.
    pub root: Names,
    /// Names inside a layer, without `.weight` or `.bias`; the first table that has one counts.
    pub layer: &'static [Names],
    /// Tensors of one number in a layer that files have in their metadata, a list for all layers: key, HuggingFace name.
    pub numbers: Names,
    /// Fields of config.json beyond the common ones, with the metadata they come from.
    pub fields: Names,
    /// The writer put the two halves of every rotary pair side by side: rows of q and k.
    pub adjacent_pairs: bool,
    /// The writer added 1 to the weights of every norm.
    pub norms_plus_one: bool,
    /// An object with what else config.json needs; it wins over the fields.
    pub rest: fn(&Facts) -> Value,
}

/// Pairs: GGUF name, HuggingFace name; for fields HuggingFace name, metadata key.
pub(super) type Names = &'static [(&'static str, &'static str)];

/// Every architecture that can be read.
pub(super) const ALL: &[&Architecture] = &[
    &llama::MIXTRAL,
    &llama::MISTRAL,
    &llama::LLAMA,
    &llama::GRANITE,
    &llama::SMOLLM3,
    &qwen::QWEN2,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gemma::GEMMA3N,
    &others::PHI3,
    &others::STARCODER2,
    &others::OLMO2,
    &others::ERNIE4_5,
    &others::EXAONE4,
    &others::GLM4,
    &others::HUNYUAN,
    &others::PHI,
    &others::SEED_OSS,
    &cohere::COHERE,
    &cohere::COHERE2,
    &llama::INTERNLM2,
    &llama::MINICPM,
    &experts::OLMOE,
    &experts::GLM4_MOE,
    &experts::GPT_OSS,
    &experts::DEEPSEEK,
    &others::LFM2,
    &others::OLMO,
    &others::APERTUS,
];

const ATTENTION: Names = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
];

const MLP: Names = &[
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Stacked experts [E, O, I], under the names that MLX gives them.
const EXPERTS: Names = &[
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_exps", "mlp.switch_mlp.gate_proj"),
    ("ffn_up_exps", "mlp.switch_mlp.up_proj"),
    ("ffn_down_exps", "mlp.switch_mlp.down_proj"),
];

/// What most architectures have in common; tables spell out the difference.
const BASE: Architecture = Architecture {
    gguf: "",
    when: None,
    model_type: "",
    class: "",
    root: &[],
    layer: &[ATTENTION, MLP],
    numbers: &[],
    fields: &[],
    adjacent_pairs: false,
    norms_plus_one: false,
    rest: |_| Value::Null,
};

/// The last layer of every `period` sees everything, the others a window, unless the file says it
/// itself: a period, or for each layer whether it has a window.
fn layer_types(facts: &Facts, period: usize) -> Vec<Value> {
    let said = facts.field("attention.sliding_window_pattern");
    let period = said.as_u64().filter(|n| *n > 0).map_or(period, |n| n as usize);
    let windowed = |i: usize| said.get(i).and_then(Value::as_bool).unwrap_or(!(i + 1).is_multiple_of(period));
    let kind = |i| if windowed(i) { "sliding_attention" } else { "full_attention" };
    (0..facts.layers).map(|i| json!(kind(i))).collect()
}
