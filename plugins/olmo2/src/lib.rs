//! OLMo 2, arXiv:2501.00656: norms after the branches instead of before them, and of queries and keys
//! as wholes. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Olmo2Config {
        hidden_size: usize = 4096,
        intermediate_size: usize = 11_008,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 50_304,
        tie_word_embeddings: bool = false,
    }
}

struct Layer<'a> {
    c: &'a Olmo2Config,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + norm("post_attention_layernorm", self.attention(&w.at("self_attn"), x));
        h + norm("post_feedforward_layernorm", self.mlp(&w.at("mlp"), h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let linear = |name, size| w.linear(name, [size, d]).forward(x);
        // Over all heads together, before they are split.
        let norm = |name, size, x| w.rms_norm(name, size, self.c.rms_norm_eps).forward(x).split_heads(head_dim);
        let queries = norm("q_norm", q, linear("q_proj", q)).rope(&self.rope);
        let keys = norm("k_norm", kv_size, linear("k_proj", kv_size)).rope(&self.rope);
        let cache = kv(keys, linear("v_proj", kv_size).split_heads(head_dim), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Olmo2;

impl Architecture for Olmo2 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("olmo2", &["olmo2"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Olmo2Config::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(2048).rope(c.head_dim, 10_000.0)? };
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

register!(Olmo2);
