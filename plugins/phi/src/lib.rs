//! Phi-1 to Phi-2, arXiv:2309.05463: attention and MLP side by side after one layer norm, biases everywhere, a
//! rope over half of each head. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct PhiConfig {
        hidden_size: usize = 2048,
        intermediate_size: usize = 8192,
        num_hidden_layers: usize = 24,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::GeluTanh,
        layer_norm_eps: f32 = 1e-5,
        vocab_size: usize = 51_200,
        tie_word_embeddings: bool = false,
        qk_layernorm: bool = false,
    }
}

struct Layer<'a> {
    c: &'a PhiConfig,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let n = w.layer_norm("input_layernorm", self.c.hidden_size, self.c.layer_norm_eps).forward(x);
        self.attention(&w.at("self_attn"), n) + self.mlp(&w.at("mlp"), n) + x
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let prepare = |norm: &str, x: Tensor| {
            let norm = self.c.qk_layernorm.then(|| w.layer_norm(norm, head_dim, self.c.layer_norm_eps));
            norm.map_or(x, |norm| norm.forward(x)).rope(&self.rope)
        };
        let queries = prepare("q_layernorm", heads("q_proj", q));
        let keys = prepare("k_layernorm", heads("k_proj", kv_size));
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("dense", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        w.linear("fc2", [d, ff]).forward(w.linear("fc1", [ff, d]).forward(x).activation(self.c.hidden_act))
    }
}

struct Phi;

impl Architecture for Phi {
    fn declaration(&self) -> Declaration {
        Declaration::llm("phi", &["phi"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = PhiConfig::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(2048).partial_rope(c.head_dim, 10_000.0, 0.5)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.layer_norm("model.final_layernorm", c.hidden_size, c.layer_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Phi);
