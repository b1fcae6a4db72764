//! From a prompt with images to tokens, positions and patches.

use super::{
    Image, Pixels,
    fetch::fetched,
    recipe::{self, Prepared},
};
use crate::{
    Error, LmInput, Result, UserInput,
    exec::{ImagePatches, Media, PlacedImage},
    input::Prompt,
    model::UserInputProcessor,
    plugins::Found,
    text::Tokenizer,
};
use rayon::prelude::*;
use serde_json::Value;
use std::sync::Arc;
use tamarack_api::{ImageOptions, Medium, ProcessRequest, Processed, ProcessorConfig};

/// What prepares images for a model, and what its tower takes.
#[derive(Clone)]
pub(crate) struct Processor {
    pub plugin: Found,
    pub config: Value,
    pub files: ProcessorConfig,
    /// Patches that the tower has room for, how wide one is, and how many become one row.
    pub most: usize,
    pub width: usize,
    pub merge: usize,
}

/// Decoded, and what it is called.
type Named = (String, Pixels);

/// Gets the images of the web that a conversation names.
pub(crate) async fn fetch_all(mut input: UserInput) -> Result<UserInput> {
    input.place_images()?;
    for image in &mut input.images {
        *image = fetched(image.clone()).await?;
    }
    Ok(input)
}

impl UserInputProcessor for Processor {
    fn prepare(&self, mut input: UserInput, tokenizer: &Tokenizer) -> Result<LmInput> {
        input.place_images()?;
        let UserInput { prompt, tools, additional_context, images, image_options } = input;
        let offered = (!tools.is_empty()).then_some(&tools[..]);
        let (prompt, is_chat) = match prompt {
            Prompt::Messages(turns) => (tokenizer.render_chat(&turns, offered, true, &additional_context)?, true),
            Prompt::Raw(text) => ((text, true), false),
        };
        if images.is_empty() {
            let tokens = tokenizer.encode(&prompt.0, prompt.1)?;
            return Ok(LmInput { tokens, tools, is_chat, media: None });
        }
        let decode = |image: Image| Ok((image.name(), image.decode()?));
        let images = images.into_par_iter().map(decode).collect::<Result<Vec<Named>>>()?;
        let (tokens, media) = self.prepare_images(tokenizer, prompt, images, image_options)?;
        Ok(LmInput { tokens, tools, is_chat, media: Some(Arc::new(media)) })
    }
}

impl Processor {
    /// Expands the prompt, tokenizes it, and prepares what the tower takes.
    fn prepare_images(
        &self,
        tokenizer: &Tokenizer,
        (prompt, add_special): (String, bool),
        images: Vec<Named>,
        options: ImageOptions,
    ) -> Result<(Vec<u32>, Media)> {
        let request = ProcessRequest {
            prompt,
            images: images.iter().map(|(_, p)| [p.height, p.width]).collect(),
            options,
            files: self.files.clone(),
            max_patches: self.most,
        };
        let processed = self.plugin.process(&self.config, request)?;
        for medium in &processed.media {
            self.check(medium, &images)?;
        }
        let tokens = tokenizer.encode(&processed.prompt, processed.add_special.unwrap_or(add_special))?;
        let mut media = place(&tokens, &processed)?;
        // Parts of an image begin alike: what they have in common is done once.
        let parts: Vec<&[Medium]> = processed.media.chunk_by(|a, b| a.image == b.image).collect();
        let prepare = |parts: &[Medium]| {
            let (name, pixels) = &images[parts[0].image];
            let wrong = |e: String| Error::Plugin(format!("{name}: {}: {e}", self.plugin.origin()));
            let prepared = recipe::run(parts, pixels.clone(), self.width).map_err(wrong)?;
            let patches = |(p, medium): (Prepared, _)| (Arc::new(ImagePatches::new(p.patches, medium)), p.seen);
            Ok(prepared.into_iter().zip(parts).map(patches).collect::<Vec<_>>())
        };
        let prepared: Result<Vec<_>> = parts.into_par_iter().map(prepare).collect();
        for (image, (patches, pixels)) in media.images.iter_mut().zip(prepared?.into_iter().flatten()) {
            image.patches = patches;
            media.seen.extend(pixels);
        }
        Ok((tokens, media))
    }

    /// Refuses what the plugin says of an image if it does not fit together, or not into the tower.
    fn check(&self, medium: &Medium, images: &[Named]) -> Result<()> {
        let Some((name, pixels)) = images.get(medium.image) else {
            let (found, count) = (medium.image, images.len());
            return Err(Error::Plugin(format!("{}: there is no image {found} of {count}", self.plugin.origin())));
        };
        let count = medium.segments.iter().try_fold(0usize, |n, s| n.checked_add(*s)).unwrap_or(usize::MAX);
        if count > self.most {
            let (most, Pixels { width, height, .. }) = (self.most, pixels);
            return Err(Error::Request(format!(
                "{name}: {width} x {height} pixels make {count} patches, the tower has room for {most}: set max_pixels"
            )));
        }
        let fits = |len: usize, all: usize| len == 0 || len == all;
        let is_whole = medium.tokens.checked_mul(self.merge) == Some(count)
            && count > 0
            && !medium.segments.contains(&0)
            && fits(medium.positions.len(), medium.tokens)
            && fits(medium.patch_positions.len(), count)
            && fits(medium.ids.len(), count);
        if is_whole {
            return Ok(());
        }
        let (merge, tokens, origin) = (self.merge, medium.tokens, self.plugin.origin());
        Err(Error::Plugin(format!(
            "{name}: {origin}: {count} patches, {merge} of which make one row, do not fit {tokens} tokens and what is said of each"
        )))
    }
}

