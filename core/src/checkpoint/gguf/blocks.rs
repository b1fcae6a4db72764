//! The block types of GGUF, each taken apart into quants and (scale, bias) per group.
//!
//! A row is a whole number of blocks, one after the other. Multi-byte fields are little-endian.
//! Layouts and names: <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>.

use half::f16;
use tamarack_kernels::{Format, Scales, Values};

use crate::checkpoint::block::Block;
use crate::checkpoint::canonical::{e8m0, pack_centered};

/// One block type.
pub(in crate::checkpoint) struct BlockType {
    /// Its number in files.
    pub id: u32,
    /// Its name in ggml.
    pub name: &'static str,
    /// Columns in a block.
    pub elements: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// What it is once taken apart.
    pub format: Format,
    /// Takes one block apart.
    pub decode: fn(&[u8], &mut Block),
}

impl BlockType {
    /// Whether every bias is -scale * 2^(bits - 1), so that scales suffice.
    pub fn is_centered(&self) -> bool {
        matches!(self.name, "Q4_0" | "Q5_0" | "Q8_0" | "Q3_K" | "Q6_K")
    }

    /// Whether the bytes of a block only have to change places to be in `format`, see [`BlockType::moved`].
    pub fn is_moved(&self, format: Format) -> bool {
        match format {
            Format::Affine { scales: Scales::Centered, .. } => matches!(self.name, "Q4_0" | "Q8_0"),
            Format::Affine { scales: Scales::F16, .. } => self.name == "Q4_1",
            _ => false,
        }
    }

