//! Qwen1.5-MoE and Qwen2-MoE, arXiv:2407.10671: Qwen2 with many small experts, and one that every token takes
//! beside them. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Qwen2MoeConfig {
        hidden_size: usize = 2048,
        intermediate_size: usize = 5632,
        num_hidden_layers: usize = 24,
        num_attention_heads: usize = 16,
        num_key_value_heads: usize = 16,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 151_936,
        tie_word_embeddings: bool = false,
        use_sliding_window: bool = false,
        sliding_window: Option<usize> = Some(4096),
        max_window_layers: usize = 28,
        layer_types: Option<Vec<String>> = None,
        num_experts as "num_experts" | "num_local_experts": usize = 60,
        num_experts_per_tok: usize = 4,
        norm_topk_prob: bool = false,
        moe_intermediate_size: usize = 1408,
        shared_expert_intermediate_size: usize = 5632,
        decoder_sparse_step: usize = 1,
        mlp_only_layers: Option<Vec<usize>> = None,
    }
}

impl Qwen2MoeConfig {
    /// Every other one of the first layers has a window.
    fn window(&self, i: usize) -> Option<usize> {
        let slides = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == "sliding_attention"));
        let slides = slides.unwrap_or(i.is_multiple_of(2) && i < self.max_window_layers);
        self.sliding_window.filter(|_| self.use_sliding_window && slides)
    }

    fn has_experts(&self, i: usize) -> bool {
        let dense = self.mlp_only_layers.as_ref().is_some_and(|layers| layers.contains(&i));
        !dense && self.num_experts > 0 && (i + 1).is_multiple_of(self.decoder_sparse_step)
    }
}

struct Layer<'a> {
    c: &'a Qwen2MoeConfig,
    rope: &'a RopeSpec,
    window: Option<usize>,
    has_experts: bool,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        let (w, n) = (w.at("mlp"), norm("post_attention_layernorm", h));
        h + if self.has_experts { self.moe(&w, n) } else { self.mlp(&w, n, self.c.intermediate_size) }
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(self.rope);
        let keys = heads("k_proj", kv_size).rope(self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.window });
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim).window(self.window));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor, ff: usize) -> Tensor {
        let d = self.c.hidden_size;
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }

    fn moe(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff, n) = (self.c.hidden_size, self.c.moe_intermediate_size, self.c.num_experts);
        let spec = RouteSpec::new(self.c.num_experts_per_tok, Scoring::Softmax).normalize(self.c.norm_topk_prob);
        let route = moe_route(x, &w.linear("gate", [n, d]), &spec);
        let experts = w.experts(n, [ff, d], ["gate_proj", "up_proj", "down_proj"]);
        let shared = self.mlp(&w.at("shared_expert"), x, self.c.shared_expert_intermediate_size);
        let share = w.linear("shared_expert_gate", [1, d]).forward(x).sigmoid();
        moe_experts(x, route, &experts, self.c.hidden_act) + shared * share
    }
}

struct Qwen2Moe;

impl Architecture for Qwen2Moe {
    fn declaration(&self) -> Declaration {
        Declaration::llm("qwen2_moe", &["qwen2_moe"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Qwen2MoeConfig::parse(config)?;
        let rope = config.max_positions(32_768).rope(c.head_dim, 10_000.0)?;
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            let layer = Layer { c: &c, rope: &rope, window: c.window(i), has_experts: c.has_experts(i) };
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Qwen2Moe);
