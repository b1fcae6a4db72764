//! Rows of a matrix on their way to a device, packed on all cores straight into the memory that it copies from.

use super::{
    staging::{self, Staging},
    weights::magnitude,
};
use crate::{Result, weights::Matrix};
use rayon::prelude::*;
use std::ops::Range;
use tamarack_kernels::Format;

/// Bytes that a thread packs at a time: they are in its cache when they are copied.
const PACKED: usize = 64 << 10;

/// Where rows go: a buffer of so many words a row, from row `first` on.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub words: usize,
    pub first: usize,
}

impl To<'_> {
    /// Room in a piece for so many rows from `row` of those on; where it begins.
    fn part(&self, piece: &mut staging::Piece, row: usize, rows: usize) -> usize {
        let bytes = |rows: usize| rows * self.words * 4;
        piece.part(self.buffer, bytes(self.first + row) as u64, bytes(rows))
    }
}

/// Packs rows that have one format, for the next [`Staging::submit`]. Returns a bound of their values, see [`magnitude`].
pub(super) fn upload_rows(
    staging: &Staging<'_>,
    (matrix, format): (&Matrix, Format),
    rows: Range<usize>,
    quants: To<'_>,
    scales: Option<To<'_>>,
) -> Result<f32> {
    let scale_words = scales.map_or(0, |to| to.words);
    let row_bytes = 4 * (quants.words + scale_words);
    let [share, packed] = [staging::PIECE, PACKED].map(|bytes| (bytes / row_bytes.max(1)).max(1));
    let starts: Vec<usize> = rows.clone().step_by(share).collect();
    let one = |start: usize| {
        let own = start..(start + share).min(rows.end);
        let mut piece = staging.piece(own.len() * row_bytes)?;
        let mut part = |to: To<'_>| to.part(&mut piece, start - rows.start, own.len());
        let (quants_at, scales_at) = (part(quants), scales.map(part));
        let (mut packed_quants, mut packed_scales, mut largest) = (Vec::new(), Vec::new(), 0.0f32);
        for first in own.clone().step_by(packed) {
            packed_quants.clear();
            packed_scales.clear();
            matrix.pack(first..(first + packed).min(own.end), &mut packed_quants, &mut packed_scales)?;
            piece.put(quants_at + (first - start) * quants.words * 4, &packed_quants);
            if let Some(at) = scales_at {
                piece.put(at + (first - start) * scale_words * 4, &packed_scales);
            }
            largest = largest.max(magnitude(format, matrix.cols(), &packed_quants, &packed_scales));
        }
        staging.fill(piece);
        Ok(largest)
    };
    starts.into_par_iter().map(one).try_reduce(|| 0.0, |a, b| Ok(f32::max(a, b)))
}
