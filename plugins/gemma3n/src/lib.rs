//! Gemma 3n, <https://ai.google.dev/gemma/docs/gemma-3n>, the text model: Gemma 3's layers over several streams
//! (`altup.rs`) of which each layer computes one, with a low-rank branch beside attention (LAuReL, arXiv:2411.07501),
//! sparse activations, an embedding for each layer, and late layers that look at earlier ones' keys and values.
//! `x` is [tokens, hidden], `streams` [tokens, streams, hidden].

mod altup;

use altup::{magnitude, stream};
use tamarack_api::*;

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

// Files of multimodal models leave out most fields: these are the configuration class's values.
config! {
    struct Gemma3nConfig {
        hidden_size: usize = 2048,
        intermediate_size: PerLayer<usize> = PerLayer::All(16_384),
        num_hidden_layers: usize = 35,
        num_attention_heads: usize = 8,
        num_key_value_heads: usize = 2,
        head_dim: usize = 256,
        hidden_activation: Activation = Activation::GeluTanh,
        rms_norm_eps: f32 = 1e-6,
        vocab_size: usize = 262_400,
        tie_word_embeddings: bool = true,
        sliding_window: usize = 512,
        layer_types: Option<Vec<String>> = None,
        rope_theta: f64 = 1e6,
        rope_local_base_freq: f64 = 10_000.0,
        final_logit_softcapping: Option<f32> = Some(30.0),
        vocab_size_per_layer_input: usize = 262_144,
        hidden_size_per_layer_input: usize = 256,
        active as "altup_active_idx": usize = 0,
        altup_correct_scale: bool = true,
        altup_num_inputs: usize = 4,
        num_kv_shared_layers: usize = 15,
        laurel_rank: usize = 64,
        activation_sparsity_pattern: Option<Vec<f64>> = None,
    }
}

impl Gemma3nConfig {
    fn layer_type(&self, i: usize) -> &str {
        let default = if (i + 1).is_multiple_of(5) { FULL } else { SLIDING };
        self.layer_types.as_ref().map_or(default, |types| types.get(i).map_or("", |t| t))
    }

    /// How many standard deviations above the mean a gate must be to count; `None` where all count.
    fn cutoff(&self, i: usize) -> Option<f32> {
        let sparse = if self.num_hidden_layers > 10 && i < 10 { 0.95 } else { 0.0 };
        let share = self.activation_sparsity_pattern.as_ref().map_or(sparse, |p| p.get(i).copied().unwrap_or(0.0));
        (share > 0.0).then(|| normal_quantile(share) as f32)
    }
}

/// Where the standard normal distribution reaches `p`: Newton's method over Marsaglia's series for the distribution
/// (Journal of Statistical Software 11(4), 2004).
fn normal_quantile(p: f64) -> f64 {
    let mut z = 0.0f64;
    for _ in 0..64 {
        let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let (mut term, mut sum, mut i) = (z, z, 1.0);
        while term.abs() > 1e-15 && i < 500.0 {
            i += 2.0;
            term *= z * z / i;
            sum += term;
        }
        z -= (0.5 + sum * density - p) / density;
    }
    z
}

/// Both ropes, full attention's first. A flat object of the newer spelling, which has one for each type, means nothing.
fn ropes(config: &Config, c: &Gemma3nConfig) -> Result<[RopeSpec; 2]> {
    let old = || match config.json()["rope_parameters"].is_object() {
        true => Ok(RopeSpec::new(c.head_dim, c.rope_theta)),
        false => config.rope(c.head_dim, c.rope_theta),
    };
    let full = config.layer_rope(FULL, c.head_dim, c.rope_theta)?.map_or_else(old, Ok)?;
    let local = config.layer_rope(SLIDING, c.head_dim, c.rope_local_base_freq)?;
    Ok([full, local.unwrap_or_else(|| RopeSpec::new(c.head_dim, c.rope_local_base_freq))])
}

struct Layer<'a> {
    c: &'a Gemma3nConfig,
    rope: &'a RopeSpec,
    window: Option<usize>,
    feed_forward: usize,
    cutoff: Option<f32>,
    /// The cache of the earlier layer whose keys and values this one looks at.
    shared: Option<Kv>,
}

