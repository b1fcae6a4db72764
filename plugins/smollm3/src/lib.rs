//! SmolLM3 by Hugging Face: Llama without a rope in every fourth layer, as in arXiv:2501.18795.
//! `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct SmolLm3Config {
        hidden_size: usize = 2048,
        intermediate_size: usize = 11_008,
        num_hidden_layers: usize = 36,
        num_attention_heads: usize = 16,
        num_key_value_heads: usize = 4; null = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 128_256,
        tie_word_embeddings: bool = true,
        no_rope_layer_interval: usize = 4,
        // 1 where a layer does have one.
        no_rope_layers: Option<Vec<u8>> = None,
        use_sliding_window: bool = false,
        sliding_window: Option<usize> = None,
        layer_types: Option<Vec<String>> = None,
    }
}

impl SmolLm3Config {
    fn has_rope(&self, i: usize) -> bool {
        let said = self.no_rope_layers.as_ref().map(|layers| layers.get(i).is_some_and(|n| *n != 0));
        said.unwrap_or(!(i + 1).is_multiple_of(self.no_rope_layer_interval.max(1)))
    }

    fn window(&self, i: usize) -> Option<usize> {
        let slides = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == "sliding_attention"));
        let slides = slides.unwrap_or(!self.has_rope(i));
        self.sliding_window.filter(|_| self.use_sliding_window && slides)
    }
}

struct Layer<'a> {
    c: &'a SmolLm3Config,
    rope: Option<&'a RopeSpec>,
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
        let rope = |x: Tensor| self.rope.map_or(x, |rope| x.rope(rope));
        let queries = rope(heads("q_proj", q));
        let keys = rope(heads("k_proj", kv_size));
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

struct SmolLm3;

impl Architecture for SmolLm3 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("smollm3", &["smollm3"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = SmolLm3Config::parse(config)?;
        let rope = config.max_positions(32_768).rope(c.head_dim, 2e6)?;
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            let layer = Layer { c: &c, rope: c.has_rope(i).then_some(&rope), window: c.window(i) };
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(SmolLm3);
