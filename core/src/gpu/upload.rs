//! Rows of a matrix on their way to a device, packed on all cores straight into the memory that it copies from.

use super::{Gpu, weights::magnitude};
use crate::{Error, Result, weights::Matrix};
use rayon::prelude::*;
use std::{num::NonZeroU64, ops::Range};
use tamarack_kernels::Format;

/// Bytes that a thread hands over at once.
const SHARE: usize = 512 << 10;
/// Bytes that it packs at a time: they are in its cache when they are copied.
const PIECE: usize = 64 << 10;

/// Where rows go: a buffer of so many words a row, from row `first` on.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub words: usize,
    pub first: usize,
}

impl To<'_> {
    /// Memory for so many rows from `row` of those on, which the next submission copies; none for no words.
    fn staged(&self, gpu: &Gpu, row: usize, rows: usize) -> Result<Option<wgpu::QueueWriteBufferView>> {
        let bytes = |rows: usize| (rows * self.words * 4) as u64;
        let Some(size) = NonZeroU64::new(bytes(rows)) else { return Ok(None) };
        let view = gpu.queue.write_buffer_with(self.buffer, bytes(self.first + row), size);
        if view.is_none() {
            gpu.take_errors()?;
            return Err(Error::Device(format!("{}: no memory for {size} bytes to copy", gpu.info().name)));
        }
        Ok(view)
    }
}

/// Packs rows that have one format. Returns a bound of their values, see [`magnitude`].
pub(super) fn upload_rows(
    gpu: &Gpu,
    (matrix, format): (&Matrix, Format),
    rows: Range<usize>,
    quants: To<'_>,
    scales: Option<To<'_>>,
) -> Result<f32> {
    let scale_words = scales.map_or(0, |to| to.words);
    let row_bytes = 4 * (quants.words + scale_words);
    let [share, piece] = [SHARE, PIECE].map(|bytes| (bytes / row_bytes.max(1)).max(1));
    let starts: Vec<usize> = rows.clone().step_by(share).collect();
    let one = |start: usize| {
        let own = start..(start + share).min(rows.end);
        let staged = |to: To<'_>| to.staged(gpu, start - rows.start, own.len());
        let (mut quant_memory, mut scale_memory) = (staged(quants)?, scales.map_or(Ok(None), staged)?);
        let (mut packed_quants, mut packed_scales, mut largest) = (Vec::new(), Vec::new(), 0.0f32);
        for first in own.clone().step_by(piece) {
            packed_quants.clear();
            packed_scales.clear();
            matrix.pack(first..(first + piece).min(own.end), &mut packed_quants, &mut packed_scales)?;
            put(&mut quant_memory, (first - start) * quants.words, &packed_quants);
            put(&mut scale_memory, (first - start) * scale_words, &packed_scales);
            largest = largest.max(magnitude(format, matrix.cols(), &packed_quants, &packed_scales));
        }
        Ok(largest)
    };
    starts.into_par_iter().map(one).try_reduce(|| 0.0, |a, b| Ok(f32::max(a, b)))
}

/// Copies words into staged memory, from `word` on; without memory there are none.
fn put(memory: &mut Option<wgpu::QueueWriteBufferView>, word: usize, words: &[u32]) {
    let bytes: &[u8] = bytemuck::cast_slice(words);
    if let Some(memory) = memory {
        memory.slice(word * 4..word * 4 + bytes.len()).copy_from_slice(bytes);
    }
}