impl Layer<'_> {
    /// `own` [tokens, width] is the layer's own embedding of the tokens.
    fn forward(&self, w: &Weights, streams: Tensor, own: Tensor) -> (Tensor, Kv) {
        let (c, norm, streams_of) = (self.c, |name, x| self.norm(w, name, x), w.at("altup"));
        let predicted = altup::predict(c, &streams_of, streams);
        let active = stream(predicted, c.active);
        let n = norm("input_layernorm", active);
        let (seen, cache) = self.attention(&w.at("self_attn"), n);
        let attended = active + norm("post_attention_layernorm", seen);
        let h = (attended + self.laurel(&w.at("laurel"), n)) * 0.5f32.sqrt();
        let branch = self.mlp(&w.at("mlp"), norm("pre_feedforward_layernorm", h));
        let out = h + norm("post_feedforward_layernorm", branch);
        let corrected = altup::correct(c, &streams_of, predicted, out);

        let (d, width, first) = (c.hidden_size, c.hidden_size_per_layer_input, stream(corrected, c.active));
        let scaled = match c.altup_correct_scale {
            true => first * streams_of.tensor("correct_output_scale", &[d]),
            false => first,
        };
        let gate = w.linear("per_layer_input_gate", [width, d]).forward(scaled).activation(c.hidden_activation);
        let added = w.linear("per_layer_projection", [d, width]).forward(gate * own);
        let added = norm("post_per_layer_input_norm", added).split_heads(d);
        let others = corrected.slice(1, 1, c.altup_num_inputs - 1) + added;
        (concat(&[stream(corrected, 0), others.merge_heads()]).split_heads(d), cache)
    }

    fn norm(&self, w: &Weights, name: &str, x: Tensor) -> Tensor {
        w.rms_norm(name, x.dim(-1), self.c.rms_norm_eps).forward(x)
    }

    fn laurel(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, rank) = (self.c.hidden_size, self.c.laurel_rank);
        let low = w.linear("linear_left", [rank, d]).forward(x);
        x + self.norm(w, "post_laurel_norm", w.linear("linear_right", [d, rank]).forward(low))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> (Tensor, Kv) {
        let (d, head_dim) = (self.c.hidden_size, self.c.head_dim);
        let (q, kv_size) = (self.c.num_attention_heads * head_dim, self.c.num_key_value_heads * head_dim);
        let heads = |name, size| w.linear(name, [size, d]).forward(x).split_heads(head_dim);
        let queries = self.norm(w, "q_norm", heads("q_proj", q)).rope(self.rope);
        let cache = self.shared.unwrap_or_else(|| {
            let keys = self.norm(w, "k_norm", heads("k_proj", kv_size)).rope(self.rope);
            let values = RmsNorm { weight: None, eps: self.c.rms_norm_eps }.forward(heads("v_proj", kv_size));
            kv(keys, values, CacheSpec { window: self.window })
        });
        let spec = AttentionSpec { scale: 1.0, ..AttentionSpec::causal(head_dim).window(self.window) };
        (w.linear("o_proj", [d, q]).forward(attention(queries, &cache, &spec).merge_heads()), cache)
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.feed_forward);
        let gate = w.linear("gate_proj", [ff, d]).forward(x);
        let gate = self.cutoff.map_or(gate, |cutoff| {
            let apart = gate - gate.mean();
            (apart - magnitude(apart, None) * cutoff).relu()
        });
        let gate = gate.activation(self.c.hidden_activation);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Gemma3n;

