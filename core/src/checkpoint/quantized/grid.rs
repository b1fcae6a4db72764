//! One number for each block of rows and columns.

use half::{bf16, f16};
use tamarack_kernels::Values;

use crate::checkpoint::canonical::e8m0;
use crate::checkpoint::mapping::Slice;

/// How a number is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::checkpoint) enum Number {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes.
    Bf16,
    /// A power of two in one byte.
    E8m0,
    /// One byte.
    E4m3,
}

impl Number {
    /// Of the safetensors type; a plain byte can only be an exponent.
    pub fn of(dtype: safetensors::Dtype) -> Option<Number> {
        Some(match dtype {
            safetensors::Dtype::F32 => Number::F32,
            safetensors::Dtype::F16 => Number::F16,
            safetensors::Dtype::BF16 => Number::Bf16,
            safetensors::Dtype::U8 | safetensors::Dtype::F8_E8M0 => Number::E8m0,
            safetensors::Dtype::F8_E4M3 => Number::E4m3,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::F16 | Number::Bf16 => 2,
            Number::E8m0 | Number::E4m3 => 1,
        }
    }

    /// All numbers of `bytes`.
    pub fn all(self, bytes: &[u8]) -> Vec<f32> {
        (0..bytes.len() / self.size()).map(|i| self.get(bytes, i)).collect()
    }

    /// Number `i` of `bytes`.
    pub fn get(self, bytes: &[u8], i: usize) -> f32 {
        let at = i * self.size();
        match self {
            Number::F32 => f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]),
            Number::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
            Number::Bf16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
            Number::E8m0 => e8m0(bytes[at]),
            Number::E4m3 if bytes[at] & 0x7f == 0x7f => f32::NAN,
            Number::E4m3 => Values::E4m3.value(bytes[at]),
        }
    }
}

/// Where the number of a row and a column lies.
pub(in crate::checkpoint) struct Grid {
    /// All of them.
    pub bytes: Slice,
    /// How.
    pub number: Number,
    /// Rows and columns that share one.
    pub block: (usize, usize),
    /// Blocks of rows, and of columns.
    pub counts: (usize, usize),
    /// Whether the numbers of a column lie together, not those of a row.
    pub transposed: bool,
    /// Where blocks go on from one row into the next: the columns of a row.
    pub flat: Option<usize>,
    /// Where the numbers are quantized in their turn: bytes, that this decodes.
    pub nested: Option<Nested>,
}

/// Numbers quantized to one byte each, flat.
pub(in crate::checkpoint) struct Nested {
    /// What bytes stand for: 256 numbers.
    pub map: Vec<f32>,
    /// Multiplied with that: one for so many numbers.
    pub scales: (Vec<f32>, usize),
    /// Then added.
    pub offset: f32,
}

impl Grid {
    /// Row by row, and not quantized.
    pub fn new(bytes: Slice, number: Number, block: (usize, usize), counts: (usize, usize)) -> Grid {
        Grid { bytes, number, block, counts, transposed: false, flat: None, nested: None }
    }

    /// One for each group of columns, the numbers of all rows lying together: [groups, rows].
    pub fn by_group(bytes: Slice, number: Number, group: usize, rows: usize, groups: usize) -> Grid {
        Grid { transposed: true, ..Grid::new(bytes, number, (1, group), (rows, groups)) }
    }

    /// The number of a row and a column.
    pub fn get(&self, row: usize, col: usize) -> f32 {
        let at = match (self.flat, row / self.block.0, col / self.block.1) {
            (Some(cols), ..) => (row * cols + col) / self.block.1,
            (None, row, col) if self.transposed => col * self.counts.0 + row,
            (None, row, col) => row * self.counts.1 + col,
        };
        match &self.nested {
            None => self.number.get(&self.bytes, at),
            Some(Nested { map, scales: (scales, count), offset }) => {
                map[usize::from(self.bytes[at])] * scales[at / count] + offset
            }
        }
    }

    /// A row and a column of each number.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let ((rows, cols), block) = (self.counts, self.block);
        (0..rows).flat_map(move |row| (0..cols).map(move |col| (row * block.0, col * block.1)))
    }

    /// Whether there are as many bytes as numbers, and as many numbers as a matrix needs.
    pub fn fits(&self, rows: usize, cols: usize) -> bool {
        let (block, counts) = (self.block, self.counts);
        let wanted = || match self.flat {
            Some(_) => rows.checked_mul(cols).map(|n| (1, n.div_ceil(block.1))),
            None => Some((rows.div_ceil(block.0), cols.div_ceil(block.1))),
        };
        block.0 > 0
            && block.1 > 0
            && self.flat.is_none_or(|of_a_row| of_a_row == cols)
            && Some(counts) == wanted()
            && self.nested.as_ref().is_none_or(|n| {
                let (scales, count) = &n.scales;
                n.map.len() == 256 && *count > 0 && self.bytes.len().div_ceil(*count) <= scales.len()
            })
            && counts.0.checked_mul(counts.1).and_then(|n| n.checked_mul(self.number.size())) == Some(self.bytes.len())
    }
}
