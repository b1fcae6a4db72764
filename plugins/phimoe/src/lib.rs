//! Phi-3.5-MoE, arXiv:2404.14219: Mixtral with layer norms, and experts chosen by the sparse mixer of
//! arXiv:2409.12136. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct PhimoeConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 6400,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 8; null = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 32_064,
        tie_word_embeddings: bool = false,
        sliding_window: Option<usize> = None,
        num_local_experts as "num_local_experts" | "num_experts": usize = 16,
        num_experts_per_tok: usize = 2,
        router_jitter_noise: f32 = 0.01,
    }
}

struct Layer<'a> {
    c: &'a PhimoeConfig,
    rope: RopeSpec,
    spec: AttentionSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.layer_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        h + self.moe(&w.at("block_sparse_moe"), norm("post_attention_layernorm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(&self.rope);
        let keys = heads("k_proj", kv_size).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.spec.window });
        w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &self.spec).merge_heads())
    }

    fn moe(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff, n) = (self.c.hidden_size, self.c.intermediate_size, self.c.num_local_experts);
        let mixer = Scoring::SparseMixer { jitter: self.c.router_jitter_noise };
        let route = moe_route(x, &w.linear("gate", [n, d]), &RouteSpec::new(self.c.num_experts_per_tok, mixer));
        moe_experts(x, route, &w.experts(n, [ff, d], ["w1", "w3", "w2"]), self.c.hidden_act)
    }
}

/// LongRoPE with factors of its own on cosines and sines. As in `transformers`, long sequences have another
/// factor and no other frequencies.
fn rope(config: &Config, head_dim: usize) -> Result<RopeSpec> {
    let rope = config.max_positions(131_072).rope(head_dim, 1e6)?;
    let json = config.json();
    let factor = |key: &str| ["rope_scaling", "rope_parameters"].iter().find_map(|at| json[*at][key].as_f64());
    match (&rope.long, factor("short_mscale").zip(factor("long_mscale"))) {
        (Some(long), Some((short, scale))) => {
            let inv_freq = rope.inv_freq.clone();
            let long = LongRope { after: long.after, inv_freq, scale: Some(scale as f32) };
            Ok(RopeSpec { scale: short as f32, long: Some(long), ..rope })
        }
        _ => Ok(rope),
    }
}

struct Phimoe;

impl Architecture for Phimoe {
    fn declaration(&self) -> Declaration {
        Declaration::llm("phimoe", &["phimoe"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = PhimoeConfig::parse(config)?;
        let spec = AttentionSpec::causal(c.head_dim).window(c.sliding_window);
        let layer = Layer { c: &c, rope: rope(config, c.head_dim)?, spec };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.layer_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Phimoe);
