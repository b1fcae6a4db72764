//! Sampling on every adapter draws what the oracle draws.

use tamarack::reference::ops;
use tamarack_kernels::{View, sample::Sample, step};
use tamarack_tests::gpu::{gpus, random, run, words};

/// The step buffer of so many outputs: slot, 1 / temperature, seed and counter of each.
fn step_words(outputs: &[(u32, f32, u32, u32)]) -> Vec<u32> {
    let mut out = vec![0; step::HEADER_WORDS as usize];
    out[step::OUTPUTS as usize] = outputs.len() as u32;
    out[step::OUTPUTS_AT as usize] = step::HEADER_WORDS;
    for (slot, inverse, seed, counter) in outputs {
        let mut record = vec![0; step::OUTPUT_WORDS as usize];
        record[step::OUTPUT_SLOT as usize] = *slot;
        record[step::OUTPUT_INV_TEMPERATURE as usize] = inverse.to_bits();
        record[step::OUTPUT_SEED as usize] = *seed;
        record[step::OUTPUT_COUNTER as usize] = *counter;
        out.extend(record);
    }
    out
}

#[test]
fn greedy_and_drawn_tokens_are_the_oracles() {
    for gpu in gpus() {
        for (seed, vocab) in [(1, 7), (2, 2048), (3, 2049), (4, 50_001)] {
            let outputs = [(2, 0.0, 0, 0), (0, 1.0, 7, 0), (4, 2.5, 7, 1), (1, 0.3, 123_456_789, 99), (3, 0.0, 5, 5)];
            let mut logits: Vec<f32> = random(seed, vocab * outputs.len()).iter().map(|x| x * 8.0).collect();
            // Two equal best ones: the lower wins. A NaN never does.
            let last = &mut logits[4 * vocab..];
            (last[vocab / 3], last[vocab / 2], last[0]) = (9.0, 9.0, f32::NAN);
            let spec = Sample { vocab: vocab as u32, logits: View::rows(vocab as u32) };
            let candidates = spec.partial_words(&gpu.caps) as usize * outputs.len();
            let rows = outputs.len() as u32;
            let mut first = vec![step_words(&outputs), words(&logits), vec![0; candidates]];
            run(&gpu, &spec.partial(&gpu.caps), rows, 1, &mut first);
            let mut then = vec![first[0].clone(), first[2].clone(), vec![u32::MAX; 6], vec![0; outputs.len()]];
            run(&gpu, &spec.finish(&gpu.caps), rows, 1, &mut then);
            let want: Vec<u32> = outputs
                .iter()
                .zip(logits.chunks_exact(vocab))
                .map(|((_, inverse, seed, counter), row)| ops::sample(row, *inverse, *seed, *counter))
                .collect();
            assert_eq!(then[3], want, "vocabulary of {vocab} on {}", gpu.info().name);
            for ((slot, ..), token) in outputs.iter().zip(&want) {
                assert_eq!(then[2][*slot as usize], *token);
            }
            assert_eq!(then[2][5], u32::MAX, "no other slot is touched");
            assert_eq!(want[4] as usize, vocab / 3);
        }
    }
}

/// What rounds up to 1 has infinite noise and wins against everything.
#[test]
fn uniform_numbers_stay_between_0_and_1() {
    for index in 0..1 << 25 {
        let u = ops::uniform(7, 1, index);
        assert!(u > 0.0 && u < 1.0, "index {index}: {u}");
    }
}

/// Among equal logits the noise alone decides, by its last digits: as good as the oracle's will do.
#[test]
fn draws_among_equals_are_the_oracles() {
    let vocab = 200_000;
    let outputs: Vec<_> = (0..6).map(|i| (i, 1.0, 11, i)).collect();
    let spec = Sample { vocab, logits: View { row: 0, ..View::rows(vocab) } };
    for gpu in gpus() {
        let candidates = spec.partial_words(&gpu.caps) as usize * outputs.len();
        let mut first = vec![step_words(&outputs), vec![0; vocab as usize], vec![0; candidates]];
        run(&gpu, &spec.partial(&gpu.caps), 6, 1, &mut first);
        let mut then = vec![first[0].clone(), first[2].clone(), vec![0; 6], vec![0; 6]];
        run(&gpu, &spec.finish(&gpu.caps), 6, 1, &mut then);
        for ((_, _, seed, counter), token) in outputs.iter().zip(&then[3]) {
            let want = ops::sample(&vec![0.0; vocab as usize], 1.0, *seed, *counter);
            let noise = |id| -(-ops::uniform(*seed, *counter, id).ln()).ln();
            assert!(noise(*token) >= noise(want) - 1e-4, "got {token} ({}), want {want}", noise(*token));
        }
    }
}

/// What the exact distribution would exceed once in ten thousand times, by Pearson's statistic (Wilson and
/// Hilferty's approximation); classes are wide enough for it.
fn follows(drawn: &[u32], exact: &[f64]) -> bool {
    let statistic: f64 = exact.iter().enumerate().fold(0.0, |sum, (id, p)| {
        let (found, expected) = (drawn.iter().filter(|d| **d as usize == id).count() as f64, p * drawn.len() as f64);
        assert!(expected > 5.0, "too few draws");
        sum + (found - expected).powi(2) / expected
    });
    let df = (exact.len() - 1) as f64;
    let spread = 2.0 / (9.0 * df);
    statistic < df * (1.0 - spread + 3.719 * spread.sqrt()).powi(3)
}

#[test]
fn draws_follow_the_exact_distribution() {
    const DRAWS: u32 = 8192;
    let vocab = 24;
    let logits: Vec<f32> = random(5, vocab).iter().map(|x| x * 2.0).collect();
    let exact = |temperature: f32| -> Vec<f64> {
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature).exp()).collect();
        weights.iter().map(|w| w / weights.iter().sum::<f64>()).collect()
    };
    let spec = Sample { vocab: vocab as u32, logits: View { row: 0, ..View::rows(vocab as u32) } };
    for temperature in [0.7, 1.0, 2.0] {
        let outputs: Vec<_> = (0..DRAWS).map(|i| (0, 1.0 / temperature, 77, i)).collect();
        let of_oracle: Vec<u32> =
            outputs.iter().map(|(_, inverse, seed, i)| ops::sample(&logits, *inverse, *seed, *i)).collect();
        assert!(follows(&of_oracle, &exact(temperature)), "the oracle at {temperature}");
        assert!(!follows(&of_oracle, &exact(temperature * 1.3)), "the test would see another temperature");
        for gpu in gpus() {
            let candidates = spec.partial_words(&gpu.caps) as usize * outputs.len();
            let mut first = vec![step_words(&outputs), words(&logits), vec![0; candidates]];
            run(&gpu, &spec.partial(&gpu.caps), DRAWS, 1, &mut first);
            let mut then = vec![first[0].clone(), first[2].clone(), vec![0; 1], vec![0; outputs.len()]];
            run(&gpu, &spec.finish(&gpu.caps), DRAWS, 1, &mut then);
            assert!(follows(&then[3], &exact(temperature)), "{} at {temperature}", gpu.info().name);
        }
    }
}
