//! DeepSeek-V2, arXiv:2405.04434, and DeepSeek-V3, arXiv:2412.19437: latent attention, and mixtures of many small
//! experts beside one that all tokens share. They differ in how a router chooses. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct DeepseekConfig {
        model_type: String,
        hidden_size: usize = 7168,
        intermediate_size: usize = 18_432,
        moe_intermediate_size: usize = 2048,
        num_hidden_layers: usize = 61,
        num_attention_heads: usize = 128,
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 129_280,
        tie_word_embeddings: bool = false,
        q_lora_rank: Option<usize> = Some(1536),
        kv_lora_rank: usize = 512,
        nope as "qk_nope_head_dim": usize = 128,
        rope as "qk_rope_head_dim": usize = 64,
        v_head_dim: usize = 128,
        rope_interleave: bool = true,
        n_routed_experts as "n_routed_experts" | "num_local_experts": usize = 256,
        n_shared_experts: Option<usize> = Some(1),
        num_experts_per_tok: usize = 8,
        first_k_dense_replace: usize = 3,
        norm_topk_prob: bool = true,
        routed_scaling_factor: f32 = 2.5,
        topk_method: String = "greedy".to_owned(),
        n_group: Option<usize> = Some(8),
        topk_group: Option<usize> = Some(4),
        num_nextn_predict_layers as "num_nextn_predict_layers" | "num_mtp_layers": usize = 0,
    }
}

impl DeepseekConfig {
    fn is_second(&self) -> bool {
        self.model_type == "deepseek_v2"
    }

    /// YaRN sharpens attention by the square of its magnitude, over all dimensions and not only those that rotate.
    fn scale(&self, config: &Config) -> f32 {
        let json = config.json();
        let rope = if json["rope_scaling"].is_object() { &json["rope_scaling"] } else { &json["rope_parameters"] };
        let number = |key: &str| rope[key].as_f64().unwrap_or(0.0);
        let is_plain = rope["rope_type"].as_str().or(rope["type"].as_str()).unwrap_or("default") == "default";
        let (by, factor) = (number("mscale_all_dim"), number("factor"));
        let magnitude = if is_plain || factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        ((self.nope + self.rope) as f64).powf(-0.5) as f32 * (magnitude * magnitude) as f32
    }

    fn route(&self, router: &Weights) -> RouteSpec {
        let (n, top_k, scale) = (self.n_routed_experts, self.num_experts_per_tok, self.routed_scaling_factor);
        let groups = |score, others| {
            self.n_group.zip(self.topk_group).map(|(count, keep)| Groups { count, keep, score, others })
        };
        if self.is_second() {
            let limited = groups(GroupScore::Max, Others::Zero).filter(|_| self.topk_method == "group_limited_greedy");
            return RouteSpec { scale, groups: limited, ..RouteSpec::new(top_k, Scoring::Softmax) };
        }
        RouteSpec {
            scale,
            eps: 1e-20,
            choice_bias: Some(router.tensor("e_score_correction_bias", &[n]).id()),
            groups: groups(GroupScore::Top2Sum, Others::NegInf),
            ..RouteSpec::new(top_k, Scoring::Sigmoid).normalize(self.norm_topk_prob)
        }
    }
}

struct Layer<'a> {
    c: &'a DeepseekConfig,
    rope: RopeSpec,
    spec: AttentionSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor, dense: bool) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        let (n, mlp) = (norm("post_attention_layernorm", h), w.at("mlp"));
        h + if dense { self.mlp(&mlp, self.c.intermediate_size, n) } else { self.mixture(&mlp, n) }
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (c, d, heads, rank) = (self.c, self.c.hidden_size, self.c.num_attention_heads, self.c.kv_lora_rank);
        // These norms have an epsilon of their own, whatever the configuration says.
        let norm = |name, x: Tensor| w.rms_norm(name, x.dim(-1), 1e-6).forward(x);
        let size = heads * (c.nope + c.rope);
        let q = match c.q_lora_rank {
            Some(r) => {
                let low = norm("q_a_layernorm", w.linear("q_a_proj", [r, d]).forward(x));
                w.linear("q_b_proj", [size, r]).forward(low)
            }
            None => w.linear("q_proj", [size, d]).forward(x),
        };
        let [q_nope, q_rope] = q.split_heads(c.nope + c.rope).split([c.nope, c.rope]);
        let [latent, k_rope] = w.linear("kv_a_proj_with_mqa", [rank + c.rope, d]).forward(x).split([rank, c.rope]);
        let k_rope = k_rope.split_heads(c.rope).rope(&self.rope).merge_heads();
        let expand = w.latent_heads(heads, [c.nope, c.v_head_dim], rank);
        let queries = [q_nope, q_rope.rope(&self.rope)];
        let seen = latent_attention(queries, [norm("kv_a_layernorm", latent), k_rope], &expand, &self.spec);
        w.linear("o_proj", [d, heads * c.v_head_dim]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, ff: usize, x: Tensor) -> Tensor {
        let d = self.c.hidden_size;
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }

    fn mixture(&self, w: &Weights, x: Tensor) -> Tensor {
        let (c, ff) = (self.c, self.c.moe_intermediate_size);
        let router = w.linear("gate", [c.n_routed_experts, c.hidden_size]);
        let route = moe_route(x, &router, &c.route(&w.at("gate")));
        let names = ["gate_proj", "up_proj", "down_proj"];
        let experts = w.experts(c.n_routed_experts, [ff, c.hidden_size], names);
        let routed = moe_experts(x, route, &experts, c.hidden_act);
        let shared = c.n_shared_experts.filter(|n| *n > 0);
        shared.map_or(routed, |n| routed + self.mlp(&w.at("shared_experts"), ff * n, x))
    }
}

struct Deepseek;

impl Architecture for Deepseek {
    fn declaration(&self) -> Declaration {
        Declaration::llm("deepseek", &["deepseek_v2", "deepseek_v3"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        // Where DeepSeek-V2's configuration class has other defaults.
        let other = json!({
            "hidden_size": 4096, "intermediate_size": 11_008, "moe_intermediate_size": 1407, "num_hidden_layers": 32,
            "num_attention_heads": 32, "vocab_size": 102_400, "n_routed_experts": 64, "n_shared_experts": 2,
            "first_k_dense_replace": 0, "routed_scaling_factor": 1.0, "n_group": null, "topk_group": null,
            "max_position_embeddings": 2048,
        });
        let config = &config.clone().defaults(if config.model_type() == "deepseek_v2" { other } else { json!({}) });
        let c = DeepseekConfig::parse(config)?;
        let pairing = if c.rope_interleave || c.is_second() { Pairing::Adjacent } else { Pairing::Half };
        let rope = config.max_positions(4096).rope(c.rope, 10_000.0)?.pairing(pairing);
        let spec = AttentionSpec { scale: c.scale(config), ..AttentionSpec::causal(c.nope + c.rope) };
        let layer = Layer { c: &c, rope, spec };
        let (shape, layers) = ([c.vocab_size, c.hidden_size], w.at("model.layers"));
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&layers.at(i), x, i < c.first_k_dense_replace);
        }
        // Layers that predict further tokens.
        (0..c.num_nextn_predict_layers).for_each(|i| layers.ignore(&format!("{}.*", c.num_hidden_layers + i)));
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Deepseek);
