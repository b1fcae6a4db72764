//! Models that have sizes and no weights.

use serde_json::json;
use std::{fmt, str::FromStr};
use tamarack::{
    Result,
    checkpoint::{Checkpoint, Format, Scales, Values},
};

/// The sizes of a llama.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
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

const SHAPES: [Shape; 4] = [
    Shape {
        name: "tiny",
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
        hidden: 2048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        feed_forward: 8192,
        vocabulary: 128_256,
        tied: true,
    },
    // As Qwen/Qwen3-4B, without its norms of queries and keys.
    Shape {
        name: "4b",
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

/// `q4_0` and `q8_0` are what those types of GGUF become on the device, the others MLX's.
const FORMATS: [(&str, Format); 15] = [
    ("q4_0", affine(4, 32)),
    ("q8_0", affine(8, 32)),
    ("q2g64", affine(2, 64)),
    ("q3g64", affine(3, 64)),
    ("q4g64", affine(4, 64)),
    ("q5g64", affine(5, 64)),
    ("q6g64", affine(6, 64)),
    ("q8g64", affine(8, 64)),
    ("mxfp4", scaled(Values::E2m1, 32, Scales::E8m0)),
    ("mxfp8", scaled(Values::E4m3, 32, Scales::E8m0)),
    ("nvfp4", scaled(Values::E2m1, 16, Scales::E4m3)),
    ("fp8", scaled(Values::E4m3, 128, Scales::F32)),
    ("nf4", scaled(Values::Nf4, 64, Scales::F32)),
    ("iq4", scaled(Values::Iq4, 32, Scales::F16)),
    ("f16", Format::F16),
];

const fn affine(bits: u8, group: u16) -> Format {
    Format::Affine { bits, group, scales: Scales::F16 }
}

const fn scaled(values: Values, group: u16, scales: Scales) -> Format {
    Format::Scaled { values, group, scales }
}

/// Random weights: the shape of a model and the format of its matrices.
#[derive(Clone, Debug)]
pub struct Synthetic {
    shape: Shape,
    format: (&'static str, Format),
}

/// `SHAPE:FORMAT`
impl FromStr for Synthetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Synthetic, String> {
        let (shape, format) = text.split_once(':').ok_or("expected SHAPE:FORMAT, such as llama-1b:q4_0")?;
        let known = |names: &[&str]| format!("there are {}", names.join(", "));
        let found = SHAPES.into_iter().find(|s| s.name == shape);
        let shape = found.ok_or_else(|| format!("no shape `{shape}`: {}", known(&SHAPES.map(|s| s.name))))?;
        let found = FORMATS.into_iter().find(|f| f.0 == format);
        let format = found.ok_or_else(|| format!("no format `{format}`: {}", known(&FORMATS.map(|f| f.0))))?;
        Ok(Synthetic { shape, format })
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
            "model_type": "llama",
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
            all.extend(layer.iter().map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape.to_vec())));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_those_of_the_models_they_are_named_after() {
        for (name, parameters) in [("llama-1b", 1_235_814_400), ("llama-8b", 8_030_261_248_u64)] {
            let synthetic: Synthetic = format!("{name}:q4_0").parse().unwrap();
            let tensors = synthetic.shape.tensors();
            let count: u64 = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
            assert_eq!(count, parameters, "{name}");
        }
    }

    #[test]
    fn every_shape_can_be_had_in_every_format() {
        for shape in SHAPES {
            for (format, _) in FORMATS {
                let synthetic: Synthetic = format!("{}:{format}", shape.name).parse().unwrap();
                assert!(synthetic.checkpoint().is_ok(), "{synthetic}");
            }
        }
        let e = "llama-9b:q4_0".parse::<Synthetic>().unwrap_err();
        assert_eq!(e, "no shape `llama-9b`: there are tiny, llama-1b, 4b, llama-8b");
        assert!("tiny:q4".parse::<Synthetic>().unwrap_err().contains("no format `q4`"));
        assert!("tiny".parse::<Synthetic>().is_err());
    }
}
