//! Tokenizers from the metadata of a GGUF file.
//!
//! The file lists tokens, their kinds, and merges or scores; how text is cut and normalized is
//! known by name only. This puts the pieces together again as the model's `tokenizer.json` has
//! them. Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod pretokenizers;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::Tokenizer;
use super::tokenizer::{Parts, guarded};
use super::tokenizer_files::surround;
use crate::checkpoint::gguf::{Ends, Metadata, Value};
use crate::{Error, Result};
use pretokenizers::PreTokenizer;

/// Kinds of tokens (`tokenizer.ggml.token_type`).
mod kind {
    pub(super) use crate::checkpoint::gguf::{CONTROL, NORMAL};
    pub const UNKNOWN: u64 = 2;
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

/// Parts of the value of a key, and which special tokens of such files take white space before them, and behind them.
type Strips = (&'static str, &'static [&'static str], fn(&str) -> (bool, bool));

/// GGUF has no place for that; llama.cpp knows it by the values of these keys (`llama_vocab::impl::load`). The first rule that applies counts.
const STRIPS: [Strips; 3] = [
    ("tokenizer.ggml.pre", &["jina-v2-de", "jina-v2-es", "jina-v2-code"], |token| (token == "<mask>", false)),
    ("general.name", &["phi-3", "phi3"], |token| (false, !["<unk>", "<s>", "<|endoftext|>"].contains(&token))),
    ("general.name", &["modern-bert"], |token| (token == "[MASK]", false)),
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
        Ok(Tokenizer::new(Parts {
            backend,
            special_tokens,
            eos: Some(Ends::of(metadata).ends),
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
        let mut kinds: Vec<u64> = kinds.iter().map(|kind| kind.as_u64().unwrap_or(kind::NORMAL)).collect();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            let problem = format!("expected one for each of {} tokens, found {}", tokens.len(), kinds.len());
            return Err(failure("token_type", &problem));
        }
        if u32::try_from(tokens.len()).is_err() {
            return Err(failure("tokens", "more than fit into 32 bits"));
        }
        kinds.resize(tokens.len(), kind::NORMAL);
        for (id, kind) in Ends::of(metadata).types {
            kinds[id as usize] = kind;
        }
        Ok(File { metadata, tokens, kinds, pre })
    }

    fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        match self.metadata.str("tokenizer.ggml.model") {
            Some("gpt2") => match self.pre_tokenizer()? {
                pre if pre.spaces => self.sentencepiece(Some(pre)),
                pre => self.byte_level(pre),
            },
            Some("gemma4") => self.sentencepiece(pretokenizers::find("gemma4")),
            Some("llama") => self.sentencepiece(None),
            other => {
                let found = other.unwrap_or("none");
                let problem = format!(
                    "expected `gpt2`, `llama` or `gemma4`, found `{found}`; the model's original tokenizer.json can be used instead"
                );
                Err(failure("model", &problem))
            }
        }
    }

    /// Byte-level BPE: text is cut by patterns, its bytes are spelled as characters, and merged.
    fn byte_level(&self, pre: PreTokenizer) -> Result<tokenizers::Tokenizer> {
        let vocab: Vocab = self.spelled().collect();
        let model =
            self.bpe(vocab, self.merges()?.unwrap_or_default(), |builder| builder.ignore_merges(pre.ignore_merges))?;
        let mut backend = tokenizers::Tokenizer::new(model);
        let bytes = json!({
            "type": "ByteLevel", "use_regex": false, "trim_offsets": false,
            "add_prefix_space": self.flag("add_space_prefix").unwrap_or(false),
        });
        let steps: Vec<Json> = pre.patterns.iter().map(|pattern| split(pattern)).chain([bytes.clone()]).collect();
        let normalizer = if pre.nfc { json!({ "type": "NFC" }) } else { Json::Null };
        equip(&mut backend, normalizer, json!({ "type": "Sequence", "pretokenizers": steps }), bytes)?;
        self.finish(backend, pre.bos)
    }

    /// How text is cut. Another way than the model's own gives other tokens, and answers that are worse and no error: so a name
    /// that is not known is refused, as llama.cpp does.
    fn pre_tokenizer(&self) -> Result<PreTokenizer> {
        if let Some(pre) = self.pre {
            return Ok(pre);
        }
        let Some(name) = self.metadata.str("tokenizer.ggml.pre") else {
            tracing::warn!(
                "tokenizer.ggml.pre: the file does not say how text is cut before it is tokenized, the rule `default` is taken: \
                 answers may be worse; convert the model again"
            );
            return Ok(pretokenizers::DEFAULT);
        };
        pretokenizers::find(name).ok_or_else(|| {
            let names = pretokenizers::names().collect::<Vec<_>>().join(", ");
            let remedy = "convert the model again, or name a kind that cuts text alike as override_tokenizer";
            failure("pre", &format!("`{name}` is not known here; {remedy}: {names}"))
        })
    }

    /// SentencePiece's BPE: spaces are spelled `▁`, characters that are no tokens become bytes. With `pre`, text is cut first, and
    /// no space is put before it.
    fn sentencepiece(&self, pre: Option<PreTokenizer>) -> Result<tokenizers::Tokenizer> {
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
        let prefix = self.flag("add_space_prefix").unwrap_or(pre.is_none());
        let normalizer = match prefix {
            true => json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "▁" }, spaces] }),
            false => spaces,
        };
        let cuts: Vec<Json> = pre.iter().flat_map(|pre| pre.patterns).map(|pattern| split(pattern)).collect();
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let cuts = if cuts.is_empty() { Json::Null } else { json!({ "type": "Sequence", "pretokenizers": cuts }) };
        equip(&mut backend, normalizer, cuts, json!({ "type": "Sequence", "decoders": decoders }))?;
        self.finish(backend, pre.is_none_or(|pre| pre.bos))
    }

    /// Tokens and their ids.
    fn spelled(&self) -> impl Iterator<Item = (String, u32)> {
        (0..).zip(&self.tokens).map(|(id, token)| ((*token).to_owned(), id))
    }

    fn kind(&self, id: u32) -> u64 {
        self.kinds.get(id as usize).copied().unwrap_or(kind::NORMAL)
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

    /// Whether a special token takes the white space before it, and behind it: see [`STRIPS`].
    fn strips(&self) -> fn(&str) -> (bool, bool) {
        let value = |key| self.metadata.str(key).unwrap_or_default().to_ascii_lowercase();
        let rule = STRIPS.iter().find(|(key, parts, _)| parts.iter().any(|part| value(key).contains(part)));
        rule.map_or(|_| (false, false), |(.., strips)| *strips)
    }

    /// Tokens that match whole, before any cutting, and those that surround a text. Runs of spaces that users of
    /// SentencePiece define are among them, written with real spaces: their scores mean nothing.
    fn finish(&self, mut backend: tokenizers::Tokenizer, default_bos: bool) -> Result<tokenizers::Tokenizer> {
        let strips = self.strips();
        let added = (0..).zip(&self.tokens).filter_map(|(id, token)| {
            let special = match self.kind(id) {
                kind::UNKNOWN | kind::CONTROL => true,
                kind::USER_DEFINED => false,
                _ => return None,
            };
            let (left, right) = strips(token);
            let added = AddedToken::from(*token, special).normalized(false);
            (!token.is_empty()).then_some(added.lstrip(left).rstrip(right))
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

/// Text is cut at what `pattern` matches, which is a piece like what is between.
fn split(pattern: &str) -> Json {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
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
mod tests;
