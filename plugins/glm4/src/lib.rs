//! GLM-4-0414, after arXiv:2406.12793: norms on both sides of each branch, and a rope of adjacent pairs over half of
//! each head. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Glm4Config {
        hidden_size: usize = 4096,
        intermediate_size: usize = 13_696,
        num_hidden_layers: usize = 40,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 2,
        head_dim: usize = 128,
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1.5625e-7,
        vocab_size: usize = 151_552,
        tie_word_embeddings: bool = false,
    }
}

struct Layer<'a> {
    c: &'a Glm4Config,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let branch = self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        let h = x + norm("post_self_attn_layernorm", branch);
        let branch = self.mlp(&w.at("mlp"), norm("post_attention_layernorm", h));
        h + norm("post_mlp_layernorm", branch)
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(&self.rope);
        let keys = heads("k_proj", kv_size).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let [gate, up] = w.linear("gate_up_proj", [2 * ff, d]).forward(x).split([ff, ff]);
        w.linear("down_proj", [d, ff]).forward(gate.activation(self.c.hidden_act) * up)
    }
}

struct Glm4;

impl Architecture for Glm4 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("glm4", &["glm4"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Glm4Config::parse(config)?;
        let rope = config.max_positions(131_072).partial_rope(c.head_dim, 10_000.0, 0.5)?.pairing(Pairing::Adjacent);
        let layer = Layer { c: &c, rope };
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

register!(Glm4);
