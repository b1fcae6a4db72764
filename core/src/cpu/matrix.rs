//! Weights in the processor's memory.
//!
//! Integers lie as in the canonical form ([`Format`]), but sixteen rows are interleaved word by word: word `w` of
//! rows 16b to 16b+15 is one array, and a product of one register holds sums of sixteen rows, which nothing has to
//! add up. All else stays row by row.

use super::{
    lanes::{LANES, Lanes},
    storage::Storage,
};
use crate::{
    Result,
    checkpoint::{unpack, unpack_scale},
    weights::Matrix,
};
use bytemuck::Pod;
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use tamarack_kernels::{Format, Scales, Values};

/// Columns that are rounded together, and that the words of a unit hold.
pub(super) const UNIT: usize = 32;
/// Blocks of sixteen rows that one task packs.
const PACKED: usize = 8;

/// A matrix [rows, cols].
pub(super) struct CpuMatrix {
    /// One below the other; cut where the format changes, and between experts or heads.
    pub parts: Vec<Part>,
}

/// Rows of one format.
pub(super) struct Part {
    /// Its rows' numbers in the matrix.
    pub rows: Range<usize>,
    pub cols: usize,
    pub store: Store,
}

pub(super) enum Store {
    Integers(Integers),
    Rows(Rows),
}

/// The canonical words row by row.
pub(super) struct Rows {
    pub format: Format,
    pub quants: Storage<u32>,
    pub scales: Storage<u32>,
}

/// Interleaved rows, in blocks of sixteen; the last one is filled up with zeros.
pub(super) struct Integers {
    /// Bits of both planes; the second may be none.
    pub planes: [u8; 2],
    /// What codes stand for, plus 128: where they are no integers themselves.
    pub table: Option<[u8; 16]>,
    /// Taken off a code, or off what the table says of it.
    pub center: i32,
    /// Columns per scale.
    pub group: usize,
    /// [blocks, units, bits]
    pub words: Storage<[u32; LANES]>,
    pub scales: StoredScales,
    /// Whether each scale is followed by a bias.
    pub biased: bool,
    /// On all of a row; one a block, or none.
    pub factors: Vec<[f32; LANES]>,
}

/// [blocks, groups], or [blocks, groups, 2] with biases.
pub(super) enum StoredScales {
    Halves(Storage<[u16; LANES]>),
    Floats(Storage<[f32; LANES]>),
    Exponents(Storage<[u8; LANES]>),
}

impl StoredScales {
    pub fn view(&self) -> GroupScales<'_> {
        match self {
            StoredScales::Halves(all) => GroupScales::Halves(all),
            StoredScales::Floats(all) => GroupScales::Floats(all),
            StoredScales::Exponents(all) => GroupScales::Exponents(all),
        }
    }
}

