//! How tokens are chosen, and when to end.

use crate::{Error, Result, exec::PAGE};
use std::collections::BTreeMap;

/// How tokens are chosen, and when to end.
///
/// Filters apply to the probabilities at temperature 1, the temperature to what they leave. The default is the same for all
/// models; [`crate::ModelContainer::generate_parameters`] has what a model's own files ask for.
///
/// ```
/// use tamarack::GenerateParameters;
///
/// let greedy = GenerateParameters { max_tokens: Some(64), temperature: 0.0, ..Default::default() };
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct GenerateParameters {
    /// Tokens to generate; `None` goes on until the context is full.
    pub max_tokens: Option<usize>,
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// The most likely tokens whose probabilities add up to this; 1 is all.
    pub top_p: f32,
    /// This many of the most likely tokens; 0 is all.
    pub top_k: usize,
    /// Tokens at least this likely, relative to the most likely one; 0 is all.
    pub min_p: f32,
    /// Seed of the random numbers; `None` is another one each time.
    pub seed: Option<u64>,
    /// Texts that end the generation, beside the configuration's.
    pub stop: Vec<String>,
    /// Go on after end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Prompt tokens in a step; `None` is as many as fit.
    pub prefill_step: Option<usize>,
    /// Tokens that a draft model proposes at a time, where the model was loaded with one; 0 goes without it.
    pub draft_tokens: usize,
    /// Keys and values to keep at most. Beyond that the oldest are dropped, page by page, except those of the
    /// very first tokens, which later ones lean on (attention sinks, arXiv:2309.17453). Positions go on, and so does
    /// the generation, past any context. `None` ends where the context is full.
    pub max_kv_size: Option<usize>,
    /// Divides the logits of tokens that were there before, multiplies them where they are negative
    /// (arXiv:1909.05858). 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// How many of the last tokens count, those of the prompt included.
    pub repetition_context_size: usize,
    /// Is subtracted from the logits of tokens that were there before.
    pub presence_penalty: Option<f32>,
    /// How many of the last tokens count, those of the prompt included.
    pub presence_context_size: usize,
    /// Is subtracted from the logits of tokens as many times as they were there before.
    pub frequency_penalty: Option<f32>,
    /// How many of the last tokens count, those of the prompt included.
    pub frequency_context_size: usize,
    /// Is added to the logits of these tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Which of the model's adapters it runs with: [`crate::ModelContainer::load_adapter`]. `None` is the model as it is.
    pub adapter: Option<String>,
}

/// Tokens that penalties look back on.
const PENALTY_CONTEXT: usize = 20;

/// The least that [`GenerateParameters::max_kv_size`] can be: the page that is kept and one to rotate.
const MIN_KV_SIZE: usize = 2 * PAGE;

impl Default for GenerateParameters {
    fn default() -> GenerateParameters {
        GenerateParameters {
            max_tokens: None,
            temperature: 0.6,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: None,
            stop: Vec::new(),
            ignore_eos: false,
            prefill_step: None,
            draft_tokens: 4,
            max_kv_size: None,
            repetition_penalty: None,
            repetition_context_size: PENALTY_CONTEXT,
            presence_penalty: None,
            presence_context_size: PENALTY_CONTEXT,
            frequency_penalty: None,
            frequency_context_size: PENALTY_CONTEXT,
            logit_bias: BTreeMap::new(),
            adapter: None,
        }
    }
}

impl GenerateParameters {
    /// Refuses what has no meaning.
    pub(crate) fn check(&self) -> Result<()> {
        let any = -f32::MAX..=f32::MAX;
        let ranges = [
            ("temperature", self.temperature, 0.0..=f32::MAX),
            ("top_p", self.top_p, 0.0..=1.0),
            ("min_p", self.min_p, 0.0..=1.0),
            ("repetition_penalty", self.repetition_penalty.unwrap_or(1.0), f32::MIN_POSITIVE..=f32::MAX),
            ("presence_penalty", self.presence_penalty.unwrap_or(0.0), any.clone()),
            ("frequency_penalty", self.frequency_penalty.unwrap_or(0.0), any),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                let expected = match (*range.start(), *range.end()) {
                    (f32::MIN_POSITIVE, _) => "more than 0".to_owned(),
                    (0.0, f32::MAX) => "0 or more".to_owned(),
                    (_, f32::MAX) => "a number".to_owned(),
                    (low, high) => format!("{low} to {high}"),
                };
                return Err(Error::Request(format!("{name}: expected {expected}, found {value}")));
            }
        }
        if let Some((token, bias)) = self.logit_bias.iter().find(|(_, bias)| bias.is_nan() || **bias == f32::INFINITY) {
            return Err(Error::Request(format!("logit_bias of token {token}: expected a number, found {bias}")));
        }
        match (self.prefill_step, self.max_kv_size) {
            (Some(0), _) => Err(Error::Request("prefill_step: expected at least 1, found 0".to_owned())),
            (_, Some(size)) if size < MIN_KV_SIZE => {
                Err(Error::Request(format!("max_kv_size: expected at least {MIN_KV_SIZE}, found {size}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether some tokens are not to be chosen at all.
    pub(crate) fn filters(&self) -> bool {
        self.temperature > 0.0 && (self.top_p < 1.0 || self.top_k > 0 || self.min_p > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_meaning_is_refused() {
        let p = GenerateParameters::default();
        assert!(p.check().is_ok());
        for (parameters, expected) in [
            (GenerateParameters { temperature: -0.5, ..p.clone() }, "temperature: expected 0 or more, found -0.5"),
            (GenerateParameters { temperature: f32::NAN, ..p.clone() }, "temperature: expected 0 or more, found NaN"),
            (GenerateParameters { top_p: 1.5, ..p.clone() }, "top_p: expected 0 to 1, found 1.5"),
            (GenerateParameters { min_p: -1.0, ..p.clone() }, "min_p: expected 0 to 1, found -1"),
            (
                GenerateParameters { repetition_penalty: Some(0.0), ..p.clone() },
                "repetition_penalty: expected more than 0, found 0",
            ),
            (
                GenerateParameters { presence_penalty: Some(f32::INFINITY), ..p.clone() },
                "presence_penalty: expected a number, found inf",
            ),
            (
                GenerateParameters { logit_bias: [(7, f32::NAN)].into(), ..p.clone() },
                "logit_bias of token 7: expected a number, found NaN",
            ),
            (GenerateParameters { max_kv_size: Some(31), ..p.clone() }, "max_kv_size: expected at least 32, found 31"),
            (GenerateParameters { prefill_step: Some(0), ..p }, "prefill_step: expected at least 1, found 0"),
        ] {
            assert_eq!(parameters.check().unwrap_err().to_string(), expected);
        }
    }
}
