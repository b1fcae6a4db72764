//! Gemma 3, arXiv:2503.19786, the text model: Gemma 2 with head norms instead of the cap on attention,
//! and a rope of its own in windowed layers. `x` is [tokens, hidden].

mod vision;

use tamarack_api::*;

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

// Files of vision-language models leave out most fields: these are the configuration class's values.
config! {
    struct Gemma3Config {
        hidden_size: usize = 2304,
        intermediate_size: usize = 9216,
        num_hidden_layers: usize = 26,
        num_attention_heads: usize = 8,
        num_key_value_heads: usize = 4,
        head_dim: usize = 256,
        hidden_activation: Activation = Activation::GeluTanh,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 262_208,
        tie_word_embeddings: bool = true,
        query_pre_attn_scalar: f32 = 256.0,
        sliding_window: usize = 4096,
        sliding_window_pattern: usize = 6,
        layer_types: Option<Vec<String>> = None,
        rope_theta: f64 = 1e6,
        rope_local_base_freq: f64 = 10_000.0,
        final_logit_softcapping: Option<f32> = None,
        use_bidirectional_attention: Option<bool> = None,
    }
}

impl Gemma3Config {
    fn slides(&self, i: usize) -> bool {
        let said = self.layer_types.as_ref().map(|t| t.get(i).is_some_and(|t| t == SLIDING));
        said.unwrap_or(!(i + 1).is_multiple_of(self.sliding_window_pattern.max(1)))
    }
}

struct Layer<'a> {
    c: &'a Gemma3Config,
    rope: &'a RopeSpec,
    spec: AttentionSpec,
}

impl Layer<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| self.norm(w, name, x);
        let h = x + norm("post_attention_layernorm", self.attention(&w.at("self_attn"), norm("input_layernorm", x)));
        let branch = self.mlp(&w.at("mlp"), norm("pre_feedforward_layernorm", h));
        h + norm("post_feedforward_layernorm", branch)
    }

    fn norm(&self, w: &Weights, name: &str, x: Tensor) -> Tensor {
        w.rms_norm(name, x.dim(-1), self.c.rms_norm_eps).plus_one().forward(x)
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = self.norm(w, "q_norm", heads("q_proj", q)).rope(self.rope);
        let keys = self.norm(w, "k_norm", heads("k_proj", kv_size)).rope(self.rope);
        let cache = kv(keys, heads("v_proj", kv_size), CacheSpec { window: self.spec.window });
        w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &self.spec).merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_activation);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Gemma3;

impl Gemma3 {
    /// The model whose tensors are under `w`, and its head under `root`.
    fn logits(config: &Config, w: &Weights, root: &Weights, step: &Step) -> Result<Tensor> {
        let c = Gemma3Config::parse(config)?;
        if c.use_bidirectional_attention == Some(true) {
            return Err("config.json: use_bidirectional_attention: expected false, a model that generates".into());
        }
        // In older files scaling is meant for the layers that see everything, and a flat object of the
        // newer spelling, which has one for each type of layer, means nothing.
        let old = || {
            if config.json()["rope_parameters"].is_object() {
                Ok(RopeSpec::new(c.head_dim, c.rope_theta))
            } else {
                config.rope(c.head_dim, c.rope_theta)
            }
        };
        let full = config.layer_rope(FULL, c.head_dim, c.rope_theta)?.map_or_else(old, Ok)?;
        let local = config.layer_rope(SLIDING, c.head_dim, c.rope_local_base_freq)?;
        let local = local.unwrap_or_else(|| RopeSpec::new(c.head_dim, c.rope_local_base_freq));
        let spec = AttentionSpec { scale: c.query_pre_attn_scalar.powf(-0.5), ..AttentionSpec::causal(c.head_dim) };
        let shape = [c.vocab_size, c.hidden_size];
        let embed = w.embedding("embed_tokens", shape);
        let mut x = step.merge_embeddings(embed.forward(step.tokens()) * (c.hidden_size as f32).sqrt());
        for i in 0..c.num_hidden_layers {
            let (rope, window) = if c.slides(i) { (&local, Some(c.sliding_window)) } else { (&full, None) };
            let layer = Layer { c: &c, rope, spec: spec.clone().window(window) };
            x = layer.forward(&w.at("layers").at(i), x);
        }
        root.ignore("*.rotary_emb.inv_freq");
        let norm = w.rms_norm("norm", c.hidden_size, c.rms_norm_eps).plus_one();
        let logits = root.head("lm_head", &embed, c.tie_word_embeddings, shape).forward(norm.forward(step.outputs(x)));
        Ok(c.final_logit_softcapping.map_or(logits, |cap| logits.softcap(cap)))
    }
}

impl Architecture for Gemma3 {
    fn declaration(&self) -> Declaration {
        Declaration::llm("gemma3", &["gemma3_text", "gemma3"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        if config.model_type() == "gemma3_text" {
            return Gemma3::logits(config, &w.at("model"), w, step);
        }
        // A vision-language model, of which only the text is asked for.
        let text = Config::from(config.json()["text_config"].clone());
        for tower in ["vision_tower", "multi_modal_projector", "model.vision_tower", "model.multi_modal_projector"] {
            w.ignore(&format!("{tower}.*"));
        }
        let new = w.at_first(&["model.language_model", "language_model"], "embed_tokens.weight");
        if new.has("embed_tokens.weight") {
            return Gemma3::logits(&text, &new, w, step);
        }
        let old = w.at("language_model");
        Gemma3::logits(&text, &old.at("model"), &old, step)
    }
}

register!(Gemma3);
