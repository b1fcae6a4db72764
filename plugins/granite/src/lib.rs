//! Granite by IBM, arXiv:2405.04324 and later: Llama with a multiplier, as in arXiv:2203.03466, at the embedding, at the
//! branches, at the scores and at the logits. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct GraniteConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 11_008,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 32_000,
        tie_word_embeddings: bool = false,
        embedding_multiplier: f32 = 1.0,
        residual_multiplier: f32 = 1.0,
        attention_multiplier: f32 = 1.0,
        logits_scaling: f32 = 1.0,
    }
}

struct Layer<'a> {
    c: &'a GraniteConfig,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let branch = self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        let h = x + branch * self.c.residual_multiplier;
        h + self.mlp(&w.at("mlp"), norm("post_attention_layernorm", h)) * self.c.residual_multiplier
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(&self.rope);
        let keys = heads("k_proj", kv_size).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let spec = AttentionSpec { scale: self.c.attention_multiplier, ..AttentionSpec::causal(head_dim) };
        w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &spec).merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Granite;

impl Architecture for Granite {
    fn declaration(&self) -> Declaration {
        Declaration::llm("granite", &["granite"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = GraniteConfig::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(2048).rope(c.head_dim, 10_000.0)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens()) * c.embedding_multiplier;
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))) / c.logits_scaling)
    }
}

register!(Granite);
