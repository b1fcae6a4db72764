//! What [`super::ModelContainer::perform`] gives access to.

use super::{ModelConfiguration, UserInputProcessor, parameters::Files};
use crate::{
    Error, PromptCache, Result,
    exec::{Capacity, Draw, Executor, MemoryUse, PAGE, Pool, Sequence, Step, Token},
    text::Tokenizer,
};
use std::sync::Arc;

/// A model and what belongs to it, on the engine's thread.
pub struct ModelContext {
    /// What runs.
    pub model: Model,
    /// The configuration it was loaded with.
    pub configuration: Arc<ModelConfiguration>,
    /// What makes tokens of what a user asks.
    pub processor: Arc<dyn UserInputProcessor>,
    pub(crate) tokenizer: Arc<Result<Tokenizer, String>>,
}

impl ModelContext {
    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Text`] if the model's files have none that can be read.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        tokenizer(&self.tokenizer)
    }
}

/// The tokenizer, or why there is none.
pub(super) fn tokenizer(found: &Result<Tokenizer, String>) -> Result<&Tokenizer> {
    found.as_ref().map_err(|why| Error::Text(why.clone()))
}

/// A model on its device.
pub struct Model {
    pub(crate) executor: Box<dyn Executor>,
    pub(crate) pool: Pool,
    pub(crate) files: Option<Files>,
    /// Whether its weights have changed and what the caches hold has not.
    pub(crate) is_changed: bool,
    /// A smaller model that guesses what this one will say.
    pub(crate) draft: Option<Box<Model>>,
    /// Prompt caches that may hold pages of the pool, the one that was used last at the end.
    pub(crate) caches: Vec<PromptCache>,
}

impl Model {
    pub(crate) fn new(executor: Box<dyn Executor>) -> Model {
        let pool = Pool::new(executor.capacity().pages);
        Model { executor, pool, files: None, is_changed: false, draft: None, caches: Vec::new() }
    }

    /// Takes pages back from the prompt cache that has not been used for longest; its tokens are computed anew when they
    /// are needed. Whether there was one.
    pub(crate) fn reclaim(&mut self) -> bool {
        // Nobody asks for those any more that only this list knows.
        while let Some(at) = self.caches.iter().position(PromptCache::is_forgotten) {
            if let Some(sequence) = self.caches.remove(at).take_sequence() {
                self.pool.release(sequence);
                return true;
            }
        }
        let found = self.caches.iter().find_map(PromptCache::take_sequence);
        found.map(|sequence| self.pool.release(sequence)).is_some()
    }

    /// Notes that a cache was used just now.
    pub(crate) fn remember(&mut self, cache: &PromptCache) {
        self.caches.retain(|c| !c.is_same(cache));
        self.caches.push(cache.clone());
    }

    /// Entries of a row of logits.
    pub fn vocabulary(&self) -> usize {
        self.executor.vocabulary()
    }

    /// What fits into a step and into the cache.
    pub fn capacity(&self) -> Capacity {
        self.executor.capacity()
    }

    /// What it takes of its device's memory.
    pub fn memory(&self) -> MemoryUse {
        self.executor.memory()
    }

    /// The device, for people.
    pub fn device(&self) -> String {
        self.executor.device()
    }

    /// The logits after each token of a new sequence, [tokens, vocabulary]. `chunk` is how many tokens
    /// go into a step at most.
    ///
    /// # Errors
    /// [`Error::Memory`] if the free part of the cache is too small, [`Error::Request`] for a token
    /// outside the vocabulary, and whatever the device says.
    pub fn forward(&mut self, tokens: &[u32], chunk: usize) -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(tokens.len() * self.vocabulary());
        self.forward_each(tokens, chunk, 0, |_, row| logits.extend(row))?;
        Ok(logits)
    }

    /// As [`Model::forward`], but gives the logits after token `first` and those behind it, one row
    /// after the other, each with its token's index.
    ///
    /// # Errors
    /// As for [`Model::forward`].
    pub fn forward_each(
        &mut self,
        tokens: &[u32],
        chunk: usize,
        first: usize,
        each: impl FnMut(usize, Vec<f32>),
    ) -> Result<()> {
        let mut sequence = Sequence::new(0, tokens.len());
        let done = self.run(&mut sequence, tokens, chunk, first, each);
        self.pool.release(sequence);
        done
    }

    fn run(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        chunk: usize,
        first: usize,
        mut each: impl FnMut(usize, Vec<f32>),
    ) -> Result<()> {
        let capacity = self.capacity();
        while sequence.len() < tokens.len() {
            let start = sequence.len();
            let mut end = tokens.len().min(start + chunk.clamp(1, capacity.rows));
            end = end.min(start.max(first) + capacity.outputs);
            let ids: Vec<Token> = tokens[start..end].iter().map(|t| Token::Id(*t)).collect();
            let mut step = Step::default();
            let draw = |i: usize| (start + i >= first).then_some(Draw { logits: true, ..Draw::default() });
            while step.rows.is_empty() && sequence.pages_wanted(ids.len()) > self.pool.free() && self.reclaim() {}
            if !step.push(sequence, &mut self.pool, &ids, draw) {
                let (wanted, free) = (tokens.len(), start + self.pool.free() * PAGE);
                return Err(Error::Memory(format!("{wanted} tokens do not fit into the cache: {free} are free")));
            }
            self.executor.submit(&step)?;
            let rows = self.executor.collect()?.logits;
            rows.into_iter().enumerate().for_each(|(i, row)| each(start.max(first) + i, row));
        }
        Ok(())
    }
}
