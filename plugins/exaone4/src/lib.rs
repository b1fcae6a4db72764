//! EXAONE 4.0, arXiv:2507.11407: norms after the branches and of each query and key head; where some
//! layers have a window, only those have a rope. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct Exaone4Config {
        hidden_size: usize = 4096,
        intermediate_size: usize = 16_384,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = 32,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 102_400,
        tie_word_embeddings: bool = false,
        sliding_window: Option<usize> = Some(4096),
        layer_types: Option<Vec<String>> = None,
    }
}

impl Exaone4Config {
    /// All layers have a window but the last of each period, or those with an L in a pattern like "LLLG".
    fn window(&self, config: &Config, i: usize) -> Option<usize> {
        let pattern = &config.json()["sliding_window_pattern"];
        let slides = match (&self.layer_types, pattern.as_str()) {
            (Some(types), _) => types.get(i).is_some_and(|t| t == "sliding_attention"),
            (None, Some(letters)) => letters.as_bytes().get(i % letters.len().max(1)) == Some(&b'L'),
            (None, None) => !(i + 1).is_multiple_of(pattern.as_u64().map_or(4, |n| n as usize)),
        };
        self.sliding_window.filter(|_| slides)
    }
}

struct Layer<'a> {
    c: &'a Exaone4Config,
    rope: Option<&'a RopeSpec>,
    window: Option<usize>,
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
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let norm = |name, x| w.rms_norm(name, head_dim, self.c.rms_norm_eps).forward(x);
        let rope = |x: Tensor| self.rope.map_or(x, |rope| x.rope(rope));
        let queries = rope(norm("q_norm", heads("q_proj", q)));
        let keys = rope(norm("k_norm", heads("k_proj", kv_size)));
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

struct Exaone4;

impl Architecture for Exaone4 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("exaone4", &["exaone4"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = Exaone4Config::parse(config)?;
        let rope = config.max_positions(2048).rope(c.head_dim, 10_000.0)?;
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            let window = c.window(config, i);
            let rope = (window.is_some() || c.sliding_window.is_none()).then_some(&rope);
            x = Layer { c: &c, rope, window }.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(Exaone4);