/// The same, for kernels: where they lie is looked up once.
#[derive(Clone, Copy)]
pub(super) enum GroupScales<'a> {
    Halves(&'a [[u16; LANES]]),
    Floats(&'a [[f32; LANES]]),
    Exponents(&'a [[u8; LANES]]),
}

impl GroupScales<'_> {
    #[inline(always)]
    pub fn get<L: Lanes>(&self, lanes: L, i: usize) -> L::Floats {
        match self {
            GroupScales::Halves(all) => lanes.halves(&all[i]),
            GroupScales::Floats(all) => lanes.floats(&all[i]),
            GroupScales::Exponents(all) => lanes.exponents(&all[i]),
        }
    }

    fn one(&self, i: usize, lane: usize) -> f32 {
        match self {
            GroupScales::Halves(all) => f16::from_bits(all[i][lane]).to_f32(),
            GroupScales::Floats(all) => all[i][lane],
            GroupScales::Exponents(all) => f32::from_bits(u32::from(all[i][lane]) << 23),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            GroupScales::Halves(all) => size_of_val(*all),
            GroupScales::Floats(all) => size_of_val(*all),
            GroupScales::Exponents(all) => size_of_val(*all),
        }
    }
}

impl CpuMatrix {
    /// Packs a matrix; `each` rows belong together and are not mixed with others'.
    pub fn load(matrix: &Matrix, each: usize) -> Result<CpuMatrix> {
        let part = |(format, rows): (Format, Range<usize>)| {
            let store = Store::load(matrix, format, rows.clone())?;
            Ok(Part { rows, cols: matrix.cols(), store })
        };
        Ok(CpuMatrix { parts: cuts(matrix, each).into_iter().map(part).collect::<Result<_>>()? })
    }

    /// What [`CpuMatrix::bytes`] will be.
    pub fn bytes_of(matrix: &Matrix, each: usize) -> usize {
        cuts(matrix, each).into_iter().map(|(format, rows)| part_bytes(format, rows.len(), matrix.cols())).sum()
    }

    pub fn rows(&self) -> usize {
        self.parts.last().map_or(0, |p| p.rows.end)
    }

    /// The parts of expert or head `i`, of `each` rows.
    pub fn parts_of(&self, i: usize, each: usize) -> &[Part] {
        let first = self.parts.partition_point(|p| p.rows.start < i * each);
        let end = self.parts.partition_point(|p| p.rows.start < (i + 1) * each);
        &self.parts[first..end]
    }

    /// Decodes a row.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        let part = &self.parts[self.parts.partition_point(|p| p.rows.end <= r)];
        part.row(r - part.rows.start, out);
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.store.bytes()).sum()
    }
}

/// The parts of a matrix.
fn cuts(matrix: &Matrix, each: usize) -> Vec<(Format, Range<usize>)> {
    let mut cuts = Vec::new();
    for (format, run) in matrix.formats() {
        let mut start = run.start;
        while start < run.end {
            let end = run.end.min((start / each + 1).saturating_mul(each));
            cuts.push((format, start..end));
            start = end;
        }
    }
    cuts
}

/// Bytes of a part.
fn part_bytes(format: Format, rows: usize, cols: usize) -> usize {
    let Some((_, _, _, unit)) = layout(format) else {
        return rows * 4 * (format.row_words(cols) + format.row_scale_words(cols));
    };
    let (group, kind, pair) = match format {
        Format::Affine { group, scales, .. } => (group, scales, if scales == Scales::Centered { 1 } else { 2 }),
        Format::Scaled { group, scales, .. } => (group, scales, 1),
        _ => return 0,
    };
    let scale = match kind {
        Scales::F32 => 4,
        Scales::E8m0 => 1,
        Scales::F16 | Scales::Centered | Scales::E4m3 => 2,
    };
    let factor = if unit != 1.0 || kind == Scales::E4m3 { 4 } else { 0 };
    let row = 4 * format.row_words(cols) + cols / usize::from(group) * pair * scale + factor;
    rows.next_multiple_of(LANES) * row
}

impl Part {
    pub fn blocks(&self) -> usize {
        self.rows.len().div_ceil(LANES)
    }

    /// Decodes one of its rows.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        match &self.store {
            Store::Integers(integers) => integers.row(r, out),
            Store::Rows(Rows { format, quants, scales }) => {
                let (words, of_row) = (format.row_words(self.cols), format.row_scale_words(self.cols));
                unpack(*format, self.cols, &quants[r * words..][..words], &scales[r * of_row..][..of_row], out);
            }
        }
    }
}

