//! One generation: what it feeds next, and what becomes of the tokens that it gets.

use super::{Request, sampler::Sampler};
use crate::{
    Error, Result,
    exec::{Draw, Sequence, Token},
    generate::{GenerateCompletionInfo, Generation, StopReason},
};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// 1 / temperature is bounded: beyond this the most likely token wins anyway, and logits times it must
/// stay numbers.
const MAX_INV_TEMPERATURE: f32 = 1e4;

/// One generation.
pub(super) struct Task {
    request: Request,
    /// The prompt and what was generated, as far as the host knows it.
    tokens: Vec<u32>,
    /// How many of them are the prompt.
    prompt: usize,
    /// Draws of submitted steps whose tokens the host does not know yet.
    pending: usize,
    seed: u64,
    /// Chooses tokens, if the device does not.
    sampler: Option<Sampler>,
    /// When its first step was submitted, and when the first and the last token came.
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Tokens for a step.
pub(super) struct Feed {
    /// The next ones of the sequence.
    pub tokens: Vec<Token>,
    /// What is drawn after the last one, if anything.
    pub draw: Option<Draw>,
}

impl Task {
    /// A task that has not begun.
    pub fn new(mut request: Request) -> Task {
        let tokens = std::mem::take(&mut request.prompt);
        let seed = request.parameters.seed.unwrap_or_else(rand::random);
        let sampler = request.parameters.filters().then(|| Sampler::new(&request.parameters, seed));
        let prompt = tokens.len();
        Task { request, tokens, prompt, pending: 0, seed, sampler, started: None, first: None, last: None }
    }

    /// Tokens that the host knows.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens of the prompt.
    pub fn prompt(&self) -> usize {
        self.prompt
    }

    /// Whether there is nothing to generate any more.
    pub fn is_full(&self) -> bool {
        self.tokens.len() >= self.request.limit
    }

    /// Whether its reader has had enough or is gone.
    pub fn is_cancelled(&self) -> bool {
        self.request.cancelled.load(Ordering::Relaxed) || self.request.events.is_closed()
    }

    /// What it feeds next, when a step has room for `room` more rows. Nothing if that depends on a token
    /// that the host has to choose, or if there is enough already.
    pub fn feed(&self, sequence: &Sequence, room: usize) -> Option<Feed> {
        let fed = sequence.len();
        let known = self.tokens.get(fed..).unwrap_or_default();
        if known.is_empty() {
            // One step ahead: the token that is fed is still to come, or coming, from the device.
            let can_go_on = self.sampler.is_none() && self.tokens.len() + self.pending < self.request.limit;
            let follows = self.pending > 0 && fed + 1 == self.tokens.len() + self.pending;
            return (can_go_on && follows && room > 0)
                .then(|| Feed { tokens: vec![Token::Sampled(sequence.slot)], draw: Some(self.draw()) });
        }
        let most = self.request.parameters.prefill_step.unwrap_or(usize::MAX).min(room);
        let tokens: Vec<Token> = known.iter().take(most).map(|t| Token::Id(*t)).collect();
        let draw = (tokens.len() == known.len()).then(|| self.draw());
        (!tokens.is_empty()).then_some(Feed { tokens, draw })
    }

    fn draw(&self) -> Draw {
        let temperature = self.request.parameters.temperature;
        let inv_temperature = if temperature > 0.0 { (1.0 / temperature).min(MAX_INV_TEMPERATURE) } else { 0.0 };
        let counter = (self.tokens.len() - self.prompt + self.pending) as u32;
        let seed = (self.seed ^ self.seed >> 32) as u32;
        Draw { inv_temperature, seed, counter, logits: self.sampler.is_some() }
    }

    /// A step with such a feed was submitted.
    pub fn submitted(&mut self, feed: &Feed) {
        self.started.get_or_insert_with(Instant::now);
        self.pending += usize::from(feed.draw.is_some());
    }

    /// Takes the token that a step drew, and tells the reader. Says so if it was the last one.
    ///
    /// # Errors
    /// No logit is a number.
    pub fn take(&mut self, token: u32, logits: &[f32]) -> Result<Option<StopReason>> {
        self.pending -= 1;
        let token = match &mut self.sampler {
            Some(sampler) => sampler.choose(logits).ok_or_else(no_numbers)?,
            None => token,
        };
        self.last = Some(Instant::now());
        self.first = self.first.or(self.last);
        if self.request.eos.contains(&token) {
            return Ok(Some(StopReason::Stop));
        }
        self.tokens.push(token);
        self.say(Generation::Token(token));
        let text = self.request.text.as_mut().and_then(|t| t.push(token)).unwrap_or_default();
        if self.show(&text) {
            return Ok(Some(StopReason::Stop));
        }
        Ok(self.is_full().then_some(StopReason::Length))
    }

    /// Shows what is not part of a stop string; whether one has appeared.
    fn show(&mut self, text: &str) -> bool {
        let checked = self.request.stops.push(text);
        if !checked.text.is_empty() {
            self.say(Generation::Chunk(checked.text));
        }
        if checked.stop.is_some() {
            // What the tokenizer holds back came after it.
            self.request.text = None;
        }
        checked.stop.is_some()
    }

    /// Ends it and tells the reader how it went.
    pub fn finish(mut self, stop_reason: StopReason) {
        let rest = self.request.text.as_mut().and_then(|t| t.finish()).unwrap_or_default();
        if !self.show(&rest) {
            let held = self.request.stops.finish();
            if !held.is_empty() {
                self.say(Generation::Chunk(held));
            }
        }
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to - from,
            _ => Duration::ZERO,
        };
        self.say(Generation::Info(GenerateCompletionInfo {
            prompt_tokens: self.prompt,
            generation_tokens: self.tokens.len() - self.prompt,
            prompt_time: between(self.started, self.first),
            generate_time: between(self.first, self.last),
            stop_reason,
        }));
    }

    /// Ends it with an error.
    pub fn fail(self, error: Error) {
        let _ = self.request.events.send(Err(error));
    }

    /// A reader that is gone needs no telling: it is found by [`Task::is_cancelled`].
    fn say(&self, event: Generation) {
        let _ = self.request.events.send(Ok(event));
    }
}

fn no_numbers() -> Error {
    Error::Device("the logits of a step hold no number: the weights or the device are damaged".to_owned())
}
