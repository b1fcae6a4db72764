//! Models that have sizes and no weights.

use serde_json::json;
use std::{fmt, str::FromStr};
use tamarack::{
    Result,
    checkpoint::{Checkpoint, Format, Scales},
};

/// The sizes of a decoder.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    model_type: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    feed_forward: usize,
    vocabulary: usize,
    /// Whether the embedding is the head, too.
    tied: bool,
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "tiny",
        model_type: "llama",
        hidden: 128,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        feed_forward: 256,
        vocabulary: 512,
        tied: true,
    },
    // meta-llama/Llama-3.2-1B
    Shape {
        name: "llama-1b",
        model_type: "llama",
        hidden: 2048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        feed_forward: 8192,
        vocabulary: 128_256,
        tied: true,
    },
    // Qwen/Qwen3-4B
    Shape {
        name: "qwen3-4b",
        model_type: "qwen3",
        hidden: 2560,
        layers: 36,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        feed_forward: 9728,
        vocabulary: 151_936,
        tied: true,
    },
    // The same without its norms of queries and keys.
    Shape {
        name: "4b",
        model_type: "llama",
        hidden: 2560,
        layers: 36,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        feed_forward: 9728,
        vocabulary: 151_936,
        tied: true,
    },
    // meta-llama/Llama-3.1-8B
    Shape {
        name: "llama-8b",
        model_type: "llama",
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        feed_forward: 14_336,
        vocabulary: 128_256,
        tied: false,
    },
];

/// The names of formats: `q4_0` and the like are what those types of GGUF become on the device, `q4g64`
/// is MLX's 4 bits in groups of 64.
const FORMATS: &str = "q4_0, q5_0, q8_0, q3_k, q6_k, f16, bf16, f32, or as q4g64 2, 3, 4, 5, 6 or 8 bits in groups \
                       of 16, 32, 64 or 128";

fn format(name: &str) -> Option<Format> {
    let affine = |bits, group, scales| Some(Format::Affine { bits, group, scales });
    match name {
        "q4_0" => return affine(4, 32, Scales::Centered),
        "q5_0" => return affine(5, 32, Scales::Centered),
        "q8_0" => return affine(8, 32, Scales::Centered),
        "q3_k" => return affine(3, 16, Scales::Centered),
        "q6_k" => return affine(6, 16, Scales::Centered),
        "f16" => return Some(Format::F16),
        "bf16" => return Some(Format::Bf16),
        "f32" => return Some(Format::F32),
        _ => {}
    }
    let (bits, group) = name.strip_prefix('q')?.split_once('g')?;
    let bits = bits.parse().ok().filter(|bits| [2, 3, 4, 5, 6, 8].contains(bits))?;
    let group = group.parse().ok().filter(|group| [16, 32, 64, 128].contains(group))?;
    affine(bits, group, Scales::F16)
}

/// Random weights: the shape of a model and the format of its matrices.
#[derive(Clone, Debug)]
pub struct Synthetic {
    shape: Shape,
    format: (String, Format),
}

/// `SHAPE:FORMAT`
impl FromStr for Synthetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Synthetic, String> {
        let (shape, name) = text.split_once(':').ok_or("expected SHAPE:FORMAT, such as llama-1b:q4_0")?;
        let found = SHAPES.into_iter().find(|s| s.name == shape);
        let names = SHAPES.map(|s| s.name).join(", ");
        let shape = found.ok_or_else(|| format!("no shape `{shape}`: there are {names}"))?;
        let format = format(name).ok_or_else(|| format!("no format `{name}`: there are {FORMATS}"))?;
        Ok(Synthetic { shape, format: (name.to_owned(), format) })
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.format.0)
    }
}

impl Synthetic {
    /// The model, as if it had been opened.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let s = self.shape;
        let config = json!({
            "model_type": s.model_type,
            "hidden_size": s.hidden,
            "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads,
            "num_key_value_heads": s.kv_heads,
            "head_dim": s.head_dim,
            "intermediate_size": s.feed_forward,
            "vocab_size": s.vocabulary,
            "tie_word_embeddings": s.tied,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
        });
        Checkpoint::synthetic(config, s.tensors(), self.format.1)
    }
}

impl Shape {
    /// Names and shapes of the weights.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, q, kv) = (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let norms: [(&str, &[usize]); 2] =
            [("self_attn.q_norm", &[self.head_dim]), ("self_attn.k_norm", &[self.head_dim])];
        let norms = if self.model_type == "qwen3" { &norms[..] } else { &[] };
        let layer: [(&str, &[usize]); 9] = [
            ("input_layernorm", &[d]),
            ("self_attn.q_proj", &[q, d]),
            ("self_attn.k_proj", &[kv, d]),
            ("self_attn.v_proj", &[kv, d]),
            ("self_attn.o_proj", &[d, q]),
            ("post_attention_layernorm", &[d]),
            ("mlp.gate_proj", &[self.feed_forward, d]),
            ("mlp.up_proj", &[self.feed_forward, d]),
            ("mlp.down_proj", &[d, self.feed_forward]),
        ];
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, d]),
            ("model.norm.weight".to_owned(), vec![d]),
        ];
        if !self.tied {
            all.push(("lm_head.weight".to_owned(), vec![self.vocabulary, d]));
        }
        for i in 0..self.layers {
            all.extend(
                layer
                    .iter()
                    .chain(norms)
                    .map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape.to_vec())),
            );
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_those_of_the_models_they_are_named_after() {
        let known = [("llama-1b", 1_235_814_400), ("qwen3-4b", 4_022_468_096), ("llama-8b", 8_030_261_248_u64)];
        for (name, parameters) in known {
            let synthetic: Synthetic = format!("{name}:q4_0").parse().unwrap();
            let tensors = synthetic.shape.tensors();
            let count: u64 = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
            assert_eq!(count, parameters, "{name}");
        }
    }

    #[test]
    fn every_shape_can_be_had_in_every_format() {
        for shape in SHAPES {
            for format in
                ["q4_0", "q5_0", "q8_0", "q3_k", "q6_k", "f16", "bf16", "f32", "q2g16", "q5g32", "q4g64", "q3g128"]
            {
                let synthetic: Synthetic = format!("{}:{format}", shape.name).parse().unwrap();
                assert!(synthetic.checkpoint().is_ok(), "{synthetic}");
            }
        }
        let e = "llama-9b:q4_0".parse::<Synthetic>().unwrap_err();
        assert_eq!(e, "no shape `llama-9b`: there are tiny, llama-1b, qwen3-4b, 4b, llama-8b");
        for wrong in ["q4", "q7g64", "q4g48", ""] {
            let e = format!("tiny:{wrong}").parse::<Synthetic>().unwrap_err();
            assert!(e.starts_with(&format!("no format `{wrong}`")), "{e}");
        }
        assert!("tiny".parse::<Synthetic>().is_err());
    }
}
