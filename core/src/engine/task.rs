//! One generation: what it feeds next, and what becomes of the tokens that it gets.

use super::{Request, request::Window, sampler::Chooser};
use crate::{
    Error, Result,
    exec::{Draw, Media, Pool, RopeLengths, Sequence, Token},
    generate::{GenerateCompletionInfo, Generation, PromptCache, StopReason},
    text::Piece,
};
use std::{
    sync::{Arc, atomic::Ordering},
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
    /// How many of them are the prompt, and how many of those were not computed.
    prompt: usize,
    cached: usize,
    /// Submitted steps whose tokens the host does not know yet.
    pending: usize,
    seed: u64,
    /// Chooses tokens, if the device does not.
    chooser: Option<Chooser>,
    /// Whether a draft model guesses along, and what it expects to come next.
    has_draft: bool,
    proposals: Vec<u32>,
    /// Its place in the draft model's cache.
    pub draft: Option<Sequence>,
    proposed: usize,
    accepted: usize,
    rejected_calls: usize,
    /// When its first step was submitted, and when the first and the last token came.
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Tokens for a step.
pub(super) struct Feed {
    /// The next ones of the sequence.
    pub tokens: Vec<Token>,
    /// What is drawn after the last ones: nothing, or one, or one for each proposal and one more.
    pub draws: Vec<Draw>,
}

/// Room that a step has left.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub rows: usize,
    pub outputs: usize,
    /// Tokens of a prompt, see [`Task::most`].
    pub known: usize,
    /// How long the sequence may become, see [`RopeLengths::longest`].
    pub longest: usize,
}

impl Task {
    /// A task that has not begun.
    pub fn new(mut request: Request) -> Task {
        let tokens = std::mem::take(&mut request.prompt);
        let seed = request.parameters.seed.unwrap_or_else(rand::random);
        let components = std::mem::take(&mut request.components);
        Task {
            chooser: Chooser::new(&request.parameters, components, seed, &tokens),
            request,
            prompt: tokens.len(),
            tokens,
            cached: 0,
            pending: 0,
            seed,
            has_draft: false,
            proposals: Vec::new(),
            draft: None,
            proposed: 0,
            accepted: 0,
            rejected_calls: 0,
            started: None,
            first: None,
            last: None,
        }
    }

    /// Tokens that the host knows.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The images of its prompt.
    pub fn media(&self) -> Option<&Arc<Media>> {
        self.request.media.as_ref()
    }

    /// How much of its past it keeps.
    pub fn window(&self) -> Option<Window> {
        self.request.window
    }

    /// Where what it computes is kept.
    pub fn cache(&self) -> Option<&PromptCache> {
        self.request.cache.as_ref()
    }

    /// The adapter that it asks for.
    pub fn adapter(&self) -> Option<&str> {
        self.request.parameters.adapter.as_deref()
    }

    /// Whether there is nothing to generate any more.
    pub fn is_full(&self) -> bool {
        self.tokens.len() >= self.request.limit
    }

    /// Whether its reader has had enough or is gone.
    pub fn is_cancelled(&self) -> bool {
        self.request.cancelled.load(Ordering::Relaxed) || self.request.events.is_closed()
    }

    /// Notes that there is a draft model. What was dropped cannot be taken back, so a window and proposals exclude
    /// each other.
    pub fn set_draft(&mut self, has_draft: bool) {
        self.has_draft = has_draft && self.request.parameters.draft_tokens > 0 && self.window().is_none();
        // A draft model sees no images.
        self.has_draft &= self.media().is_none();
    }

    /// Whether the next token cannot be fed before the host has seen it.
    pub fn waits(&self) -> bool {
        self.chooser.is_some() || self.has_draft
    }

    /// A place in the cache for it, with as much of its tokens as its prompt cache has.
    pub fn begin(&mut self, slot: u32, adapter: u32, ropes: &RopeLengths, pool: &mut Pool) -> Sequence {
        let mut sequence = self.begin_alone(slot, adapter, ropes, pool);
        sequence.set_media(self.media().cloned());
        sequence
    }

    fn begin_alone(&mut self, slot: u32, adapter: u32, ropes: &RopeLengths, pool: &mut Pool) -> Sequence {
        let new = Sequence::new(slot, self.prompt).with_adapter(adapter);
        // One that another generation uses at the moment is neither read nor written.
        let media = self.media().map(AsRef::as_ref);
        let Some((kept, known)) = self.cache().and_then(|c| c.check_out(&self.tokens, media, self.adapter())) else {
            self.request.cache = None;
            return new;
        };
        let Some(mut sequence) = kept else { return new };
        // The last token has to be computed: what follows it is not kept.
        let length = self.tokens.len();
        let usable = known.min(length - 1).min(sequence.fed());
        let serves =
            (sequence.is_whole() || self.window().is_some()) && ropes.is_same(sequence.admitted as usize, length);
        if serves && sequence.truncate(usable, pool) {
            (sequence.slot, sequence.adapter) = (slot, adapter);
            return sequence;
        }
        pool.release(sequence);
        new
    }

