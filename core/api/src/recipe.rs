//! Recipes: what the host does with the pixels of an image, as a list of steps.

use serde::{Deserialize, Serialize};

/// A value of a recipe: 0 is the image, upright and decoded, and n what the n-th step makes. Of a video it is its
/// frames, each of which goes through every step.
pub type Value = usize;

/// How pixels between pixels are found. All of them widen when they shrink an image (antialiasing), as Pillow's do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle over 2 pixels.
    Bilinear,
    /// A cubic with a = -0.5 over 4 pixels.
    Bicubic,
    /// A windowed sinc over 6 pixels.
    Lanczos3,
}

impl Filter {
    /// By the number that `preprocessor_config.json` has as `resample`: Pillow's.
    pub fn from_resample(number: u64) -> Option<Filter> {
        match number {
            1 => Some(Filter::Lanczos3),
            2 => Some(Filter::Bilinear),
            3 => Some(Filter::Bicubic),
            _ => None,
        }
    }
}

/// One step of a [`Recipe`]. Pixels are bytes until [`RecipeOp::Normalize`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RecipeOp {
    /// Another size; bytes go in, and rounded bytes come out.
    Resize {
        /// Of what.
        of: Value,
        /// Pixels in a row.
        width: usize,
        /// Rows of pixels.
        height: usize,
        /// How.
        filter: Filter,
    },
    /// A part.
    Crop {
        /// Of what.
        of: Value,
        /// Its first column.
        x: usize,
        /// Its first row.
        y: usize,
        /// Pixels in a row.
        width: usize,
        /// Rows of pixels.
        height: usize,
    },
    /// (x * scale - mean) / std, by channel, in f32.
    Normalize {
        /// Of what.
        of: Value,
        /// On each byte, in f64.
        scale: f64,
        /// Of red, green and blue.
        mean: [f32; 3],
        /// Of red, green and blue.
        std: [f32; 3],
    },
    /// Adds rows of patches to those of the image: [channels, frames, patch, patch] each, the last frame, or a still
    /// image, being repeated where there are none left. `merge` times `merge` patches that become one token are
    /// adjacent, and those blocks come in the order of reading.
    Patchify {
        /// Of what: something normalized.
        of: Value,
        /// Pixels on each side of a patch.
        patch: usize,
        /// Patches on each side of a block.
        merge: usize,
        /// Frames in a patch.
        frames: usize,
    },
}

/// Steps in their order, each of which takes what earlier ones made.
pub type Recipe = Vec<RecipeOp>;
