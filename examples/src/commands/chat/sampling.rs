//! How tokens are chosen: as options of the command, and as what `/set` changes.

use clap::Args;
use std::str::FromStr;
use tamarack::GenerateParameters;

/// How tokens are chosen, and how many.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Tokens of an answer at most [default: as many as the context holds]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// How much chance decides; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = GenerateParameters::default().temperature)]
    temperature: f32,
    /// Choose among the most likely tokens whose probabilities add up to this
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Choose among this many of the most likely tokens; 0 is all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among tokens at least this likely, relative to the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Make tokens that were there less likely: 1.1 is much
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Subtract this from the logits of tokens that were there
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Subtract this from the logits of tokens as often as they were there
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// Forget the oldest tokens beyond this many, and go on past the end of the context
    #[arg(long, value_name = "N")]
    max_kv_size: Option<usize>,
    /// Tokens that the draft model guesses at a time
    #[arg(long, value_name = "N", default_value_t = GenerateParameters::default().draft_tokens)]
    draft_tokens: usize,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Sampling {
    /// The options as the library takes them.
    pub fn parameters(&self) -> GenerateParameters {
        GenerateParameters {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            max_kv_size: self.max_kv_size,
            draft_tokens: self.draft_tokens,
            seed: self.seed,
            ..Default::default()
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
