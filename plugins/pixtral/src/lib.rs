//! Pixtral, arXiv:2410.07073, which `transformers` calls `llava`, and Mistral 3, which merges patches: a tower that takes
//! images at their own sizes, row by row, and Mistral as its text model. `x` is [patches, hidden].

use tamarack_api::*;

config! {
    struct TowerConfig {
        hidden_size: usize = 1024,
        intermediate_size: usize = 4096,
        num_hidden_layers: usize = 24,
        num_attention_heads: usize = 16,
        num_channels: usize = 3,
        patch_size: usize = 16,
        hidden_act: Activation = Activation::Gelu,
        rope_theta: f64 = 10_000.0,
    }
}

config! {
    struct PixtralConfig {
        model_type: String,
        // What the layers make that goes on: -1 is the last one's, 0 what comes before the first.
        vision_feature_layer: PerLayer<i64> = PerLayer::All(if model_type == "llava" { -2 } else { -1 }),
        vision_feature_select_strategy: String = if model_type == "llava" { "default" } else { "full" }.to_owned(),
        projector_hidden_act: Activation = Activation::Gelu,
        spatial_merge_size: usize = if model_type == "mistral3" { 2 } else { 1 },
    }
}

config! {
    struct TextConfig {
        hidden_size: usize = 4096,
        rms_norm_eps: f32 = 1e-6,
    }
}

/// What names of tensors begin with, here and there.
const TOWER: [&str; 4] =
    ["vision_tower", "vision_tower.vision_model", "model.vision_tower", "model.vision_tower.vision_model"];
const PROJECTOR: [&str; 2] = ["multi_modal_projector", "model.multi_modal_projector"];

struct Block<'a> {
    c: &'a TowerConfig,
    rope: &'a RopeSpec,
}

