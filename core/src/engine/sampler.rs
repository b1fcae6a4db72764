//! Choosing a token on the host, where some tokens are not to be chosen at all.

use super::penalties;
use crate::generate::{GenerateParameters, GenerationComponents, LogitProcessor, LogitSampler};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Chooses the tokens of one generation on the host.
pub(super) struct Chooser {
    processors: Vec<Box<dyn LogitProcessor>>,
    sampler: Box<dyn LogitSampler>,
}

impl Chooser {
    /// `None` if the device can choose by itself.
    pub fn new(
        parameters: &GenerateParameters,
        components: GenerationComponents,
        seed: u64,
        prompt: &[u32],
    ) -> Option<Chooser> {
        let mut processors = penalties::processors(parameters);
        processors.extend(components.processors);
        if processors.is_empty() && components.sampler.is_none() && !parameters.filters() {
            return None;
        }
        processors.iter_mut().for_each(|p| p.prompt(prompt));
        let sampler = components.sampler.unwrap_or_else(|| Box::new(Sampler::new(parameters, seed)));
        Some(Chooser { processors, sampler })
    }

    /// The next token, or `None` if there is none that can be chosen.
    pub fn choose(&mut self, logits: &mut [f32]) -> Option<u32> {
        self.processors.iter_mut().for_each(|p| p.process(logits));
        let token = self.sampler.sample(logits).filter(|token| (*token as usize) < logits.len())?;
        self.processors.iter_mut().for_each(|p| p.did_sample(token));
        Some(token)
    }
}

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

    /// The tokens that may be chosen and their logits; if some may not, most likely first, of equals the lower id.
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
        } else if self.min_p > 0.0 || self.top_k > 0 {
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

impl LogitSampler for Sampler {
    fn sample(&mut self, logits: &[f32]) -> Option<u32> {
        if self.temperature == 0.0 {
            let numbers = (0..).zip(logits).filter(|(_, l)| l.is_finite());
            return numbers.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(id, _)| id);
        }
        let kept = self.keep(logits);
        let best = kept.iter().map(|(_, l)| *l).fold(f32::NEG_INFINITY, f32::max);
        let weights = kept.iter().map(|(_, l)| (f64::from(l - best) / f64::from(self.temperature)).exp());
        let mut rest = self.rng.random::<f64>() * weights.clone().sum::<f64>();
        let chosen = weights.into_iter().position(|w| {
            rest -= w;
            rest < 0.0
        });
        kept.get(chosen.unwrap_or(kept.len().checked_sub(1)?)).map(|(id, _)| *id)
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
            (1.0, 0, 0.0, &[0, 1, 2, 3, 4]),
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

    /// What each token's probability is, from the definitions: everything is sorted, nothing is clever.
    fn exact(logits: &[f32], p: &GenerateParameters) -> Vec<f64> {
        let softmax = |x: &[f64]| -> Vec<f64> {
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let e: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
            e.iter().map(|x| x / e.iter().sum::<f64>()).collect()
        };
        let wide: Vec<f64> = logits.iter().map(|l| f64::from(*l)).collect();
        let plain = softmax(&wide);
        let mut order: Vec<usize> = (0..plain.len()).collect();
        order.sort_by(|a, b| plain[*b].total_cmp(&plain[*a]).then(a.cmp(b)));
        let mut above = 0.0;
        let mut allowed = vec![false; plain.len()];
        for (rank, id) in order.iter().enumerate() {
            let inside = (rank == 0 || above < f64::from(p.top_p))
                && (p.top_k == 0 || rank < p.top_k)
                && plain[*id] >= f64::from(p.min_p) * plain[order[0]];
            above += plain[*id];
            allowed[*id] = inside;
        }
        let hot = |i: usize| if allowed[i] { wide[i] / f64::from(p.temperature) } else { f64::NEG_INFINITY };
        softmax(&(0..wide.len()).map(hot).collect::<Vec<f64>>())
    }

    /// Pearson's statistic, and what it exceeds once in ten thousand times (Wilson and Hilferty's approximation).
    /// What is too rare for it is pooled.
    fn chi_square(drawn: &[u32], exact: &[f64]) -> (f64, f64) {
        let (mut statistic, mut classes, mut rare) = (0.0, 0, (0.0, 0.0));
        let mut add = |found: f64, expected: f64| {
            statistic += (found - expected).powi(2) / expected;
            classes += 1;
        };
        for (id, p) in exact.iter().enumerate() {
            let found = drawn.iter().filter(|d| **d as usize == id).count() as f64;
            match p * drawn.len() as f64 {
                0.0 => assert_eq!(found, 0.0, "token {id} cannot be drawn"),
                expected if expected < 8.0 => rare = (rare.0 + found, rare.1 + expected),
                expected => add(found, expected),
            }
        }
        if rare.1 > 0.0 {
            add(rare.0, rare.1.max(1e-9));
        }
        let df = f64::from((classes - 1).max(1));
        let (spread, z) = (2.0 / (9.0 * df), 3.719);
        (statistic, df * (1.0 - spread + z * spread.sqrt()).powi(3))
    }

    #[test]
    fn draws_follow_the_exact_distribution_and_the_seed() {
        let logits: Vec<f32> = (0..40u32).map(|i| (i.wrapping_mul(2654435761) >> 16) as f32 / 16384.0).collect();
        let p = GenerateParameters { temperature: 1.0, ..Default::default() };
        let cases = [
            p.clone(),
            GenerateParameters { temperature: 0.6, ..p.clone() },
            GenerateParameters { temperature: 2.5, ..p.clone() },
            GenerateParameters { top_p: 0.8, ..p.clone() },
            GenerateParameters { top_k: 7, ..p.clone() },
            GenerateParameters { min_p: 0.2, ..p.clone() },
            GenerateParameters { top_p: 0.9, top_k: 12, min_p: 0.1, temperature: 0.8, ..p.clone() },
            GenerateParameters { top_p: 0.5, temperature: 1.7, ..p.clone() },
            GenerateParameters { repetition_penalty: Some(1.5), presence_penalty: Some(0.3), ..p.clone() },
            GenerateParameters { frequency_penalty: Some(0.5), logit_bias: [(3, 2.0)].into(), top_k: 20, ..p },
        ];
        for (i, p) in cases.iter().enumerate() {
            // Penalties look at the prompt alone here, so that all draws are of one distribution.
            let prompt = [3, 3, 8, 9, 9, 9];
            let mut changed = logits.clone();
            for processor in &mut penalties::processors(p) {
                processor.prompt(&prompt);
                processor.process(&mut changed);
            }
            let draw = |seed| {
                let mut sampler = Sampler::new(p, seed);
                (0..20_000).map(|_| sampler.sample(&changed).unwrap()).collect::<Vec<u32>>()
            };
            let drawn = draw(i as u64);
            let (statistic, limit) = chi_square(&drawn, &exact(&changed, p));
            assert!(statistic < limit, "{p:?}: {statistic} is above {limit}");
            assert_eq!(drawn, draw(i as u64));
            assert_ne!(drawn, draw(100 + i as u64));
            // Where nothing is cut off, it would see another temperature.
            let other = GenerateParameters { temperature: p.temperature * 1.3, ..p.clone() };
            let (statistic, limit) = chi_square(&drawn, &exact(&changed, &other));
            assert!(i >= 3 || statistic > limit, "{p:?}: {statistic} is below {limit}");
        }
    }

    #[test]
    fn a_chooser_is_what_the_parameters_and_the_program_say() {
        struct Fixed(u32);
        impl LogitSampler for Fixed {
            fn sample(&mut self, _: &[f32]) -> Option<u32> {
                Some(self.0)
            }
        }
        let greedy = GenerateParameters { temperature: 0.0, ..Default::default() };
        let none = GenerationComponents::default;
        assert!(Chooser::new(&greedy, none(), 0, &[]).is_none(), "the device can do it");
        let penalty = GenerateParameters { presence_penalty: Some(9.0), ..greedy.clone() };
        let mut chooser = Chooser::new(&penalty, none(), 0, &[3]).unwrap();
        assert_eq!([(); 3].map(|()| chooser.choose(&mut logits())), [Some(1), Some(4), Some(0)]);
        let mut chooser = Chooser::new(&greedy, none().sampler(Fixed(4)), 0, &[]).unwrap();
        assert_eq!(chooser.choose(&mut logits()), Some(4));
        let mut outside = Chooser::new(&greedy, none().sampler(Fixed(5)), 0, &[]).unwrap();
        assert_eq!(outside.choose(&mut logits()), None, "outside of the vocabulary");
    }

    #[test]
    fn what_is_no_number_is_not_chosen() {
        assert_eq!(sampler(0.9, 0, 0.0).sample(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(sampler(0.9, 0, 0.0).sample(&[f32::NAN, 1.0, f32::NEG_INFINITY]), Some(1));
    }
}
