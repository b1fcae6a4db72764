//! Qwen3's mixtures of experts, arXiv:2505.09388: Qwen3 with many small experts. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Qwen3MoeConfig {
        hidden_size: usize = 2048,
        intermediate_size: usize = 6144,
        num_hidden_layers: usize = 24,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 4,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 151_936,
        tie_word_embeddings: bool = false,
        use_sliding_window: bool = false,
        sliding_window: Option<usize> = Some(4096),
        num_experts as "num_experts" | "num_local_experts": usize = 128,
        num_experts_per_tok: usize = 8,
        norm_topk_prob: bool = false,
        moe_intermediate_size: usize = 768,
        decoder_sparse_step: usize = 1,
        mlp_only_layers: Option<Vec<usize>> = None,
    }
}

impl Qwen3MoeConfig {
    fn has_experts(&self, i: usize) -> bool {
        let dense = self.mlp_only_layers.as_ref().is_some_and(|layers| layers.contains(&i));
        !dense && self.num_experts > 0 && (i + 1).is_multiple_of(self.decoder_sparse_step)
    }
}

struct Layer<'a> {
    c: &'a Qwen3MoeConfig,
    rope: &'a RopeSpec,
    window: Option<usize>,
    has_experts: bool,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        let (w, n) = (w.at("mlp"), norm("post_attention_layernorm", h));
        h + if self.has_experts { self.moe(&w, n) } else { self.mlp(&w, n) }
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let norm = |name, x| w.rms_norm(name, head_dim, self.c.rms_norm_eps).forward(x);
        let queries = norm("q_norm", heads("q_proj", q)).rope(self.rope);
        let keys = norm("k_norm", heads("k_proj", kv_size)).rope(self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.window });
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim).window(self.window));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }

    fn moe(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff, n) = (self.c.hidden_size, self.c.moe_intermediate_size, self.c.num_experts);
        let spec = RouteSpec::new(self.c.num_experts_per_tok, Scoring::Softmax).normalize(self.c.norm_topk_prob);
        let route = moe_route(x, &w.linear("gate", [n, d]), &spec);
        let experts = w.experts(n, [ff, d], ["gate_proj", "up_proj", "down_proj"]);
        moe_experts(x, route, &experts, self.c.hidden_act)
    }
}

struct Qwen3Moe;

impl Architecture for Qwen3Moe {
    fn declaration(&self) -> Declaration {
        Declaration::llm("qwen3_moe", &["qwen3_moe"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Qwen3MoeConfig::parse(config)?;
        let rope = config.max_positions(32_768).rope(c.head_dim, 10_000.0)?;
        let window = c.sliding_window.filter(|_| c.use_sliding_window);
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            let layer = Layer { c: &c, rope: &rope, window, has_experts: c.has_experts(i) };
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Qwen3Moe);
