//! What a model's files say about how its tokens are chosen.

use crate::{
    GenerateParameters,
    checkpoint::{Checkpoint, gguf::Metadata},
};
use serde_json::Value;

/// Tokens that the penalty of a GGUF file looks back on where the file does not say: llama.cpp's default (`common/common.h`).
const GGUF_PENALTY_CONTEXT: usize = 64;

/// A parameter: its key in generation_config.json, that in a GGUF file, and how it is set.
type Key = (&'static str, &'static str, fn(&mut GenerateParameters, f64));

const KEYS: [Key; 6] = [
    ("temperature", "general.sampling.temp", |p, value| p.temperature = value as f32),
    ("top_p", "general.sampling.top_p", |p, value| p.top_p = value as f32),
    // All tokens are 0 in transformers, and -1 as well in vLLM.
    ("top_k", "general.sampling.top_k", |p, value| p.top_k = value.max(0.0) as usize),
    ("min_p", "general.sampling.min_p", |p, value| p.min_p = value as f32),
    ("repetition_penalty", "general.sampling.penalty_repeat", |p, value| p.repetition_penalty = Some(value as f32)),
    ("max_new_tokens", "", |p, value| p.max_tokens = Some(value as usize).filter(|n| *n > 0)),
];

/// The parameters that a model's files ask for, which count where a program says nothing else: those of generation_config.json,
/// or the `general.sampling` keys of a GGUF file. `None` if they ask for nothing.
pub(super) fn parameters(checkpoint: &Checkpoint) -> Option<GenerateParameters> {
    let asked = match checkpoint.metadata() {
        Some(metadata) => of_gguf(metadata),
        None => of_config(checkpoint.generation_config()?),
    };
    (asked != GenerateParameters::default()).then_some(asked)
}

/// As vLLM reads it (`ModelConfig.get_diff_sampling_param`), and `do_sample: false` is the most likely token, as in transformers.
fn of_config(config: &Value) -> GenerateParameters {
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let mut p = GenerateParameters::default();
    // A file that says how to sample means transformers' temperature where it does not say which.
    if config["do_sample"] == true || ["top_p", "top_k", "min_p"].iter().any(|key| number(key).is_some()) {
        p.temperature = 1.0;
    }
    for (key, _, set) in KEYS {
        change(&mut p, key, number(key), set);
    }
    if p.repetition_penalty.is_some() {
        // The whole of the text counts in transformers and in vLLM.
        p.repetition_context_size = usize::MAX;
    }
    if config["do_sample"] == false {
        p.temperature = 0.0;
    }
    p
}

fn of_gguf(metadata: &Metadata) -> GenerateParameters {
    let mut p = GenerateParameters::default();
    for (_, key, set) in KEYS {
        change(&mut p, key, metadata.f64(key), set);
    }
    if p.repetition_penalty.is_some() {
        let last = metadata.f64("general.sampling.penalty_last_n");
        // -1 is all of the context.
        p.repetition_context_size =
            last.map_or(GGUF_PENALTY_CONTEXT, |n| if n < 0.0 { usize::MAX } else { n as usize });
    }
    p
}

/// Sets a parameter, unless its value has no meaning: a model does not fail for that.
fn change(p: &mut GenerateParameters, key: &str, value: Option<f64>, set: fn(&mut GenerateParameters, f64)) {
    let Some(value) = value else { return };
    let mut changed = p.clone();
    set(&mut changed, value);
    match changed.check() {
        Ok(()) => *p = changed,
        Err(e) => tracing::warn!("{key} of the model's files is passed over: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::gguf::Value as MetadataValue;
    use serde_json::json;

    #[test]
    fn generation_config_says_how_tokens_are_chosen() {
        let none = GenerateParameters::default;
        for (config, expected) in [
            (json!({}), none()),
            (json!({ "eos_token_id": 2, "temperature": null, "do_sample": null }), none()),
            // Qwen2.5.
            (
                json!({ "do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20 }),
                GenerateParameters {
                    temperature: 0.7,
                    top_p: 0.8,
                    top_k: 20,
                    repetition_penalty: Some(1.05),
                    repetition_context_size: usize::MAX,
                    ..none()
                },
            ),
            (
                json!({ "temperature": 0.3, "min_p": 0.15 }),
                GenerateParameters { temperature: 0.3, min_p: 0.15, ..none() },
            ),
            (json!({ "do_sample": true }), GenerateParameters { temperature: 1.0, ..none() }),
            (json!({ "top_k": 64 }), GenerateParameters { temperature: 1.0, top_k: 64, ..none() }),
            (json!({ "top_k": -1, "temperature": 1 }), GenerateParameters { temperature: 1.0, ..none() }),
            (json!({ "do_sample": false, "temperature": 0.7 }), GenerateParameters { temperature: 0.0, ..none() }),
            (json!({ "temperature": 0 }), GenerateParameters { temperature: 0.0, ..none() }),
            (
                json!({ "max_new_tokens": 512, "max_length": 20 }),
                GenerateParameters { max_tokens: Some(512), ..none() },
            ),
            // What has no meaning.
            (json!({ "temperature": -1.0, "max_new_tokens": -5 }), none()),
            (json!({ "temperature": "hot", "repetition_penalty": 0.0 }), none()),
            (json!({ "temperature": 0.5, "top_p": 7 }), GenerateParameters { temperature: 0.5, ..none() }),
            (json!([1]), none()),
        ] {
            assert_eq!(of_config(&config), expected, "{config}");
        }
    }

    #[test]
    fn gguf_files_say_how_tokens_are_chosen() {
        let of = |values: &[(&str, MetadataValue)]| {
            of_gguf(&Metadata(
                values.iter().map(|(key, value)| (format!("general.sampling.{key}"), value.clone())).collect(),
            ))
        };
        use MetadataValue::{F64, I64, U64};
        let none = GenerateParameters::default;
        assert_eq!(of(&[]), none());
        let all =
            [("temp", F64(0.25)), ("top_k", I64(40)), ("top_p", F64(0.5)), ("min_p", F64(0.125)), ("sequence", U64(1))];
        let expected = GenerateParameters { temperature: 0.25, top_k: 40, top_p: 0.5, min_p: 0.125, ..none() };
        assert_eq!(of(&all), expected);
        for (last, size) in [(None, 64), (Some(32), 32), (Some(-1), usize::MAX)] {
            let last = last.map(|n| ("penalty_last_n", I64(n)));
            let found = of(&last.into_iter().chain([("penalty_repeat", F64(1.5))]).collect::<Vec<_>>());
            assert_eq!((found.repetition_penalty, found.repetition_context_size), (Some(1.5), size));
        }
    }
}
