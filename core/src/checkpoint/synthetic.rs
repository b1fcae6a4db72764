//! Weights that are made up: random words in the shapes of a real model, to measure without its files.

use super::canonical::{pack_pair, unpack};
use tamarack_kernels::{Format, Scales};

/// Different (scale, bias) pairs in a matrix.
const PAIRS: u32 = 16;

/// A random matrix. A row depends on nothing but the seed and its number, so that any part can be
/// written again.
#[derive(Clone)]
pub(super) struct Synthetic {
    pub format: Format,
    seed: u64,
    cols: usize,
    /// Of a random word of quants these bits are kept, and those of `set` added.
    keep: u32,
    set: u32,
    /// Words of [`PAIRS`] pairs.
    pairs: Vec<u32>,
}

impl Synthetic {
    /// Values with a mean of 0 and a variance of about 1 / `cols`: products of normed activations stay
    /// near 1, whatever the depth.
    pub fn new(format: Format, seed: u64, cols: usize) -> Synthetic {
        // Dense values have a random sign and fraction under one exponent.
        let exponent = |bias: i32| (bias - 1 - (cols.max(1).ilog2() / 2) as i32) as u32;
        let both = |half: u32| half | half << 16;
        let (keep, set) = match format {
            Format::F32 => (0x807f_ffff, exponent(127) << 23),
            Format::F16 => (both(0x83ff), both(exponent(15) << 10)),
            Format::Bf16 => (both(0x807f), both(exponent(127) << 7)),
            Format::Affine { .. } => (u32::MAX, 0),
        };
        Synthetic { format, seed, cols, keep, set, pairs: pairs(format, cols) }
    }

    /// Stored bytes of a row.
    pub fn row_bytes(&self) -> usize {
        4 * (self.format.row_words(self.cols) + self.format.row_scale_words(self.cols))
    }

    /// Appends the words of `row` in [`Synthetic::format`].
    pub fn pack(&self, row: usize, quants: &mut Vec<u32>, scales: &mut Vec<u32>) {
        let mut random = Random(self.seed.wrapping_add((row as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)));
        random.fill(quants, self.format.row_words(self.cols), |word| word & self.keep | self.set);
        let words = self.pairs.len() / PAIRS as usize;
        if let Some(count) = self.format.row_scale_words(self.cols).checked_div(words) {
            for _ in 0..count {
                let pair = (random.next() % u64::from(PAIRS)) as usize * words;
                scales.extend_from_slice(&self.pairs[pair..pair + words]);
            }
        }
    }

    /// Decodes `row`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (mut quants, mut scales) = (Vec::new(), Vec::new());
        self.pack(row, &mut quants, &mut scales);
        unpack(self.format, self.cols, &quants, &scales, out);
    }
}

/// Pairs whose scales differ by up to a half.
fn pairs(format: Format, cols: usize) -> Vec<u32> {
    let mut words = Vec::new();
    if let Format::Affine { bits, scales, .. } = format {
        // The variance of whole numbers 0..=most is about most^2 / 12.
        let most = ((1 << bits) - 1) as f32;
        let middle = (12.0 / cols.max(1) as f32).sqrt() / most;
        for i in 0..PAIRS {
            // A word of scales alone has those of two groups.
            for group in 0..if scales == Scales::Centered { 2 } else { 1 } {
                let scale = middle * (0.75 + 0.5 * (i ^ group) as f32 / PAIRS as f32);
                let finite = pack_pair(scales, group as usize, scale, -scale * most / 2.0, &mut words);
                debug_assert!(finite, "scale {scale}");
            }
        }
    }
    words
}

/// SplitMix64 (Steele, Lea, Flood 2014): eight bytes in about a nanosecond, from any seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, words: &mut Vec<u32>, count: usize, shape: impl Fn(u32) -> u32) {
        let start = words.len();
        words.resize(start + count, 0);
        for pair in words[start..].chunks_mut(2) {
            let random = self.next();
            pair.iter_mut().zip([random as u32, (random >> 32) as u32]).for_each(|(to, word)| *to = shape(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, unpack};
    use serde_json::json;
    use tamarack_kernels::{Format, Scales};

    #[test]
    fn rows_are_what_is_packed_and_of_sane_size() {
        let affine = |bits, group, scales| Format::Affine { bits, group, scales };
        let formats = [2, 3, 4, 5, 6, 8].map(|bits| affine(bits, 64, Scales::F16));
        let others =
            [affine(4, 32, Scales::F32), affine(4, 32, Scales::Centered), Format::F16, Format::Bf16, Format::F32];
        for format in formats.into_iter().chain(others) {
            let index = [("a.weight".to_owned(), vec![8, 256]), ("norm.weight".to_owned(), vec![256])];
            let checkpoint = Checkpoint::synthetic(json!({}), index, format).unwrap();
            let matrix = checkpoint.get("a.weight").unwrap();
            assert_eq!(matrix.format(), format);

            let (mut quants, mut scales) = (vec![], vec![]);
            matrix.pack(2..7, &mut quants, &mut scales).unwrap();
            assert_eq!(4 * 8 * (quants.len() + scales.len()) as u64, 5 * matrix.bytes(), "{format}");
            let mut packed = vec![0.0; 5 * 256];
            unpack(format, 256, &quants, &scales, &mut packed);
            let mut rows = vec![0.0; 5 * 256];
            rows.chunks_exact_mut(256).enumerate().for_each(|(i, row)| matrix.row(i + 2, row));
            assert_eq!(rows, packed, "{format}");
            assert_ne!(rows[..256], rows[256..512], "{format}");

            let variance = rows.iter().map(|v| v * v).sum::<f32>() / rows.len() as f32 * 256.0;
            assert!((0.25..4.0).contains(&variance), "{format}: {variance}");
            let mut norm = vec![0.0; 256];
            checkpoint.get("norm.weight").unwrap().row(0, &mut norm);
            assert!(norm.iter().all(|v| (v - 1.0).abs() < 0.5), "{format}");
        }
    }

    #[test]
    fn a_width_that_the_format_cannot_store_is_refused() {
        let format = Format::Affine { bits: 4, group: 64, scales: Scales::F16 };
        let e = Checkpoint::synthetic(json!({}), [("w".to_owned(), vec![4, 96])], format).err().unwrap();
        assert!(e.to_string().contains("w: expected a last dimension divisible by 64"), "{e}");
    }
}