impl Store {
    fn load(matrix: &Matrix, format: Format, rows: Range<usize>) -> Result<Store> {
        Ok(match Integers::load(matrix, format, rows.clone())? {
            Some(integers) => Store::Integers(integers),
            None => Store::Rows(Rows::load(matrix, format, rows)?),
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Store::Integers(i) => size_of_val(&i.words[..]) + i.scales.view().bytes() + size_of_val(&i.factors[..]),
            Store::Rows(r) => size_of_val(&r.quants[..]) + size_of_val(&r.scales[..]),
        }
    }
}

impl Rows {
    fn load(matrix: &Matrix, format: Format, rows: Range<usize>) -> Result<Rows> {
        let (words, of_row) = (format.row_words(matrix.cols()), format.row_scale_words(matrix.cols()));
        let (mut quants, mut scales) = (Storage::zeroed(rows.len() * words), Storage::zeroed(rows.len() * of_row));
        let each = PACKED * LANES;
        // Chunks of no words there cannot be.
        let of_scales: Vec<&mut [u32]> = match of_row {
            0 => (0..rows.len().div_ceil(each)).map(|_| [].as_mut_slice()).collect(),
            _ => scales.chunks_mut(each * of_row).collect(),
        };
        let tasks = quants.par_chunks_mut(each * words).zip(of_scales).enumerate();
        tasks.try_for_each(|(i, (quants, scales))| {
            let first = rows.start + i * each;
            let (mut q, mut s) = (Vec::new(), Vec::new());
            matrix.pack(first..first + quants.len() / words, &mut q, &mut s)?;
            quants.copy_from_slice(&q);
            scales.copy_from_slice(&s);
            Ok::<(), crate::Error>(())
        })?;
        Ok(Rows { format, quants, scales })
    }
}

/// How integers of a format lie: planes, table, center, and what all scales are multiplied by.
type Layout = ([u8; 2], Option<[u8; 16]>, i32, f32);

fn layout(format: Format) -> Option<Layout> {
    match format {
        Format::Affine { bits, scales, .. } => {
            let planes = match *Format::planes(bits) {
                [low] => [low, 0],
                [low, high] => [low, high],
                _ => return None,
            };
            let center = if scales == Scales::Centered { 1 << (bits - 1) } else { 0 };
            Some((planes, None, center, 1.0))
        }
        Format::Scaled { values: values @ (Values::E2m1 | Values::Iq4), .. } => {
            // Twice an E2M1 is an integer.
            let unit = if values == Values::E2m1 { 0.5 } else { 1.0 };
            let table = std::array::from_fn(|code| (values.value(code as u8) / unit + 128.0) as u8);
            Some(([4, 0], Some(table), 128, unit))
        }
        _ => None,
    }
}

impl Integers {
    fn load(matrix: &Matrix, format: Format, rows: Range<usize>) -> Result<Option<Integers>> {
        let Some((planes, table, center, unit)) = layout(format) else { return Ok(None) };
        let (group, kind, affine) = match format {
            Format::Affine { group, scales, .. } => (group as usize, scales, true),
            Format::Scaled { group, scales, .. } => (group as usize, scales, false),
            _ => return Ok(None),
        };
        let biased = affine && kind != Scales::Centered;
        let half = |words: &[u32], i: usize| (words[i / 2] >> (16 * (i % 2))) as u16;
        let byte = |words: &[u32], i: usize| words[i / 4].to_le_bytes()[i % 4];
        let mut words = Storage::zeroed(rows.len().div_ceil(LANES) * format.row_words(matrix.cols()));
        let mut factors = Vec::new();
        let groups = matrix.cols() / group * if biased { 2 } else { 1 };
        let fill = Fill { matrix, format, rows: rows.clone() };
        let scales = match kind {
            // Pairs lie as scale and bias, and halves without biases two a word.
            Scales::F16 | Scales::Centered => StoredScales::Halves(fill.all(&mut words, groups, half)?),
            Scales::F32 => StoredScales::Floats(fill.all(&mut words, groups, |w, i| f32::from_bits(w[i]))?),
            Scales::E8m0 => StoredScales::Exponents(fill.all(&mut words, groups, byte)?),
            Scales::E4m3 => {
                // The row's own factor comes first.
                let values = fill.all(&mut words, groups + 1, |w, i| match i {
                    0 => f32::from_bits(w[0]),
                    _ => unpack_scale(kind, &[&[1f32.to_bits()], &w[1..]].concat(), i - 1),
                })?;
                factors = values.iter().step_by(groups + 1).copied().collect();
                let of_groups = values.chunks_exact(groups + 1).flat_map(|block| &block[1..]);
                let mut halves = Storage::<[u16; LANES]>::zeroed(values.len() / (groups + 1) * groups);
                let half = |of_rows: &[f32; LANES]| of_rows.map(|v| f16::from_f32(v).to_bits());
                halves.iter_mut().zip(of_groups).for_each(|(to, of_rows)| *to = half(of_rows));
                StoredScales::Halves(halves)
            }
        };
        if unit != 1.0 {
            factors.resize(rows.len().div_ceil(LANES), [1.0; LANES]);
            factors.iter_mut().flatten().for_each(|f| *f *= unit);
        }
        Ok(Some(Integers { planes, table, center, group, words, scales, biased, factors }))
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        usize::from(self.planes[0] + self.planes[1])
    }

