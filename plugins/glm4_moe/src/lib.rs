//! GLM-4.5, arXiv:2508.06471: routed experts as in DeepSeek-V3, a shared expert beside them, half of each head
//! rotated. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Glm4MoeConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 10_944,
        num_hidden_layers: usize = 46,
        num_attention_heads: usize = 96,
        num_key_value_heads: usize = 8,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 151_552,
        tie_word_embeddings: bool = false,
        use_qk_norm: bool = false,
        first_k_dense_replace: usize = 1,
        n_routed_experts as "n_routed_experts" | "num_local_experts": usize = 128,
        n_shared_experts: usize = 1,
        moe_intermediate_size: usize = 1408,
        num_experts_per_tok: usize = 8,
        norm_topk_prob: bool = true,
        routed_scaling_factor: f32 = 1.0,
        n_group: usize = 1,
        topk_group: usize = 1,
    }
}

struct Layer<'a> {
    c: &'a Glm4MoeConfig,
    rope: &'a RopeSpec,
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
        let prepare = |norm: &str, x: Tensor| {
            let norm = self.c.use_qk_norm.then(|| w.rms_norm(norm, head_dim, self.c.rms_norm_eps));
            norm.map_or(x, |norm| norm.forward(x)).rope(self.rope)
        };
        let queries = prepare("q_norm", heads("q_proj", q));
        let keys = prepare("k_norm", heads("k_proj", kv_size));
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor, ff: usize) -> Tensor {
        let d = self.c.hidden_size;
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }

    fn moe(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff, n) = (self.c.hidden_size, self.c.moe_intermediate_size, self.c.n_routed_experts);
        let spec = RouteSpec {
            normalize: self.c.norm_topk_prob,
            eps: 1e-20,
            scale: self.c.routed_scaling_factor,
            choice_bias: Some(w.at("gate").tensor("e_score_correction_bias", &[n]).id()),
            groups: Some(Groups {
                count: self.c.n_group,
                keep: self.c.topk_group,
                score: GroupScore::Top2Sum,
                others: Others::NegInf,
            }),
            ..RouteSpec::new(self.c.num_experts_per_tok, Scoring::Sigmoid)
        };
        let route = moe_route(x, &w.linear("gate", [n, d]), &spec);
        let experts = w.experts(n, [ff, d], ["gate_proj", "up_proj", "down_proj"]);
        let shared = self.mlp(&w.at("shared_experts"), x, ff * self.c.n_shared_experts);
        moe_experts(x, route, &experts, self.c.hidden_act) + shared
    }
}

struct Glm4Moe;

impl Architecture for Glm4Moe {
    fn declaration(&self) -> Declaration {
        Declaration::llm("glm4_moe", &["glm4_moe"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Glm4MoeConfig::parse(config)?;
        let rope = config.max_positions(131_072).partial_rope(c.head_dim, 10_000.0, 0.5)?;
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            let layer = Layer { c: &c, rope: &rope, has_experts: i >= c.first_k_dense_replace };
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        // What predicts further tokens.
        w.ignore(&format!("model.layers.{}.*", c.num_hidden_layers));
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Glm4Moe);
