//! Gemma, arXiv:2403.08295, and Gemma 2, arXiv:2408.00118, which adds norms after both branches, caps
//! on logits, and a window in every other layer. `x` is [tokens, hidden].

use tamarack_api::*;

config! {
    struct GemmaConfig {
        model_type: String,
        hidden_size: usize = 3072,
        intermediate_size: usize = 24_576,
        num_hidden_layers: usize = 28,
        num_attention_heads: usize = 16,
        num_key_value_heads: usize = 16,
        head_dim: usize = 256,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 256_000,
        tie_word_embeddings: bool = true,
        query_pre_attn_scalar: f32 = 256.0,
        sliding_window: Option<usize> = Some(4096),
        layer_types: Option<Vec<String>> = None,
        attn_logit_softcapping: Option<f32> = Some(50.0),
        final_logit_softcapping: Option<f32> = Some(30.0),
        use_bidirectional_attention: Option<bool> = None,
    }
}

config! { struct GemmaAct { hidden_act: Activation = Activation::GeluTanh } }
config! { struct Gemma2Act { hidden_activation: Activation = Activation::GeluTanh } }

impl GemmaConfig {
    fn is_second(&self) -> bool {
        self.model_type == "gemma2"
    }

    /// Each class reads a field of its own. Gemma's files say "gelu" and mean the approximation (configuration_gemma.py).
    fn activation(&self, config: &Config) -> Result<Activation> {
        if self.is_second() {
            return Ok(Gemma2Act::parse(config)?.hidden_activation);
        }
        match config.json()["hidden_act"] == "gelu" {
            true => Ok(Activation::GeluTanh),
            false => Ok(GemmaAct::parse(config)?.hidden_act),
        }
    }

    /// Gemma's own configuration class has none of what is Gemma 2's, whatever a file says.
    fn attention(&self, i: usize) -> AttentionSpec {
        let plain = AttentionSpec::causal(self.head_dim);
        if !self.is_second() {
            return plain;
        }
        let slides = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == "sliding_attention"));
        let window = self.sliding_window.filter(|_| slides.unwrap_or(i.is_multiple_of(2)));
        AttentionSpec {
            scale: self.query_pre_attn_scalar.powf(-0.5),
            window,
            softcap: self.attn_logit_softcapping,
            ..plain
        }
    }
}

struct Layer<'a> {
    c: &'a GemmaConfig,
    rope: &'a RopeSpec,
    spec: AttentionSpec,
    act: Activation,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, self.c.rms_norm_eps).plus_one().forward(x);
        let branch = self.attention(&w.at("self_attn"), norm("input_layernorm", x));
        if !self.c.is_second() {
            let h = x + branch;
            return h + self.mlp(&w.at("mlp"), norm("post_attention_layernorm", h));
        }
        let h = x + norm("post_attention_layernorm", branch);
        let branch = self.mlp(&w.at("mlp"), norm("pre_feedforward_layernorm", h));
        h + norm("post_feedforward_layernorm", branch)
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = heads("q_proj", q).rope(self.rope);
        let keys = heads("k_proj", kv_size).rope(self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.spec.window });
        w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &self.spec).merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Gemma;

impl Architecture for Gemma {
    fn declaration(&self) -> Declaration {
        Declaration::llm("gemma", &["gemma", "gemma2"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        // Where Gemma 2's configuration class has other defaults.
        let other = json!({
            "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
            "num_key_value_heads": 4,
        });
        let config = &config.clone().defaults(if config.model_type() == "gemma2" { other } else { json!({}) });
        let c = GemmaConfig::parse(config)?;
        if c.use_bidirectional_attention == Some(true) {
            return Err("config.json: use_bidirectional_attention: expected false, a model that generates".into());
        }
        let (rope, act) = (config.max_positions(8192).rope(c.head_dim, 10_000.0)?, c.activation(config)?);
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("model.embed_tokens", shape);
        let mut x = step.merge_embeddings(embed.forward(step.tokens()) * (c.hidden_size as f32).sqrt());
        for i in 0..c.num_hidden_layers {
            x = Layer { c: &c, rope: &rope, spec: c.attention(i), act }.forward(&w.at("model.layers").at(i), x);
        }
        w.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("model.norm", c.hidden_size, c.rms_norm_eps).plus_one();
        let logits = w.head("lm_head", &embed, c.tie_word_embeddings, shape).forward(norm.forward(step.outputs(x)));
        Ok(match c.final_logit_softcapping.filter(|_| c.is_second()) {
            Some(cap) => logits.softcap(cap),
            None => logits,
        })
    }
}

register!(Gemma);
