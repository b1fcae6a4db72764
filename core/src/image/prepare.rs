//! From a prompt with images and videos to tokens, positions and patches.

use super::{
    Image, Pixels, Sampling,
    fetch::{fetch_image, fetch_video},
    place::place,
    recipe::{self, Prepared},
    video::Opened,
};
use crate::{
    Error, LmInput, Result, UserInput,
    exec::{ImagePatches, Media},
    input::Prompt,
    model::UserInputProcessor,
    plugins::Found,
    text::Tokenizer,
};
use rayon::prelude::*;
use serde_json::Value;
use std::sync::Arc;
use tamarack_api::{ImageOptions, Medium, ProcessRequest, ProcessorConfig};

/// Bytes of all patches of a prompt.
const MAX_BYTES: u64 = 4 << 30;
/// Pixels of frames that are held together.
const MAX_MOMENT: u64 = 400_000_000;

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
    /// What comes with each patch beside its pixels, and how many numbers of it; whether attention has windows.
    pub inputs: Vec<(String, usize)>,
    pub windowed: bool,
}

/// What a prompt came with: decoded images and what they are called, and videos of which headers were read.
struct Sources {
    images: Vec<(String, Pixels)>,
    videos: Vec<Opened>,
}

/// Gets the images and videos of the web that a conversation names.
pub(crate) async fn fetch_all(mut input: UserInput) -> Result<UserInput> {
    input.place_media()?;
    for image in &mut input.images {
        fetch_image(image).await?;
    }
    for video in &mut input.videos {
        fetch_video(video).await?;
    }
    Ok(input)
}

impl UserInputProcessor for Processor {
    fn prepare(&self, mut input: UserInput, tokenizer: &Tokenizer) -> Result<LmInput> {
        input.place_media()?;
        let UserInput { prompt, tools, additional_context, images, image_options, videos, sampling } = input;
        if !videos.is_empty() && !self.plugin.declaration().watches {
            let model_type = self.config["model_type"].as_str().unwrap_or_default();
            return Err(Error::Request(format!("{model_type} takes no videos: give it frames as images")));
        }
        sampling.check().map_err(|e| Error::Request(e.0))?;
        let offered = (!tools.is_empty()).then_some(&tools[..]);
        let (prompt, is_chat) = match prompt {
            Prompt::Messages(turns) => (tokenizer.render_chat(&turns, offered, true, &additional_context)?, true),
            Prompt::Raw(text) => ((text, true), false),
        };
        if images.is_empty() && videos.is_empty() {
            let tokens = tokenizer.encode(&prompt.0, prompt.1)?;
            return Ok(LmInput { tokens, tools, is_chat, media: None });
        }
        let decode = |image: Image| Ok((image.name(), image.decode()?));
        let images = images.into_par_iter().map(decode).collect::<Result<_>>()?;
        let videos = videos.into_iter().map(Opened::open).collect::<Result<_>>()?;
        let (tokens, media) =
            self.prepare_media(tokenizer, prompt, Sources { images, videos }, (image_options, sampling))?;
        Ok(LmInput { tokens, tools, is_chat, media: Some(Arc::new(media)) })
    }
}

impl Processor {
    /// Expands the prompt, tokenizes it, and prepares what the tower takes.
    fn prepare_media(
        &self,
        tokenizer: &Tokenizer,
        (prompt, add_special): (String, bool),
        sources: Sources,
        (options, sampling): (ImageOptions, Sampling),
    ) -> Result<(Vec<u32>, Media)> {
        let request = ProcessRequest {
            prompt,
            images: sources.images.iter().map(|(_, p)| [p.height, p.width]).collect(),
            options,
            files: self.files.clone(),
            max_patches: self.most,
            videos: sources.videos.iter().map(|v| v.info).collect(),
            sampling,
        };
        let processed = self.plugin.process(&self.config, request)?;
        for medium in &processed.media {
            self.check(medium, &sources)?;
        }
        self.check_all(&processed.media, &sources)?;
        let tokens = tokenizer.encode(&processed.prompt, processed.add_special.unwrap_or(add_special))?;
        let (mut media, order) = place(&tokens, &processed)?;
        // Parts of an image begin alike: what they have in common is done once. Frames of a video are decoded one by
        // one.
        let parts: Vec<&[Medium]> = processed.media.chunk_by(|a, b| (a.image, a.video) == (b.image, b.video)).collect();
        let prepared = parts.into_par_iter().map(|parts| match parts[0].video {
            Some(video) => self.frames(&sources.videos[video], parts),
            None => {
                let (name, pixels) = &sources.images[parts[0].image];
                self.run(name, parts, vec![pixels.clone()])
            }
        });
        let prepared = prepared.collect::<Result<Vec<Vec<_>>>>()?;
        let mut prepared: Vec<_> = prepared.into_iter().flatten().map(Some).collect();
        for (image, index) in media.images.iter_mut().zip(order) {
            if let Some((patches, seen)) = prepared[index].take() {
                image.patches = patches;
                media.seen.extend(seen);
            }
        }
        Ok((tokens, media))
    }

    /// What the tower takes of an image's parts, or of a moment of a video, and what it sees.
    fn run(&self, name: &str, parts: &[Medium], frames: Vec<Pixels>) -> Result<Vec<(Arc<ImagePatches>, Vec<Pixels>)>> {
        let wrong = |e: String| Error::Plugin(format!("{name}: {}: {e}", self.plugin.origin()));
        let prepared = recipe::run(parts, frames, self.width).map_err(wrong)?;
        let patches = |(p, medium): (Prepared, _)| (Arc::new(ImagePatches::new(p.patches, medium)), p.seen);
        Ok(prepared.into_iter().zip(parts).map(patches).collect())
    }

