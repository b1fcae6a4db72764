//! Tokenizers from a HuggingFace model folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::Tokenizer;
use super::tokenizer::{Parts, guarded};
use crate::checkpoint::{BYTE_ORDER_MARK, Mapping, read_json};
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
        let file = Mapping::open(&path)?;
        let bytes = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&file);
        let backend = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
        let mut backend = backend.map_err(|problem| Error::file(&path, problem))?;
        let config = read_object(&folder.join("tokenizer_config.json"))?;
        add_tokens(&mut backend, &config, &path)?;
        let mut special_tokens = special_tokens(&read_object(&folder.join("special_tokens_map.json"))?);
        special_tokens.extend(self::special_tokens(&config));
        set_surroundings(&mut backend, &config, &special_tokens, &path)?;
        let templates = templates(folder, &config)?;
        let tool_parser_type = config.get("tool_parser_type").and_then(Value::as_str).map(str::to_owned);
        Ok(Tokenizer::new(Parts { backend, special_tokens, eos: None, templates, tool_parser_type }))
    }
}

/// The JSON object in `path`; an absent file is an empty one.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    match read_json(path)? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::file(path, "expected a JSON object")),
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

/// Brings the added tokens of tokenizer.json into agreement with `added_tokens_decoder`, whose flags count where both have a
/// token, as in `transformers` (`tokenization_utils_tokenizers.py`). The ids of tokens that only the config knows must follow
/// those of the vocabulary, or the model's table would be read in the wrong rows.
fn add_tokens(backend: &mut tokenizers::Tokenizer, config: &Map<String, Value>, path: &Path) -> Result<()> {
    let Some(added) = config.get("added_tokens_decoder").and_then(Value::as_object) else { return Ok(()) };
    let mut tokens: Vec<(u32, AddedToken)> =
        added.iter().filter_map(|(id, token)| Some((id.parse().ok()?, added_token(token)?))).collect();
    tokens.sort_by_key(|(id, _)| *id);
    for (id, token) in tokens {
        let is_known = backend.token_to_id(&token.content) == Some(id);
        let agrees = || backend.get_added_tokens_decoder().get(&id).is_some_and(|own| has_flags_of(own, &token));
        if is_known && agrees() {
            continue;
        }
        if !is_known && (backend.id_to_token(id).is_some() || id as usize != backend.get_vocab_size(true)) {
            let text = &token.content;
            tracing::warn!("{}: the added token {text:?} has no place at {id}, it is left out", path.display());
            continue;
        }
        backend.add_tokens([token]).map_err(|error| Error::file(path, error.to_string()))?;
    }
    Ok(())
}

/// An entry of `added_tokens_decoder`, whose flags are false where it has none; `normalized` is true then, but for special tokens.
fn added_token(token: &Value) -> Option<AddedToken> {
    let flag = |name| token.get(name).and_then(Value::as_bool).unwrap_or(false);
    let special = flag("special");
    let added = AddedToken::from(content(token)?, special)
        .lstrip(flag("lstrip"))
        .rstrip(flag("rstrip"))
        .single_word(flag("single_word"))
        .normalized(token.get("normalized").and_then(Value::as_bool).unwrap_or(!special));
    Some(added)
}

/// Equality of [`AddedToken`]s is that of their texts alone.
fn has_flags_of(one: &AddedToken, other: &AddedToken) -> bool {
    let flags = |t: &AddedToken| [t.lstrip, t.rstrip, t.single_word, t.normalized, t.special];
    flags(one) == flags(other)
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

/// The sources of chat templates by name, where `transformers` looks for them (`PreTrainedTokenizerBase._from_pretrained`):
/// `chat_template.jinja` and `additional_chat_templates/NAME.jinja`, or else `chat_template.json`, or else the config.
fn templates(folder: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let wrapped = read_object(&folder.join("chat_template.json"))?;
    let mut templates = [&wrapped, config].into_iter().map(named_templates).find(|t| !t.is_empty()).unwrap_or_default();
    let own = template_files(folder)?;
    if !own.is_empty() {
        templates = own;
    }
    Ok(templates)
}

/// The templates that are files of their own.
fn template_files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut templates = BTreeMap::new();
    let default = folder.join("chat_template.jinja");
    if default.exists() {
        templates.insert("default".into(), read_text(&default)?);
    }
    let additional = folder.join("additional_chat_templates");
    if additional.is_dir() {
        for entry in std::fs::read_dir(&additional).map_err(|error| Error::io(&additional, error))? {
            let path = entry.map_err(|error| Error::io(&additional, error))?.path();
            if path.extension().is_some_and(|ending| ending == "jinja")
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                templates.insert(name.to_owned(), read_text(&path)?);
            }
        }
    }
    Ok(templates)
}

