//! gpt-oss, arXiv:2508.10925: experts with biases, a logit in each head that takes attention away, and a window
//! in every other layer. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct GptOssConfig {
        hidden_size: usize = 2880,
        intermediate_size: usize = 2880,
        num_hidden_layers: usize = 36,
        num_attention_heads: usize = 64,
        num_key_value_heads: usize = 8; null = num_attention_heads,
        head_dim: usize = 64; null = hidden_size / num_attention_heads.max(1),
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 201_088,
        tie_word_embeddings: bool = false,
        sliding_window: Option<usize> = Some(128),
        layer_types: Option<Vec<String>> = None,
        num_local_experts as "num_local_experts" | "num_experts": usize = 128,
        num_experts_per_tok as "num_experts_per_tok" | "experts_per_token": usize = 4,
        swiglu_alpha: f32 = 1.702,
        swiglu_limit: f32 = 7.0,
    }
}

impl GptOssConfig {
    fn window(&self, i: usize) -> Option<usize> {
        let slides = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == "sliding_attention"));
        self.sliding_window.filter(|_| slides.unwrap_or(i.is_multiple_of(2)))
    }
}

struct Layer<'a> {
    c: &'a GptOssConfig,
    rope: &'a RopeSpec,
    window: Option<usize>,
    is_packed: bool,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        h + self.moe(&w.at("mlp"), norm("post_attention_layernorm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(self.rope);
        let keys = heads("k_proj", kv_size).rope(self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.window });
        let sinks = Some(w.tensor("sinks", &[self.c.num_attention_heads]).id());
        let spec = AttentionSpec { sinks, ..AttentionSpec::causal(head_dim).window(self.window) };
        w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &spec).merge_heads())
    }

    fn moe(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, n) = (self.c.hidden_size, self.c.num_local_experts);
        let spec = RouteSpec::new(self.c.num_experts_per_tok, Scoring::SoftmaxAfterTopK);
        let route = moe_route(x, &w.linear("router", [n, d]), &spec);
        let gate = Gate::OaiSwiglu { alpha: self.c.swiglu_alpha, limit: self.c.swiglu_limit };
        let (experts, interleaved) = self.experts(&w.at("experts"));
        moe_experts(x, route, &experts, ExpertSpec { gate, interleaved })
    }

    /// The experts, and whether rows of gate and up alternate.
    fn experts(&self, w: &Weights) -> (Experts, bool) {
        let (d, ff, n) = (self.c.hidden_size, self.c.intermediate_size, self.c.num_local_experts);
        if w.has("gate_proj.weight") {
            return (w.stacked_experts(n, [ff, d]), false);
        }
        // Quantized matrices lie as products take them, others the other way round.
        let matrix = |name, rows, cols| match self.is_packed {
            true => w.tensor(name, &[n, rows, cols]),
            false => w.tensor(name, &[n, cols, rows]).transpose(),
        };
        let experts = Experts {
            gate_up: matrix("gate_up_proj", 2 * ff, d),
            down: matrix("down_proj", d, ff),
            gate_up_bias: Some(w.tensor("gate_up_proj_bias", &[n, 2 * ff])),
            down_bias: Some(w.tensor("down_proj_bias", &[n, d])),
        };
        (experts, true)
    }
}

/// The rope of files that say nothing about it.
fn rope(config: &Config, head_dim: usize) -> Result<RopeSpec> {
    let mut json = config.json().clone();
    if !json["rope_scaling"].is_object() && !json["rope_parameters"].is_object() {
        let yarn = r#"{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096}"#;
        json["rope_scaling"] = yarn.parse().unwrap_or_default();
    }
    Config::from(json).max_positions(131_072).rope(head_dim, 150_000.0)
}

struct GptOss;

impl Architecture for GptOss {
    fn declaration(&self) -> Declaration {
        Declaration::llm("gpt_oss", &["gpt_oss"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = GptOssConfig::parse(config)?;
        let rope = rope(config, c.head_dim)?;
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = embed.forward(step.tokens());
        let is_packed = config.json()["quantization_config"]["quant_method"] == "mxfp4";
        for i in 0..c.num_hidden_layers {
            let layer = Layer { c: &c, rope: &rope, window: c.window(i), is_packed };
            x = layer.forward(&w.at("model.layers").at(i), x);
        }
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps);
        let head = w.head("lm_head", &embed, c.tie_word_embeddings, shape);
        Ok(head.forward(norm.forward(step.outputs(x))))
    }
}

register!(GptOss);
