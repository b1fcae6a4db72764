//! What is kept of earlier tokens.

use super::storage::Storage;
use crate::{exec::PAGE, program::Cache};
use half::{f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;
use tamarack_kernels::{CacheFormat, step::FULL_SLOT};

/// A cache as devices have it: a slot has the keys of all heads, then their values.
pub(super) enum Kept {
    /// [slots, width]
    Halves(Storage<f16>),
    /// [slots, words]
    Packed(Storage<u32>),
}

impl Kept {
    /// One of so many slots.
    pub fn new(cache: &Cache, slots: usize) -> Kept {
        match cache.format {
            // Zeros that the system has at hand: pages that no sequence has reached take no memory.
            CacheFormat::F16 => Kept::Halves(Storage::zeroed(slots * cache.width())),
            CacheFormat::Affine { .. } => Kept::Packed(Storage::zeroed(slots * cache.words())),
        }
    }

    /// Bytes of a slot.
    pub fn slot_bytes(cache: &Cache) -> usize {
        match cache.format {
            CacheFormat::F16 => cache.width() * size_of::<f16>(),
            CacheFormat::Affine { .. } => cache.words() * size_of::<u32>(),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Kept::Halves(all) => size_of_val(&all[..]),
            Kept::Packed(all) => size_of_val(&all[..]),
        }
    }

    /// Fills a slot. A convolution of an odd number of channels leaves its last value as it is.
    pub fn set(&mut self, cache: &Cache, slot: usize, row: &[f32]) {
        match self {
            Kept::Halves(all) => {
                all[slot % FULL_SLOT as usize * cache.width()..][..row.len()].convert_from_f32_slice(row);
            }
            Kept::Packed(all) => {
                let (place, cache) = cache.place(slot);
                cache.pack(row, &mut all[place]);
            }
        }
    }

    /// What a slot holds, or the beginning of it.
    pub fn slot(&self, cache: &Cache, slot: usize, out: &mut [f32]) {
        match self {
            Kept::Halves(all) => {
                all[slot % FULL_SLOT as usize * cache.width()..][..out.len()].convert_to_f32_slice(out);
            }
            Kept::Packed(all) => {
                let (place, cache) = cache.place(slot);
                cache.unpack(&all[place], out);
            }
        }
    }

    /// All values of the pages of a step, [pages, slots of a page, width].
    pub fn unpacked(&self, cache: &Cache, pages: &[u32]) -> Vec<f32> {
        let width = cache.width();
        let mut all = vec![0.0; pages.len() * PAGE * width];
        all.par_chunks_mut(PAGE * width).zip(pages).for_each(|(to, page)| {
            let slots = to.chunks_exact_mut(width).enumerate();
            slots.for_each(|(i, to)| self.slot(cache, *page as usize * PAGE + i, to));
        });
        all
    }
}
