//! Tokenizers from the metadata of a GGUF file.
//!
//! The file lists tokens, their kinds, and merges or scores; how text is cut and normalized is
//! known by name only. This puts the pieces together again as the model's `tokenizer.json` has
//! them. Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::Tokenizer;
use super::pretokenizers::{self, PreTokenizer};
use super::tokenizer::{Parts, guarded};
use super::tokenizer_files::surround;
use crate::checkpoint::gguf::{Metadata, Value};
use crate::{Error, Result};

/// Kinds of tokens (`tokenizer.ggml.token_type`).
mod kind {
    pub const UNKNOWN: u64 = 2;
    pub const CONTROL: u64 = 3;
    pub const USER_DEFINED: u64 = 4;
}

/// Special tokens under the names of GGUF and of chat templates.
const SPECIAL: [(&str, &str); 7] = [
    ("bos_token_id", "bos_token"),
    ("eos_token_id", "eos_token"),
    ("unknown_token_id", "unk_token"),
    ("padding_token_id", "pad_token"),
    ("seperator_token_id", "sep_token"),
    ("cls_token_id", "cls_token"),
    ("mask_token_id", "mask_token"),
];

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes: byte-level BPE (`gpt2`) or SentencePiece BPE
    /// (`llama`), or the whole `tokenizer.json` where the file holds one.
    pub fn from_gguf(metadata: &Metadata) -> Result<Tokenizer> {
        Tokenizer::from_gguf_as(metadata, None)
    }

    /// The same, with text cut as another kind of file has it than the one that `tokenizer.ggml.pre` names.
    ///
    /// # Errors
    /// As for [`Tokenizer::from_gguf`], or if there is no such kind.
    pub fn from_gguf_as(metadata: &Metadata, kind: Option<&str>) -> Result<Tokenizer> {
        let backend = match metadata.str("tokenizer.huggingface.json") {
            Some(json) => guarded(|| tokenizers::Tokenizer::from_bytes(json))
                .map_err(|problem| failure("huggingface.json", &problem))?,
            None => File::new(metadata, kind.map(known).transpose()?)?.tokenizer()?,
        };
        let id = |key: &str| metadata.u64(&format!("tokenizer.ggml.{key}")).and_then(|id| u32::try_from(id).ok());
        let special_tokens = SPECIAL.iter().filter_map(|(key, name)| {
            let token = backend.id_to_token(id(key)?)?;
            Some(((*name).to_owned(), Json::from(token)))
        });
        let special_tokens: Map<String, Json> = special_tokens.collect();
        // Chat models end turns with tokens of their own; each of them ends a generation.
        let eos = ["eos_token_id", "eot_token_id", "eom_token_id"].into_iter().filter_map(id).collect();
        Ok(Tokenizer::new(Parts {
            backend,
            special_tokens,
            eos,
            templates: templates(metadata),
            tool_parser_type: None,
        }))
    }
}

fn known(kind: &str) -> Result<PreTokenizer> {
    pretokenizers::find(kind).ok_or_else(|| {
        let names = pretokenizers::names().collect::<Vec<_>>().join(", ");
        Error::Text(format!("override_tokenizer: expected one of {names}, found `{kind}`"))
    })
}

fn failure(key: &str, problem: &str) -> Error {
    Error::Text(format!("tokenizer.ggml.{key}: {problem}"))
}

/// What a file says about its tokens.
struct File<'a> {
    metadata: &'a Metadata,
    tokens: Vec<&'a str>,
    kinds: Vec<u64>,
    /// How text is cut, if not as the file says.
    pre: Option<PreTokenizer>,
}

impl<'a> File<'a> {
    fn new(metadata: &'a Metadata, pre: Option<PreTokenizer>) -> Result<File<'a>> {
        let tokens = strings(metadata, "tokens")?.ok_or_else(|| failure("tokens", "missing"))?;
        let kinds = metadata.array("tokenizer.ggml.token_type").unwrap_or_default();
        let kinds: Vec<u64> = kinds.iter().map(|kind| kind.as_u64().unwrap_or(1)).collect();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            let problem = format!("expected one for each of {} tokens, found {}", tokens.len(), kinds.len());
            return Err(failure("token_type", &problem));
        }
        if u32::try_from(tokens.len()).is_err() {
            return Err(failure("tokens", "more than fit into 32 bits"));
        }
        Ok(File { metadata, tokens, kinds, pre })
    }

    fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        match self.metadata.str("tokenizer.ggml.model") {
            Some("gpt2") => self.byte_level(),
            Some("llama" | "gemma4") => self.sentencepiece(),
            other => {
                let found = other.unwrap_or("none");
                let problem = format!(
                    "expected `gpt2` or `llama`, found `{found}`; the model's original tokenizer.json can be used instead"
                );
                Err(failure("model", &problem))
            }
        }
    }

    /// Byte-level BPE: text is cut by patterns, its bytes are spelled as characters, and merged.
    fn byte_level(&self) -> Result<tokenizers::Tokenizer> {
        let pre = self.pre_tokenizer();
        let vocab: Vocab = self.spelled().collect();
        let model =
            self.bpe(vocab, self.merges()?.unwrap_or_default(), |builder| builder.ignore_merges(pre.ignore_merges))?;
        let mut backend = tokenizers::Tokenizer::new(model);
        let split = |pattern: &&str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let bytes = json!({
            "type": "ByteLevel", "use_regex": false, "trim_offsets": false,
            "add_prefix_space": self.flag("add_space_prefix").unwrap_or(false),
        });
        let steps: Vec<Json> = pre.patterns.iter().map(split).chain([bytes.clone()]).collect();
        let normalizer = if pre.nfc { json!({ "type": "NFC" }) } else { Json::Null };
        equip(&mut backend, normalizer, json!({ "type": "Sequence", "pretokenizers": steps }), bytes)?;
        self.finish(backend, pre.bos)
    }

    fn pre_tokenizer(&self) -> PreTokenizer {
        if let Some(pre) = self.pre {
            return pre;
        }
        let name = self.metadata.str("tokenizer.ggml.pre").unwrap_or("default");
        pretokenizers::find(name).unwrap_or_else(|| {
            tracing::warn!(
                "tokenizer.ggml.pre: `{name}` is not known, text is cut by a common rule; \
                 the model may see odd tokens"
            );
            pretokenizers::DEFAULT
        })
    }

    /// SentencePiece's BPE: spaces are spelled `▁`, characters that are no tokens become bytes.
    fn sentencepiece(&self) -> Result<tokenizers::Tokenizer> {
        let vocab: Vocab = self.spelled().collect();
        let merges = match self.merges()? {
            Some(merges) => merges,
            None => self.merges_by_score(&vocab)?,
        };
        let unknown = self.metadata.u64("tokenizer.ggml.unknown_token_id").unwrap_or(0);
        let unknown = usize::try_from(unknown).ok().and_then(|id| self.tokens.get(id)).map(|token| token.to_string());
        let model = self.bpe(vocab, merges, |builder| {
            let builder = builder.byte_fallback(true).fuse_unk(true);
            unknown.into_iter().fold(builder, |builder, unknown| builder.unk_token(unknown))
        })?;
        let mut backend = tokenizers::Tokenizer::new(model);
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        let prefix = self.flag("add_space_prefix").unwrap_or(true);
        let normalizer = match prefix {
            true => json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "▁" }, spaces] }),
            false => spaces,
        };
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        equip(&mut backend, normalizer, Json::Null, json!({ "type": "Sequence", "decoders": decoders }))?;
        self.finish(backend, true)
    }

    /// Tokens and their ids. Runs of spaces that SentencePiece lets users define are written with
    /// real spaces; in normalized text they are `▁`.
    fn spelled(&self) -> impl Iterator<Item = (String, u32)> {
        (0..).zip(&self.tokens).map(|(id, token)| match self.is_space_run(id, token) {
            true => ("▁".repeat(token.len()), id),
            false => ((*token).to_owned(), id),
        })
    }

    fn is_space_run(&self, id: u32, token: &str) -> bool {
        self.kind(id) == kind::USER_DEFINED && !token.is_empty() && token.bytes().all(|b| b == b' ')
    }

    fn kind(&self, id: u32) -> u64 {
        self.kinds.get(id as usize).copied().unwrap_or(1)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.metadata.bool(&format!("tokenizer.ggml.{key}"))
    }

    /// The merges of the file: `a b`, the most important first.
    fn merges(&self) -> Result<Option<Merges>> {
        let Some(merges) = strings(self.metadata, "merges")? else { return Ok(None) };
        let pair = |merge: &str| {
            // The first character may itself be a space.
            let skip = merge.chars().next().map_or(0, char::len_utf8);
            let at = skip + merge.get(skip..)?.find(' ')?;
            Some((merge[..at].to_owned(), merge[at + 1..].to_owned()))
        };
        let merges = merges.into_iter().map(|merge| {
            pair(merge).ok_or_else(|| failure("merges", &format!("expected two tokens, found `{merge}`")))
        });
        merges.collect::<Result<_>>().map(Some)
    }

    /// SentencePiece merges whichever two neighbours make the token with the best score. The same
    /// as a list of merges: every way to put a token together, best token first.
    fn merges_by_score(&self, vocab: &Vocab) -> Result<Merges> {
        let scores = self.metadata.array("tokenizer.ggml.scores").unwrap_or_default();
        if scores.len() != self.tokens.len() {
            let problem = format!("expected one for each of {} tokens, found {}", self.tokens.len(), scores.len());
            return Err(failure("scores", &problem));
        }
        let mut merges = Vec::new();
        for ((token, id), score) in self.spelled().zip(scores) {
            if matches!(self.kind(id), kind::UNKNOWN | kind::CONTROL) {
                continue;
            }
            let score = score.as_f64().unwrap_or(f64::NEG_INFINITY);
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&l), Some(&r)) = (vocab.get(left), vocab.get(right)) {
                    merges.push((score, l, r, left.to_owned(), right.to_owned()));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        Ok(merges.into_iter().map(|(.., left, right)| (left, right)).collect())
    }

    fn bpe(
        &self,
        vocab: Vocab,
        merges: Merges,
        options: impl FnOnce(tokenizers::models::bpe::BpeBuilder) -> tokenizers::models::bpe::BpeBuilder,
    ) -> Result<BPE> {
        let builder = options(BPE::builder().vocab_and_merges(vocab, merges));
        guarded(|| builder.build()).map_err(|problem| failure("merges", &problem))
    }

    /// Tokens that match whole, before any cutting, and those that surround a text.
    fn finish(&self, mut backend: tokenizers::Tokenizer, default_bos: bool) -> Result<tokenizers::Tokenizer> {
        let added = (0..).zip(&self.tokens).filter_map(|(id, token)| {
            let special = match self.kind(id) {
                kind::UNKNOWN | kind::CONTROL => true,
                kind::USER_DEFINED if !self.is_space_run(id, token) => false,
                _ => return None,
            };
            (!token.is_empty()).then(|| AddedToken::from(*token, special).normalized(false))
        });
        backend.add_tokens(added).map_err(|error| failure("tokens", &error.to_string()))?;
        let token = |wanted: bool, key: &str| {
            let id = self.metadata.u64(&format!("tokenizer.ggml.{key}")).filter(|_| wanted)?;
            self.tokens.get(usize::try_from(id).ok()?).copied()
        };
        let bos = token(self.flag("add_bos_token").unwrap_or(default_bos), "bos_token_id");
        let eos = token(self.flag("add_eos_token").unwrap_or(false), "eos_token_id");
        surround(&mut backend, bos, eos).map_err(|problem| failure("tokens", &problem))?;
        Ok(backend)
    }
}