/// Finds the tokens of every image, and counts positions.
fn place(tokens: &[u32], processed: &Processed) -> Result<Media> {
    let (found, expected) = (
        tokens.iter().filter(|t| **t == processed.image_token).count(),
        processed.media.iter().try_fold(0usize, |n, m| n.checked_add(m.tokens)).unwrap_or(usize::MAX),
    );
    if found != expected {
        let token = processed.image_token;
        return Err(Error::Request(format!(
            "the prompt has {found} image tokens ({token}), its images make {expected}: does its text spell one out, or \
             does the tokenizer lack it?"
        )));
    }
    let prefix = if processed.is_prefix { tokens.len() } else { 0 };
    let (mut media, mut next) = (Media { prefix, ..Media::default() }, 0u32);
    let mut rest = processed.media.iter().filter(|m| m.tokens > 0);
    let mut image: Option<(&Medium, u32)> = None;
    for (i, token) in tokens.iter().enumerate() {
        if *token != processed.image_token {
            media.positions.push([next; 3]);
            next = next.saturating_add(1);
            continue;
        }
        if image.is_none()
            && let Some(medium) = rest.next()
        {
            image = Some((medium, next));
            let patches = Arc::new(ImagePatches::new(Vec::new(), &Medium::default()));
            media.images.push(PlacedImage { tokens: Vec::new(), span: medium.span, patches });
        }
        let (Some((medium, first)), Some(placed)) = (image, media.images.last_mut()) else { continue };
        let row = placed.tokens.len();
        placed.tokens.push(i as u32);
        match medium.positions.get(row) {
            Some(position) => media.positions.push(position.map(|p| first.saturating_add(p))),
            None => {
                media.positions.push([next; 3]);
                next = next.saturating_add(1);
            }
        }
        if placed.tokens.len() == medium.tokens {
            if !medium.positions.is_empty() {
                next = first.saturating_add(medium.advance);
            }
            image = None;
        }
    }
    media.next = next;
    Ok(media)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamarack_api::smart_resize;

    /// What `transformers` gives for random sizes and mixes: see tests/goldens/vision.py.
    fn table(name: &str) -> Vec<Value> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/vision/tables.json");
        let tables: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        tables[name].as_array().unwrap().clone()
    }

    #[test]
    fn sizes_are_those_of_transformers() {
        for row in table("smart_resize") {
            let row: Vec<usize> = serde_json::from_value(row).unwrap();
            let found = smart_resize([row[0], row[1]], row[2], row[3], row[4]).unwrap();
            assert_eq!(found, row[5..], "{row:?}");
        }
        for wrong in [[0, 5], [5, 0], [1, 201], [402, 2]] {
            assert!(smart_resize(wrong, 28, 3136, 1 << 20).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn positions_of_random_mixes_are_those_of_transformers() {
        for mix in table("mixes") {
            let grids: Vec<[usize; 3]> = serde_json::from_value(mix["grids"].clone()).unwrap();
            let tokens: Vec<u32> = serde_json::from_value(mix["tokens"].clone()).unwrap();
            let expected: Vec<[u32; 3]> = serde_json::from_value(mix["positions"].clone()).unwrap();
            let media = grids.iter().map(|[_, h, w]| Medium::still(0, [*h, *w], 2).spread(2)).collect();
            let image_token = mix["image_token"].as_u64().unwrap() as u32;
            let media = place(&tokens, &Processed { image_token, media, ..Processed::default() }).unwrap();
            assert_eq!(media.positions, expected, "{grids:?}");
            assert_eq!(media.next, expected.last().unwrap()[0] + 1);
        }
    }

    #[test]
    fn positions_are_those_of_qwen2_vl() {
        // Two words, an image of 2 x 3, a word, an image without positions of its own, a word.
        let wide = Medium::still(0, [4, 6], 2).spread(2);
        let plain = Medium { tokens: 2, ..Medium::default() };
        let processed = Processed { image_token: 9, media: vec![wide, plain], ..Processed::default() };
        let tokens = [1, 2, 9, 9, 9, 9, 9, 9, 3, 9, 9, 4];
        let media = place(&tokens, &processed).unwrap();
        let expected = [
            [0; 3],
            [1; 3],
            [2, 2, 2],
            [2, 2, 3],
            [2, 2, 4],
            [2, 3, 2],
            [2, 3, 3],
            [2, 3, 4],
            [5; 3],
            [6; 3],
            [7; 3],
            [8; 3],
        ];
        assert_eq!((media.positions.as_slice(), media.next), (&expected[..], 9));
        assert_eq!(media.images[1].range(), 9..11);
        let e = place(&tokens[1..5], &processed).unwrap_err().to_string();
        assert!(e.starts_with("the prompt has 3 image tokens (9), its images make 8"), "{e}");
    }
}
