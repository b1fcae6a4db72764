//! Operations whose description is more than a line.

use super::{Cache, Post};
use tamarack_api::WeightId;

/// y\[h\] = W\[h\] x\[h\], or W\[h\]^T x\[h\]. Latent attention has its keys' half moved to the queries and its
/// values' half to the result, so that nothing is computed for a cached row again (arXiv:2405.04434, section 2.1.2).
#[derive(Clone, PartialEq, Debug)]
pub struct HeadLinear {
    /// [heads, n, k], transposed [heads, k, n].
    pub weight: WeightId,
    /// Whether it is W^T.
    pub transposed: bool,
}

/// A causal convolution. With two inputs their product is convolved, and cached.
#[derive(Clone, PartialEq, Debug)]
pub struct Conv {
    /// [channels, kernel]
    pub weight: WeightId,
    /// `[channels]`
    pub bias: Option<WeightId>,
    /// Where the rows go: as keys of one head, without values.
    pub cache: usize,
    /// Whether there is a second input.
    pub gated: bool,
    /// And then.
    pub post: Vec<Post>,
}

impl Conv {
    /// Inputs before those of the post steps.
    pub fn inputs(&self) -> usize {
        if self.gated { 2 } else { 1 }
    }
}

impl Cache {
    /// Elements of a slot.
    pub fn width(&self) -> usize {
        let value = if self.latent { 0 } else { self.dv };
        self.groups * (self.dk + value)
    }
}
