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
    let (most, rows) = (info.step_rows.saturating_sub(MOST_OTHERS), info.image_rows);
    let of_prefix: usize = media.images.iter().filter(|_| media.prefix > 0).map(|i| i.tokens.len()).sum();
    // An image that no step here has room for: how long one may be, the largest binding of a device says.
    let elsewhere = || {
        let device = &info.device;
        format!("{device} has no room for longer steps of this model: the processor has (`--device cpu`, Device::Cpu)")
    };
    if media.prefix > most || of_prefix > rows {
        let tokens = media.prefix;
        let is_alone = media.images.iter().any(|i| i.tokens.len() > most.min(rows));
        let remedy = if is_alone { elsewhere() } else { "shorten it, or take fewer images".to_owned() };
        return Err(Error::Request(format!(
            "a prompt of {tokens} tokens that see each other, {of_prefix} of them images': a step has room for {most}, \
             and for {rows} of images: {remedy}"
        )));
    }
    for image in &media.images {
        let tokens = image.tokens.len();
        if tokens > rows {
            return Err(Error::Request(format!("an image of {tokens} tokens: the model has room for {rows}")));
        }
        if image.span && image.range().len() > most {
            let (tokens, elsewhere) = (image.range().len(), elsewhere());
            return Err(Error::Request(format!(
                "an image of {tokens} tokens that see each other: a step has room for {most}: {elsewhere}"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{ImagePatches, PlacedImage};
    use std::sync::Arc;

    /// PaliGemma at 896 pixels has 4096 tokens in an image, all in one step; Gemma's widest rows are 32768 numbers, of
    /// which a binding of 128 MiB holds 1024.
    #[test]
    fn an_image_that_no_step_holds_says_where_one_does() {
        let info = ModelInfo {
            model_type: "paligemma".to_owned(),
            plugin: String::new(),
            device: "Small GPU".to_owned(),
            is_software: false,
            parameters: 0,
            bytes: 0,
            vocabulary: 10,
            context: 8192,
            step_rows: 1024,
            image_rows: 8192,
            unused: Default::default(),
        };
        let media = |tokens: u32, is_prefix: bool| {
            let patches = Arc::new(ImagePatches::new(Vec::new(), &Default::default()));
            let image = PlacedImage { tokens: (0..tokens).collect(), span: true, video: None, patches };
            let prefix = if is_prefix { tokens as usize + 4 } else { 0 };
            Media { positions: vec![[0; 3]; tokens as usize + 4], images: vec![image], prefix, ..Media::default() }
        };
        let check = |media: Media| {
            let prompt = vec![1; media.positions.len()];
            check_media(&media, &prompt, &info).map_err(|e| e.to_string())
        };
        let remedy =
            "Small GPU has no room for longer steps of this model: the processor has (`--device cpu`, Device::Cpu)";
        for is_prefix in [true, false] {
            let e = check(media(4096, is_prefix)).unwrap_err();
            assert!(e.contains("4096") && e.ends_with(remedy), "{e}");
            assert_eq!(check(media(400, is_prefix)), Ok(()));
        }
        let pair = media(800, true);
        let pair = Media {
            images: [pair.images.clone(), pair.images].concat(),
            prefix: 1604,
            positions: vec![[0; 3]; 1604],
            ..Media::default()
        };
        assert!(check(pair).unwrap_err().ends_with("take fewer images"));
    }
}