/// Gives `backend` its steps, written as in a `tokenizer.json`.
fn equip(backend: &mut tokenizers::Tokenizer, normalizer: Json, pre_tokenizer: Json, decoder: Json) -> Result<()> {
    fn step<T: serde::de::DeserializeOwned>(step: Json) -> Result<Option<T>> {
        serde_json::from_value(step).map_err(|error| failure("model", &error.to_string()))
    }
    let normalizer: Option<tokenizers::NormalizerWrapper> = step(normalizer)?;
    backend.with_normalizer(normalizer).map_err(|error| failure("model", &error.to_string()))?;
    let pre_tokenizer: Option<tokenizers::PreTokenizerWrapper> = step(pre_tokenizer)?;
    backend.with_pre_tokenizer(pre_tokenizer);
    let decoder: Option<tokenizers::DecoderWrapper> = step(decoder)?;
    backend.with_decoder(decoder);
    Ok(())
}

/// The texts listed under `key`.
fn strings<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<Vec<&'a str>>> {
    let Some(values) = metadata.array(&format!("tokenizer.ggml.{key}")) else { return Ok(None) };
    let text = |value: &'a Value| value.as_str().ok_or_else(|| failure(key, "expected a list of texts"));
    values.iter().map(text).collect::<Result<_>>().map(Some)
}

