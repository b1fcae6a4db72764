//! Gemma 3 with images, arXiv:2503.19786: SigLIP over a square, whose patches are pooled to a few tokens that see each other.

use tamarack_api::*;

/// What names of its tensors begin with, in files of every age.
const TOWERS: [&str; 4] =
    ["vision_tower.vision_model", "vision_tower", "model.vision_tower.vision_model", "model.vision_tower"];
const PROJECTORS: [&str; 2] = ["multi_modal_projector", "model.multi_modal_projector"];
/// Where an image stands in a prompt.
const IMAGE: &str = "<start_of_image>";

config! {
    struct Gemma3VisionConfig {
        mm_tokens_per_image: usize = 256,
        image_token as "image_token_index" | "image_token_id": u32 = 262_144,
    }
}

config! { struct TextConfig { hidden_size: usize = 2304 } }

impl Gemma3VisionConfig {
    /// Patches on a side of what becomes a token.
    fn pooled(&self, tower: &Siglip) -> Result<usize> {
        let (side, tokens) = (tower.side(), self.mm_tokens_per_image);
        let fits = |k: &usize| side.is_multiple_of(*k) && (side / k).pow(2) == tokens;
        (1..=side).find(fits).ok_or_else(|| {
            format!("config.json: mm_tokens_per_image: {side} x {side} patches do not pool to {tokens} tokens").into()
        })
    }
}

struct Gemma3Vision;

impl Architecture for Gemma3Vision {
    fn declaration(&self) -> Declaration {
        Declaration::vlm("gemma3_vision", &["gemma3"])
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Gemma3Vision {
    fn text(&self, config: &Config) -> Result<TextModel> {
        let span = Gemma3VisionConfig::parse(config)?.mm_tokens_per_image;
        Ok(TextModel { span, ..TextModel::new("gemma3_text", config, &[&TOWERS[..], &PROJECTORS].concat()) })
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let tower = Siglip::parse(&config.at("vision_config"))?;
        let (d, k) = (tower.hidden_size, Gemma3VisionConfig::parse(config)?.pooled(&tower)?);
        let x = tower.forward(&w.at_first(&TOWERS, "post_layernorm.weight"), step).merge_rows(k * k);
        let patch = |i| x.slice(1, i * d, d);
        let x = (1..k * k).fold(patch(0), |sum, i| sum + patch(i)) / (k * k) as f32;
        let w = w.at_first(&PROJECTORS, "mm_soft_emb_norm.weight");
        let x = w.rms_norm("mm_soft_emb_norm", d, tower.layer_norm_eps).plus_one().forward(x);
        let text = TextConfig::parse(&config.at("text_config"))?.hidden_size;
        // The one matrix that is stored as x W, not x W^T.
        let weight = w.tensor("mm_input_projection_weight", &[d, text]).transpose();
        Ok(Linear { weight, bias: None }.forward(x))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let (c, tower, files) =
            (Gemma3VisionConfig::parse(config)?, Siglip::parse(&config.at("vision_config"))?, &request.files);
        let merge = c.pooled(&tower)?;
        let (width, height, filter) = (tower.image_size, tower.image_size, files.filter(Filter::Bilinear)?);
        let resize = |of| RecipeOp::Resize { of, width, height, filter };
        let mut media = Vec::new();
        let mut crops = Vec::new();
        for (i, size) in request.images.iter().enumerate() {
            // `transformers` does so only if asked, whatever the files say.
            let parts = if request.options.crops == Some(true) { strips(*size) } else { Vec::new() };
            media.push(tower.medium(i, vec![resize(0)], merge, files)?);
            for part in &parts {
                media.push(tower.medium(i, vec![part.clone(), resize(1)], merge, files)?);
            }
            crops.push(parts.len());
        }
        media.iter_mut().for_each(|medium| medium.span = true);
        let image = "<image_soft_token>".repeat(c.mm_tokens_per_image);
        let image = format!("\n\n{IMAGE}{image}<end_of_image>\n\n");
        let prompt = request.expand(IMAGE, |i| match crops[i] {
            0 => image.clone(),
            n => {
                let crops = vec![&image[..]; n].join(" ");
                format!("Here is the original image {image} and here are some crops to help you see better {crops}")
            }
        })?;
        Ok(Processed { prompt, image_token: c.image_token, media, ..Processed::default() })
    }
}

/// Pan and scan: a long image in strips across its longer side; none if it is hardly longer than wide, or too small. As its
/// processor class has it in `transformers`, where files have no say in it.
fn strips([height, width]: [usize; 2]) -> Vec<RecipeOp> {
    const LEAST: usize = 256;
    const MOST: usize = 4;
    let (long, short) = (height.max(width), height.min(width));
    let ratio = long as f64 / short as f64;
    let count = ((ratio + 0.5).floor() as usize).min(long / LEAST).clamp(2, MOST);
    let strip = long.div_ceil(count);
    if ratio < 1.2 || strip.min(short) < LEAST {
        return Vec::new();
    }
    // The last one is what is left.
    let parts = (0..count).map(|i| (strip * i, strip.min(long - strip * i)));
    let part = |(at, len)| match width >= height {
        true => RecipeOp::Crop { of: 0, x: at, y: 0, width: len, height },
        false => RecipeOp::Crop { of: 0, x: 0, y: at, width, height: len },
    };
    parts.map(part).collect()
}

register!(Gemma3Vision);
