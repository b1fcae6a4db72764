//! Memory of weights and caches, in mappings of its own: what is dropped is the system's again at once. An allocator may keep
//! it for the process, as glibc's does once it has seen large arrays come and go (mallopt(3), M_MMAP_THRESHOLD).

use bytemuck::{AnyBitPattern, NoUninit};
use memmap2::MmapMut;
use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// Bytes from which on an array has a mapping: of the smaller ones there can be more than a system has mappings.
const LEAST: usize = 64 << 10;

/// An array of zeros at first.
pub(super) struct Storage<T>(Bytes<T>);

enum Bytes<T> {
    Mapped(MmapMut, PhantomData<T>),
    Allocated(Vec<T>),
}

impl<T: AnyBitPattern + NoUninit> Storage<T> {
    /// `len` zeros. Pages that nobody writes take no memory.
    pub fn zeroed(len: usize) -> Storage<T> {
        let bytes = len * size_of::<T>();
        // The number of mappings is limited. Where no more can be made, the allocator may still have memory, or reports that it has
        // none.
        let mapped = (bytes >= LEAST).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        Storage(match mapped {
            Some(map) => Bytes::Mapped(map, PhantomData),
            None => Bytes::Allocated(bytemuck::zeroed_vec(len)),
        })
    }
}

impl<T: AnyBitPattern + NoUninit> Deref for Storage<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Bytes::Mapped(map, _) => bytemuck::cast_slice(map),
            Bytes::Allocated(values) => values,
        }
    }
}

impl<T: AnyBitPattern + NoUninit> DerefMut for Storage<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Bytes::Mapped(map, _) => bytemuck::cast_slice_mut(map),
            Bytes::Allocated(values) => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_every_size_are_zeros_and_keep_what_is_written() {
        for len in [0, 1, LEAST / 64 - 1, LEAST / 64, 12_345] {
            let mut storage = Storage::<[u32; 16]>::zeroed(len);
            assert!(storage.len() == len && storage.iter().all(|words| *words == [0; 16]));
            storage.iter_mut().enumerate().for_each(|(i, words)| words[i % 16] = i as u32);
            assert!(storage.iter().enumerate().all(|(i, words)| words[i % 16] == i as u32));
            assert_eq!(matches!(storage.0, Bytes::Mapped(..)), len * 64 >= LEAST);
        }
    }
}
