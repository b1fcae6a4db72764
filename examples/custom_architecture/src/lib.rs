//! A decoder whose norms are pRMSNorm, arXiv:1910.07467, section 4: the mean square of a row is estimated from its first
//! elements. The vocabulary has no such norm and cannot make one, so the plugin brings it along. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct PartialConfig {
        hidden_size: usize,
        intermediate_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        // The share of a row that is looked at: 6.25 % in the paper.
        partial_norm_factor: f32 = 0.0625,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize,
    }
}

impl PartialConfig {
    /// x * weight / rms(the first elements of x), [tokens, hidden] -> [tokens, hidden]
    #[track_caller]
    fn norm(&self, w: &Weights, name: &str, x: Tensor) -> Tensor {
        let d = self.hidden_size;
        let part = ((d as f32 * self.partial_norm_factor).ceil() as usize).clamp(1, d.max(1));
        custom("partial_norm", include_str!("partial_norm.wgsl"))
            .constant("DIM", d)
            .constant("PART", part)
            .constant("EPS", self.rms_norm_eps)
            .weight(w.at(name).tensor("weight", &[d]))
            .forward(&[x], &[d])
    }

    fn layer(&self, w: &Weights, rope: &RopeSpec, x: Tensor) -> Tensor {
        let h = x + self.attention(&w.at("self_attn"), rope, self.norm(w, "input_layernorm", x));
        h + self.mlp(&w.at("mlp"), self.norm(w, "post_attention_layernorm", h))
    }

    fn attention(&self, w: &Weights, rope: &RopeSpec, x: Tensor) -> Tensor {
        let (d, size) = (self.hidden_size, self.num_attention_heads * self.head_dim);
        let heads = |name| w.linear(name, [size, d]).forward(x).split_heads(self.head_dim);
        let cache = kv(heads("k_proj").rope(rope), heads("v_proj"), CacheSpec::default());
        let seen = attention(heads("q_proj").rope(rope), &cache, &AttentionSpec::causal(self.head_dim));
        w.linear("o_proj", [d, size]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.hidden_size, self.intermediate_size);
        let up = w.linear("up_proj", [ff, d]).forward(x).gelu_tanh();
        w.linear("down_proj", [d, ff]).forward(up)
    }
}

/// The same norm in plain Rust, one row at a time: it runs where there is no GPU, and tests compare the WGSL with it.
fn partial_norm(row: &PlainRow<'_>) -> Vec<f32> {
    let (x, weight) = (row.inputs[0], row.weights[0]);
    let part = row.size("PART");
    let mean = x[..part].iter().map(|v| v * v).sum::<f32>() / part as f32;
    let scale = 1.0 / (mean + row.float("EPS")).sqrt();
    x.iter().zip(weight).map(|(v, w)| v * scale * w).collect()
}

/// The architecture.
pub struct Partial;

impl Architecture for Partial {
    fn declaration(&self) -> Declaration {
        Declaration::llm("custom_architecture", &["partial_norm"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = PartialConfig::parse(config)?;
        let rope = config.rope(c.head_dim, 10_000.0)?;
        let shape = [c.vocab_size, c.hidden_size];
        let mut x = w.embedding("model.embed_tokens", shape).forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = c.layer(&w.at("model.layers").at(i), &rope, x);
        }
        let x = c.norm(w, "model.norm", step.outputs(x));
        Ok(w.linear("lm_head", shape).forward(x))
    }

    fn plain(&self, op: &str) -> Option<Plain> {
        (op == "partial_norm").then_some(partial_norm)
    }
}

register!(Partial);
