//! Stable LM, arXiv:2402.17834: Llama with layer norms and a rope over a quarter of each head; in the 12B model every
//! head has a norm of its own, and attention and MLP stand side by side. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct StableLmConfig {
        hidden_size: usize = 2560,
        intermediate_size: usize = 6912,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 32,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        layer_norm_eps: f32 = 1e-5,
        vocab_size: usize = 50_304,
        tie_word_embeddings: bool = false,
        qk_layernorm: bool = false,
        use_parallel_residual: bool = false,
    }
}

struct Layer<'a> {
    c: &'a StableLmConfig,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.layer_norm(name, self.c.hidden_size, self.c.layer_norm_eps).forward(x);
        let n = norm("input_layernorm", x);
        let h = x + self.attention(&w.at("self_attn"), n);
        h + self.mlp(&w.at("mlp"), if self.c.use_parallel_residual { n } else { norm("post_attention_layernorm", h) })
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (heads, kv_heads) = (self.c.num_attention_heads, self.c.num_key_value_heads);
        let project = |name, heads| w.linear(name, [heads * head_dim, d]).forward(x).split_heads(head_dim);
        let prepare = |norm, x, heads| self.norm_heads(&w.at(norm).at("norms"), x, heads).rope(&self.rope);
        let q = prepare("q_layernorm", project("q_proj", heads), heads);
        let k = prepare("k_layernorm", project("k_proj", kv_heads), kv_heads);
        let cache = kv(k, project("v_proj", kv_heads), CacheSpec::default());
        let seen = attention(q, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, heads * head_dim]).forward(seen.merge_heads())
    }

    /// A norm with weights of its own for each head.
    fn norm_heads(&self, w: &Weights, x: Tensor, heads: usize) -> Tensor {
        if !self.c.qk_layernorm {
            return x;
        }
        let weights: Vec<Weight> = (0..heads).map(|i| w.at(i).tensor("weight", &[self.c.head_dim])).collect();
        LayerNorm { weight: Some(Weight::stack(&weights)), bias: None, eps: self.c.layer_norm_eps }.forward(x)
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct StableLm;

impl Architecture for StableLm {
    fn declaration(&self) -> Declaration {
        Declaration::llm("stablelm", &["stablelm"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = StableLmConfig::parse(config)?;
        let layer = Layer { c: &c, rope: config.max_positions(4096).partial_rope(c.head_dim, 10_000.0, 0.25)? };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.layer_norm("model.norm", c.hidden_size, c.layer_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(StableLm);
