//! The canonical device form: how rows are written in it, and how they are read back.
//! The layout is defined at [`Format`].

use half::{bf16, f16};
use tamarack_kernels::{Format, Scales, Values};

/// Appends `values` as words of the dense `format`. For 16-bit formats `values` has an even length
/// in every row, see [`Format::block`].
///
/// # Panics
/// If `format` is not dense.
pub fn pack_dense(format: Format, values: &[f32], words: &mut Vec<u32>) {
    match format {
        Format::F32 => words.extend(values.iter().map(|v| v.to_bits())),
        Format::F16 => words.extend(values.chunks_exact(2).map(|v| pair(f16::from_f32(v[0]), f16::from_f32(v[1])))),
        Format::Bf16 => words.extend(
            values
                .chunks_exact(2)
                .map(|v| u32::from(bf16::from_f32(v[0]).to_bits()) | u32::from(bf16::from_f32(v[1]).to_bits()) << 16),
        ),
        Format::Affine { .. } | Format::Scaled { .. } => panic!("pack_dense: {format} is not a dense format"),
    }
}

/// Reads rows of `cols` columns back from their canonical words; `out` is `[rows, cols]`.
///
/// # Panics
/// If the buffers are too short for `out`, or `cols` is no multiple of [`Format::block`].
pub fn unpack(format: Format, cols: usize, quants: &[u32], scales: &[u32], out: &mut [f32]) {
    let rows = out.len().checked_div(cols).unwrap_or(0);
    let quants = &quants[..rows * format.row_words(cols)];
    match format {
        Format::F32 => out.iter_mut().zip(quants).for_each(|(o, w)| *o = f32::from_bits(*w)),
        Format::F16 | Format::Bf16 => {
            for (out, &word) in out.chunks_exact_mut(2).zip(quants) {
                let halves = [word as u16, (word >> 16) as u16];
                out.copy_from_slice(&halves.map(|h| match format {
                    Format::F16 => f16::from_bits(h).to_f32(),
                    _ => bf16::from_bits(h).to_f32(),
                }));
            }
        }
        Format::Affine { bits, group, scales: kind } => {
            let (words, pairs) = (format.row_words(cols), format.row_scale_words(cols));
            let group = group as usize;
            let mut q = vec![0; cols];
            for (row, out) in out.chunks_exact_mut(cols).enumerate() {
                unpack_quants(bits, &quants[row * words..(row + 1) * words], &mut q);
                let scales = &scales[row * pairs..(row + 1) * pairs];
                for (i, (out, &q)) in out.iter_mut().zip(&q).enumerate() {
                    let (scale, bias) = unpack_pair(kind, bits, scales, i / group);
                    *out = scale * f32::from(q) + bias;
                }
            }
        }
        Format::Scaled { values, group, scales: kind } => {
            let (words, row_scales) = (format.row_words(cols), format.row_scale_words(cols));
            let mut codes = vec![0; cols];
            for (row, out) in out.chunks_exact_mut(cols).enumerate() {
                unpack_quants(values.bits(), &quants[row * words..(row + 1) * words], &mut codes);
                let scales = &scales[row * row_scales..(row + 1) * row_scales];
                for (i, (out, &code)) in out.iter_mut().zip(&codes).enumerate() {
                    *out = unpack_scale(kind, scales, i / group as usize) * values.value(code);
                }
            }
        }
    }
}

/// Appends the planes of `q`, a whole number of blocks of 32 quants.
pub(super) fn pack_quants(bits: u8, q: &[u8], words: &mut Vec<u32>) {
    for block in q.chunks_exact(32) {
        // Four consecutive quants as the four bytes of a word.
        let mut runs = [0; 8];
        for (run, q) in runs.iter_mut().zip(block.chunks_exact(4)) {
            *run = u32::from_le_bytes([q[0], q[1], q[2], q[3]]);
        }
        let mut below = 0;
        for &bits in Format::planes(bits) {
            match bits {
                8 => words.extend(plane::<8>(&runs, below)),
                4 => words.extend(plane::<4>(&runs, below)),
                2 => words.extend(plane::<2>(&runs, below)),
                _ => words.extend(plane::<1>(&runs, below)),
            }
            below += bits;
        }
    }
}

/// The plane of `B` bits that begins at bit `below` of each quant.
fn plane<const B: usize>(runs: &[u32; 8], below: u8) -> [u32; B] {
    let lanes = ((1 << B) - 1) * 0x0101_0101;
    let mut words = [0; B];
    for (word, runs) in words.iter_mut().zip(runs.chunks_exact(8 / B)) {
        for (p, run) in runs.iter().enumerate() {
            *word |= (run >> below & lanes) << (B * p);
        }
    }
    words
}

