//! Matrices in the canonical forms of [`Format`], written and read by the words of its definition
//! and nothing else.

use crate::gpu::random;
use half::{bf16, f16};
use tamarack_kernels::{Format, Scales};

/// A matrix as it lies in device memory.
pub struct Matrix {
    /// How.
    pub format: Format,
    /// Its columns.
    pub cols: usize,
    /// The main buffer.
    pub quants: Vec<u32>,
    /// The scales buffer; empty for dense formats.
    pub scales: Vec<u32>,
}

impl Matrix {
    /// Seeded random elements, most of them in [-1, 1].
    pub fn random(format: Format, rows: usize, cols: usize, seed: u64) -> Matrix {
        let values = random(seed, rows * cols);
        match format {
            Format::F32 => Matrix::dense(format, cols, values.iter().map(|v| v.to_bits()).collect()),
            Format::F16 => Matrix::dense(format, cols, halves(values.iter().map(|v| f16::from_f32(*v).to_bits()))),
            Format::Bf16 => Matrix::dense(format, cols, halves(values.iter().map(|v| bf16::from_f32(*v).to_bits()))),
            Format::Affine { bits, group, scales } => {
                let levels = f32::from(1u16 << bits);
                let q: Vec<u32> = values.iter().map(|v| ((v + 1.0) / 2.0 * levels) as u32).collect();
                let quants = q.chunks_exact(32).flat_map(|block| pack(bits, block)).collect();
                let pairs = random(seed + 1, rows * cols / usize::from(group) * 2);
                let pairs = pairs.chunks_exact(2).map(|r| ((1.5 + r[0] / 2.0) / levels, (r[1] - 1.0) / 2.0));
                let scales = match scales {
                    Scales::F16 => {
                        halves(pairs.flat_map(|(s, b)| [f16::from_f32(s).to_bits(), f16::from_f32(b).to_bits()]))
                    }
                    Scales::F32 => pairs.flat_map(|(s, b)| [s.to_bits(), b.to_bits()]).collect(),
                    Scales::Centered => halves(pairs.map(|(s, _)| f16::from_f32(s).to_bits())),
                };
                Matrix { format, cols, quants, scales }
            }
        }
    }

    fn dense(format: Format, cols: usize, quants: Vec<u32>) -> Matrix {
        Matrix { format, cols, quants, scales: Vec::new() }
    }

    /// Row `r`, decoded.
    pub fn row(&self, r: usize) -> Vec<f32> {
        let quants = &self.quants[r * self.format.row_words(self.cols)..];
        let half = |words: &[u32], i: usize| (words[i / 2] >> (16 * (i % 2))) as u16;
        let element = |c: usize| match self.format {
            Format::F32 => f32::from_bits(quants[c]),
            Format::F16 => f16::from_bits(half(quants, c)).to_f32(),
            Format::Bf16 => bf16::from_bits(half(quants, c)).to_f32(),
            Format::Affine { bits, group, scales } => {
                let block = &quants[c / 32 * usize::from(bits)..][..usize::from(bits)];
                let pair = &self.scales[r * self.format.row_scale_words(self.cols)..];
                let g = c / usize::from(group);
                let [s, b] = match scales {
                    Scales::F16 => [2 * g, 2 * g + 1].map(|i| f16::from_bits(half(pair, i)).to_f32()),
                    Scales::F32 => [2 * g, 2 * g + 1].map(|i| f32::from_bits(pair[i])),
                    Scales::Centered => {
                        [1.0, -f32::from(1u16 << (bits - 1))].map(|c| c * f16::from_bits(half(pair, g)).to_f32())
                    }
                };
                s * unpack(bits, block, c % 32) as f32 + b
            }
        };
        (0..self.cols).map(element).collect()
    }
}

/// The words of a block of 32 values of `q`.
pub fn pack(bits: u8, q: &[u32]) -> Vec<u32> {
    let mut words = Vec::new();
    let mut below = 0;
    for plane in Format::planes(bits).iter().map(|b| usize::from(*b)) {
        let first = words.len();
        words.resize(first + plane, 0);
        for (e, q) in q.iter().enumerate() {
            let (word, shift) = place(plane, e);
            words[first + word] |= (q >> below & ((1 << plane) - 1)) << shift;
        }
        below += plane;
    }
    words
}

/// Element `e` of a block.
pub fn unpack(bits: u8, block: &[u32], e: usize) -> u32 {
    let (mut q, mut below, mut first) = (0, 0, 0);
    for plane in Format::planes(bits).iter().map(|b| usize::from(*b)) {
        let (word, shift) = place(plane, e);
        q |= (block[first + word] >> shift & ((1 << plane) - 1)) << below;
        below += plane;
        first += plane;
    }
    q
}

/// The word within a plane of `bits` bits, and the bit within the word, of element `e`: byte `j`
/// holds at bits `bits * p` element `4 * p + j` of the word's.
fn place(bits: usize, e: usize) -> (usize, usize) {
    let per_word = 32 / bits;
    let (p, j) = (e % per_word / 4, e % 4);
    (e / per_word, 8 * j + bits * p)
}

fn halves(x: impl Iterator<Item = u16>) -> Vec<u32> {
    let x: Vec<u32> = x.map(u32::from).collect();
    x.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 16)).collect()
}
