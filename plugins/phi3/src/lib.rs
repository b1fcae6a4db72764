//! Phi-3, arXiv:2404.14219: Llama with fused projections, a window, and LongRoPE. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Phi3Config {
        hidden_size: usize = 3072,
        intermediate_size: usize = 8192,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 32_064,
        tie_word_embeddings: bool = false,
        sliding_window: Option<usize> = None,
    }
}

struct Layer<'a> {
    c: &'a Phi3Config,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        h + self.mlp(&w.at("mlp"), norm("post_attention_layernorm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let fused = w.linear("qkv_proj", [q + 2 * kv_size, d]).forward(x);
        let [queries, keys, values] = fused.split([q, kv_size, kv_size]).map(|x| x.split_heads(head_dim));
        let cache = kv(keys.rope(&self.rope), values, CacheSpec { window: self.c.sliding_window });
        let spec = AttentionSpec::causal(head_dim).window(self.c.sliding_window);
        let seen = attention(queries.rope(&self.rope), &cache, &spec);
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let [gate, up] = w.linear("gate_up_proj", [2 * ff, d]).forward(x).split([ff, ff]);
        w.linear("down_proj", [d, ff]).forward(gate.activation(self.c.hidden_act) * up)
    }
}

struct Phi3;

impl Architecture for Phi3 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("phi3", &["phi3"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Phi3Config::parse(config)?;
        let positions = json!({ "max_position_embeddings": 4096, "original_max_position_embeddings": 4096 });
        let config = config.clone().defaults(positions);
        let layer = Layer { c: &c, rope: config.rope(c.head_dim, 10_000.0)? };
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

register!(Phi3);
