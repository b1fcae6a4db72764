//! The canonical device form: how rows are written in it, and how they are read back.
//! The layout is defined at [`Format`].

use half::{bf16, f16};
use tamarack_kernels::{Format, Scales};

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
        Format::Affine { .. } => panic!("pack_dense: {format} is not a dense format"),
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
        Scales::F16 => {
            let (scale, bias) = (f16::from_f32(scale), f16::from_f32(bias));
            words.push(pair(scale, bias));
            scale.is_finite() && bias.is_finite()
        }
        Scales::Centered => {
            let scale = f16::from_f32(scale);
            match words.last_mut() {
                Some(word) if group % 2 == 1 => *word |= u32::from(scale.to_bits()) << 16,
                _ => words.push(u32::from(scale.to_bits())),
            }
            scale.is_finite()
        }
    }
}

fn unpack_pair(kind: Scales, bits: u8, words: &[u32], group: usize) -> (f32, f32) {
    match kind {
        Scales::F32 => (f32::from_bits(words[2 * group]), f32::from_bits(words[2 * group + 1])),
        Scales::F16 => {
            let word = words[group];
            (f16::from_bits(word as u16).to_f32(), f16::from_bits((word >> 16) as u16).to_f32())
        }
        Scales::Centered => {
            let scale = f16::from_bits((words[group / 2] >> (16 * (group % 2))) as u16).to_f32();
            (scale, -scale * (1u32 << (bits - 1)) as f32)
        }
    }
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
