//! Logit processors that parameters ask for: biases, and penalties for what was said before.

use crate::generate::{GenerateParameters, LogitProcessor};
use std::collections::{BTreeMap, VecDeque};

/// The processors that `parameters` ask for, in the order of mlx-lm: bias, repetition, presence, frequency.
pub(super) fn processors(parameters: &GenerateParameters) -> Vec<Box<dyn LogitProcessor>> {
    let p = parameters;
    let penalty = |of: fn(f32) -> Penalty, by: Option<f32>, neutral: f32, window: usize| {
        let by = by.filter(|by| *by != neutral && window > 0)?;
        Some(Box::new(Penalties { penalty: of(by), window, last: VecDeque::new() }) as Box<dyn LogitProcessor>)
    };
    let bias = (!p.logit_bias.is_empty()).then(|| Box::new(Bias(p.logit_bias.clone())) as Box<dyn LogitProcessor>);
    [
        bias,
        penalty(Penalty::Repetition, p.repetition_penalty, 1.0, p.repetition_context_size),
        penalty(Penalty::Presence, p.presence_penalty, 0.0, p.presence_context_size),
        penalty(Penalty::Frequency, p.frequency_penalty, 0.0, p.frequency_context_size),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct Bias(BTreeMap<u32, f32>);

impl LogitProcessor for Bias {
    fn process(&mut self, logits: &mut [f32]) {
        for (token, bias) in &self.0 {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }
}

enum Penalty {
    Repetition(f32),
    Presence(f32),
    Frequency(f32),
}

/// A penalty for the last `window` tokens.
struct Penalties {
    penalty: Penalty,
    window: usize,
    last: VecDeque<u32>,
}

impl LogitProcessor for Penalties {
    fn prompt(&mut self, tokens: &[u32]) {
        self.last = tokens[tokens.len().saturating_sub(self.window)..].iter().copied().collect();
    }

    fn process(&mut self, logits: &mut [f32]) {
        let mut counts = BTreeMap::new();
        self.last.iter().for_each(|token| *counts.entry(*token).or_insert(0u32) += 1);
        for (token, count) in counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            match self.penalty {
                Penalty::Repetition(by) if *logit < 0.0 => *logit *= by,
                Penalty::Repetition(by) => *logit /= by,
                Penalty::Presence(by) => *logit -= by,
                Penalty::Frequency(by) => *logit -= by * count as f32,
            }
        }
    }

    fn did_sample(&mut self, token: u32) {
        if self.last.len() == self.window {
            self.last.pop_front();
        }
        self.last.push_back(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits 2 and -2 for even and odd tokens, after the prompt 0 0 1 and then 2, with windows of three.
    fn run(parameters: GenerateParameters) -> Vec<f32> {
        let mut logits: Vec<f32> = (0..5).map(|i| if i % 2 == 0 { 2.0 } else { -2.0 }).collect();
        for processor in &mut processors(&parameters) {
            processor.prompt(&[9, 0, 0, 1]);
            processor.did_sample(2);
            processor.process(&mut logits);
        }
        logits
    }

    #[test]
    fn penalties_are_those_of_mlx_lm() {
        let p = GenerateParameters {
            repetition_context_size: 3,
            presence_context_size: 3,
            frequency_context_size: 4,
            ..Default::default()
        };
        assert!(processors(&p).is_empty());
        let neutral = GenerateParameters { repetition_penalty: Some(1.0), presence_penalty: Some(0.0), ..p.clone() };
        assert!(processors(&neutral).is_empty());
        let repetition = GenerateParameters { repetition_penalty: Some(2.0), ..p.clone() };
        assert_eq!(run(repetition.clone()), [1.0, -4.0, 1.0, -2.0, 2.0]);
        let presence = GenerateParameters { presence_penalty: Some(0.5), ..p.clone() };
        assert_eq!(run(presence), [1.5, -2.5, 1.5, -2.0, 2.0]);
        let frequency = GenerateParameters { frequency_penalty: Some(0.5), ..p.clone() };
        assert_eq!(run(frequency), [1.0, -2.5, 1.5, -2.0, 2.0]);
        let bias = GenerateParameters { logit_bias: [(4, 1.5), (99, 1.0)].into(), ..p };
        assert_eq!(run(bias), [2.0, -2.0, 2.0, -2.0, 3.5]);
        let all = GenerateParameters { presence_penalty: Some(1.0), frequency_penalty: Some(0.25), ..repetition };
        assert_eq!(run(all), [1.0 - 1.0 - 0.5, -4.0 - 1.0 - 0.25, 1.0 - 1.0 - 0.25, -2.0, 2.0]);
    }
}