    /// The same of all moments of a video, of whose frames no more are held than those of one moment.
    fn frames(&self, video: &Opened, moments: &[Medium]) -> Result<Vec<(Arc<ImagePatches>, Vec<Pixels>)>> {
        let mut wanted: Vec<usize> = moments.iter().flat_map(|m| &m.frames).copied().collect();
        wanted.dedup();
        let (mut decoded, mut places) = (video.decode(&wanted)?, wanted.iter());
        let mut last = None;
        let mut all = Vec::with_capacity(moments.len());
        for moment in moments {
            let mut frames = Vec::with_capacity(moment.frames.len());
            for place in &moment.frames {
                if last.as_ref().is_none_or(|(at, _)| at != place) {
                    let gone = || Error::file(&video.name, "frames are missing that were there before");
                    last = places.next().copied().zip(Some(decoded.next().ok_or_else(gone)??));
                }
                frames.extend(last.iter().map(|(_, frame)| frame.clone()));
            }
            all.extend(self.run(&video.name, std::slice::from_ref(moment), frames)?);
        }
        Ok(all)
    }

    /// Refuses what the plugin says of an image if it does not fit together, or not into the tower.
    fn check(&self, medium: &Medium, sources: &Sources) -> Result<()> {
        let (name, [height, width]) = self.source(medium, sources)?;
        let count = medium.segments.iter().try_fold(0usize, |n, s| n.checked_add(*s)).unwrap_or(usize::MAX);
        if count > self.most {
            let most = self.most;
            return Err(Error::Request(format!(
                "{name}: {width} x {height} pixels make {count} patches, the tower has room for {most}: set max_pixels"
            )));
        }
        let fits = |len: usize, all: usize| len == 0 || len == all;
        if let Some((input, width)) = self.inputs.iter().find(|(input, width)| {
            medium.inputs.get(input).is_none_or(|values| Some(values.len()) != count.checked_mul(*width))
        }) {
            let origin = self.plugin.origin();
            return Err(Error::Plugin(format!(
                "{name}: {origin}: the tower takes {width} numbers `{input}` of each of {count} patches, the processor \
                 gives others"
            )));
        }
        let windows = medium.windows.iter().try_fold(0usize, |n, w| n.checked_add(*w)).unwrap_or(usize::MAX);
        let mut order = medium.order.clone();
        order.sort_unstable();
        let is_whole = medium.tokens.checked_mul(self.merge) == Some(count)
            && count > 0
            && !medium.segments.contains(&0)
            && (if self.windowed { windows == count } else { fits(windows, count) })
            && !medium.windows.contains(&0)
            && (order.is_empty() || order.iter().copied().eq(0..medium.tokens as u32))
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

    /// What a medium is of, and its height and width.
    fn source<'a>(&self, medium: &Medium, sources: &'a Sources) -> Result<(&'a str, [usize; 2])> {
        let (images, videos, origin) = (sources.images.len(), sources.videos.len(), self.plugin.origin());
        let Some(video) = medium.video else {
            let image = sources.images.get(medium.image).map(|(name, p)| (name.as_str(), [p.height, p.width]));
            let found = medium.image;
            return image.ok_or_else(|| Error::Plugin(format!("{origin}: there is no image {found} of {images}")));
        };
        let Opened { name, info, .. } = sources
            .videos
            .get(video)
            .ok_or_else(|| Error::Plugin(format!("{origin}: there is no video {video} of {videos}")))?;
        let last = medium.frames.last().copied().filter(|last| *last < info.frames && medium.frames.is_sorted());
        if last.is_none() {
            let (frames, count) = (&medium.frames, info.frames);
            return Err(Error::Plugin(format!(
                "{name}: {origin}: expected places of its {count} frames in their order, found {frames:?}"
            )));
        }
        let held = info.size[0] as u64 * info.size[1] as u64 * medium.frames.len() as u64;
        if held > MAX_MOMENT {
            let count = medium.frames.len();
            return Err(Error::Request(format!(
                "{name}: {count} frames of {} x {} pixels are seen together: expected {MAX_MOMENT} pixels at most, make \
                 the frames smaller",
                info.size[1], info.size[0]
            )));
        }
        Ok((name, info.size))
    }

    /// Refuses more than this machine should hold, before any frame is decoded, and videos that go back in time.
    fn check_all(&self, media: &[Medium], sources: &Sources) -> Result<()> {
        let patches: usize = media.iter().flat_map(|m| &m.segments).sum();
        let bytes = patches as u64 * self.width as u64 * 4;
        if bytes > MAX_BYTES {
            let [found, most] = [bytes, MAX_BYTES].map(|n| n >> 20);
            return Err(Error::Request(format!(
                "{} images and {} videos are {found} MiB of patches: expected {most} MiB at most, set max_pixels, or \
                 look at fewer frames",
                sources.images.len(),
                sources.videos.len()
            )));
        }
        let goes_back = |w: &[Medium]| {
            w[0].video.is_some() && w[0].video == w[1].video && w[1].frames[0] < w[0].frames[w[0].frames.len() - 1]
        };
        if media.windows(2).any(goes_back) {
            let origin = self.plugin.origin();
            return Err(Error::Plugin(format!("{origin}: moments of a video have to be in their order")));
        }
        Ok(())
    }
}
