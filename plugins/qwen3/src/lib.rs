//! Qwen3, arXiv:2505.09388: Qwen2 with a norm of each query and key head in place of the biases.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Qwen3Config {
        hidden_size: usize = 4096,
        intermediate_size: usize = 22_016,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 32; null = num_attention_heads,
        head_dim: usize = 128,
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 151_936,
        tie_word_embeddings: bool = false,
        use_sliding_window: bool = false,
        sliding_window: Option<usize> = Some(4096),
        max_window_layers: usize = 28,
        layer_types: Option<Vec<String>> = None,
        // Layers after which Qwen3-VL adds what its tower has made on the way, arXiv:2406.04334.
        deepstack_layers: usize = 0,
    }
}

impl Qwen3Config {
    /// The first layers see everything.
    fn window(&self, i: usize) -> Option<usize> {
        let slides = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == "sliding_attention"));
        let slides = slides.unwrap_or(i >= self.max_window_layers);
        self.sliding_window.filter(|_| self.use_sliding_window && slides)
    }
}

struct Layer<'a> {
    c: &'a Qwen3Config,
    rope: &'a RopeSpec,
    window: Option<usize>,
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
        let norm = |name, x| w.rms_norm(name, head_dim, self.c.rms_norm_eps).forward(x);
        let queries = norm("q_norm", heads("q_proj", q)).rope(self.rope);
        let keys = norm("k_norm", heads("k_proj", kv_size)).rope(self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.window });
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim).window(self.window));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Qwen3;

impl Architecture for Qwen3 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("qwen3", &["qwen3"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Qwen3Config::parse(config)?;
        let rope = config.max_positions(32_768).rope(c.head_dim, 10_000.0)?;
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = step.merge_embeddings(embed.forward(step.tokens()));
        for i in 0..c.num_hidden_layers {
            x = Layer { c: &c, rope: &rope, window: c.window(i) }.forward(&w.at("model.layers").at(i), x);
            if i < c.deepstack_layers {
                x = step.add_embeddings(x, i + 1);
            }
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Qwen3);
