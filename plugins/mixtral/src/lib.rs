//! Mixtral, arXiv:2401.04088: Mistral with several MLPs in each layer, of which every token takes two.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct MixtralConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 14_336,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 8; null = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 32_000,
        tie_word_embeddings: bool = false,
        sliding_window: Option<usize> = None,
        num_local_experts as "num_local_experts" | "num_experts": usize = 8,
        num_experts_per_tok: usize = 2,
    }
}

struct Layer<'a> {
    c: &'a MixtralConfig,
    rope: RopeSpec,
    spec: AttentionSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
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
        let spec = RouteSpec::new(self.c.num_experts_per_tok, Scoring::Softmax).normalize(true);
        let route = moe_route(x, &w.linear("gate", [n, d]), &spec);
        moe_experts(x, route, &w.experts(n, [ff, d], ["w1", "w3", "w2"]), self.c.hidden_act)
    }
}

struct Mixtral;

impl Architecture for Mixtral {
    fn declaration(&self) -> Declaration {
        Declaration::llm("mixtral", &["mixtral"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = MixtralConfig::parse(config)?;
        let spec = AttentionSpec::causal(c.head_dim).window(c.sliding_window);
        let layer = Layer { c: &c, rope: config.max_positions(131_072).rope(c.head_dim, 1e6)?, spec };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Mixtral);