/// Reads the planes back; the inverse of [`pack_quants`].
fn unpack_quants(bits: u8, words: &[u32], q: &mut [u8]) {
    for (block, words) in q.chunks_exact_mut(32).zip(words.chunks_exact(bits as usize)) {
        block.fill(0);
        let (mut below, mut first) = (0, 0);
        for &plane in Format::planes(bits) {
            for (i, q) in block.iter_mut().enumerate() {
                let per_word = 32 / plane as usize;
                let (word, within) = (words[first + i / per_word], i % per_word);
                let (p, j) = (within / 4, within % 4);
                *q |= (((word >> (8 * j + plane as usize * p)) & ((1 << plane) - 1)) << below) as u8;
            }
            below += plane;
            first += plane as usize;
        }
    }
}

/// Appends the (scale, bias) of a row's group. False if it is infinite or not a number in that form.
#[must_use]
pub(super) fn pack_pair(kind: Scales, group: usize, scale: f32, bias: f32, words: &mut Vec<u32>) -> bool {
    match kind {
        Scales::F32 => {
            words.extend([scale.to_bits(), bias.to_bits()]);
            scale.is_finite() && bias.is_finite()
        }
        // Bytes do not occur in pairs.
        Scales::F16 | Scales::E8m0 | Scales::E4m3 => {
            let (scale, bias) = (f16::from_f32(scale), f16::from_f32(bias));
            words.push(pair(scale, bias));
            scale.is_finite() && bias.is_finite()
        }
        Scales::Centered => pack_centered(group, f16::from_f32(scale), words),
    }
}

/// The same for a scale alone, where quants count from their middle.
#[must_use]
pub(in crate::checkpoint) fn pack_centered(group: usize, scale: f16, words: &mut Vec<u32>) -> bool {
    match words.last_mut() {
        Some(word) if group % 2 == 1 => *word |= u32::from(scale.to_bits()) << 16,
        _ => words.push(u32::from(scale.to_bits())),
    }
    scale.is_finite()
}

fn unpack_pair(kind: Scales, bits: u8, words: &[u32], group: usize) -> (f32, f32) {
    match kind {
        Scales::F32 => (f32::from_bits(words[2 * group]), f32::from_bits(words[2 * group + 1])),
        Scales::F16 | Scales::E8m0 | Scales::E4m3 => {
            let word = words[group];
            (f16::from_bits(word as u16).to_f32(), f16::from_bits((word >> 16) as u16).to_f32())
        }
        Scales::Centered => {
            let scale = f16::from_bits((words[group / 2] >> (16 * (group % 2))) as u16).to_f32();
            (scale, -scale * (1u32 << (bits - 1)) as f32)
        }
    }
}

/// Appends the scales of one row of a [`Format::Scaled`]; under [`Scales::E4m3`] all are multiplied by
/// `factor`, which the others do not have. False if `kind` does not hold one of them: f16 rounds, bytes
/// do not.
#[must_use]
pub(super) fn pack_scales(kind: Scales, scales: &[f32], factor: f32, words: &mut Vec<u32>) -> bool {
    let mut fits = factor.is_finite();
    let mut code = |code: Option<u8>| {
        fits &= code.is_some();
        code.unwrap_or(0)
    };
    match kind {
        Scales::F32 => words.extend(scales.iter().map(|s| s.to_bits())),
        Scales::F16 | Scales::Centered => words.extend(scales.chunks(2).map(|pair_of| {
            let [low, high] = [0, 1].map(|i| f16::from_f32(pair_of.get(i).copied().unwrap_or(0.0)));
            pair(low, high)
        })),
        Scales::E8m0 => {
            let codes: Vec<u8> = scales.iter().map(|s| code(e8m0_code(*s))).collect();
            words.extend(codes.chunks(4).map(bytes));
        }
        Scales::E4m3 => {
            words.push(factor.to_bits());
            let codes: Vec<u8> = scales.iter().map(|s| code(e4m3_code(*s))).collect();
            words.extend(codes.chunks(4).map(bytes));
        }
    }
    let largest = if kind == Scales::F16 { f16::MAX.to_f32() } else { f32::MAX };
    fits && scales.iter().all(|s| s.abs() <= largest)
}

/// The scale of `group` of a row whose scales are `words`.
pub(crate) fn unpack_scale(kind: Scales, words: &[u32], group: usize) -> f32 {
    let byte = |first: usize| words[first + group / 4].to_le_bytes()[group % 4];
    match kind {
        Scales::F32 => f32::from_bits(words[group]),
        Scales::F16 | Scales::Centered => f16::from_bits((words[group / 2] >> (16 * (group % 2))) as u16).to_f32(),
        Scales::E8m0 => e8m0(byte(0)),
        Scales::E4m3 => f32::from_bits(words[0]) * Values::E4m3.value(byte(1)),
    }
}

