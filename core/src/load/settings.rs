//! What a model's files say about generations: how tokens are chosen, and what ends an answer.

use crate::{
    checkpoint::Checkpoint,
    load::sampling,
    model::ModelConfiguration,
    text::{ReasoningFormat, Tokenizer, ToolCallFormat},
};
use serde_json::Value;
use std::collections::BTreeSet;
use tamarack_api::Declaration;

/// Completes a configuration. The tokens that end a generation are those of generation_config.json, or
/// else of config.json; the tokenizer's own, which fine-tuned models often name alone; and those that
/// the architecture and the configuration add.
pub(super) fn complete(
    mut configuration: ModelConfiguration,
    checkpoint: &Checkpoint,
    tokenizer: Option<&Tokenizer>,
    declaration: &Declaration,
) -> ModelConfiguration {
    let id = |token: &String| tokenizer?.token_to_id(token);
    configuration.eos_token_ids.extend(eos_ids(checkpoint.generation_config(), checkpoint.config()));
    configuration.eos_token_ids.extend(tokenizer.iter().flat_map(|t| t.eos_ids()));
    configuration.eos_token_ids.extend(declaration.extra_stop_tokens.iter().filter_map(id));
    for token in &configuration.extra_eos_tokens {
        match id(token) {
            Some(id) => drop(configuration.eos_token_ids.insert(id)),
            // What is no token of this vocabulary can still appear as text.
            None => configuration.stop_strings.push(token.clone()),
        }
    }
    if tokenizer.is_some() {
        configuration.stop_strings.extend(stop_strings(checkpoint.generation_config()));
    }
    configuration.generate_parameters = configuration.generate_parameters.or_else(|| sampling::parameters(checkpoint));
    configuration.tool_call_format =
        configuration.tool_call_format.or_else(|| tool_call_format(tokenizer, declaration.tool_call_format.as_deref()));
    configuration.reasoning_format = configuration.reasoning_format.or_else(|| {
        let shown =
            tokenizer.and_then(|t| ReasoningFormat::infer(&template(t), |token| t.token_to_id(token).is_some()));
        shown.or_else(|| ReasoningFormat::named(declaration.reasoning_format.as_deref()?))
    });
    configuration
}

/// What the tokenizer's config names, or else what the chat template shows, unless the architecture's own format reads
/// that and more; or else that one.
fn tool_call_format(tokenizer: Option<&Tokenizer>, declared: Option<&str>) -> Option<ToolCallFormat> {
    let known = |name: &str| name.parse().inspect_err(|e| tracing::warn!("{e}")).ok();
    let declared: Option<ToolCallFormat> = declared.and_then(known);
    let named = tokenizer.and_then(|t| t.tool_parser_type()).and_then(known);
    let shown = || tokenizer.and_then(|t| ToolCallFormat::infer(&template(t), |token| t.token_to_id(token).is_some()));
    match (named.or_else(shown), declared) {
        (Some(shown), Some(declared)) if declared.includes(shown) => Some(declared),
        (shown, declared) => shown.or(declared),
    }
}

/// The source of the chat template that is used with tools.
fn template(tokenizer: &Tokenizer) -> String {
    let template = tokenizer.chat_template().ok().flatten();
    template.and_then(|t| t.source(true)).unwrap_or_default().to_owned()
}

fn eos_ids(generation_config: Option<&Value>, config: &Value) -> BTreeSet<u32> {
    let found = |config: &Value| config.get("eos_token_id").filter(|v| !v.is_null()).cloned();
    let ids = generation_config.and_then(found).or_else(|| found(config)).or_else(|| found(config.get("text_config")?));
    let ids = match ids {
        Some(Value::Array(ids)) => ids,
        Some(id) => vec![id],
        None => Vec::new(),
    };
    ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn stop_strings(generation_config: Option<&Value>) -> Vec<String> {
    let found = ["stop_strings", "stop"].iter().filter_map(|key| generation_config?.get(key));
    let texts = found.flat_map(|v| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]));
    texts.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_nearest_file_says_which_tokens_end() {
        for (generation, config, expected) in [
            (Some(json!({ "eos_token_id": [7, 8] })), json!({ "eos_token_id": 2 }), vec![7, 8]),
            (Some(json!({ "eos_token_id": null })), json!({ "eos_token_id": 2 }), vec![2]),
            (None, json!({ "text_config": { "eos_token_id": [3] } }), vec![3]),
            (None, json!({ "eos_token_id": -1 }), vec![]),
            (None, json!({ "eos_token_id": "</s>" }), vec![]),
        ] {
            assert_eq!(eos_ids(generation.as_ref(), &config), BTreeSet::from_iter(expected), "{config}");
        }
        let generation = json!({ "stop_strings": ["a", 1], "stop": "b" });
        assert_eq!(stop_strings(Some(&generation)), ["a", "b"]);
    }
}
