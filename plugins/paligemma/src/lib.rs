//! PaliGemma, arXiv:2407.07726, and PaliGemma 2, arXiv:2412.03555: SigLIP over a square, every patch of which is a token of a
//! Gemma; all of the prompt sees all of it.

use tamarack_api::*;

/// What names of its tensors begin with, in files of every age.
const TOWERS: [&str; 4] =
    ["vision_tower.vision_model", "vision_tower", "model.vision_tower.vision_model", "model.vision_tower"];
const PROJECTORS: [&str; 2] = ["multi_modal_projector", "model.multi_modal_projector"];
/// Where an image stands in a prompt, and one of its tokens.
const IMAGE: &str = "<image>";
/// Tokens of a prompt beside those of one image, at most.
const BESIDE: usize = 512;

config! {
    struct PaliGemmaConfig {
        image_token as "image_token_index" | "image_token_id": u32 = 256_000,
    }
}

config! {
    struct TextConfig {
        model_type: String = "gemma".to_owned(),
        hidden_size: usize = if model_type == "gemma2" { 2304 } else { 3072 },
    }
}

struct PaliGemma;

impl Architecture for PaliGemma {
    fn declaration(&self) -> Declaration {
        Declaration::vlm("paligemma", &["paligemma"])
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for PaliGemma {
    fn text(&self, config: &Config) -> Result<TextModel> {
        let text = config.at("text_config");
        let text = if text.model_type() == "gemma2" { "gemma2" } else { "gemma" };
        let mut model = TextModel::new(text, config, &[&TOWERS[..], &PROJECTORS].concat());
        // That is said of the prompt, see below; what is generated sees what came before it.
        model.config["use_bidirectional_attention"] = false.into();
        model.span = Siglip::parse(&config.at("vision_config"))?.side().pow(2) + BESIDE;
        Ok(model)
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let tower = Siglip::parse(&config.at("vision_config"))?;
        let x = tower.forward(&w.at_first(&TOWERS, "post_layernorm.weight"), step);
        let text = TextConfig::parse(&config.at("text_config"))?.hidden_size;
        let w = w.at_first(&PROJECTORS, "linear.weight");
        Ok(w.linear("linear", [text, tower.hidden_size]).forward(x))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let (c, tower, files) =
            (PaliGemmaConfig::parse(config)?, Siglip::parse(&config.at("vision_config"))?, &request.files);
        let medium = |image| {
            let (width, height) = (tower.image_size, tower.image_size);
            let resize = RecipeOp::Resize { of: 0, width, height, filter: files.filter(Filter::Bicubic)? };
            tower.medium(image, vec![resize], 1, files)
        };
        let media = (0..request.images.len()).map(medium).collect::<Result<Vec<Medium>>>()?;
        // Images come first where the prompt does not say.
        let images = if request.prompt.contains(IMAGE) { 0 } else { media.len() };
        let prompt = IMAGE.repeat(images) + &request.prompt;
        let text = prompt.rfind(IMAGE).map_or(0, |at| at + IMAGE.len());
        let prompt = format!("{}<bos>{}\n", &prompt[..text], &prompt[text..]);
        let request = ProcessRequest { prompt, ..request.clone() };
        let prompt = request.expand(IMAGE, |_| IMAGE.repeat(tower.side() * tower.side()))?;
        let image_token = c.image_token;
        Ok(Processed { prompt, image_token, media, is_prefix: true, add_special: Some(false), ..Processed::default() })
    }
}

register!(PaliGemma);
