//! StarCoder 2, arXiv:2402.19173: layer norms, biases everywhere, an MLP without a gate, a window.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct StarCoder2Config {
        hidden_size: usize = 3072,
        intermediate_size: usize = 12_288,
        num_hidden_layers: usize = 30,
        num_attention_heads: usize = 24,
        num_key_value_heads: usize = 2,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::GeluTanh,
        norm_epsilon: f32 = 1e-5,
        vocab_size: usize = 49_152,
        tie_word_embeddings: bool = true,
        sliding_window: Option<usize> = None,
    }
}

struct Layer<'a> {
    c: &'a StarCoder2Config,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.layer_norm(name, self.c.hidden_size, self.c.norm_epsilon).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        h + self.mlp(&w.at("mlp"), norm("post_attention_layernorm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(&self.rope);
        let keys = heads("k_proj", kv_size).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.c.sliding_window });
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim).window(self.c.sliding_window));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        w.linear("c_proj", [d, ff]).forward(w.linear("c_fc", [ff, d]).forward(x).activation(self.c.hidden_act))
    }
}

struct StarCoder2;

impl Architecture for StarCoder2 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("starcoder2", &["starcoder2"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = StarCoder2Config::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(4096).rope(c.head_dim, 10_000.0)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.layer_norm("model.norm", c.hidden_size, c.norm_epsilon);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(StarCoder2);
