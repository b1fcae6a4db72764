//! LFM2 by Liquid AI, arXiv:2511.23404: most layers are short gated convolutions, the others attention with head norms.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Lfm2Config {
        hidden_size: usize = 2560,
        intermediate_size as "block_ff_dim" | "intermediate_size": usize = 12_288,
        block_auto_adjust_ff_dim: bool = true,
        block_ffn_dim_multiplier: Option<f64> = Some(1.0),
        block_multiple_of: usize = 256,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 8,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        norm_eps: f32 = 1e-5,
        vocab_size: usize = 65_536,
        tie_word_embeddings as "tie_embedding" | "tie_word_embeddings": bool = true,
        conv_kernel as "conv_L_cache": usize = 3,
        full_attn_idxs: Option<Vec<usize>> = None,
        layer_types: Option<Vec<String>> = None,
    }
}

impl Lfm2Config {
    fn attends(&self, i: usize) -> bool {
        match (&self.layer_types, &self.full_attn_idxs) {
            (Some(types), _) => types.get(i).is_some_and(|t| t == "full_attention"),
            (None, Some(layers)) => layers.contains(&i),
            (None, None) => true,
        }
    }

    /// Two thirds of the size that the file names, up to a round number: a gated MLP has three matrices instead of two.
    fn feed_forward(&self) -> usize {
        match self.block_ffn_dim_multiplier {
            _ if !self.block_auto_adjust_ff_dim => self.intermediate_size,
            None => 2 * self.intermediate_size / 3,
            Some(by) => {
                let adjusted = by * (2 * self.intermediate_size / 3) as f64;
                (adjusted as usize).next_multiple_of(self.block_multiple_of.max(1))
            }
        }
    }
}

struct Layer<'a> {
    c: &'a Lfm2Config,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor, attends: bool) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.norm_eps).forward(x);
        let n = norm("operator_norm", x);
        let h = x + if attends { self.attention(&w.at("self_attn"), n) } else { self.conv(&w.at("conv"), n) };
        h + self.mlp(&w.at("feed_forward"), norm("ffn_norm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let norm = |name, x| w.rms_norm(name, head_dim, self.c.norm_eps).forward(x);
        let queries = norm("q_layernorm", heads("q_proj", q)).rope(&self.rope);
        let keys = norm("k_layernorm", heads("k_proj", kv_size)).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("out_proj", [d, q]).forward(seen.merge_heads())
    }

    /// A convolution over the last few rows, gated on both sides.
    fn conv(&self, w: &Weights, x: Tensor) -> Tensor {
        let d = self.c.hidden_size;
        let [before, after, x] = w.linear("in_proj", [3 * d, d]).forward(x).split([d, d, d]);
        let mixed = w.conv1d("conv", d, self.c.conv_kernel).forward(before * x);
        w.linear("out_proj", [d, d]).forward(after * mixed)
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.feed_forward());
        let gate = w.linear("w1", [ff, d]).forward(x).silu();
        w.linear("w2", [d, ff]).forward(gate * w.linear("w3", [ff, d]).forward(x))
    }
}

struct Lfm2;

impl Architecture for Lfm2 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("lfm2", &["lfm2"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Lfm2Config::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(128_000).rope(c.head_dim, 1e6)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x, c.attends(i));
        }
        let norm = w.rms_norm("model.embedding_norm", c.hidden_size, c.norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Lfm2);