    /// Appends the canonical words of such a block, and what is multiplied and added in the row's `group`. That is several
    /// times faster than to take it apart, and what most files are made of. False if those are no numbers.
    #[must_use]
    pub fn moved(&self, block: &[u8], group: usize, quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> bool {
        // Blocks of a known length: nothing is checked byte by byte.
        if let Ok(block) = <&[u8; 18]>::try_from(block) {
            quants.extend(words_of_nibbles([2, 6, 10, 14].map(|at| word_at(block, at))));
            pack_centered(group, f16_at(block, 0), scales)
        } else if let Ok(block) = <&[u8; 20]>::try_from(block) {
            quants.extend(words_of_nibbles([4, 8, 12, 16].map(|at| word_at(block, at))));
            scales.push(word_at(block, 0));
            f16_at(block, 0).is_finite() && f16_at(block, 2).is_finite()
        } else if let Ok(block) = <&[u8; 34]>::try_from(block) {
            // What had a sign counts from -128.
            quants.extend([2, 6, 10, 14, 18, 22, 26, 30].map(|at| word_at(block, at) ^ 0x8080_8080));
            pack_centered(group, f16_at(block, 0), scales)
        } else {
            false
        }
    }
}

#[inline(always)]
fn word_at<const N: usize>(block: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[inline(always)]
fn f16_at<const N: usize>(block: &[u8; N], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The lower halves of 16 bytes are the first 16 columns; a word of ours has eight columns, four of them in its lower halves.
#[inline(always)]
fn words_of_nibbles([a, b, c, d]: [u32; 4]) -> [u32; 4] {
    const LOW: u32 = 0x0f0f_0f0f;
    let (low, high) = (|x, y| x & LOW | (y & LOW) << 4, |x, y| x >> 4 & LOW | y & !LOW);
    [low(a, b), low(c, d), high(a, b), high(c, d)]
}

/// All block types that convert into the canonical form.
#[rustfmt::skip]
pub(in crate::checkpoint) const BLOCK_TYPES: &[BlockType] = &[
    BlockType { id: 2, name: "Q4_0", elements: 32, bytes: 18, format: affine(4, 32), decode: q4_0 },
    BlockType { id: 3, name: "Q4_1", elements: 32, bytes: 20, format: affine(4, 32), decode: q4_1 },
    BlockType { id: 6, name: "Q5_0", elements: 32, bytes: 22, format: affine(5, 32), decode: q5_0 },
    BlockType { id: 7, name: "Q5_1", elements: 32, bytes: 24, format: affine(5, 32), decode: q5_1 },
    BlockType { id: 8, name: "Q8_0", elements: 32, bytes: 34, format: affine(8, 32), decode: q8_0 },
    BlockType { id: 10, name: "Q2_K", elements: 256, bytes: 84, format: affine(2, 16), decode: q2_k },
    BlockType { id: 11, name: "Q3_K", elements: 256, bytes: 110, format: affine(3, 16), decode: q3_k },
    BlockType { id: 12, name: "Q4_K", elements: 256, bytes: 144, format: affine(4, 32), decode: q4_k },
    BlockType { id: 13, name: "Q5_K", elements: 256, bytes: 176, format: affine(5, 32), decode: q5_k },
    BlockType { id: 14, name: "Q6_K", elements: 256, bytes: 210, format: affine(6, 16), decode: q6_k },
    BlockType { id: 20, name: "IQ4_NL", elements: 32, bytes: 18, format: IQ4, decode: iq4_nl },
    BlockType { id: 23, name: "IQ4_XS", elements: 256, bytes: 136, format: IQ4, decode: iq4_xs },
    BlockType { id: 39, name: "MXFP4", elements: 32, bytes: 17, format: MXFP4, decode: mxfp4 },
    BlockType { id: 40, name: "NVFP4", elements: 64, bytes: 36, format: NVFP4, decode: nvfp4 },
];

/// Scales become f16: for most types that is what they are, for some it rounds a product.
const fn affine(bits: u8, group: u16) -> Format {
    Format::Affine { bits, group, scales: Scales::F16 }
}

const IQ4: Format = Format::Scaled { values: Values::Iq4, group: 32, scales: Scales::F16 };
const MXFP4: Format = Format::Scaled { values: Values::E2m1, group: 32, scales: Scales::E8m0 };
const NVFP4: Format = Format::Scaled { values: Values::E2m1, group: 16, scales: Scales::E4m3 };

/// The names of types that are known but not converted, for the error.
pub(super) fn name(id: u32) -> &'static str {
    match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        _ => "unknown",
    }
}

fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// 16 bytes of nibbles: byte `j` holds element `j` low and element `j + 16` high.
fn nibbles(bytes: &[u8], q: &mut [u8]) {
    let (low, high) = q.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// 4 bytes: the fifth bit of each of 32 elements.
fn fifth_bits(bytes: &[u8], q: &mut [u8]) {
    for (j, q) in q.iter_mut().enumerate() {
        *q |= (bytes[j / 8] >> (j % 8) & 1) << 4;
    }
}

/// `bytes` hold `bits` bits an element, in strips: all lowest fields of 32 bytes, then the next fields, then
/// the next `width` bytes.
fn strips(bytes: &[u8], bits: usize, width: usize, q: &mut [u8]) {
    let fields = 8 / bits;
    for (part, q) in bytes.chunks_exact(width).zip(q.chunks_exact_mut(width * fields)) {
        for (field, q) in q.chunks_exact_mut(width).enumerate() {
            for (q, byte) in q.iter_mut().zip(part) {
                *q = byte >> (bits * field) & ((1 << bits) - 1);
            }
        }
    }
}

// Q4_0: d, 16 nibble bytes. value = d * (n - 8).
fn q4_0(b: &[u8], out: &mut Block) {
    let d = half(b, 0);
    out.set(0, d, -8.0 * d);
    nibbles(&b[2..18], &mut out.q);
}

// Q4_1: d, m, 16 nibble bytes. value = d * n + m.
fn q4_1(b: &[u8], out: &mut Block) {
    out.set(0, half(b, 0), half(b, 2));
    nibbles(&b[4..20], &mut out.q);
}

// Q5_0: d, 32 fifth bits, 16 nibble bytes. value = d * (n - 16).
fn q5_0(b: &[u8], out: &mut Block) {
    let d = half(b, 0);
    out.set(0, d, -16.0 * d);
    nibbles(&b[6..22], &mut out.q);
    fifth_bits(&b[2..6], &mut out.q[..32]);
}

// Q5_1: d, m, 32 fifth bits, 16 nibble bytes. value = d * n + m.
fn q5_1(b: &[u8], out: &mut Block) {
    out.set(0, half(b, 0), half(b, 2));
    nibbles(&b[8..24], &mut out.q);
    fifth_bits(&b[4..8], &mut out.q[..32]);
}

// Q8_0: d, 32 signed bytes. value = d * x.
fn q8_0(b: &[u8], out: &mut Block) {
    let d = half(b, 0);
    out.set(0, d, -128.0 * d);
    for (q, x) in out.q.iter_mut().zip(&b[2..34]) {
        *q = x ^ 0x80;
    }
}

// Q2_K: 16 bytes of 4-bit scales and mins, 64 bytes of 2-bit quants, d, dmin.
fn q2_k(b: &[u8], out: &mut Block) {
    let (d, dmin) = (half(b, 80), half(b, 82));
    for (j, s) in b[..16].iter().enumerate() {
        out.set(j, d * f32::from(s & 15), -dmin * f32::from(s >> 4));
    }
    strips(&b[16..80], 2, 32, &mut out.q);
}

// Q3_K: 32 bytes of high bits, 64 bytes of 2-bit quants, 16 scales of 6 bits in 12 bytes, d.
// A high bit that is set means "do not subtract 4", so with it as third bit the offset is 4.
fn q3_k(b: &[u8], out: &mut Block) {
    let (high, scales, d) = (&b[..32], &b[96..108], half(b, 108));
    strips(&b[32..96], 2, 32, &mut out.q);
    for (i, q) in out.q.iter_mut().enumerate() {
        *q |= (high[i % 32] >> (i / 32) & 1) << 2;
    }
    for j in 0..16 {
        let (low, top) = (scales[j % 8] >> (4 * (j / 8)) & 15, scales[8 + j % 4] >> (2 * (j / 4)) & 3);
        let scale = d * (f32::from(low | top << 4) - 32.0);
        out.set(j, scale, -4.0 * scale);
    }
}

// Q4_K: d, dmin, 8 scales and 8 mins of 6 bits in 12 bytes, 128 nibble bytes in strips.
fn q4_k(b: &[u8], out: &mut Block) {
    scales_and_mins(half(b, 0), half(b, 2), &b[4..16], out);
    strips(&b[16..144], 4, 32, &mut out.q);
}

// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles: bit k of byte j for element 32k + j.
fn q5_k(b: &[u8], out: &mut Block) {
    scales_and_mins(half(b, 0), half(b, 2), &b[4..16], out);
    let high = &b[16..48];
    strips(&b[48..176], 4, 32, &mut out.q);
    for (i, q) in out.q.iter_mut().enumerate() {
        *q |= (high[i % 32] >> (i / 32) & 1) << 4;
    }
}

fn scales_and_mins(d: f32, dmin: f32, s: &[u8], out: &mut Block) {
    for j in 0..8 {
        let (scale, min) = if j < 4 {
            (s[j] & 63, s[j + 4] & 63)
        } else {
            ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4)
        };
        out.set(j, d * f32::from(scale), -dmin * f32::from(min));
    }
}

// Q6_K: 128 bytes of low nibbles and 64 bytes of high bit pairs, both in strips, 16 signed scales, d.
fn q6_k(b: &[u8], out: &mut Block) {
    let d = half(b, 208);
    let mut high = [0; 256];
    strips(&b[..128], 4, 64, &mut out.q);
    strips(&b[128..192], 2, 32, &mut high);
    out.q.iter_mut().zip(high).for_each(|(q, high)| *q |= high << 4);
    for (j, &s) in b[192..208].iter().enumerate() {
        let scale = d * f32::from(s as i8);
        out.set(j, scale, -32.0 * scale);
    }
}

// IQ4_NL: d, 16 nibble bytes. value = d * level[n].
fn iq4_nl(b: &[u8], out: &mut Block) {
    out.set(0, half(b, 0), 0.0);
    nibbles(&b[2..18], &mut out.q);
}

// IQ4_XS: d, high scale bits, low scale nibbles, then per 32 elements 16 nibble bytes.
fn iq4_xs(b: &[u8], out: &mut Block) {
    let (d, high) = (half(b, 0), u16::from_le_bytes([b[2], b[3]]));
    for j in 0..8 {
        nibbles(&b[8 + 16 * j..][..16], &mut out.q[32 * j..][..32]);
        let scale = (b[4 + j / 2] >> (4 * (j % 2)) & 15) | ((high >> (2 * j) & 3) as u8) << 4;
        out.set(j, d * (f32::from(scale) - 32.0), 0.0);
    }
}

// MXFP4: the exponent of the scale, 16 nibble bytes.
fn mxfp4(b: &[u8], out: &mut Block) {
    out.set(0, e8m0(b[0]), 0.0);
    nibbles(&b[1..17], &mut out.q);
}

// NVFP4: 4 scales without a sign, then for each 8 nibble bytes: byte j is elements j and j + 8.
fn nvfp4(b: &[u8], out: &mut Block) {
    for (k, bytes) in b[4..36].chunks_exact(8).enumerate() {
        // ggml reads what is no number as 0.
        let scale = b[k] & 0x7f;
        out.set(k, if scale == 0x7f { 0.0 } else { Values::E4m3.value(scale) }, 0.0);
        for (j, byte) in bytes.iter().enumerate() {
            out.q[16 * k + j] = byte & 15;
            out.q[16 * k + j + 8] = byte >> 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::checkpoint::mapping::{Mapping, Slice};
    use crate::checkpoint::tensor::{Data, Tensor, View};
    use crate::checkpoint::{safetensors, unpack};

    /// Goldens: what the gguf Python package decodes random blocks to, see tests/goldens/quantized.py.
    fn goldens() -> safetensors::Parts {
        let bytes = include_bytes!("../../../../tests/goldens/ggml.safetensors");
        safetensors::parts(&Mapping::from_bytes("ggml.safetensors", bytes.to_vec())).unwrap()
    }

    fn tensor(ty: &'static BlockType, blocks: &Slice) -> Tensor {
        let cols = blocks.len() / ty.bytes * ty.elements;
        Tensor::new(ty.name, vec![1, cols], Data::Ggml(ty, blocks.clone()), View::default()).unwrap()
    }

    #[test]
    fn every_type_decodes_to_the_bit() {
        let goldens = goldens();
        for ty in BLOCK_TYPES {
            let tensor = tensor(ty, &goldens[&format!("{}.blocks", ty.name)].bytes);
            let want = &goldens[&format!("{}.values", ty.name)].bytes;
            let mut got = vec![0.0; tensor.cols()];
            tensor.row(0, &mut got);
            for (i, (got, want)) in got.iter().zip(want.chunks_exact(4)).enumerate() {
                let want = f32::from_le_bytes(want.try_into().unwrap());
                assert_eq!(*got, want, "{} element {i}", ty.name);
            }
        }
    }

    #[test]
    fn packing_loses_nothing_but_the_rounding_of_scales() {
        let goldens = goldens();
        for ty in BLOCK_TYPES {
            let tensor = tensor(ty, &goldens[&format!("{}.blocks", ty.name)].bytes);
            let (cols, format) = (tensor.cols(), tensor.format());
            let moves = matches!(ty.name, "Q4_0" | "Q4_1" | "Q8_0");
            assert_eq!(ty.is_moved(format), moves, "{}", ty.name);
            let (mut quants, mut scales) = (vec![], vec![]);
            tensor.pack(0..1, &mut quants, &mut scales).unwrap();
            assert_eq!(quants.len(), format.row_words(cols), "{}", ty.name);
            assert_eq!(scales.len(), format.row_scale_words(cols), "{}", ty.name);
            let (mut got, mut want) = (vec![0.0; cols], vec![0.0; cols]);
            unpack(format, cols, &quants, &scales, &mut got);
            tensor.row(0, &mut want);
            // Products of two factors are rounded to f16: a scale and a bias, each by half a unit.
            let is_product = ty.name.ends_with("_K") || ty.name.ends_with("_XS");
            let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            let tolerance = if is_product { largest * 4.0 / 2048.0 } else { 0.0 };
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!((got - want).abs() <= tolerance, "{} element {i}: {got} for {want}", ty.name);
            }
        }
    }

    #[test]
    fn a_scale_beyond_f16_is_an_error_that_names_the_tensor() {
        let mut block = [0u8; 34];
        block[..2].copy_from_slice(&half::f16::MAX.to_le_bytes());
        let mapping = Mapping::from_bytes("bad.gguf", block.to_vec());
        let slice = Slice::new(&mapping, 0..34).unwrap();
        let ty = BLOCK_TYPES.iter().find(|ty| ty.name == "Q8_0").unwrap();
        let error = tensor(ty, &slice).pack(0..1, &mut vec![], &mut vec![]).unwrap_err().to_string();
        assert!(error.contains("bad.gguf") && error.contains("Q8_0: row 0 has scale 65504"), "{error}");
        assert_eq!(Arc::strong_count(&mapping), 2);
    }
}
