//! What a plugin says of an image, or of a moment of a video.

use crate::{Error, Filter, Frames, ProcessRequest, ProcessorConfig, Recipe, RecipeOp, Result, VideoInfo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How one image is prepared, and what the tower and the text model need to know of it. Or some frames of a video,
/// which the tower takes together.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Medium {
    /// Which of the request's images.
    pub image: usize,
    /// Which of the request's videos; then it is none of the images. Since api 1.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<usize>,
    /// Which of the video's frames the recipe begins with, in ascending order, none of which come before those of an
    /// earlier medium. Since api 1.4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<usize>,
    /// What is done with its pixels.
    pub recipe: Recipe,
    /// Frames, and rows and columns of patches: for people.
    pub grid: [usize; 3],
    /// How many tokens it has.
    pub tokens: usize,
    /// Where each of them is, beyond the position that the first one would have as text, in time, row and column.
    /// Empty: where they would be as text.
    pub positions: Vec<[u32; 3]>,
    /// By how much positions grow over all of them; looked at if there are `positions`.
    pub advance: u32,
    /// Whether its tokens see each other, and not only those before.
    pub span: bool,
    /// How many patches each of its segments has, see [`crate::segment_attention`].
    pub segments: Vec<usize>,
    /// Row and column of each patch, for ropes.
    pub patch_positions: Vec<[u32; 2]>,
    /// A number for each patch: see [`crate::TowerStep::ids`]. Empty: all 0.
    pub ids: Vec<u32>,
    /// The order in which the tower takes the patches, block by block: the first block that it takes is that of token
    /// `order[0]`. All that is said of patches here is in the order of tokens all the same, and so is what the recipe
    /// makes; segments and windows are runs in the tower's order. Empty: that of the tokens. Since api 1.3.
    #[serde(default)]
    pub order: Vec<u32>,
    /// How many patches each of its windows has, see [`crate::window_attention`]. Since api 1.3.
    #[serde(default)]
    pub windows: Vec<usize>,
    /// What [`crate::TowerStep::input`] gives, by name, patch after patch. Since api 1.3.
    #[serde(default)]
    pub inputs: BTreeMap<String, Vec<f32>>,
}

/// Rows and columns of patches in the order of [`crate::RecipeOp::Patchify`]: block by block of `merge` times `merge`.
fn block_major(rows: usize, columns: usize, merge: usize) -> Vec<[u32; 2]> {
    let (blocks, within) = (columns / merge.max(1), merge * merge);
    let place = |i: usize| {
        let (block, i) = (i / within, i % within);
        [block / blocks * merge + i / merge, block % blocks * merge + i % merge].map(|n| n as u32)
    };
    (0..rows * columns).map(place).collect()
}

impl Medium {
    /// A still image of so many rows and columns of patches, in one segment, `merge` times `merge` of them a token.
    pub fn still(image: usize, [rows, columns]: [usize; 2], merge: usize) -> Medium {
        Medium {
            image,
            grid: [1, rows, columns],
            tokens: rows * columns / (merge * merge).max(1),
            segments: vec![rows * columns],
            patch_positions: block_major(rows, columns, merge),
            ..Medium::default()
        }
    }

    /// The same of these frames of a video. Since api 1.4.
    pub fn of_video(self, video: usize, frames: &[usize]) -> Medium {
        Medium { image: 0, video: Some(video), frames: frames.to_vec(), ..self }
    }

    /// Its tokens at the rows and columns of what they show, all at one time: multi-axis positions, arXiv:2409.12191.
    pub fn spread(self, merge: usize) -> Medium {
        let [rows, columns] = [self.grid[1], self.grid[2]].map(|n| n / merge.max(1));
        let positions = (0..rows * columns).map(|i| [0, (i / columns) as u32, (i % columns) as u32]).collect();
        Medium { positions, advance: rows.max(columns) as u32, ..self }
    }
}

/// Moments of a video one after the other, `interval` apart in time, all counted from where the first one begins. What
/// follows comes after the latest time and the last row and column. Since api 1.4.
pub fn in_time(mut moments: Vec<Medium>, interval: f32) -> Vec<Medium> {
    let mut end = 0;
    for (i, moment) in moments.iter_mut().enumerate() {
        // Rounded as f32, and down, as `transformers` does.
        let time = (i as f32 * interval) as u32;
        end = moment.advance.max(time.saturating_add(1));
        moment.positions.iter_mut().for_each(|[t, ..]| *t = t.saturating_add(time));
        moment.advance = 0;
    }
    moments.last_mut().into_iter().for_each(|last| last.advance = end);
    moments
}

/// What Qwen's processors do with images and frames of any size: they are resized to whole blocks of patches, whose
/// tokens know row and column. Since api 1.4.
#[derive(Clone, PartialEq, Debug)]
pub struct Blocks {
    /// Pixels on each side of a patch.
    pub patch: usize,
    /// Patches on each side of a block, which is a token.
    pub merge: usize,
    /// Frames in a patch.
    pub frames: usize,
    filter: Filter,
    normalize: RecipeOp,
}