/// The chat templates of a file: one without a name, others named.
fn templates(metadata: &Metadata) -> BTreeMap<String, String> {
    const KEY: &str = "tokenizer.chat_template";
    let named = metadata.0.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(KEY)?;
        let name = if name.is_empty() { "default" } else { name.strip_prefix('.')? };
        Some((name.to_owned(), value.as_str()?.to_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::fixtures::{byte_level, metadata, numbers, sentencepiece, texts, tokenizer};

    fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text, true).unwrap();
        ids.into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
    }

    #[test]
    fn byte_level_tokens_are_cut_and_merged() {
        let tokenizer = tokenizer(&byte_level());
        assert_eq!(spelled(&tokenizer, "the hé<s>"), ["t", "he", "Ġ", "h", "Ã©", "<s>"]);
        assert_eq!(spelled(&tokenizer, "he he"), ["he", "Ġhe"]);
        assert_eq!(spelled(&tokenizer, "€"), ["âĤ", "¬"]);
        assert_eq!((tokenizer.bos(), tokenizer.eos_ids()), (Some(0), &[1].into()));
        assert_eq!(tokenizer.special_tokens()["eos_token"], "<|end of turn|>");
    }

    #[test]
    fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
        let tokenizer = tokenizer(&sentencepiece());
        assert_eq!(spelled(&tokenizer, "the her!"), ["<s>", "▁the", "▁", "he", "r", "!"]);
        assert_eq!(spelled(&tokenizer, "é€"), ["<s>", "▁", "é", "<0xE2>", "<0x82>", "<0xAC>"]);
        assert_eq!(spelled(&tokenizer, "t</s>t"), ["<s>", "▁t", "</s>", "▁t"]);
        assert_eq!(tokenizer.eos_ids(), &[2, 262].into());
        assert!(tokenizer.is_special(0) && !tokenizer.is_special(10));
    }

    #[test]
    fn templates_come_with_the_file() {
        let mut metadata = sentencepiece();
        let mut put = |key: &str, source: &str| metadata.0.insert(key.into(), Value::String(source.into()));
        put("tokenizer.chat_template", "{{ bos_token }}{{ messages[0].content }}");
        put("tokenizer.chat_template.tool_use", "tools");
        let tokenizer = tokenizer(&metadata);
        let user = json!({ "role": "user", "content": "t" });
        let ids = tokenizer.apply_chat_template(&[user], None, true, &Map::new()).unwrap();
        assert_eq!(ids, tokenizer.encode("t", true).unwrap());
        assert_eq!(tokenizer.chat_template().unwrap().unwrap().source(true), Some("tools"));
    }

    #[test]
    fn damaged_files_are_refused() {
        let with = |mut base: Metadata, key: &'static str, value: Value| {
            base.0.extend(metadata([(key, value)]).0);
            base
        };
        let cases = [
            (Metadata::default(), "tokenizer.ggml.tokens: missing"),
            (with(byte_level(), "model", Value::String("rwkv".into())), "found `rwkv`"),
            (with(byte_level(), "tokens", numbers([1])), "a list of texts"),
            (with(byte_level(), "token_type", numbers([1])), "expected one for each of 263 tokens, found 1"),
            (with(byte_level(), "merges", texts(["ab"])), "expected two tokens, found `ab`"),
            (with(byte_level(), "merges", texts(["a no"])), "tokenizer.ggml.merges: "),
            (with(byte_level(), "merges", texts(["<|end of turn|>"; 1])), "tokenizer.ggml.merges: "),
            (with(sentencepiece(), "scores", numbers([])), "tokenizer.ggml.scores: "),
        ];
        for (metadata, wanted) in cases {
            let error = Tokenizer::from_gguf(&metadata).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
