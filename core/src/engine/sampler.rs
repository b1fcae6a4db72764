//! Choosing a token on the host, where some tokens are not to be chosen at all.

use crate::generate::GenerateParameters;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The filters of mlx-lm: top-p, then min-p, then top-k, all on probabilities at temperature 1; then a
/// draw at the temperature.
///
/// Each filter keeps the most likely tokens up to some place. So their order does not matter: what
/// remains is the shortest of the three beginnings of the sorted tokens.
pub(super) struct Sampler {
    temperature: f32,
    top_p: f32,
    top_k: usize,
    min_p: f32,
    rng: StdRng,
}

impl Sampler {
    /// Draws as the parameters say.
    pub fn new(parameters: &GenerateParameters, seed: u64) -> Sampler {
        let GenerateParameters { temperature, top_p, top_k, min_p, .. } = *parameters;
        Sampler { temperature, top_p, top_k, min_p, rng: StdRng::seed_from_u64(seed) }
    }

    /// The next token, or `None` if no logit is a number.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let kept = self.keep(logits);
        let best = kept.first()?.1;
        let weights = kept.iter().map(|(_, l)| f64::from((l - best) / self.temperature).exp());
        let mut rest = self.rng.random::<f64>() * weights.clone().sum::<f64>();
        let chosen = weights.into_iter().position(|w| {
            rest -= w;
            rest < 0.0
        });
        kept.get(chosen.unwrap_or(kept.len() - 1)).map(|(id, _)| *id)
    }

    /// The tokens that may be chosen and their logits, most likely first; of equals the lower id first.
    fn keep(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let max = logits.iter().copied().filter(|l| l.is_finite()).fold(f32::NEG_INFINITY, f32::max);
        let least = if self.min_p > 0.0 { max + self.min_p.ln() } else { f32::MIN };
        let numbered = (0..).zip(logits.iter().copied());
        let mut kept: Vec<(u32, f32)> = numbered.filter(|(_, l)| l.is_finite() && *l >= least).collect();
        if self.top_k > 0 {
            best_first(&mut kept, self.top_k);
            kept.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            let total: f64 = logits.iter().filter(|l| l.is_finite()).map(|l| f64::from(l - max).exp()).sum();
            let count = self.nucleus(&mut kept, max, total);
            kept.truncate(count);
        } else {
            let all = kept.len();
            best_first(&mut kept, all);
        }
        kept
    }

    /// How many of the most likely tokens it takes for a probability of `top_p`, one at least. Sorts
    /// no more than it needs to: a vocabulary is long, and a nucleus short.
    fn nucleus(&self, kept: &mut [(u32, f32)], max: f32, total: f64) -> usize {
        let mut sorted = 64;
        loop {
            sorted = sorted.min(kept.len());
            best_first(kept, sorted);
            let mut above = 0.0;
            for (i, (_, logit)) in kept[..sorted].iter().enumerate() {
                above += f64::from(logit - max).exp() / total;
                if above >= f64::from(self.top_p) {
                    return i + 1;
                }
            }
            if sorted == kept.len() {
                return sorted;
            }
            sorted *= 8;
        }
    }
}

/// Brings the `count` most likely tokens to the front, in order.
fn best_first(tokens: &mut [(u32, f32)], count: usize) {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let count = count.min(tokens.len());
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, order);
    }
    tokens[..count].sort_unstable_by(order);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities of 0.5, 0.25, 0.125, 0.0625, 0.0625, out of order: ids 3, 1, 4, 0 and 2.
    const LOGITS: [f32; 5] = [0.0625, 0.25, 0.0625, 0.5, 0.125];

    fn logits() -> Vec<f32> {
        LOGITS.iter().map(|p: &f32| p.ln() + 3.0).collect()
    }

    fn sampler(top_p: f32, top_k: usize, min_p: f32) -> Sampler {
        Sampler::new(&GenerateParameters { temperature: 1.0, top_p, top_k, min_p, ..Default::default() }, 7)
    }

    #[test]
    fn filters_keep_what_they_say() {
        let cases: [(f32, usize, f32, &[u32]); 12] = [
            (1.0, 0, 0.0, &[3, 1, 4, 0, 2]),
            (0.4, 0, 0.0, &[3]),
            (0.0, 0, 0.0, &[3]),
            (0.6, 0, 0.0, &[3, 1]),
            (0.9, 0, 0.0, &[3, 1, 4, 0]),
            (1.0, 1, 0.0, &[3]),
            (1.0, 4, 0.0, &[3, 1, 4, 0]),
            (1.0, 9, 0.0, &[3, 1, 4, 0, 2]),
            (1.0, 0, 0.4, &[3, 1]),
            (1.0, 0, 0.2, &[3, 1, 4]),
            // The nucleus counts probabilities of all tokens, whatever the other filters leave.
            (0.8, 0, 0.4, &[3, 1]),
            (0.8, 4, 0.01, &[3, 1, 4]),
        ];
        for (top_p, top_k, min_p, expected) in cases {
            let kept: Vec<u32> = sampler(top_p, top_k, min_p).keep(&logits()).iter().map(|(id, _)| *id).collect();
            assert_eq!(kept, expected, "top_p {top_p}, top_k {top_k}, min_p {min_p}");
        }
    }

    #[test]
    fn a_long_vocabulary_is_cut_as_a_sorted_one() {
        let logits: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2654435761) % 4096) as f32 / 4096.0).collect();
        let kept = sampler(0.5, 0, 0.0).keep(&logits);
        let mut sorted: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let total: f64 = sorted.iter().sum();
        let mut above = 0.0;
        let expected = sorted.iter().take_while(|p| {
            let inside = above < 0.5;
            above += **p / total;
            inside
        });
        assert_eq!(kept.len(), expected.count());
        assert!(kept.is_sorted_by(|a, b| a.1 >= b.1));
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        for (temperature, expected) in
            [(1.0, [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0]), (0.5, [16.0, 4.0, 1.0].map(|w| w / 21.0))]
        {
            let parameters = GenerateParameters { temperature, top_k: 3, ..Default::default() };
            let draw = |seed| {
                let mut sampler = Sampler::new(&parameters, seed);
                (0..20_000).map(|_| sampler.choose(&logits()).unwrap()).collect::<Vec<u32>>()
            };
            let drawn = draw(1);
            assert_eq!(drawn, draw(1));
            assert_ne!(drawn, draw(2));
            for (id, p) in [3, 1, 4].into_iter().zip(expected) {
                let found = drawn.iter().filter(|d| **d == id).count() as f64 / 20_000.0;
                assert!((found - p).abs() < 0.015, "token {id} at {temperature}: {found}, expected {p}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_chosen() {
        assert_eq!(sampler(0.9, 0, 0.0).choose(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(sampler(0.9, 0, 0.0).choose(&[f32::NAN, 1.0, f32::NEG_INFINITY]), Some(1));
    }
}