impl Blocks {
    /// What the files say; else patches of such sizes ([`Blocks::patch`], [`Blocks::merge`], [`Blocks::frames`]),
    /// colours of such means and deviations, and bicubic.
    pub fn new(files: &ProcessorConfig, sizes: [usize; 3], mean: [f32; 3], std: [f32; 3]) -> Result<Blocks> {
        Ok(Blocks {
            patch: files.size("patch_size", sizes[0])?,
            merge: files.size("merge_size", sizes[1])?,
            frames: files.size("temporal_patch_size", sizes[2])?,
            filter: files.filter(Filter::Bicubic)?,
            normalize: files.normalize(1, mean, std)?,
        })
    }

    /// Pixels on each side of a block.
    pub fn side(&self) -> usize {
        self.patch.saturating_mul(self.merge)
    }

    /// An image that is resized to this height and width.
    pub fn image(&self, image: usize, [height, width]: [usize; 2]) -> Medium {
        let recipe = vec![
            RecipeOp::Resize { of: 0, width, height, filter: self.filter },
            self.normalize.clone(),
            RecipeOp::Patchify { of: 2, patch: self.patch, merge: self.merge, frames: self.frames },
        ];
        let grid = [height, width].map(|side| side / self.patch.max(1));
        Medium { recipe, ..Medium::still(image, grid, self.merge).spread(self.merge) }
    }

    /// All images of a request, resized by [`smart_resize`] to so many pixels at the least and at most, where nobody
    /// says otherwise.
    pub fn images(&self, request: &ProcessRequest, pixels: [usize; 2]) -> Result<Vec<Medium>> {
        let [least, most] = request.pixels(pixels, self.patch)?;
        let image = |(i, size): (usize, &[usize; 2])| Ok(self.image(i, smart_resize(*size, self.side(), least, most)?));
        request.images.iter().enumerate().map(image).collect()
    }

    /// Moments of a video, each of as many of its `frames` as a patch has; where the last one lacks some, its last
    /// frame is repeated.
    pub fn moments(&self, video: usize, frames: &[usize], size: [usize; 2]) -> Vec<Medium> {
        let moment = self.image(0, size);
        frames.chunks(self.frames.max(1)).map(|frames| moment.clone().of_video(video, frames)).collect()
    }

    /// Moments of each video of [`ProcessRequest::of_videos`], whose frames are resized as images are: those of
    /// Qwen2-VL's video processor, which looks at all frames unless it is told otherwise.
    pub fn videos(&self, request: &ProcessRequest, pixels: [usize; 2]) -> Result<Vec<Vec<Medium>>> {
        let [least, most] = request.pixels(pixels, self.patch)?;
        let limits = [request.files.size("min_frames", 4)?, request.files.size("max_frames", 768)?];
        let video = |(i, video): (usize, &VideoInfo)| {
            let frames = video.evenly(request.frames(false, Frames::All), self.frames, limits)?;
            Ok(self.moments(i, &frames, smart_resize(video.size, self.side(), least, most)?))
        };
        request.videos.iter().enumerate().map(video).collect()
    }
}

/// Height and width of an image in whole multiples of `factor`, its pixels between `min` and `max` and its shape as far
/// as possible its own: `smart_resize` of `transformers`' Qwen2-VL.
pub fn smart_resize(size: [usize; 2], factor: usize, min: usize, max: usize) -> Result<[usize; 2]> {
    smart_resize_frames(size, [1, 1], factor, min, max)
}

/// The same for a video, whose pixels are those of all its `frames`, and between `min` and `max` when they are rounded
/// to multiples of the second number: `smart_resize` of Qwen3-VL's video processor, but for sides below `factor`. Since
/// api 1.4.
pub fn smart_resize_frames(
    [height, width]: [usize; 2],
    frames: [usize; 2],
    factor: usize,
    min: usize,
    max: usize,
) -> Result<[usize; 2]> {
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    if height == 0 || width == 0 || h.max(w) / h.min(w) > 200.0 {
        return Err(Error(format!("an image of {width} x {height} pixels: expected sides of a ratio of 200 at most")));
    }
    let [frames, moment] = frames.map(|n| n as f64);
    let whole = |side: f64, f: f64| (side / f).round_ties_even() * f;
    let (mut rows, mut columns, moments) = (whole(h, f), whole(w, f), whole(frames, moment));
    if moments * rows * columns > max as f64 {
        let beta = (frames * h * w / max as f64).sqrt();
        (rows, columns) = (f.max((h / beta / f).floor() * f), f.max((w / beta / f).floor() * f));
    } else if moments * rows * columns < min as f64 {
        let beta = (min as f64 / (frames * h * w)).sqrt();
        (rows, columns) = ((h * beta / f).ceil() * f, (w * beta / f).ceil() * f);
    }
    Ok([rows as usize, columns as usize])
}
