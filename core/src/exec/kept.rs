//! Keys and values as caches keep them.

use half::f16;
use tamarack_kernels::CacheFormat;

/// A head as it is kept, in as many words as [`CacheFormat::words`] says.
pub fn pack(format: CacheFormat, head: &[f32], words: &mut [u32]) {
    let pair = |low: f32, high: f32| {
        let bits = |v: f32| u32::from(f16::from_f32(v.clamp(-65504.0, 65504.0)).to_bits());
        bits(low) | bits(high) << 16
    };
    let CacheFormat::Affine { bits, group, .. } = format else {
        return words.iter_mut().zip(head.chunks_exact(2)).for_each(|(w, v)| *w = pair(v[0], v[1]));
    };
    let top = ((1u32 << bits) - 1) as f32;
    let (codes, pairs) = words.split_at_mut(head.len() * bits as usize / 32);
    let groups = head.chunks_exact(group as usize).zip(codes.chunks_exact_mut((group * bits / 32) as usize));
    for ((values, codes), out) in groups.zip(pairs) {
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        *out = pair((most - least) / top, least);
        // Codes are chosen for scale and bias as they are kept.
        let [scale, bias] = unpair(*out);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (word, values) in codes.iter_mut().zip(values.chunks_exact(32 / bits as usize)) {
            let code = |v: &f32| ((v - bias) * inverse).round_ties_even().clamp(0.0, top) as u32;
            *word = values.iter().rev().fold(0, |word, v| word.checked_shl(bits).unwrap_or(0) | code(v));
        }
    }
}

/// What [`pack`] kept.
pub fn unpack(format: CacheFormat, words: &[u32], head: &mut [f32]) {
    let CacheFormat::Affine { bits, group, .. } = format else {
        return head.chunks_exact_mut(2).zip(words).for_each(|(out, w)| out.copy_from_slice(&unpair(*w)));
    };
    let (codes, pairs) = words.split_at(head.len() * bits as usize / 32);
    for (i, out) in head.iter_mut().enumerate() {
        let [scale, bias] = unpair(pairs[i / group as usize]);
        let bit = i as u32 * bits;
        let code = codes[bit as usize / 32] >> (bit % 32) & ((1 << bits) - 1);
        *out = scale * code as f32 + bias;
    }
}

fn unpair(word: u32) -> [f32; 2] {
    [word, word >> 16].map(|half| f16::from_bits(half as u16).to_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_half_a_step_away_at_most() {
        let head: Vec<f32> = (0..128).map(|i| ((i * 37 % 128) as f32 - 40.0) / 16.0).collect();
        for (bits, group) in [(2, 32), (4, 64), (8, 128), (8, 32)] {
            let format = CacheFormat::Affine { bits, group, mixed: false };
            assert!(format.fits(128) && !format.fits(group / 2));
            let mut words = vec![0; format.words(128) as usize];
            pack(format, &head, &mut words);
            let mut back = vec![0.0; 128];
            unpack(format, &words, &mut back);
            for (a, b) in head.chunks(group as usize).zip(back.chunks(group as usize)) {
                let range =
                    |v: &[f32]| v.iter().copied().fold(f32::MIN, f32::max) - v.iter().copied().fold(f32::MAX, f32::min);
                let step = range(a) / ((1 << bits) - 1) as f32;
                // Scale and bias are rounded to f16.
                let most = 0.5 * step + 2e-3 * range(a).max(8.0);
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= most), "{format:?}: {a:?} {b:?}");
            }
        }
        let (mut words, mut back) = ([0; 64], [1.0; 128]);
        pack(CacheFormat::F16, &head, &mut words);
        unpack(CacheFormat::F16, &words, &mut back);
        assert_eq!(back[..], head[..], "sixteenths are exact");
    }

    #[test]
    fn equal_values_stay() {
        let format = CacheFormat::Affine { bits: 4, group: 32, mixed: false };
        let (mut words, mut back) = (vec![0; format.words(32) as usize], [0.0; 32]);
        pack(format, &[2.5; 32], &mut words);
        unpack(format, &words, &mut back);
        assert_eq!(back, [2.5; 32]);
    }
}
