//! Seed-OSS by ByteDance: Llama with biased queries, keys and values and wide heads.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct SeedOssConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 27_648,
        num_hidden_layers: usize = 64,
        num_attention_heads: usize = 80,
        num_key_value_heads: usize = 8; null = num_attention_heads,
        head_dim: usize = 128; null = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 155_136,
        tie_word_embeddings: bool = false,
    }
}

struct Layer<'a> {
    c: &'a SeedOssConfig,
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

struct SeedOss;

impl Architecture for SeedOss {
    fn declaration(&self) -> Declaration {
        Declaration::llm("seed_oss", &["seed_oss"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = SeedOssConfig::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(524_288).rope(c.head_dim, 10_000.0)? };
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

register!(SeedOss);
