//! How tokens are chosen: as options of the command, and as what `/set` changes.

use clap::Args;
use serde_json::{Value, json};
use std::str::FromStr;
use tamarack::GenerateParameters;

/// How tokens are chosen, and how many.
#[derive(Args)]
#[command(next_help_heading = "Sampling (defaults are those of the model's generation_config.json, where it has them)")]
pub struct Sampling {
    /// Tokens of an answer at most [default: the model's, else as many as the context holds]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_tokens: Option<usize>,
    /// How much chance decides; 0 always takes the most likely token [default: the model's, else 0.6]
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    temperature: Option<f32>,
    /// Choose among the most likely tokens whose probabilities add up to this [default: the model's, else 1]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    top_p: Option<f32>,
    /// Choose among this many of the most likely tokens; 0 is all [default: the model's, else 0]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Choose among tokens at least this likely, relative to the most likely one [default: the model's, else 0]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    min_p: Option<f32>,
    /// Make tokens that were there less likely: 1.1 is much [default: the model's, else 1]
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    repetition_penalty: Option<f32>,
    /// Subtract this from the logits of tokens that were there; a negative number makes them more likely
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    presence_penalty: Option<f32>,
    /// Subtract this from the logits of tokens as often as they were there; a negative number makes them more likely
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    frequency_penalty: Option<f32>,
    /// Forget the oldest tokens beyond this many, and go on past the end of the context
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_kv_size: Option<usize>,
    /// Tokens that the draft model guesses at a time
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = GenerateParameters::default().draft_tokens)]
    draft_tokens: usize,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
}

impl Sampling {
    /// The options as the library takes them: where none is given, as the model's files have it.
    pub fn over(&self, model: GenerateParameters) -> GenerateParameters {
        let of_option = GenerateParameters::default();
        GenerateParameters {
            max_tokens: self.max_tokens.or(model.max_tokens),
            temperature: self.temperature.unwrap_or(model.temperature),
            top_p: self.top_p.unwrap_or(model.top_p),
            top_k: self.top_k.unwrap_or(model.top_k),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.or(model.repetition_penalty),
            repetition_context_size: match self.repetition_penalty {
                Some(_) => of_option.repetition_context_size,
                None => model.repetition_context_size,
            },
            presence_penalty: self.presence_penalty.or(model.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(model.frequency_penalty),
            max_kv_size: self.max_kv_size,
            draft_tokens: self.draft_tokens,
            seed: self.seed,
            ..model
        }
    }
}

/// Changes the parameter of this name; `none` takes an optional one back. Says what is wrong with it.
pub fn set(p: &mut GenerateParameters, name: &str, value: &str) -> Result<(), String> {
    match name {
        "max_tokens" => optional(&mut p.max_tokens, value),
        "temperature" => number(&mut p.temperature, value),
        "top_p" => number(&mut p.top_p, value),
        "top_k" => number(&mut p.top_k, value),
        "min_p" => number(&mut p.min_p, value),
        "repetition_penalty" => optional(&mut p.repetition_penalty, value),
        "presence_penalty" => optional(&mut p.presence_penalty, value),
        "frequency_penalty" => optional(&mut p.frequency_penalty, value),
        "max_kv_size" => optional(&mut p.max_kv_size, value),
        "draft_tokens" => number(&mut p.draft_tokens, value),
        "seed" => optional(&mut p.seed, value),
        _ => {
            let names: Vec<&str> = settings(p).into_iter().map(|(name, _)| name).collect();
            Err(format!("no setting `{name}`: there are {}", names.join(", ")))
        }
    }
}

/// All that can be set, and to what it is.
pub fn settings(p: &GenerateParameters) -> [(&'static str, String); 11] {
    fn text<T: ToString>(value: Option<T>) -> String {
        value.map_or("none".to_owned(), |v| v.to_string())
    }
    [
        ("max_tokens", text(p.max_tokens)),
        ("temperature", p.temperature.to_string()),
        ("top_p", p.top_p.to_string()),
        ("top_k", p.top_k.to_string()),
        ("min_p", p.min_p.to_string()),
        ("repetition_penalty", text(p.repetition_penalty)),
        ("presence_penalty", text(p.presence_penalty)),
        ("frequency_penalty", text(p.frequency_penalty)),
        ("max_kv_size", text(p.max_kv_size)),
        ("draft_tokens", p.draft_tokens.to_string()),
        ("seed", text(p.seed)),
    ]
}

/// The same for `--json`.
pub fn as_json(p: &GenerateParameters) -> Value {
    json!({
        "max_tokens": p.max_tokens,
        "temperature": shortest(p.temperature),
        "top_p": shortest(p.top_p),
        "top_k": p.top_k,
        "min_p": shortest(p.min_p),
        "repetition_penalty": p.repetition_penalty.map(shortest),
        "presence_penalty": p.presence_penalty.map(shortest),
        "frequency_penalty": p.frequency_penalty.map(shortest),
        "max_kv_size": p.max_kv_size,
        "draft_tokens": p.draft_tokens,
        "seed": p.seed,
    })
}

/// 0.7 as 0.7, and not as the f64 that an f32 of 0.7 is.
fn shortest(value: f32) -> Option<f64> {
    value.to_string().parse().ok()
}

fn number<T: FromStr>(to: &mut T, value: &str) -> Result<(), String> {
    *to = value.parse().map_err(|_| format!("expected a number, found `{value}`"))?;
    Ok(())
}

fn optional<T: FromStr>(to: &mut Option<T>, value: &str) -> Result<(), String> {
    *to = match value {
        "none" => None,
        value => Some(value.parse().map_err(|_| format!("expected a number or none, found `{value}`"))?),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_listed_can_be_set() {
        let mut p = GenerateParameters::default();
        for (name, _) in settings(&p) {
            set(&mut p, name, "1").unwrap();
        }
        assert!(settings(&p).iter().all(|(_, value)| value == "1"));
        set(&mut p, "seed", "none").unwrap();
        assert_eq!(p.seed, None);
        assert!(set(&mut p, "warmth", "1").unwrap_err().contains("temperature, top_p"));
        assert_eq!(set(&mut p, "top_k", "few").unwrap_err(), "expected a number, found `few`");
    }
}