    /// Gives its prompt cache back, with what it has computed. What is in there is that of its first tokens.
    pub fn check_in(&self, sequence: Option<Sequence>) {
        if let Some(cache) = self.cache() {
            let known = sequence.as_ref().map_or(0, Sequence::fed).min(self.tokens.len());
            cache.check_in(&self.tokens[..known], self.media().map(AsRef::as_ref), self.adapter(), sequence);
        }
    }

    /// Notes how much of its prompt it begins with.
    pub fn begun(&mut self, sequence: &Sequence) {
        if self.started.is_none() {
            self.cached = sequence.fed();
        }
    }

    /// Pages that it needs, beyond those that it has, for what it knows and `more` tokens.
    pub fn pages_wanted(&self, sequence: &Sequence, more: usize, pool: &Pool) -> usize {
        pool.wanted(sequence, self.to_come(sequence, more))
    }

    /// Tokens that it needs places for, at a time.
    pub fn to_come(&self, sequence: &Sequence, more: usize) -> usize {
        let tokens = self.tokens.len().saturating_sub(sequence.fed()) + more;
        let most = self.window().map_or(usize::MAX, |w| (w.most + w.chunk).saturating_sub(sequence.len()));
        tokens.min(most)
    }

    /// Pages that it needs at the least to begin with nothing.
    pub fn pages_alone(&self, pool: &Pool) -> usize {
        let tokens = self.tokens.len() + 1;
        pool.lead().pages_for(self.window().map_or(tokens, |w| tokens.min(w.most + w.chunk)))
    }

    /// Tokens of its prompt that go into a step with so many rows left, as far as it is up to its parameters.
    pub fn most(&self, rows: usize) -> usize {
        let most = self.request.parameters.prefill_step.unwrap_or(usize::MAX).min(rows);
        self.window().map_or(most, |w| most.min(w.chunk))
    }

    /// Whether its keys were made with other frequencies than those of its present length, so that all of them have to be
    /// computed anew.
    pub fn has_outgrown(&self, sequence: &Sequence, ropes: &RopeLengths) -> bool {
        let is_known = self.pending == 0 && self.tokens.len() > sequence.fed();
        is_known && !ropes.is_same(sequence.admitted as usize, self.tokens.len())
    }

    /// What it feeds next, when a step has some room. Nothing if that depends on a token that the host has to
    /// choose or to compare, or if there is enough already.
    pub fn feed(&self, sequence: &Sequence, room: Room) -> Option<Feed> {
        let fed = sequence.fed();
        let known = self.tokens.get(fed..).unwrap_or_default();
        if known.is_empty() {
            // One step ahead: the token that is fed is still to come, or coming, from the device.
            let can_go_on = !self.waits() && self.tokens.len() + self.pending < self.request.limit;
            let follows = self.pending > 0 && fed + 1 == self.tokens.len() + self.pending && fed < room.longest;
            return (can_go_on && follows && room.rows > 0 && room.outputs > 0)
                .then(|| Feed { tokens: vec![Token::Sampled(sequence.slot)], draws: vec![self.draw(self.pending)] });
        }
        let mut tokens: Vec<Token> = known.iter().take(room.known).map(|t| Token::Id(*t)).collect();
        let mut draws = Vec::new();
        if tokens.len() == known.len() && room.outputs > 0 {
            let most = (room.rows - tokens.len()).min(room.outputs - 1);
            let proposals = self.proposals.iter().take(most.min(room.longest.saturating_sub(self.tokens.len())));
            tokens.extend(proposals.map(|t| Token::Id(*t)));
            draws.extend((0..=tokens.len() - known.len()).map(|i| self.draw(i)));
        } else if tokens.len() == known.len() {
            // Its last row has to wait until its logits can be had.
            tokens.pop();
        }
        (!tokens.is_empty()).then_some(Feed { tokens, draws })
    }

    /// How the token is drawn that comes `ahead` of the next one.
    pub fn draw(&self, ahead: usize) -> Draw {
        let temperature = self.request.parameters.temperature;
        let inv_temperature = if temperature > 0.0 { (1.0 / temperature).min(MAX_INV_TEMPERATURE) } else { 0.0 };
        let counter = (self.tokens.len() - self.prompt + ahead) as u32;
        let seed = (self.seed ^ self.seed >> 32) as u32;
        Draw { inv_temperature, seed, counter, logits: self.chooser.is_some() }
    }

