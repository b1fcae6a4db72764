//! How tokens are chosen, and when to end.

use crate::{Error, Result};

/// How tokens are chosen, and when to end.
///
/// Filters apply to the probabilities at temperature 1, the temperature to what they leave.
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
}

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
        }
    }
}

impl GenerateParameters {
    /// Refuses what has no meaning.
    pub(crate) fn check(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0..=f32::MAX),
            ("top_p", self.top_p, 0.0..=1.0),
            ("min_p", self.min_p, 0.0..=1.0),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                let (low, high) = (range.start(), range.end());
                let to = if *high == f32::MAX { "or more".to_owned() } else { format!("to {high}") };
                return Err(Error::Request(format!("{name}: expected {low} {to}, found {value}")));
            }
        }
        match self.prefill_step {
            Some(0) => Err(Error::Request("prefill_step: expected at least 1, found 0".to_owned())),
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
            (GenerateParameters { prefill_step: Some(0), ..p }, "prefill_step: expected at least 1, found 0"),
        ] {
            assert_eq!(parameters.check().unwrap_err().to_string(), expected);
        }
    }
}