/// A text file, without a byte order mark.
fn read_text(path: &Path) -> Result<String> {
    let file = Mapping::open(path)?;
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&file);
    let text = std::str::from_utf8(text).map_err(|error| Error::file(path, format!("expected UTF-8: {error}")))?;
    Ok(text.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a tokenizer of four words and the given files.
    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let vocab = json!({ "<s>": 0, "</s>": 1, "a": 2, "b": 3 });
        let tokenizer = json!({
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "a" },
            "pre_tokenizer": { "type": "Whitespace" },
            "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
            "added_tokens": [{ "id": 0, "content": "<s>", "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false }],
        });
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files.iter().chain([&("tokenizer.json", tokenizer)]) {
            let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_config_completes_the_tokenizer() {
        let config = json!({
            "bos_token": { "content": "<s>" }, "eos_token": "<turn>", "add_bos_token": true, "add_eos_token": false,
            "image_token": "<image>", "model_input_names": ["input_ids"],
            "added_tokens_decoder": {
                "4": { "content": "<turn>", "special": true },
                "9": { "content": "<lost>", "special": true },
            },
        });
        let folder =
            folder(&[("tokenizer_config.json", config), ("special_tokens_map.json", json!({ "pad_token": "a" }))]);
        let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
        assert_eq!(tokenizer.encode("a b <turn>", true).unwrap(), [0, 2, 3, 4]);
        assert_eq!(tokenizer.encode("a b", false).unwrap(), [2, 3]);
        assert_eq!((tokenizer.bos(), tokenizer.eos_ids()), (Some(0), &[4].into()));
        assert_eq!(tokenizer.token_to_id("<lost>"), None);
        let names: Vec<&String> = tokenizer.special_tokens().keys().collect();
        assert_eq!(names, ["pad_token", "bos_token", "eos_token", "image_token"]);
    }

    #[test]
    fn chat_templates_are_found_in_order() {
        let config = || ("tokenizer_config.json", json!({ "chat_template": "config" }));
        let list = json!({ "chat_template": [{ "name": "default", "template": "a" }, { "name": "tool_use", "template": "b" }] });
        let wrapped = || ("chat_template.json", json!({ "chat_template": "wrapped" }));
        let file = || ("chat_template.jinja", json!("file"));
        let cases = [
            (vec![], None, None),
            (vec![config()], Some("config"), Some("config")),
            (vec![("tokenizer_config.json", list)], Some("a"), Some("b")),
            (vec![config(), wrapped()], Some("wrapped"), Some("wrapped")),
            (vec![config(), wrapped(), file()], Some("file"), Some("file")),
        ];
        for (files, plain, tools) in cases {
            let tokenizer = Tokenizer::from_dir(folder(&files).path()).unwrap();
            let template = tokenizer.chat_template().unwrap();
            assert_eq!(template.and_then(|t| t.source(false)), plain);
            assert_eq!(template.and_then(|t| t.source(true)), tools);
        }
    }

    #[test]
    fn templates_in_files_of_their_own_count_before_all_others() {
        let config = ("tokenizer_config.json", json!({ "chat_template": "config", "model_max_length": 1 }));
        let folder = folder(&[config, ("chat_template.jinja", json!("\u{feff}file"))]);
        let additional = folder.path().join("additional_chat_templates");
        std::fs::create_dir(&additional).unwrap();
        std::fs::write(additional.join("tool_use.jinja"), "tools").unwrap();
        std::fs::write(additional.join("notes.txt"), "none").unwrap();
        let sources = || {
            let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
            let template = tokenizer.chat_template().unwrap().unwrap();
            [false, true].map(|tools| template.source(tools).map(str::to_owned))
        };
        assert_eq!(sources(), [Some("file".into()), Some("tools".into())]);
        std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
        assert_eq!(sources(), [None, Some("tools".into())]);
    }

    #[test]
    fn flags_of_added_tokens_are_the_configs() {
        let added = |flags: Value| {
            let mut token = json!({ "content": "<s>", "special": true });
            token.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
            ("tokenizer_config.json", json!({ "added_tokens_decoder": { "0": token } }))
        };
        let ids = |flags| Tokenizer::from_dir(folder(&[added(flags)]).path()).unwrap().encode("a<s>b", false).unwrap();
        assert_eq!(ids(json!({})), [2, 0, 3]);
        assert!(!ids(json!({ "single_word": true })).contains(&0), "within a word it is no token");
    }

    #[test]
    fn numbers_that_only_python_writes_are_read() {
        let folder = folder(&[(
            "tokenizer_config.json",
            json!(r#"{"model_max_length": Infinity, "a": NaN, "b": -Infinity, "chat_template": "Infinity"}"#),
        )]);
        let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
        assert_eq!(tokenizer.chat_template().unwrap().unwrap().source(false), Some("Infinity"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let empty = tempfile::tempdir().unwrap();
        let error = Tokenizer::from_dir(empty.path()).unwrap_err().to_string();
        assert!(error.contains("expected a tokenizer.json"), "{error}");
        // The merge makes a token longer than any, which the library answers by indexing too far.
        let model = json!({ "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": ["a b"] } });
        for (name, content, wanted) in [
            ("tokenizer_config.json", json!("{"), "tokenizer_config.json: "),
            ("tokenizer.json", model, "contradict each other"),
            (
                "tokenizer_config.json",
                json!({ "add_bos_token": true, "bos_token": "<none>" }),
                "`<none>`: not in the vocabulary",
            ),
        ] {
            let folder = folder(&[]);
            let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
            std::fs::write(folder.path().join(name), text).unwrap();
            let error = Tokenizer::from_dir(folder.path()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let broken = folder(&[("chat_template.jinja", json!("{% if %}"))]);
        let tokenizer = Tokenizer::from_dir(broken.path()).unwrap();
        assert!(tokenizer.chat_template().unwrap_err().to_string().contains("line 1 does not compile"));
    }
}
