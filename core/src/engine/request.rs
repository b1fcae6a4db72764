//! What one generation is to do.

use crate::{
    Error, LmInput, Result,
    generate::{GenerateParameters, Generation},
    model::{ModelConfiguration, ModelInfo},
    text::{StopStrings, TextStream, Tokenizer},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::sync::mpsc::UnboundedSender;

/// One generation, checked and ready to run.
pub(crate) struct Request {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub parameters: GenerateParameters,
    /// How many tokens there may be, those of the prompt included.
    pub limit: usize,
    /// Tokens that end it.
    pub eos: BTreeSet<u32>,
    /// Makes text of tokens.
    pub text: Option<TextStream>,
    /// Texts that end it.
    pub stops: StopStrings,
    /// Where its events go. A slow reader holds nobody up; what it has not read is bounded by `limit`.
    pub events: UnboundedSender<Result<Generation>>,
    /// Whether the reader has had enough.
    pub cancelled: Arc<AtomicBool>,
}

impl Request {
    /// Checks what was asked against what the model has.
    pub fn new(
        input: LmInput,
        parameters: GenerateParameters,
        configuration: &ModelConfiguration,
        tokenizer: Option<&Tokenizer>,
        info: &ModelInfo,
        events: UnboundedSender<Result<Generation>>,
    ) -> Result<Request> {
        parameters.check()?;
        let prompt = input.tokens;
        check_prompt(&prompt, info)?;
        if tokenizer.is_none() && !parameters.stop.is_empty() {
            return Err(Error::Request("stop strings need a tokenizer, and the model has none".to_owned()));
        }
        let most = parameters.max_tokens.unwrap_or(usize::MAX);
        Ok(Request {
            limit: prompt.len().saturating_add(most).min(info.context),
            eos: if parameters.ignore_eos { BTreeSet::new() } else { configuration.eos_token_ids.clone() },
            text: tokenizer.map(|t| t.stream(true)),
            stops: StopStrings::new(configuration.stop_strings.iter().chain(&parameters.stop)),
            prompt,
            parameters,
            events,
            cancelled: Arc::default(),
        })
    }
}

fn check_prompt(prompt: &[u32], info: &ModelInfo) -> Result<()> {
    let (len, context, vocabulary) = (prompt.len(), info.context, info.vocabulary);
    if len == 0 {
        return Err(Error::Request("the prompt is empty: expected at least one token".to_owned()));
    }
    if len >= context {
        let message = format!(
            "a prompt of {len} tokens leaves no room in a context of {context}: \
             shorten it, or load the model with a larger context"
        );
        return Err(Error::Request(message));
    }
    match prompt.iter().find(|t| **t as usize >= vocabulary) {
        Some(id) => Err(Error::Request(format!("token {id} is outside the vocabulary of {vocabulary}"))),
        None => Ok(()),
    }
}
