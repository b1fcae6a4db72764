//! Operations whose description is more than a line.

use super::{Cache, Post};
use crate::exec::{self, PAGE};
use std::ops::Range;
use tamarack_api::WeightId;
use tamarack_kernels::{CacheFormat, step::FULL_SLOT};

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
        self.heads().sum()
    }

    /// Words of a slot on a device.
    pub fn words(&self) -> usize {
        self.heads().map(|dim| self.format.words(dim as u32) as usize).sum()
    }

    /// Which of its words a slot has, and in which form. Slots of pages in full are flagged, see
    /// [`tamarack_kernels::step::FULL_SLOT`].
    pub fn place(&self, slot: usize) -> (Range<usize>, Cache) {
        let plain = slot % FULL_SLOT as usize;
        let own = Cache { format: if plain == slot { self.format } else { CacheFormat::F16 }, ..*self };
        let start = plain / PAGE * PAGE * self.words() + plain % PAGE * own.words();
        (start..start + own.words(), own)
    }

    /// The elements of each key and then of each value of a slot.
    pub fn heads(&self) -> impl Iterator<Item = usize> {
        let values = if self.latent { 0 } else { self.groups };
        std::iter::repeat_n(self.dk, self.groups).chain(std::iter::repeat_n(self.dv, values))
    }

    /// A slot as a device keeps it.
    pub fn pack(&self, mut slot: &[f32], mut words: &mut [u32]) {
        for dim in self.heads() {
            let (head, rest) = slot.split_at(dim);
            let (own, others) = words.split_at_mut(self.format.words(dim as u32) as usize);
            exec::pack(self.format, head, own);
            (slot, words) = (rest, others);
        }
    }

    /// What [`Cache::pack`] kept.
    pub fn unpack(&self, mut words: &[u32], mut slot: &mut [f32]) {
        for dim in self.heads() {
            let (head, rest) = slot.split_at_mut(dim);
            let (own, others) = words.split_at(self.format.words(dim as u32) as usize);
            exec::unpack(self.format, own, head);
            (slot, words) = (rest, others);
        }
    }
}
