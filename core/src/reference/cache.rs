//! What the reference executor keeps of earlier tokens.

use crate::program::Cache;
use std::borrow::Cow;
use tamarack_kernels::{CacheFormat, step::FULL_SLOT};

/// A cache: plain f32 where a device has f16, and words as a device has them where it quantizes.
pub(super) enum Kept {
    Plain { width: usize, values: Vec<f32> },
    Packed { cache: Cache, words: Vec<u32> },
}

impl Kept {
    /// One of so many slots.
    pub fn new(cache: Cache, slots: usize) -> Kept {
        match cache.format {
            CacheFormat::F16 => Kept::Plain { width: cache.width(), values: vec![0.0; slots * cache.width()] },
            _ => Kept::Packed { cache, words: vec![0; slots * cache.words()] },
        }
    }

    /// Values or words of a slot, of four bytes each.
    pub fn values(cache: &Cache) -> usize {
        if cache.format == CacheFormat::F16 { cache.width() } else { cache.words() }
    }

    /// Values or words of all slots.
    pub fn len(&self) -> usize {
        match self {
            Kept::Plain { values, .. } => values.len(),
            Kept::Packed { words, .. } => words.len(),
        }
    }

    /// What a slot holds.
    pub fn slot(&self, slot: usize) -> Cow<'_, [f32]> {
        match self {
            Kept::Plain { width, values } => Cow::Borrowed(&values[slot % FULL_SLOT as usize * width..][..*width]),
            Kept::Packed { cache, words } => {
                let (mut row, (place, cache)) = (vec![0.0; cache.width()], cache.place(slot));
                cache.unpack(&words[place], &mut row);
                Cow::Owned(row)
            }
        }
    }

    /// Fills a slot.
    pub fn set(&mut self, slot: usize, row: &[f32]) {
        match self {
            // A convolution of an odd number of channels leaves the last value of its slot.
            Kept::Plain { width, values } => {
                values[slot % FULL_SLOT as usize * *width..][..row.len()].copy_from_slice(row);
            }
            Kept::Packed { cache, words } => {
                let (place, cache) = cache.place(slot);
                cache.pack(row, &mut words[place]);
            }
        }
    }
}