impl Block<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, 1e-5).forward(x);
        let h = x + self.attention(&w.at("attention"), norm("attention_norm", x));
        h + self.mlp(&w.at("feed_forward"), norm("ffn_norm", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.hidden_size / self.c.num_attention_heads.max(1));
        let [q, k, v] =
            ["q_proj", "k_proj", "v_proj"].map(|name| w.linear(name, [d, d]).forward(x).split_heads(head_dim));
        let seen = segment_attention([q.rope(self.rope), k.rope(self.rope), v], (head_dim as f32).powf(-0.5));
        w.linear("o_proj", [d, d]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

impl PixtralConfig {
    /// What goes on of what the layers make, side by side.
    fn features(&self, states: &[Tensor]) -> Result<Tensor> {
        let layers = match &self.vision_feature_layer {
            PerLayer::All(layer) => vec![*layer],
            PerLayer::Each(layers) => layers.clone(),
        };
        let state = |layer: &i64| {
            let at = if *layer < 0 { layer + states.len() as i64 } else { *layer };
            let found = usize::try_from(at).ok().and_then(|at| states.get(at).copied());
            let n = states.len();
            found.ok_or_else(|| {
                Error(format!("config.json: vision_feature_layer: expected -{n} to {}, found {layer}", n - 1))
            })
        };
        Ok(concat(&layers.iter().map(state).collect::<Result<Vec<Tensor>>>()?))
    }

    fn project(&self, text: &TextConfig, w: &Weights, mut x: Tensor) -> Tensor {
        let (d, m, size) = (x.dim(-1), self.spatial_merge_size, text.hidden_size);
        if w.has("patch_merger.merging_layer.weight") {
            x = w.rms_norm("norm", d, text.rms_norm_eps).forward(x).merge_rows(m * m);
            // The file has the patches' elements before the patches.
            let merge = w.at("patch_merger").linear("merging_layer", [d, d * m * m]);
            x = Linear { weight: merge.weight.rearrange(&[d, m, m], &[1, 2, 0]), ..merge }.forward(x);
        }
        let x = w.linear("linear_1", [size, d]).forward(x).activation(self.projector_hidden_act);
        w.linear("linear_2", [size, size]).forward(x)
    }
}

struct Pixtral;

impl Architecture for Pixtral {
    fn declaration(&self) -> Declaration {
        Declaration::vlm("pixtral", &["llava", "mistral3", "pixtral"])
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Pixtral {
    fn text(&self, config: &Config) -> Result<TextModel> {
        let tower = config.at("vision_config");
        if tower.model_type() != "pixtral" && (config.model_type() == "llava" || !tower.model_type().is_empty()) {
            let found = tower.model_type();
            return Err(Error(format!("config.json: vision_config.model_type: expected pixtral, found `{found}`")));
        }
        let text = config.at("text_config");
        let model_type = match (text.model_type(), config.model_type()) {
            ("", "llava") => "llama",
            ("", _) => "mistral",
            (found, _) => found,
        };
        let config = match config.model_type() {
            "mistral3" => config.clone().defaults(json!({ "tie_word_embeddings": true })),
            _ => config.clone(),
        };
        Ok(TextModel::new(model_type, &config, &[&TOWER[..], &PROJECTOR[..]].concat()))
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let (c, root) = (TowerConfig::parse(&config.at("vision_config"))?, PixtralConfig::parse(config)?);
        if root.vision_feature_select_strategy != "full" {
            let found = root.vision_feature_select_strategy;
            return Err(Error(format!("config.json: vision_feature_select_strategy: expected full, found `{found}`")));
        }
        let own = w.at(TOWER.into_iter().find(|t| w.at(t).has("ln_pre.weight")).unwrap_or(TOWER[0]));
        let x = step.patches(c.num_channels * c.patch_size * c.patch_size);
        let patch = own.patch_embedding("patch_conv", c.hidden_size, c.num_channels, &[c.patch_size; 2]);
        let x = own.rms_norm("ln_pre", c.hidden_size, 1e-5).forward(patch.forward(x));
        let base = config.json()["vision_config"]["rope_parameters"]["rope_theta"].as_f64().unwrap_or(c.rope_theta);
        let (rope, mut states) = (interleaved(c.hidden_size / c.num_attention_heads.max(1), base), vec![x]);
        for i in 0..c.num_hidden_layers {
            let layer = own.at("transformer.layers").at(i);
            states.push(Block { c: &c, rope: &rope }.forward(&layer, states[i]));
        }
        let w = w.at(PROJECTOR.into_iter().find(|p| w.at(p).has("linear_1.weight")).unwrap_or(PROJECTOR[0]));
        let text = TextConfig::parse(&config.at("text_config"))?;
        Ok(root.project(&text, &w, root.features(&states)?))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let (c, root) = (TowerConfig::parse(&config.at("vision_config"))?, PixtralConfig::parse(config)?);
        let (files, patch, merge) = (&request.files, c.patch_size, root.spatial_merge_size);
        let size = files.image("size");
        let edge = |key: &str| size["longest_edge"].as_u64().or(size[key].as_u64()).unwrap_or(1024) as usize;
        let room = request.max_patches.saturating_mul(patch * patch);
        let most = request.options.max_pixels.map_or(room, |most| most.min(room));
        let image = |(i, size): (usize, &[usize; 2])| {
            let [rows, columns] = fitted(*size, [edge("height"), edge("width")], patch * merge, most);
            let recipe = vec![
                RecipeOp::Resize {
                    of: 0,
                    width: columns * patch * merge,
                    height: rows * patch * merge,
                    filter: files.filter(Filter::Bicubic)?,
                },
                files.normalize(1, CLIP_MEAN, CLIP_STD)?,
                RecipeOp::Patchify { of: 2, patch, merge, frames: 1 },
            ];
            Ok(Medium { recipe, ..Medium::still(i, [rows * merge, columns * merge], merge) })
        };
        let media = request.images.iter().enumerate().map(image).collect::<Result<Vec<Medium>>>()?;
        // Rows end in a token that is none of the image's.
        let named = |key: &str, default: &str| files.processor[key].as_str().unwrap_or(default).to_owned();
        let marker = named("image_token", "[IMG]");
        let (end_of_row, end) = (named("image_break_token", "[IMG_BREAK]"), named("image_end_token", "[IMG_END]"));
        let prompt = request.expand(&marker, |i| {
            let [_, rows, columns] = media[i].grid.map(|n| n / merge);
            vec![marker.repeat(columns); rows].join(&end_of_row) + &end
        })?;
        let default = if config.model_type() == "llava" { 32_000 } else { 10 };
        let image_token = config.token("image_token_id", config.token("image_token_index", default)?)?;
        Ok(Processed { prompt, image_token, media, ..Processed::default() })
    }
}

/// Rows and columns of blocks of `factor` pixels: an image shrinks until it is within `edges`, and never grows but to
/// whole blocks. Beyond `most` pixels it shrinks further.
fn fitted([height, width]: [usize; 2], edges: [usize; 2], factor: usize, most: usize) -> [usize; 2] {
    let [tall, wide] = edges.map(|edge| edge.max(1) as f64);
    let mut ratio = (height as f64 / tall).max(width as f64 / wide).max(1.0);
    loop {
        let blocks = [height, width].map(|n| ((n as f64 / ratio) as usize).max(1).div_ceil(factor.max(1)));
        if blocks == [1, 1] || blocks[0] * blocks[1] <= most / (factor * factor).max(1) {
            return blocks;
        }
        ratio *= 1.02;
    }
}

/// Half of the frequencies, every other one, turn by the row of a patch, the other half by its column.
fn interleaved(head_dim: usize, base: f64) -> RopeSpec {
    let plain = RopeSpec::new(head_dim, base);
    let every = |first| plain.inv_freq.iter().skip(first).step_by(2).copied();
    let rows = every(0).count();
    let inv_freq: Vec<f32> = every(0).chain(every(1)).collect();
    let axis: Vec<usize> = (0..inv_freq.len()).map(|i| usize::from(i >= rows)).collect();
    RopeSpec { inv_freq, ..plain }.axis(axis)
}

register!(Pixtral);
