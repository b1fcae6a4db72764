//! Vision-language models: a tower that makes embeddings of patches, and what becomes of prompts and images before.
//!
//! A plugin sees sizes of images and never a pixel: it says what the host does with them.

use crate::{
    Config, Error, Filter, Medium, Op, RecipeOp, Result, Sampling, Tensor, VideoInfo, Weights, tensor::push,
    video::expand,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The mean of CLIP's pixels, arXiv:2103.00020.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Their deviation.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// What an architecture says of a vision-language model.
pub trait VisionLanguage: Send + Sync {
    /// Who records the text model.
    fn text(&self, config: &Config) -> Result<TextModel>;

    /// Records the tower: from [`TowerStep::patches`] to embeddings [patches / n, dim], in the order of the image
    /// tokens, or [patches / n, parts * dim] where the text model takes several parts, see
    /// [`crate::Step::add_embeddings`].
    fn tower(&self, config: &Config, weights: &Weights, step: &TowerStep) -> Result<Tensor>;

    /// What is done with a prompt and its images.
    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed>;
}

/// The text model of a vision-language model, which another architecture records.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextModel {
    /// Served by which architecture.
    pub model_type: String,
    /// Its `config.json`.
    pub config: Value,
    /// Beginnings of names in the checkpoint, and what they are called there. The first one that fits counts.
    pub weights: Vec<(String, String)>,
    /// Beginnings of the names of what is not its own.
    pub tower: Vec<String>,
    /// Tokens that see each other, at most: a step has room for as many. Since api 1.3.
    #[serde(default)]
    pub span: usize,
}

impl TextModel {
    /// The text model under the usual names, and those of MLX: `text_config`, or what old files have at the root, says
    /// what it is. A tower's tensors begin with one of `tower`.
    pub fn new(model_type: &str, config: &Config, tower: &[&str]) -> TextModel {
        let root = config.json();
        let mut text = if root["text_config"].is_object() { root["text_config"].clone() } else { root.clone() };
        if let Some(fields) = text.as_object_mut() {
            fields.insert("model_type".to_owned(), model_type.into());
            // Either may say so, in `transformers` as well.
            match root["tie_word_embeddings"].as_bool() {
                Some(true) => drop(fields.insert("tie_word_embeddings".to_owned(), true.into())),
                Some(false) => drop(fields.entry("tie_word_embeddings").or_insert(false.into())),
                None => {}
            }
        }
        let names = [
            ("model.language_model.lm_head.", "lm_head."),
            ("model.language_model.", "model."),
            ("language_model.lm_head.", "lm_head."),
            ("language_model.model.", "model."),
            ("language_model.", "model."),
            ("model.text_model.", "model."),
            ("text_model.", "model."),
            ("lm_head.", "lm_head."),
            ("model.", "model."),
        ];
        TextModel {
            model_type: model_type.to_owned(),
            config: text,
            weights: names.map(|(from, to)| (from.to_owned(), to.to_owned())).into(),
            tower: tower.iter().map(|t| (*t).to_owned()).collect(),
            span: 0,
        }
    }

    /// With these fields where the configuration lacks them: files leave out what their class has as a default. Since
    /// api 1.3.
    pub fn defaults(mut self, fields: Value) -> TextModel {
        if let (Some(own), Value::Object(fields)) = (self.config.as_object_mut(), fields) {
            for (key, value) in fields {
                own.entry(key).or_insert(value);
            }
        }
        self
    }

    /// What a tensor of the checkpoint is called by the text model, if it is one of its own.
    pub fn name(&self, tensor: &str) -> Option<String> {
        if self.tower.iter().any(|prefix| tensor.starts_with(prefix)) {
            return None;
        }
        self.weights.iter().find_map(|(from, to)| Some(format!("{to}{}", tensor.strip_prefix(from)?)))
    }
}

/// What one run of a tower brings: patches of any number of images.
pub struct TowerStep(());

impl TowerStep {
    pub(crate) fn new() -> TowerStep {
        TowerStep(())
    }

    /// Their pixels, as [`crate::RecipeOp::Patchify`] lays them out. [patches, width]
    #[track_caller]
    pub fn patches(&self, width: usize) -> Tensor {
        push(Op::Patches { width }, &[])
    }

    /// The number that [`Medium::ids`] gives each of them. `[patches]`
    #[track_caller]
    pub fn ids(&self) -> Tensor {
        push(Op::PatchIds {}, &[])
    }

    /// The numbers that [`Medium::inputs`] has under this name. [patches, width]. Since api 1.3.
    #[track_caller]
    pub fn input(&self, name: &str, width: usize) -> Tensor {
        push(Op::PatchInput { name: name.to_owned(), width }, &[])
    }
}

/// The files that say how images are prepared; null where there is none.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProcessorConfig {
    /// `processor_config.json`
    pub processor: Value,
    /// `preprocessor_config.json`
    pub preprocessor: Value,
    /// `video_preprocessor_config.json`. Since api 1.4.
    #[serde(default)]
    pub video: Value,
}

impl ProcessorConfig {
    /// The same with what is said of videos in place of what is said of images, which it is where nothing is said of
    /// them. Since api 1.4.
    pub fn video(&self) -> ProcessorConfig {
        let nested = &self.processor["video_processor"];
        let own = [nested, &self.video, &self.preprocessor].into_iter().find(|file| file.is_object());
        ProcessorConfig { preprocessor: own.cloned().unwrap_or_default(), ..ProcessorConfig::default() }
    }

    /// What is said of images, the newer file winning. Null where nothing is.
    pub fn image(&self, key: &str) -> &Value {
        let newer = &self.processor["image_processor"][key];
        if newer.is_null() { &self.preprocessor[key] } else { newer }
    }

