//! Apertus by the Swiss AI Initiative, arXiv:2509.14233: Llama with head norms, and an MLP without a gate whose
//! activation xIELU has learned parameters. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct ApertusConfig {
        hidden_size: usize = 4096,
        intermediate_size: usize = 14_336,
        num_hidden_layers: usize = 32,
        num_attention_heads: usize = 32,
        num_key_value_heads: usize = num_attention_heads,
        head_dim: usize = hidden_size / num_attention_heads.max(1),
        hidden_act: String = "xielu".to_owned(),
        rms_norm_eps: f32 = 1e-5,
        vocab_size: usize = 131_072,
        tie_word_embeddings: bool = false,
    }
}

/// Where a file describes no rope, in either spelling.
const THETA: f64 = 12e6;

fn rope(config: &Config, head_dim: usize) -> Result<RopeSpec> {
    let config = config.max_positions(65_536);
    let described = |key| config.json()[key].is_object();
    if described("rope_scaling") || described("rope_parameters") {
        return config.rope(head_dim, THETA);
    }
    let mut json = config.json().clone();
    json["rope_parameters"] = json!({
        "rope_type": "llama3", "rope_theta": THETA, "factor": 8.0, "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    });
    Config::from(json).rope(head_dim, THETA)
}

struct Layer<'a> {
    c: &'a ApertusConfig,
    rope: RopeSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("attention_layernorm", x));
        h + self.mlp(&w.at("mlp"), norm("feedforward_layernorm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let norm = |name, x| w.rms_norm(name, head_dim, self.c.rms_norm_eps).forward(x);
        let queries = norm("q_norm", heads("q_proj", q)).rope(&self.rope);
        let keys = norm("k_norm", heads("k_proj", kv_size)).rope(&self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec::default());
        let seen = attention(queries, &cache, &AttentionSpec::causal(head_dim));
        w.linear("o_proj", [d, q]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let up = w.linear("up_proj", [ff, d]).forward(x);
        w.linear("down_proj", [d, ff]).forward(w.xielu("act_fn").forward(up))
    }
}

struct Apertus;

impl Architecture for Apertus {
    fn declaration(&self) -> Declaration {
        Declaration::llm("apertus", &["apertus"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let c = ApertusConfig::parse(config)?;
        if c.hidden_act != "xielu" {
            return Err(format!("config.json: hidden_act: expected xielu, found {}", c.hidden_act).into());
        }
        let layer = Layer { c: &c, rope: rope(config, c.head_dim)? };
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

register!(Apertus);