    /// Scales, with biases, of a block of rows of `cols`.
    pub fn block_scales(&self, cols: usize) -> usize {
        cols / self.group * if self.biased { 2 } else { 1 }
    }

    fn row(&self, r: usize, out: &mut [f32]) {
        let (block, lane, cols, bits) = (r / LANES, r % LANES, out.len(), self.bits());
        let (words, scales) = (&self.words[block * cols / UNIT * bits..], block * self.block_scales(cols));
        let factor = self.factors.get(block).map_or(1.0, |f| f[lane]);
        let of = self.scales.view();
        for (u, out) in out.chunks_exact_mut(UNIT).enumerate() {
            let words = &words[u * bits..];
            for (e, out) in out.iter_mut().enumerate() {
                let (mut code, mut below, mut first) = (0, 0, 0);
                for plane in self.planes.map(usize::from).into_iter().filter(|p| *p > 0) {
                    let (word, shift) = (e / 4 * plane / 8, plane * (e / 4 % (8 / plane)) + 8 * (e % 4));
                    code |= (words[first + word][lane] >> shift & ((1 << plane) - 1)) << below;
                    (below, first) = (below + plane, first + plane);
                }
                let value = self.table.map_or(code as i32, |t| i32::from(t[code as usize])) - self.center;
                let g = (u * UNIT + e) / self.group;
                *out = factor
                    * match self.biased {
                        true => of.one(scales + 2 * g, lane) * value as f32 + of.one(scales + 2 * g + 1, lane),
                        false => of.one(scales + g, lane) * value as f32,
                    };
            }
        }
    }
}

/// Rows that are packed and interleaved.
struct Fill<'a> {
    matrix: &'a Matrix,
    format: Format,
    rows: Range<usize>,
}

impl Fill<'_> {
    /// Fills `words`, and gives `count` of what `get` makes of each row's scales.
    fn all<T: Pod + Send + Sync>(
        &self,
        words: &mut [[u32; LANES]],
        count: usize,
        get: impl Fn(&[u32], usize) -> T + Sync,
    ) -> Result<Storage<[T; LANES]>>
    where
        [T; LANES]: Pod,
    {
        let cols = self.matrix.cols();
        let (row_words, row_scales) = (self.format.row_words(cols), self.format.row_scale_words(cols));
        let mut scales = Storage::<[T; LANES]>::zeroed(self.rows.len().div_ceil(LANES) * count);
        let tasks = words.par_chunks_mut(PACKED * row_words).zip(scales.par_chunks_mut(PACKED * count)).enumerate();
        tasks.try_for_each(|(i, (words, scales))| {
            let first = self.rows.start + i * PACKED * LANES;
            let rows = first..self.rows.end.min(first + PACKED * LANES);
            let (mut q, mut s) = (Vec::new(), Vec::new());
            self.matrix.pack(rows, &mut q, &mut s)?;
            for (r, row) in q.chunks_exact(row_words).enumerate() {
                let block = &mut words[r / LANES * row_words..][..row_words];
                block.iter_mut().zip(row).for_each(|(to, word)| to[r % LANES] = *word);
            }
            for (r, row) in s.chunks_exact(row_scales).enumerate() {
                let block = &mut scales[r / LANES * count..][..count];
                block.iter_mut().enumerate().for_each(|(i, to)| to[r % LANES] = get(row, i));
            }
            Ok::<(), crate::Error>(())
        })?;
        Ok(scales)
    }
}
