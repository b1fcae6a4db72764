//! What a layer keeps of each token.

use crate::exec::{self, PAGE};
use std::ops::Range;
use tamarack_kernels::{CacheFormat, step::FULL_SLOT};

/// The sizes of one layer's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    /// Key and value heads.
    pub groups: usize,
    /// Elements of a key.
    pub dk: usize,
    /// Elements of a value.
    pub dv: usize,
    /// Whether a value is the beginning of its key, and not stored: a latent's.
    pub latent: bool,
    /// How keys and values lie there.
    pub format: CacheFormat,
    /// Whether, in a tower, its sequences are windows and not segments.
    pub windowed: bool,
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
