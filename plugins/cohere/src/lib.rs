//! Command R and Command R7B by Cohere: attention and MLP side by side after one layer norm, and a rope of adjacent
//! pairs, which in Command R7B (`cohere2`) only the windowed layers have. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct CohereConfig {
        model_type: String,
        hidden_size: usize = 8192,
        intermediate_size: usize = 22_528,
        num_hidden_layers: usize = 40,
        num_attention_heads: usize = 64,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: Activation = Activation::Silu,
        layer_norm_eps: f32 = 1e-5,
        vocab_size: usize = 256_000,
        tie_word_embeddings: bool = true,
        use_qk_norm: bool = false,
        logit_scale: f32 = 0.0625,
        sliding_window: Option<usize> = Some(4096),
        sliding_window_pattern: usize = 4,
        layer_types: Option<Vec<String>> = None,
    }
}

impl CohereConfig {
    fn is_second(&self) -> bool {
        self.model_type == "cohere2"
    }

    fn slides(&self, i: usize) -> bool {
        let said = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == "sliding_attention"));
        self.is_second() && said.unwrap_or(!(i + 1).is_multiple_of(self.sliding_window_pattern.max(1)))
    }
}

struct Layer<'a> {
    c: &'a CohereConfig,
    rope: Option<&'a RopeSpec>,
    window: Option<usize>,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let n = w.layer_norm("input_layernorm", self.c.hidden_size, self.c.layer_norm_eps).forward(x);
        x + self.attention(&w.at("self_attn"), n) + self.mlp(&w.at("mlp"), n)
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let prepare = |norm: &str, x: Tensor| {
            let x = if self.c.use_qk_norm && !self.c.is_second() { self.head_norm(&w.at(norm), x) } else { x };
            self.rope.map_or(x, |rope| x.rope(rope))
        };
        let queries = prepare("q_norm", heads("q_proj", q));
        let keys = prepare("k_norm", heads("k_proj", kv_size));
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.window });
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim).window(self.window));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    /// Every head has a weight of its own.
    fn head_norm(&self, w: &Weights, x: Tensor) -> Tensor {
        let weight = w.tensor("weight", &[x.dim(1), x.dim(2)]);
        LayerNorm { weight: Some(weight), bias: None, eps: self.c.layer_norm_eps }.forward(x)
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Cohere;

impl Architecture for Cohere {
    fn declaration(&self) -> Declaration {
        Declaration::llm("cohere", &["cohere", "cohere2"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = CohereConfig::parse(config)?;
        let theta = if c.is_second() { 10_000.0 } else { 500_000.0 };
        let rope = config.max_positions(8192).rope(c.head_dim, theta)?.pairing(Pairing::Adjacent);
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        for i in 0..c.num_hidden_layers {
            let rope = (c.slides(i) || !c.is_second()).then_some(&rope);
            let layer = Layer { c: &c, rope, window: c.sliding_window.filter(|_| c.slides(i)) };
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.layer_norm("model.norm", c.hidden_size, c.layer_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))) * c.logit_scale)
    }
}

register!(Cohere);