    /// A size that is said of images, or else `default`.
    pub fn size(&self, key: &str, default: usize) -> Result<usize> {
        size(key, self.image(key), default)
    }

    /// A size within what is said of images, `size.longest_edge` for one, or else `default`. Since api 1.3.
    pub fn size_in(&self, key: &str, field: &str, default: usize) -> Result<usize> {
        size(&format!("{key}.{field}"), &self.image(key)[field], default)
    }

    /// How images are resized, or else `default`.
    pub fn filter(&self, default: Filter) -> Result<Filter> {
        let found = self.image("resample");
        let known = found.as_u64().and_then(Filter::from_resample);
        let wrong = || {
            let known = "1 (Lanczos), 2 (bilinear) or 3 (bicubic)";
            Error(format!("preprocessor_config.json: resample: expected {known}, found {found}"))
        };
        if found.is_null() { Ok(default) } else { known.ok_or_else(wrong) }
    }

    /// The step that makes numbers of bytes, with these means and deviations where the files have none.
    pub fn normalize(&self, of: crate::Value, mean: [f32; 3], std: [f32; 3]) -> Result<RecipeOp> {
        let is_off = |key| self.image(key).as_bool() == Some(false);
        let scale =
            if is_off("do_rescale") { 1.0 } else { self.image("rescale_factor").as_f64().unwrap_or(1.0 / 255.0) };
        if is_off("do_normalize") {
            return Ok(RecipeOp::Normalize { of, scale, mean: [0.0; 3], std: [1.0; 3] });
        }
        let (mean, std) = (self.channels("image_mean", mean)?, self.channels("image_std", std)?);
        Ok(RecipeOp::Normalize { of, scale, mean, std })
    }

    /// Numbers for red, green and blue, or else `default`.
    pub fn channels(&self, key: &str, default: [f32; 3]) -> Result<[f32; 3]> {
        let found = self.image(key);
        if found.is_null() {
            return Ok(default);
        }
        let wrong = || Error(format!("preprocessor_config.json: {key}: expected three numbers, found {found}"));
        <[f32; 3]>::deserialize(found).map_err(|_| wrong())
    }
}

/// A size of a file, or else `default`: a number from 1 to 2^31.
fn size(key: &str, found: &Value, default: usize) -> Result<usize> {
    match found.as_u64() {
        Some(n @ 1..=0x7fff_ffff) => Ok(n as usize),
        None if found.is_null() => Ok(default),
        _ => Err(Error(format!(
            "preprocessor_config.json: {key}: expected a number from 1 to 2147483647, found {found}"
        ))),
    }
}

/// What a user asks for beside the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImageOptions {
    /// Pixels that an image has at the least once it is prepared, where the model leaves a choice.
    pub min_pixels: Option<usize>,
    /// Pixels that it has at most.
    pub max_pixels: Option<usize>,
    /// Whether a large or long image is looked at in parts, too, by models that can: Gemma 3's pan and scan, Idefics
    /// 3's splitting. None: as the files say. Since api 1.3.
    pub crops: Option<bool>,
}

/// A prompt and its images.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProcessRequest {
    /// The prompt, as the chat template has rendered it.
    pub prompt: String,
    /// Height and width of each image, upright.
    pub images: Vec<[usize; 2]>,
    /// What the user asks for.
    pub options: ImageOptions,
    /// The processor's files.
    pub files: ProcessorConfig,
    /// Patches of an image that the tower has room for.
    pub max_patches: usize,
    /// Videos. Since api 1.4.
    #[serde(default)]
    pub videos: Vec<VideoInfo>,
    /// Which of their frames the user asks for. Since api 1.4.
    #[serde(default)]
    pub sampling: Sampling,
}

impl ProcessRequest {
    /// The fewest and the most pixels of an image: what the user asks for, or else the files, or else `default`; no
    /// more than the tower has room for. What files call edges are areas here. Since api 1.3.
    pub fn pixels(&self, default: [usize; 2], patch: usize) -> Result<[usize; 2]> {
        let file = |name, edge: &str, default| {
            let edge = self.files.image("size")[edge].as_u64();
            self.files.size(name, edge.map_or(default, |n| n as usize))
        };
        let least = self.options.min_pixels.map_or_else(|| file("min_pixels", "shortest_edge", default[0]), Ok)?;
        let most = self.options.max_pixels.map_or_else(|| file("max_pixels", "longest_edge", default[1]), Ok)?;
        Ok([least, most.min(self.max_patches.saturating_mul(patch * patch))])
    }

    /// The prompt with each `marker` replaced by what `text` makes of its image.
    pub fn expand(&self, marker: &str, text: impl Fn(usize) -> String) -> Result<String> {
        expand(&self.prompt, marker, "images", self.images.len(), text)
    }
}

/// What becomes of a prompt and its images.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processed {
    /// The prompt with as many image tokens as the tower makes embeddings. The host tokenizes it, all at once.
    pub prompt: String,
    /// The token that stands for an embedding.
    pub image_token: u32,
    /// In the order of their tokens; where videos have a token of their own, theirs among themselves.
    pub media: Vec<Medium>,
    /// The token that stands for an embedding of a video, if it is another one. Since api 1.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_token: Option<u32>,
    /// Whether all of the prompt's tokens see each other, whatever a window says. Since api 1.3.
    #[serde(default)]
    pub is_prefix: bool,
    /// Whether the tokenizer puts special tokens around the prompt. None: as around the one that came. Since api 1.3.
    #[serde(default)]
    pub add_special: Option<bool>,
}
