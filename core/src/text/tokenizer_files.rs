//! Tokenizers from a HuggingFace model folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::Tokenizer;
use super::tokenizer::{Parts, guarded};
use crate::{Error, Result};

impl Tokenizer {
    /// Reads `tokenizer.json` in `folder`, and what its neighbours say about special tokens
    /// (`tokenizer_config.json`, `special_tokens_map.json`) and chat templates
    /// (`chat_template.jinja`, `chat_template.json`, the `chat_template` of the config, in this
    /// order).
    pub fn from_dir(folder: &Path) -> Result<Tokenizer> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Err(Error::file(
                folder,
                "expected a tokenizer.json, found none; models with a tokenizer.model or vocab files \
                 alone are converted by AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers",
            ));
        }
        let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let backend = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes));
        let mut backend = backend.map_err(|problem| Error::file(&path, problem))?;
        let config = read_object(&folder.join("tokenizer_config.json"))?;
        add_tokens(&mut backend, &config, &path)?;
        let mut special_tokens = special_tokens(&read_object(&folder.join("special_tokens_map.json"))?);
        special_tokens.extend(self::special_tokens(&config));
        set_surroundings(&mut backend, &config, &special_tokens, &path)?;
        let templates = templates(folder, &config)?;
        Ok(Tokenizer::new(Parts { backend, special_tokens, eos: BTreeSet::new(), templates }))
    }
}

/// The JSON object in `path`; an absent file is an empty one.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::file(path, error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Error::io(path, error)),
    }
}

/// A token's text, written plainly or as an object with flags.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The special tokens of a config: `bos_token` and its like, and what a model has of its own.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let own = config.get("extra_special_tokens").and_then(Value::as_object);
    let named = config.iter().filter(|(name, _)| name.ends_with("_token"));
    let all = named.chain(own.into_iter().flatten());
    all.filter_map(|(name, token)| Some((name.clone(), content(token)?.into()))).collect()
}

/// Tokens that only the config knows. Their ids must follow those of the vocabulary, or the
/// model's table would be read in the wrong rows.
fn add_tokens(backend: &mut tokenizers::Tokenizer, config: &Map<String, Value>, path: &Path) -> Result<()> {
    let Some(added) = config.get("added_tokens_decoder").and_then(Value::as_object) else { return Ok(()) };
    let mut missing: Vec<(u32, &Value)> = added
        .iter()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token)))
        .filter(|(_, token)| content(token).is_some_and(|text| backend.token_to_id(text).is_none()))
        .collect();
    missing.sort_by_key(|(id, _)| *id);
    for (id, token) in missing {
        if backend.id_to_token(id).is_some() || id as usize != backend.get_vocab_size(true) {
            tracing::warn!("{}: the added token {token} has no place at {id}, it is left out", path.display());
            continue;
        }
        let flag = |name| token.get(name).and_then(Value::as_bool).unwrap_or(false);
        let special = flag("special");
        let added = AddedToken::from(content(token).unwrap_or_default(), special)
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(token.get("normalized").and_then(Value::as_bool).unwrap_or(!special));
        backend.add_tokens([added]).map_err(|error| Error::file(path, error.to_string()))?;
    }
    Ok(())
}

/// A config that says whether texts begin and end with special tokens overrides tokenizer.json, as
/// in transformers: several models' tokenizer.json know of none.
fn set_surroundings(
    backend: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    special_tokens: &Map<String, Value>,
    path: &Path,
) -> Result<()> {
    let flag = |name| config.get(name).and_then(Value::as_bool);
    let (bos, eos) = (flag("add_bos_token"), flag("add_eos_token"));
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let token = |wanted: Option<bool>, name: &str| {
        special_tokens.get(name).and_then(Value::as_str).filter(|_| wanted == Some(true))
    };
    surround(backend, token(bos, "bos_token"), token(eos, "eos_token")).map_err(|problem| Error::file(path, problem))
}

/// Makes every text begin with `bos` and end with `eos`.
pub(super) fn surround(
    backend: &mut tokenizers::Tokenizer,
    bos: Option<&str>,
    eos: Option<&str>,
) -> Result<(), String> {
    let mut tokens = Map::new();
    for token in [bos, eos].into_iter().flatten() {
        let id = backend.token_to_id(token).ok_or(format!("special token `{token}`: not in the vocabulary"))?;
        tokens.insert(token.into(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    }
    let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let special = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let around = |texts: &[&str]| -> Vec<Value> {
        let texts = texts.iter().flat_map(|id| [bos.map(special), Some(text(id)), eos.map(special)]);
        texts.flatten().collect()
    };
    let processor = json!({
        "type": "TemplateProcessing",
        "single": around(&["A"]),
        "pair": around(&["A", "B"]),
        "special_tokens": tokens,
    });
    let processor: tokenizers::PostProcessorWrapper =
        serde_json::from_value(processor).map_err(|error| error.to_string())?;
    backend.with_post_processor(Some(processor));
    Ok(())
}

/// The sources of chat templates by name.
fn templates(folder: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let path = folder.join("chat_template.json");
    let wrapped = read_object(&path)?;
    let mut templates = [&wrapped, config].into_iter().map(named_templates).find(|t| !t.is_empty()).unwrap_or_default();
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let source = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, error))?;
        templates.insert("default".into(), source);
    }
    Ok(templates)
}

/// The `chat_template` of a config: one source, or a list of names and sources.
fn named_templates(config: &Map<String, Value>) -> BTreeMap<String, String> {
    match config.get("chat_template") {
        Some(Value::String(source)) => [("default".into(), source.clone())].into(),
        Some(Value::Array(templates)) => {
            let text = |template: &Value, key| Some(template.get(key)?.as_str()?.to_owned());
            templates.iter().filter_map(|t| Some((text(t, "name")?, text(t, "template")?))).collect()
        }
        _ => BTreeMap::new(),
    }
}
