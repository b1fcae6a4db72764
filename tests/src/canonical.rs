//! Matrices in the canonical forms of [`Format`], written and read by the words of its definition
//! and nothing else.

use crate::gpu::random;
use half::{bf16, f16};
use tamarack_kernels::{Format, Scales, Values};

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
                    _ => pairs.flat_map(|(s, b)| [s.to_bits(), b.to_bits()]).collect(),
                };
                Matrix { format, cols, quants, scales }
            }
            Format::Scaled { values: kind, group, scales } => {
                let bits = if kind == Values::E4m3 { 8 } else { 4 };
                let codes: Vec<u32> = values.iter().map(|v| code(kind, *v)).collect();
                let quants = codes.chunks_exact(32).flat_map(|block| pack(bits, block)).collect();
                let groups = cols / usize::from(group);
                let random = random(seed + 1, rows * groups);
                // The levels of IQ4 are hundreds.
                let size = if kind == Values::Iq4 { 0.002 } else { 0.3 };
                let scales = random.chunks_exact(groups).flat_map(|row| scale_words(scales, size, row)).collect();
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
                let [s, b] = [2 * g, 2 * g + 1].map(|i| match scales {
                    Scales::F16 => f16::from_bits(half(pair, i)).to_f32(),
                    _ => f32::from_bits(pair[i]),
                });
                s * unpack(bits, block, c % 32) as f32 + b
            }
            Format::Scaled { values, group, scales } => {
                let bits = if values == Values::E4m3 { 8 } else { 4 };
                let code = unpack(bits, &quants[c / 32 * usize::from(bits)..][..usize::from(bits)], c % 32);
                let row = &self.scales[r * self.format.row_scale_words(self.cols)..];
                let g = c / usize::from(group);
                let byte = |first: usize| (row[first + g / 4] >> (8 * (g % 4))) & 255;
                let scale = match scales {
                    Scales::F32 => f32::from_bits(row[g]),
                    Scales::F16 => f16::from_bits(half(row, g)).to_f32(),
                    Scales::E8m0 => 2f32.powi(byte(0) as i32 - 127),
                    Scales::E4m3 => f32::from_bits(row[0]) * minifloat(4, 3, byte(1)),
                };
                scale * value(values, code)
            }
        };
        (0..self.cols).map(element).collect()
    }
}

/// The words of the scales of a row, up to `size` where the kind has it, and some of them negative.
fn scale_words(kind: Scales, size: f32, random: &[f32]) -> Vec<u32> {
    let bytes = |codes: Vec<u32>| -> Vec<u32> {
        codes.chunks(4).map(|four| four.iter().rev().fold(0, |word, code| word << 8 | code)).collect()
    };
    match kind {
        Scales::F32 => random.iter().map(|v| (v * size).to_bits()).collect(),
        Scales::F16 => halves(random.iter().map(|v| f16::from_f32(v * size).to_bits())),
        Scales::E8m0 => bytes(random.iter().map(|v| (124.0 + 3.0 * v) as u32).collect()),
        // All magnitudes, smaller than the smallest normal too.
        Scales::E4m3 => {
            let codes = random.iter().map(|v| (63.0 * v.abs()) as u32 | if *v < 0.0 { 0x80 } else { 0 });
            [vec![(0.2 + random[0].abs()).to_bits()], bytes(codes.collect())].concat()
        }
    }
}

/// A code for `v`, which lies in [-1, 1]: each as likely as any other, but none that is no number.
fn code(values: Values, v: f32) -> u32 {
    let sign = if v < 0.0 { 1 } else { 0 };
    match values {
        Values::E4m3 => (v.abs() * 88.0) as u32 | sign << 7,
        _ => ((v + 1.0) * 8.0).min(15.0) as u32,
    }
}

/// What a code stands for, in the words of those who defined it.
fn value(values: Values, code: u32) -> f32 {
    let signed = |sizes: [f64; 8]| (sizes[code as usize % 8] * if code < 8 { 1.0 } else { -1.0 }) as f32;
    match values {
        Values::E2m1 => minifloat(2, 1, code),
        Values::E4m3 => minifloat(4, 3, code),
        // 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4
        Values::BnbFp4 => signed([0.0, 1.0 / 192.0, 2.0 / 3.0, 1.0, 1.0 / 3.0, 0.5, 1.0 / 6.0, 0.25]),
        Values::Iq4 => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113][code as usize] as f32,
        // arXiv:2305.14314, appendix E.
        Values::Nf4 => [
            -1.0,
            -0.6961928009986877,
            -0.5250730514526367,
            -0.39491748809814453,
            -0.28444138169288635,
            -0.18477343022823334,
            -0.09105003625154495,
            0.0,
            0.07958029955625534,
            0.16093020141124725,
            0.24611230194568634,
            0.33791524171829224,
            0.44070982933044434,
            0.5626170039176941,
            0.7229568362236023,
            1.0f64,
        ][code as usize] as f32,
    }
}

/// A float of `e` bits of exponent, half of them below 1, and `m` bits of mantissa.
fn minifloat(e: u32, m: u32, code: u32) -> f32 {
    let (sign, exponent, mantissa) = (code >> (e + m), code >> m & ((1 << e) - 1), code & ((1 << m) - 1));
    let (one, bias) = ((1 << m) as f32, (1 << (e - 1)) - 1);
    let size = match exponent {
        0 => mantissa as f32 / one * 2f32.powi(1 - bias),
        _ => (1.0 + mantissa as f32 / one) * 2f32.powi(exponent as i32 - bias),
    };
    if sign == 0 { size } else { -size }
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
