//! Llama, arXiv:2302.13971, and Mistral, arXiv:2310.06825, which adds a sliding window.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct LlamaConfig {
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
        sliding_window: Option<usize> = Some(4096),
    }
}

struct Layer<'a> {
    c: &'a LlamaConfig,
    rope: RopeSpec,
    spec: AttentionSpec,
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
        let cache = kv(heads("k_proj", kv_size).rope(&self.rope), heads("v_proj", kv_size), self.cache());
        w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &self.spec).merge_heads())
    }

    fn cache(&self) -> CacheSpec {
        CacheSpec { window: self.spec.window }
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Llama;

impl Architecture for Llama {
    fn declaration(&self) -> Declaration {
        Declaration::llm("llama", &["llama", "mistral"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let is_mistral = config.model_type() == "mistral";
        // Where Mistral's configuration class has other defaults.
        let other =
            json!({ "intermediate_size": 14_336, "num_key_value_heads": 8, "max_position_embeddings": 131_072 });
        let config = config.clone().defaults(if is_mistral { other } else { json!({}) });
        let c = LlamaConfig::parse(&config)?;
        // Llama's own configuration class has no window, whatever a file says.
        let window = c.sliding_window.filter(|_| is_mistral);
        let spec = AttentionSpec::causal(c.head_dim).window(window);
        let layer = Layer { c: &c, rope: config.max_positions(2048).rope(c.head_dim, 10_000.0)?, spec };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = step.merge_embeddings(embed.forward(step.tokens()));
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Llama);
