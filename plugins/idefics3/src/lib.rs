//! Idefics 3, arXiv:2408.12637, and SmolVLM, arXiv:2504.05299: an image is seen in tiles and as a whole, each of them a
//! square for SigLIP, whose patches are shuffled to a few tokens of a Llama.

mod video;

use tamarack_api::*;

/// What names of its tensors begin with, here and in MLX's files.
const TOWERS: [&str; 2] = ["model.vision_model", "vision_model"];
const CONNECTORS: [&str; 2] = ["model.connector", "connector"];
/// Where an image stands in a prompt, and what is put around it.
const IMAGE: &str = "<image>";
const AROUND: &str = "<fake_token_around_image>";
/// Pixels on the longer side of an image, at most.
const LONGEST: usize = 4096;
/// Tiles of an image, at most.
const MOST_TILES: usize = 1024;

config! {
    struct Idefics3Config {
        image_token_id: u32 = 128_257,
        scale_factor: usize = 2,
    }
}

config! { struct TextConfig { hidden_size: usize = 4096 } }

fn tower(config: &Config) -> Result<Siglip> {
    let defaults = json!({ "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32 });
    Siglip::parse(&config.at("vision_config").defaults(defaults))
}

struct Idefics3;

impl Architecture for Idefics3 {
    fn declaration(&self) -> Declaration {
        Declaration { watches: true, ..Declaration::vlm("idefics3", &["idefics3", "smolvlm"]) }
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Idefics3 {
    fn text(&self, config: &Config) -> Result<TextModel> {
        Ok(TextModel::new("llama", config, &[&TOWERS[..], &CONNECTORS].concat()))
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let (c, tower) = (Idefics3Config::parse(config)?, tower(config)?);
        let shuffled = c.scale_factor * c.scale_factor;
        let x = tower.forward(&w.at_first(&TOWERS, "post_layernorm.weight"), step).merge_rows(shuffled);
        let text = TextConfig::parse(&config.at("text_config"))?;
        let w = w.at_first(&CONNECTORS, "modality_projection.proj.weight");
        Ok(w.linear("modality_projection.proj", [text.hidden_size, tower.hidden_size * shuffled]).forward(x))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let (c, tower, files) = (Idefics3Config::parse(config)?, tower(config)?, &request.files);
        let (image_token, scale) = (c.image_token_id, c.scale_factor);
        match (config.model_type(), request.videos.is_empty(), request.images.is_empty()) {
            (_, true, _) => {}
            ("smolvlm", _, true) => {
                let (prompt, media) = video::process(request, &tower, scale)?;
                return Ok(Processed { prompt, image_token, media, ..Processed::default() });
            }
            ("smolvlm", ..) => return Err("images and videos in one prompt: expected one kind alone".into()),
            (other, ..) => return Err(format!("{other} takes no videos: give it frames as images").into()),
        }
        let tile = files.size_in("max_image_size", "longest_edge", 364)?;
        if tile != tower.image_size {
            let size = tower.image_size;
            return Err(format!("max_image_size.longest_edge: expected the tower's {size}, found {tile}").into());
        }
        let longest = files.size_in("size", "longest_edge", 4 * 364)?;
        let in_tiles = request.options.crops.or(files.image("do_image_splitting").as_bool()).unwrap_or(true);
        let filter = files.filter(Filter::Lanczos3)?;
        let resize = |of, [height, width]: [usize; 2]| RecipeOp::Resize { of, width, height, filter };
        let (mut media, mut grids) = (Vec::new(), Vec::new());
        for (i, size) in request.images.iter().enumerate() {
            // Every step rounds to bytes: the whole is made of what the tiles are cut of, and not of the image itself.
            let first = scaled(*size, longest);
            let whole = if in_tiles { whole_tiles(first, tile) } else { [tile; 2] };
            let [rows, columns] = whole.map(|n| n / tile);
            if rows * columns > MOST_TILES {
                return Err(format!("an image of {rows} x {columns} tiles: expected {MOST_TILES} at most").into());
            }
            let tiles = if rows * columns > 1 { rows * columns } else { 0 };
            let mut recipe = vec![resize(0, first), resize(1, whole)];
            for at in 0..tiles {
                let (x, y) = (at % columns * tile, at / columns * tile);
                let crop = RecipeOp::Crop { of: 2, x, y, width: tile, height: tile };
                media.push(tower.medium(i, [&recipe[..], &[crop]].concat(), scale, files)?);
            }
            if tiles > 0 {
                recipe.push(resize(2, [tile; 2]));
            }
            media.push(tower.medium(i, recipe, scale, files)?);
            grids.push([rows, columns]);
        }
        let tokens = IMAGE.repeat(media.first().map_or(0, |m| m.tokens));
        let prompt = request.expand(IMAGE, |i| {
            let [rows, columns] = grids[i];
            let whole = format!("{AROUND}<global-img>{tokens}{AROUND}");
            if rows * columns == 1 {
                return whole;
            }
            let tile = |row, column| format!("{AROUND}<row_{row}_col_{column}>{tokens}");
            let row = |row| (1..=columns).map(|column| tile(row, column)).collect::<String>() + "\n";
            (1..=rows).map(row).collect::<String>() + "\n" + &whole
        })?;
        Ok(Processed { prompt, image_token, media, ..Processed::default() })
    }
}

/// An image whose longer side has so many pixels, and whose shorter one an even number of them.
fn scaled([height, width]: [usize; 2], longest: usize) -> [usize; 2] {
    let aspect = width as f64 / height as f64;
    let even = |side: f64| (side as usize).next_multiple_of(2).max(1);
    let [height, width] = match width >= height {
        true => [even(longest as f64 / aspect), longest],
        false => [longest, even(longest as f64 * aspect)],
    };
    let aspect = width as f64 / height as f64;
    match width >= height {
        true if width > LONGEST => [((LONGEST as f64 / aspect) as usize).max(1), LONGEST],
        false if height > LONGEST => [LONGEST, ((LONGEST as f64 * aspect) as usize).max(1)],
        _ => [height, width],
    }
}

/// An image of whole tiles.
fn whole_tiles([height, width]: [usize; 2], tile: usize) -> [usize; 2] {
    let aspect = width as f64 / height as f64;
    let whole = |side: usize| side.next_multiple_of(tile);
    match width >= height {
        true => [whole((whole(width) as f64 / aspect) as usize), whole(width)],
        false => [whole(height), whole((whole(height) as f64 * aspect) as usize)],
    }
}

register!(Idefics3);