impl Gemma3n {
    /// The model whose tensors are under `w`, and its head under `root`.
    fn logits(config: &Config, w: &Weights, root: &Weights, step: &Step) -> Result<Tensor> {
        let c = Gemma3nConfig::parse(config)?;
        let ropes = ropes(config, &c)?;
        let (d, layers, shape) = (c.hidden_size, c.num_hidden_layers, [c.vocab_size, c.hidden_size]);
        if c.active >= c.altup_num_inputs {
            let (n, found) = (c.altup_num_inputs, c.active);
            return Err(format!("config.json: altup_active_idx: expected less than {n}, found {found}").into());
        }
        let embed = w.embedding("embed_tokens", shape);
        let x = embed.forward(step.tokens()) * (d as f32).sqrt();
        let own = Gemma3n::own_embeddings(&c, w, x, step);
        let mut streams = altup::spread(&c, w, x);
        let mut caches: Vec<(&str, Kv)> = Vec::new();
        for i in 0..layers {
            let (kind, shares) = (c.layer_type(i), i + c.num_kv_shared_layers >= layers);
            let shared = caches.iter().rev().find(|(k, _)| *k == kind && shares).map(|(_, cache)| *cache);
            let (rope, window) = if kind == FULL { (&ropes[0], None) } else { (&ropes[1], Some(c.sliding_window)) };
            let feed_forward = c.intermediate_size.at(i).ok_or("config.json: intermediate_size: too few entries")?;
            let layer = Layer { c: &c, rope, window, feed_forward, cutoff: c.cutoff(i), shared };
            let (out, cache) = layer.forward(&w.at("layers").at(i), streams, stream(own, i));
            streams = out;
            if shares {
                // Some files hold keys and values for these layers, too.
                ["k_proj", "v_proj", "k_norm"].iter().for_each(|t| w.ignore(&format!("layers.{i}.self_attn.{t}.*")));
            } else {
                caches.push((kind, cache));
            }
        }
        if !c.altup_correct_scale {
            w.ignore("*.altup.correct_output_scale");
        }
        root.ignore("*.rotary_emb.inv_freq");
        let gathered = altup::gather(&c, w, step.outputs(streams));
        let x = w.rms_norm("norm", d, c.rms_norm_eps).forward(gathered);
        let logits = root.head("lm_head", &embed, c.tie_word_embeddings, shape).forward(x);
        Ok(c.final_logit_softcapping.map_or(logits, |cap| logits.softcap(cap)))
    }

    /// What each layer adds of its own: [tokens, layers, width], from a table and from the embedding.
    fn own_embeddings(c: &Gemma3nConfig, w: &Weights, x: Tensor, step: &Step) -> Tensor {
        let (d, width) = (c.hidden_size, c.hidden_size_per_layer_input);
        let all = c.num_hidden_layers * width;
        let projected = w.linear("per_layer_model_projection", [all, d]).forward(x) * (d as f32).powf(-0.5);
        let norm = w.rms_norm("per_layer_projection_norm", width, c.rms_norm_eps);
        let table = w.embedding("embed_tokens_per_layer", [c.vocab_size_per_layer_input, all]);
        let looked_up = table.forward(step.tokens()) * (width as f32).sqrt();
        (norm.forward(projected.split_heads(width)) + looked_up.split_heads(width)) * 0.5f32.sqrt()
    }
}

impl Architecture for Gemma3n {
    fn declaration(&self) -> Declaration {
        Declaration::llm("gemma3n", &["gemma3n_text", "gemma3n"])
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        if config.model_type() == "gemma3n_text" {
            return Gemma3n::logits(config, &w.at("model"), w, step);
        }
        // A multimodal model, of which only the text is served; MLX has the head beside the model.
        for part in ["vision_tower", "audio_tower", "embed_vision", "embed_audio"] {
            w.ignore(&format!("{part}.*"));
            w.ignore(&format!("model.{part}.*"));
        }
        let (text, mlx) = (Config::from(config.json()["text_config"].clone()), w.at("language_model"));
        match mlx.at("model").has("embed_tokens.weight") {
            true => Gemma3n::logits(&text, &mlx.at("model"), &mlx, step),
            false => {
                let own = w.at_first(&["model.language_model", "language_model"], "embed_tokens.weight");
                Gemma3n::logits(&text, &own, w, step)
            }
        }
    }
}

register!(Gemma3n);

#[cfg(test)]
mod tests {
    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (p, z) in [(0.5, 0.0), (0.95, 1.644_853_627), (0.1, -1.281_551_566), (0.999, 3.090_232_306)] {
            assert!((super::normal_quantile(p) - z).abs() < 1e-8, "{p}");
        }
    }
}
