//! OLMoE, arXiv:2409.02060: Llama with small experts, norms of queries and keys as wholes, and a clip.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct OlmoeConfig {
        hidden_size: usize = 2048,
        intermediate_size: usize = 2048,
        num_hidden_layers: usize = 16,
        num_attention_heads: usize = 16,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 50_304,
        tie_word_embeddings: bool = false,
        clip_qkv: Option<f32> = None,
        num_experts as "num_experts" | "num_local_experts": usize = 64,
        num_experts_per_tok: usize = 8,
        norm_topk_prob: bool = false,
    }
}

struct Layer<'a> {
    c: &'a OlmoeConfig,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        h + self.moe(&w.at("mlp"), norm("post_attention_layernorm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let linear = |name, size| w.linear(name, [size, d]).forward(x);
        // Over all heads together, before they are split.
        let norm = |name, size, x| w.rms_norm(name, size, self.c.rms_norm_eps).forward(x);
        let heads = |x: Tensor| {
            let clipped = self.c.clip_qkv.map_or(x, |most| x.clamp(Some(-most), Some(most)));
            clipped.split_heads(head_dim)
        };
        let queries = heads(norm("q_norm", q, linear("q_proj", q))).rope(&self.rope);
        let keys = heads(norm("k_norm", kv_size, linear("k_proj", kv_size))).rope(&self.rope);
        let cache = kv(keys, heads(linear("v_proj", kv_size)), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn moe(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff, n) = (self.c.hidden_size, self.c.intermediate_size, self.c.num_experts);
        let spec = RouteSpec::new(self.c.num_experts_per_tok, Scoring::Softmax).normalize(self.c.norm_topk_prob);
        let route = moe_route(x, &w.linear("gate", [n, d]), &spec);
        let experts = w.experts(n, [ff, d], ["gate_proj", "up_proj", "down_proj"]);
        moe_experts(x, route, &experts, self.c.hidden_act)
    }
}

struct Olmoe;

impl Architecture for Olmoe {
    fn declaration(&self) -> Declaration {
        Declaration::llm("olmoe", &["olmoe"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = OlmoeConfig::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(4096).rope(c.head_dim, 10_000.0)? };
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

register!(Olmoe);
