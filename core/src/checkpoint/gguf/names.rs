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
    let offset = if norm { -1.0 } else { 0.0 };
    View { adjacent_pairs: rotary.then_some(head_dim), offset, ..View::default() }
}

#[cfg(test)]
mod tests {
    use super::super::architectures::ALL;
    use super::*;

    #[test]
    fn names_of_every_family() {
        for (gguf, model_type, want) in [
            ("token_embd.weight", "llama", Some("model.embed_tokens.weight")),
            ("output.weight", "llama", Some("lm_head.weight")),
            ("blk.12.attn_q.bias", "llama", Some("model.layers.12.self_attn.q_proj.bias")),
            ("blk.0.ffn_norm.weight", "qwen2", Some("model.layers.0.post_attention_layernorm.weight")),
            ("blk.0.attn_q_norm.weight", "qwen3", Some("model.layers.0.self_attn.q_norm.weight")),
            ("blk.0.ffn_norm.weight", "gemma3_text", Some("model.layers.0.pre_feedforward_layernorm.weight")),
            ("blk.0.ffn_down_exps.weight", "qwen3_moe", Some("model.layers.0.mlp.switch_mlp.down_proj.weight")),
            ("blk.0.ffn_up.weight", "phi3", Some("model.layers.0.mlp.gate_up_proj.weight")),
            ("blk.0.ffn_up.bias", "starcoder2", Some("model.layers.0.mlp.c_fc.bias")),
            ("blk.00.ffn_up.weight", "llama", None),
            ("blk.-1.ffn_up.weight", "llama", None),
            ("blk.0.weight", "llama", None),
            ("blk.0.attn_q.scale", "llama", None),
            ("v.patch_embd.weight", "llama", None),
        ] {
            let arch = ALL.iter().find(|a| a.model_type == model_type).unwrap();
            assert_eq!(huggingface(arch, gguf).as_deref(), want, "{model_type} {gguf}");
        }
    }
}