    /// A step with such a feed was submitted.
    pub fn submitted(&mut self, feed: &Feed) {
        self.started.get_or_insert_with(Instant::now);
        if !feed.draws.is_empty() {
            self.pending += 1;
            self.proposals.truncate(feed.draws.len() - 1);
            self.proposed += self.proposals.len();
        }
    }

    /// How many tokens a draft model may propose now: none before the host knows what they would follow.
    pub fn may_propose(&self, sequence: &Sequence) -> usize {
        let is_next = self.has_draft && self.pending == 0 && self.tokens.len() == sequence.fed() + 1;
        let left = self.request.limit.saturating_sub(self.tokens.len() + 1);
        if is_next { self.request.parameters.draft_tokens.min(left) } else { 0 }
    }

    /// Takes what a draft model proposes.
    pub fn propose(&mut self, tokens: Vec<u32>) {
        self.proposals = tokens;
    }

    /// Takes the tokens that a step drew, as far as each follows the one before, and tells the reader. Says so if the last
    /// one was among them.
    ///
    /// # Errors
    /// There is no token to choose.
    pub fn take(&mut self, drawn: &[u32], logits: &mut [Vec<f32>]) -> Result<Option<StopReason>> {
        self.pending -= 1;
        let proposals = std::mem::take(&mut self.proposals);
        for (i, (token, logits)) in drawn.iter().zip(logits).enumerate() {
            let token = match &mut self.chooser {
                Some(chooser) => chooser.choose(logits).ok_or_else(no_numbers)?,
                None => *token,
            };
            let is_expected = proposals.get(i) == Some(&token);
            self.accepted += usize::from(is_expected);
            if let Some(reason) = self.add(token) {
                return Ok(Some(reason));
            }
            if !is_expected {
                break;
            }
        }
        Ok(None)
    }

    /// Takes one token.
    fn add(&mut self, token: u32) -> Option<StopReason> {
        self.last = Some(Instant::now());
        self.first = self.first.or(self.last);
        if self.request.eos.contains(&token) {
            return Some(StopReason::Stop);
        }
        self.tokens.push(token);
        self.say(Generation::Token(token));
        let text = self.request.text.as_mut().and_then(|t| t.push(token)).unwrap_or_default();
        if self.check(&text) {
            return Some(StopReason::Stop);
        }
        self.is_full().then_some(StopReason::Length)
    }

    /// Shows what is not part of a stop string; whether one has appeared.
    fn check(&mut self, text: &str) -> bool {
        let checked = self.request.stops.push(text);
        self.show(checked.text);
        if checked.stop.is_some() {
            // What the tokenizer holds back came after it.
            self.request.text = None;
        }
        checked.stop.is_some()
    }

    /// Shows text, taken apart if it is a turn of a conversation.
    fn show(&mut self, text: String) {
        let pieces = match &mut self.request.answer {
            Some(answer) => answer.push(&text),
            None => vec![Piece::Text(text)],
        };
        self.show_pieces(pieces);
    }

    fn show_pieces(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            self.rejected_calls += usize::from(matches!(piece, Piece::Rejected(_)));
            self.say(match piece {
                Piece::Text(text) if text.is_empty() => continue,
                Piece::Text(text) => Generation::Chunk(text),
                Piece::Reasoning(text) => Generation::Reasoning(text),
                Piece::Call(call) => Generation::ToolCall(call),
                Piece::Rejected(call) => Generation::RejectedToolCall(call),
            });
        }
    }

    /// Ends it and tells the reader how it went.
    pub fn finish(mut self, stop_reason: StopReason) {
        let rest = self.request.text.as_mut().and_then(|t| t.finish()).unwrap_or_default();
        if !self.check(&rest) {
            let held = self.request.stops.finish();
            self.show(held);
        }
        let is_complete = stop_reason == StopReason::Stop;
        let rest = self.request.answer.as_mut().map(|a| a.finish(is_complete)).unwrap_or_default();
        self.show_pieces(rest);
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to - from,
            _ => Duration::ZERO,
        };
        self.say(Generation::Info(GenerateCompletionInfo {
            prompt_tokens: self.prompt,
            cached_prompt_tokens: self.cached,
            generation_tokens: self.tokens.len() - self.prompt,
            prompt_time: between(self.started, self.first),
            generate_time: between(self.first, self.last),
            stop_reason,
            proposed_draft_tokens: self.proposed,
            accepted_draft_tokens: self.accepted,
            rejected_tool_calls: self.rejected_calls,
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
    let message = "the logits of a step hold no number, or no token is left to choose: \
                   the weights or the device are damaged, or a logit processor forbids everything";
    Error::Device(message.to_owned())
}
