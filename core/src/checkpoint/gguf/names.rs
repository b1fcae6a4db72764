//! GGUF's tensor names and HuggingFace's.

use super::architectures::Architecture;
use crate::checkpoint::tensor::View;

/// Outside the layers every architecture has these.
const ROOT: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// The HuggingFace name of the GGUF tensor `name`: `blk.3.attn_q.weight` is
/// `model.layers.3.self_attn.q_proj.weight`.
pub(super) fn huggingface(arch: &Architecture, name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
    let find =
        |table: &[(&str, &str)], key: &str| table.iter().find(|(gguf, _)| *gguf == key).map(|(_, hf)| hf.to_string());
    let Some(in_layer) = module.strip_prefix("blk.") else {
        return Some(format!("{}.{kind}", find(arch.root, module).or_else(|| find(ROOT, module))?));
    };
    let (layer, part) = in_layer.split_once('.')?;
    let layer: u32 = layer.parse().ok().filter(|n: &u32| n.to_string() == layer)?;
    let find = |key: &str| arch.layer.iter().find_map(|table| find(table, key));
    // Some entries are whole names, their ending included.
    let part = find(&format!("{part}.{kind}")).or_else(|| Some(format!("{}.{kind}", find(part)?)))?;
    Some(format!("model.layers.{layer}.{part}"))
}

/// What the writer of the GGUF file did to the tensor `name`.
pub(super) fn view(arch: &Architecture, name: &str, head_dim: usize) -> View {
    let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
    let part = module.rsplit('.').next().unwrap_or(module);
    let rotary = arch.adjacent_pairs && ["attn_q", "attn_k"].contains(&part);
    let norm = arch.norms_plus_one && name.ends_with("norm.weight");
    View { adjacent_pairs: rotary.then_some(head_dim), offset: if norm { -1.0 } else { 0.0 } }
}
