//! Tokenizers: text to token ids and back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::pieces::Pieces;
use super::{ChatTemplate, TextStream, plain_prompt};
use crate::{Error, Result};

/// A model's tokenizer with its special tokens and its chat template. Clones share everything.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    backend: tokenizers::Tokenizer,
    pieces: Option<Pieces>,
    special: HashSet<u32>,
    bos: Option<u32>,
    eos: BTreeSet<u32>,
    special_tokens: Map<String, Value>,
    tool_parser_type: Option<String>,
    /// Why the template does not compile is told to whom it matters: who wants to chat.
    template: Option<Result<ChatTemplate, String>>,
}

/// What a tokenizer is made from, whatever the format of the files.
pub(super) struct Parts {
    pub backend: tokenizers::Tokenizer,
    /// Texts of special tokens under the names that chat templates use (`bos_token`, …).
    pub special_tokens: Map<String, Value>,
    /// Tokens that end a text, where that is not `eos_token` alone.
    pub eos: Option<BTreeSet<u32>>,
    /// Sources of chat templates by name.
    pub templates: BTreeMap<String, String>,
    /// How the model writes tool calls, where the files say so.
    pub tool_parser_type: Option<String>,
}

impl Tokenizer {
    pub(super) fn new(parts: Parts) -> Tokenizer {
        let Parts { mut backend, special_tokens, eos, templates, tool_parser_type } = parts;
        // Files may ask for truncation and padding; a prompt must arrive as it is.
        backend.with_padding(None);
        if let Err(error) = backend.with_truncation(None) {
            tracing::warn!("tokenizer: truncation stays on: {error}");
        }
        let id_of = |name| backend.token_to_id(special_tokens.get(name)?.as_str()?);
        let eos = eos.unwrap_or_else(|| id_of("eos_token").into_iter().collect());
        let added = backend.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        let decoder = serde_json::to_value(backend.get_decoder()).unwrap_or_default();
        let template = (!templates.is_empty())
            .then(|| ChatTemplate::with_names(templates, &special_tokens).map_err(|error| error.to_string()));
        let (bos, pieces) = (id_of("bos_token"), Pieces::new(&decoder));
        Tokenizer(Arc::new(Inner { backend, pieces, special, bos, eos, special_tokens, tool_parser_type, template }))
    }

    /// The token ids of `text`. Special tokens written out in the text become their ids;
    /// `add_special` puts those around it that the model expects (a begin-of-sequence token,
    /// mostly). Prompts from a chat template hold theirs already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.0.backend.encode_fast(text, add_special);
        let encoding = encoding.map_err(|error| Error::Text(format!("cannot tokenize the text: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; `skip_special` leaves out tokens like `</s>`. Ids that are no tokens add
    /// nothing, bytes that are no text become replacement characters.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if self.0.pieces.is_none() {
            return self.backend_decode(ids, skip_special);
        }
        let mut stream = TextStream::new(self, skip_special);
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        text.extend(stream.finish());
        Ok(text)
    }

    fn backend_decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = self.0.backend.decode(ids, skip_special);
        text.map_err(|error| Error::Text(format!("cannot decode the tokens: {error}")))
    }

    /// All of `ids` by the library's own decoder.
    pub(super) fn decode_all(&self, ids: &[u32]) -> Result<String> {
        self.backend_decode(ids, false)
    }

    pub(super) fn pieces(&self) -> Option<&Pieces> {
        self.0.pieces.as_ref()
    }

    /// Incremental decoding from here on.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self, skip_special)
    }

    /// The id of a token, given as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.backend.token_to_id(token)
    }

    /// How the vocabulary spells a token.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.backend.id_to_token(id)
    }

    /// How many tokens there are, added ones included. A model's table may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.0.backend.get_vocab_size(true)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.0.bos
    }

    /// The tokens that end a text or a turn, as far as the tokenizer's own files tell.
    pub fn eos_ids(&self) -> &BTreeSet<u32> {
        &self.0.eos
    }

    /// Whether `id` is a control token, not text.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }

    /// The texts of special tokens by their names in chat templates: `bos_token`, `eos_token`, ….
    pub fn special_tokens(&self) -> &Map<String, Value> {
        &self.0.special_tokens
    }

    /// The name that `tokenizer_config.json` gives to how the model writes tool calls.
    pub fn tool_parser_type(&self) -> Option<&str> {
        self.0.tool_parser_type.as_deref()
    }

    /// The chat template. Fails if there is one that does not compile.
    pub fn chat_template(&self) -> Result<Option<&ChatTemplate>> {
        let template = self.0.template.as_ref().map(Result::as_ref).transpose();
        template.map_err(|problem| Error::Text(problem.clone()))
    }

    /// With this chat template where the files have none.
    pub(crate) fn with_default_template(mut self, source: &str) -> Tokenizer {
        if let Some(inner) = Arc::get_mut(&mut self.0).filter(|inner| inner.template.is_none()) {
            let template =
                ChatTemplate::with_names([("default".to_owned(), source.to_owned())].into(), &inner.special_tokens);
            inner.template = Some(template.map_err(|error| error.to_string()));
        }
        self
    }

    /// The token ids of a conversation: rendered by the chat template ([`ChatTemplate::render`]),
    /// or, where the model has none, its plain texts.
    pub fn apply_chat_template(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<Vec<u32>> {
        let (prompt, add_special) = self.render_chat(messages, tools, add_generation_prompt, extra)?;
        self.encode(&prompt, add_special)
    }

    /// The same before it is tokenized, and whether [`Tokenizer::encode`] is to add special tokens.
    pub(crate) fn render_chat(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<(String, bool)> {
        match self.chat_template()? {
            Some(template) => Ok((template.render(messages, tools, add_generation_prompt, extra)?, false)),
            None => Ok((plain_prompt(messages), true)),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// Runs one of the library's constructors. They check most of what they read, but index by the
/// rest: a damaged file must not bring down the host.
pub(super) fn guarded<T>(build: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(build)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the vocabulary and the merges contradict each other".into()),
    }
}