/// Up to four bytes as a word, the first in the lowest.
fn bytes(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// The power of two that is stored as `code`; 0 stands for 0 and not for 2^-127, which f32 holds only
/// as a subnormal, that devices may take for 0. Infinite for 255, which is no number.
pub(super) fn e8m0(code: u8) -> f32 {
    f32::from_bits(u32::from(code) << 23)
}

/// The inverse of [`e8m0`]; none for what is no power of two.
fn e8m0_code(scale: f32) -> Option<u8> {
    let code = (scale.to_bits() >> 23) as u8;
    (scale.is_finite() && scale.to_bits() == u32::from(code) << 23).then_some(code)
}

/// The code of an E4M3 value; none for what is not exactly one. By f16, whose exponents begin 8 lower.
fn e4m3_code(scale: f32) -> Option<u8> {
    let half = f16::from_f32(scale / 256.0).to_bits();
    let code = (half >> 8 & 0x80) as u8 | (half >> 7 & 0x7f) as u8;
    (code & 0x7f != 0x7f && Values::E4m3.value(code) == scale).then_some(code)
}

fn pair(low: f16, high: f16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout as the format's documentation words it, element by element.
    #[test]
    fn planes_lie_where_the_format_says() {
        for bits in [2, 3, 4, 5, 6, 8u8] {
            let mask = ((1u16 << bits) - 1) as u8;
            let q: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(73).wrapping_add(i >> 2) & mask).collect();
            let mut words = vec![];
            pack_quants(bits, &q, &mut words);
            assert_eq!(words.len(), 2 * bits as usize);
            for (e, &want) in q.iter().enumerate() {
                let (block, e) = (e / 32, e % 32);
                let (mut got, mut below, mut first) = (0, 0, block * bits as usize);
                for &b in Format::planes(bits) {
                    let b = b as usize;
                    let (word, p, j) = (e / (32 / b), e % (32 / b) / 4, e % 4);
                    got |= ((words[first + word] >> (8 * j + b * p)) & ((1 << b) - 1)) << below;
                    below += b;
                    first += b;
                }
                assert_eq!(got, u32::from(want), "bits {bits}, element {e} of block {block}");
            }
            let mut back = vec![0; q.len()];
            unpack_quants(bits, &words, &mut back);
            assert_eq!(back, q, "bits {bits}");
        }
    }

    /// As the documentation of [`Scales`] words it.
    #[test]
    fn scales_of_every_kind_survive() {
        let scales = [0.5, 2.0, 1.0, 0.25, 4.0];
        let halves = vec![0x4000_3800, 0x3400_3c00, 0x4400];
        let words = |kind| {
            let mut words = vec![];
            assert!(pack_scales(kind, &scales, 3.0, &mut words), "{kind:?}");
            words
        };
        assert_eq!(words(Scales::F32), scales.map(f32::to_bits));
        assert_eq!(words(Scales::F16), halves);
        assert_eq!(words(Scales::E8m0), [0x7d7f_807e, 0x81]);
        assert_eq!(words(Scales::E4m3), [3f32.to_bits(), 0x2838_4030, 0x48]);
        for kind in [Scales::F32, Scales::F16, Scales::E8m0, Scales::E4m3] {
            let factor = if kind == Scales::E4m3 { 3.0 } else { 1.0 };
            for (group, scale) in scales.iter().enumerate() {
                assert_eq!(unpack_scale(kind, &words(kind), group), factor * scale, "{kind:?}");
            }
        }
        for (kind, scale) in [
            (Scales::F32, f32::NAN),
            (Scales::F16, 70000.0),
            (Scales::E8m0, 3.0),
            (Scales::E8m0, -1.0),
            (Scales::E8m0, f32::INFINITY),
            (Scales::E4m3, 0.3),
            (Scales::E4m3, 480.0),
            (Scales::E4m3, f32::NAN),
        ] {
            assert!(!pack_scales(kind, &[scale], 1.0, &mut vec![]), "{kind:?} {scale}");
        }
        assert!(!pack_scales(Scales::E4m3, &[1.0], f32::INFINITY, &mut vec![]));
        for code in (0..=255).filter(|code| code & 0x7f != 0x7f) {
            let value = Values::E4m3.value(code);
            assert_eq!(e4m3_code(value), Some(code), "{value}");
        }
    }

    #[test]
    fn dense_rows_survive() {
        let values = [0.0, -1.5, 3.25, 65504.0, 2.0f32.powi(-14), -0.0];
        for format in [Format::F32, Format::F16, Format::Bf16] {
            let (mut words, mut back) = (vec![], [1.0; 6]);
            pack_dense(format, &values, &mut words);
            assert_eq!(words.len(), format.row_words(6));
            unpack(format, 6, &words, &[], &mut back);
            let want = if format == Format::Bf16 { [0.0, -1.5, 3.25, 65536.0, 2.0f32.powi(-14), -0.0] } else { values };
            assert_eq!(back, want, "{format}");
        }
    }
}
