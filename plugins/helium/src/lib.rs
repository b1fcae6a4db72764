//! Helium 1 by Kyutai: Llama with a rope of adjacent pairs, as arXiv:2104.09864 has it.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct HeliumConfig {
        hidden_size: usize = 2560,
        intermediate_size: usize = 7040,
        num_hidden_layers: usize = 24,
        num_attention_heads: usize = 20,
        num_key_value_heads: usize = 20,
        head_dim: usize = 128,
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-8,
        vocab_size: usize = 48_000,
        tie_word_embeddings: bool = false,
    }
}

struct Layer<'a> {
    c: &'a HeliumConfig,
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
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(&self.rope);
        let keys = heads("k_proj", kv_size).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Helium;

impl Architecture for Helium {
    fn declaration(&self) -> Declaration {
        Declaration::llm("helium", &["helium"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = HeliumConfig::parse(config)?;
        let rope = config.max_positions(4096).rope(c.head_dim, 100_000.0)?.pairing(Pairing::Adjacent);
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

register!(Helium);
