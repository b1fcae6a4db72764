//! What one generation is to do.

use crate::{
    Error, LmInput, Result,
    exec::{Media, PAGE},
    generate::{GenerateParameters, Generation, GenerationComponents, PromptCache},
    model::{ModelConfiguration, ModelInfo},
    text::{AnswerFormat, AnswerStream, StopStrings, TextStream, Tokenizer},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::sync::mpsc::UnboundedSender;

/// Tokens at the end of a prompt that are looked at for a tag that begins reasoning.
const PROMPT_END: usize = 16;

/// Rows of a step that may be others'.
pub(crate) const MOST_OTHERS: usize = 64;

/// One generation, checked and ready to run.
pub(crate) struct Request {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Its images.
    pub media: Option<Arc<Media>>,
    /// How tokens are chosen.
    pub parameters: GenerateParameters,
    /// What the program brings along to choose them.
    pub components: GenerationComponents,
    /// How many tokens there may be, those of the prompt included.
    pub limit: usize,
    /// How much of its past it keeps.
    pub window: Option<Window>,
    /// What of the prompt is known already, and where what is computed is kept.
    pub cache: Option<PromptCache>,
    /// Tokens that end it.
    pub eos: BTreeSet<u32>,
    /// Makes text of tokens.
    pub text: Option<TextStream>,
    /// Texts that end it.
    pub stops: StopStrings,
    /// Tells what is in an answer apart.
    pub answer: Option<AnswerStream>,
    /// Where its events go. A slow reader holds nobody up; what it has not read is bounded by `limit`.
    pub events: UnboundedSender<Result<Generation>>,
    /// Whether the reader has had enough.
    pub cancelled: Arc<AtomicBool>,
}

/// A cache that drops its oldest tokens, see [`GenerateParameters::max_kv_size`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    /// Tokens that are kept between steps.
    pub most: usize,
    /// Tokens that a step may add.
    pub chunk: usize,
}

impl Window {
    /// Pages at the beginning that are kept whatever happens.
    pub const KEPT: usize = 1;

    /// `None` if a context is too small for a page to come and one to go.
    fn new(size: usize, context: usize) -> Option<Window> {
        let most = size.min(context.checked_sub(PAGE)?);
        (most >= 2 * PAGE).then(|| Window { most, chunk: most.min(context - most) })
    }
}

/// What a request needs to know of the model.
pub(crate) struct About<'a> {
    pub configuration: &'a ModelConfiguration,
    pub tokenizer: Option<&'a Tokenizer>,
    pub info: &'a ModelInfo,
}

impl Request {
    /// Checks what was asked against what the model has.
    pub fn new(
        input: LmInput,
        parameters: GenerateParameters,
        components: GenerationComponents,
        cache: Option<PromptCache>,
        about: &About<'_>,
        events: UnboundedSender<Result<Generation>>,
    ) -> Result<Request> {
        parameters.check()?;
        let About { configuration, tokenizer, info } = *about;
        let LmInput { tokens: prompt, tools, is_chat, media } = input;
        let window = window(&parameters, info)?;
        check_prompt(&prompt, media.as_deref(), window.is_some(), info)?;
        media.as_ref().map_or(Ok(()), |media| check_media(media, &prompt, info))?;
        if tokenizer.is_none() && !parameters.stop.is_empty() {
            return Err(Error::Request("stop strings need a tokenizer, and the model has none".to_owned()));
        }
        let format = AnswerFormat {
            tool_calls: configuration.tool_call_format,
            reasoning: configuration.reasoning_format.clone(),
        };
        let mut text = tokenizer.map(|t| t.stream(true));
        let mut answer = None;
        if let Some(tokenizer) = tokenizer.filter(|_| is_chat) {
            let tags = format.tags(tokenizer);
            text = text.map(|t| t.keep(tags));
            let end = &prompt[prompt.len().saturating_sub(PROMPT_END)..];
            answer = Some(AnswerStream::new(format, tools, &tokenizer.decode(end, false)?));
        }
        let most = prompt.len().saturating_add(parameters.max_tokens.unwrap_or(usize::MAX));
        Ok(Request {
            limit: if window.is_some() { most } else { most.min(info.context) },
            window,
            cache,
            eos: if parameters.ignore_eos { BTreeSet::new() } else { configuration.eos_token_ids.clone() },
            text,
            stops: StopStrings::new(configuration.stop_strings.iter().chain(&parameters.stop)),
            answer,
            prompt,
            media,
            parameters,
            components,
            events,
            cancelled: Arc::default(),
        })
    }
}

fn window(parameters: &GenerateParameters, info: &ModelInfo) -> Result<Option<Window>> {
    let Some(size) = parameters.max_kv_size else { return Ok(None) };
    let window = Window::new(size, info.context);
    let too_small = || {
        let context = info.context;
        Error::Request(format!("max_kv_size: expected a context of {} tokens at least, found {context}", 3 * PAGE))
    };
    window.ok_or_else(too_small).map(Some)
}

/// Refuses images that no step could take.
fn check_media(media: &Media, prompt: &[u32], info: &ModelInfo) -> Result<()> {
    if media.positions.len() != prompt.len() {
        let (found, expected) = (media.positions.len(), prompt.len());
        return Err(Error::Request(format!("images were prepared for a prompt of {found} tokens, found {expected}")));
    }
    // Rows of others that generate may come before.
    let most = info.step_rows.saturating_sub(MOST_OTHERS);
    let of_prefix: usize = media.images.iter().filter(|_| media.prefix > 0).map(|i| i.tokens.len()).sum();
    if media.prefix > most || of_prefix > info.image_rows {
        let (tokens, rows) = (media.prefix, info.image_rows);
        return Err(Error::Request(format!(
            "a prompt of {tokens} tokens that see each other, {of_prefix} of them images': a step has room for {most}, \
             and for {rows} of images: shorten it, or take fewer images"
        )));
    }
    for image in &media.images {
        let (tokens, rows) = (image.tokens.len(), info.image_rows);
        if tokens > rows {
            return Err(Error::Request(format!("an image of {tokens} tokens: the model has room for {rows}")));
        }
        if image.span && image.range().len() > most {
            let tokens = image.range().len();
            return Err(Error::Request(format!(
                "an image of {tokens} tokens that see each other: a step has room for {most}"
            )));
        }
    }
    Ok(())
}

fn check_prompt(prompt: &[u32], media: Option<&Media>, has_window: bool, info: &ModelInfo) -> Result<()> {
    let (len, context, vocabulary) = (prompt.len(), info.context, info.vocabulary);
    if len == 0 {
        return Err(Error::Request("the prompt is empty: expected at least one token".to_owned()));
    }
    if len >= context && !has_window {
        let message = format!(
            "a prompt of {len} tokens leaves no room in a context of {context}: \
             shorten it, load the model with a larger context, or set max_kv_size"
        );
        return Err(Error::Request(message));
    }
    // The token of an image may be none of the table's.
    let is_image = |at: usize| media.is_some_and(|media| media.row(at).is_some());
    match prompt.iter().enumerate().find(|(at, t)| **t as usize >= vocabulary && !is_image(*at)) {
        Some((_, id)) => Err(Error::Request(format!("token {id} is outside the vocabulary of {vocabulary}"))),
        None => Ok(()),
    }
}
