//! What [`super::ModelContainer::perform`] gives access to.

use super::{ModelConfiguration, UserInputProcessor, parameters::Files};
use crate::{
    Error, LmInput, PromptCache, Result,
    adapter::Adapter,
    exec::{
        Capacity, Draw, Executor, ImageStore, Lead, Media, MemoryUse, PAGE, Pool, RopeLengths, Sequence, Step, Token,
    },
    text::Tokenizer,
};
use std::{ops::Range, sync::Arc};

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
    /// When its sequences have to be computed anew.
    pub(crate) ropes: RopeLengths,
    pub(crate) files: Option<Files>,
    /// Whether its weights have changed and what the caches hold has not.
    pub(crate) is_changed: bool,
    /// Its adapters, in the order of their numbers.
    pub(crate) adapters: Vec<Adapter>,
    /// A smaller model that guesses what this one will say.
    pub(crate) draft: Option<Box<Model>>,
    /// Prompt caches that may hold pages of the pool, the one that was used last at the end.
    pub(crate) caches: Vec<PromptCache>,
    /// Images whose rows the executor holds.
    pub(crate) images: ImageStore,
}

impl Model {
    pub(crate) fn new(executor: Box<dyn Executor>) -> Model {
        let pool = Pool::new(executor.capacity().pages);
        let images = ImageStore::new(executor.image_rows());
        let (files, draft) = (None, None);
        Model {
            executor,
            pool,
            ropes: RopeLengths::default(),
            files,
            is_changed: false,
            adapters: Vec::new(),
            draft,
            caches: Vec::new(),
            images,
        }
    }

    /// With sequences that begin with pages in full.
    pub(crate) fn with_lead(self, lead: Lead) -> Model {
        let pool = Pool::with_lead(self.capacity().pages, lead);
        Model { pool, ..self }
    }

    /// With ropes that depend on the length of sequences.
    pub(crate) fn with_ropes(self, ropes: RopeLengths) -> Model {
        Model { ropes, ..self }
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

    /// How many of a sequence's next tokens may go into a step: `most`, unless that cuts what sees each other (then more, up
    /// to `rows`, if it begins with such a run), or there is no room for the images that they stand for. Has the tower
    /// compute those that are not there.
    pub(crate) fn see(&mut self, sequence: &mut Sequence, most: usize, rows: usize) -> Result<usize> {
        let Some(media) = sequence.media.clone() else { return Ok(most) };
        let start = sequence.fed();
        let mut end = media.whole(start, start + most, start + rows);
        for i in media.within(start..end) {
            let (image, first) = (&media.images[i].patches, media.images[i].range().start);
            match self.images.place(image.hash(), image.tokens) {
                Some((at, is_there)) => {
                    if !is_there && let Err(e) = self.executor.see(image, at) {
                        self.images.forget(image.hash());
                        return Err(e);
                    }
                    sequence.image_rows[i] = at as u32;
                }
                None => {
                    end = if start < media.prefix { start } else { first.max(start) };
                    break;
                }
            }
        }
        Ok(end - start)
    }

    /// How often the tower has computed an image.
    pub fn tower_runs(&self) -> usize {
        self.images.runs()
    }

    /// What the tower makes of each image of a prompt, [rows, dim] one below the other.
    ///
    /// # Errors
    /// Whatever the device says.
    pub fn image_embeddings(&mut self, media: &Media) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        for image in media.images.iter().map(|i| &i.patches) {
            self.images.turn();
            let too_large = || Error::Request(format!("an image of {} tokens: there is no room for it", image.tokens));
            let (at, is_there) = self.images.place(image.hash(), image.tokens).ok_or_else(too_large)?;
            if !is_there && let Err(e) = self.executor.see(image, at) {
                self.images.forget(image.hash());
                return Err(e);
            }
            let made = self.executor.read_image_rows(at..at + image.tokens)?;
            let width = made.len() / image.tokens.max(1);
            rows.extend((0..image.tokens).flat_map(|token| &made[image.row(token) * width..][..width]));
        }
        Ok(rows)
    }

    /// As [`Model::forward`], for a prompt with images.
    ///
    /// # Errors
    /// As for [`Model::forward`].
    pub fn forward_input(&mut self, input: &LmInput, chunk: usize) -> Result<Vec<f32>> {
        self.forward_input_with(None, input, chunk)
    }

    /// As [`Model::forward_input`], with an adapter.
    ///
    /// # Errors
    /// As for [`Model::forward_with`].
    pub fn forward_input_with(&mut self, adapter: Option<&str>, input: &LmInput, chunk: usize) -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(input.tokens.len() * self.vocabulary());
        let mut sequence = Sequence::new(0, input.tokens.len()).with_adapter(self.adapter_number(adapter)?);
        sequence.set_media(input.media.clone());
        let done = self.run(&mut sequence, &input.tokens, chunk, 0, |_, row| logits.extend(row));
        self.pool.release(sequence);
        done.map(|()| logits)
    }

    /// Entries of a row of logits.
    pub fn vocabulary(&self) -> usize {
        self.executor.vocabulary()
    }

    /// What fits into a step and into the cache.
    pub fn capacity(&self) -> Capacity {
        self.executor.capacity()
    }

    /// What it takes of its device's memory, its draft model included.
    pub fn memory(&self) -> MemoryUse {
        let own = self.executor.memory();
        self.draft.as_ref().map_or(own, |draft| own + draft.memory())
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
        self.forward_with(None, tokens, chunk)
    }

    /// As [`Model::forward`], with an adapter.
    ///
    /// # Errors
    /// As for [`Model::forward`], and [`Error::Request`] if there is no such adapter.
    pub fn forward_with(&mut self, adapter: Option<&str>, tokens: &[u32], chunk: usize) -> Result<Vec<f32>> {
        let mut sequence = Sequence::new(0, tokens.len()).with_adapter(self.adapter_number(adapter)?);
        let mut logits = Vec::with_capacity(tokens.len() * self.vocabulary());
        let done = self.run(&mut sequence, tokens, chunk, 0, |_, row| logits.extend(row));
        self.pool.release(sequence);
        done.map(|()| logits)
    }

    /// As [`Model::forward_with`], but gives the logits after token `first` and those behind it, one row
    /// after the other, each with its token's index.
    ///
    /// # Errors
    /// As for [`Model::forward_with`].
    pub fn forward_each(
        &mut self,
        adapter: Option<&str>,
        tokens: &[u32],
        chunk: usize,
        first: usize,
        each: impl FnMut(usize, Vec<f32>),
    ) -> Result<()> {
        let mut sequence = Sequence::new(0, tokens.len()).with_adapter(self.adapter_number(adapter)?);
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
            self.images.turn();
            match self.see(sequence, end - start, capacity.rows)? {
                0 => {
                    let rows = capacity.rows;
                    return Err(Error::Request(format!("no step of {rows} rows has room for an image of the prompt")));
                }
                known => end = start + known,
            }
            // Tokens that see each other share a step, which may have fewer outputs than rows: it is run again for the rest.
            let mut from = start.max(first);
            loop {
                let outputs = from..end.min(from + capacity.outputs);
                self.step(sequence, tokens, end, &outputs, &mut each)?;
                from = outputs.end;
                if from >= end {
                    break;
                }
                sequence.truncate(start, &mut self.pool);
            }
        }
        Ok(())
    }

    /// Runs the tokens up to `end` that a sequence has not been fed yet, and gives the logits after those of `outputs`.
    fn step(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        end: usize,
        outputs: &Range<usize>,
        each: &mut impl FnMut(usize, Vec<f32>),
    ) -> Result<()> {
        let start = sequence.len();
        let ids: Vec<Token> = tokens[start..end].iter().map(|t| Token::Id(*t)).collect();
        let mut step = Step::default();
        let draw = |i: usize| outputs.contains(&(start + i)).then_some(Draw { logits: true, ..Draw::default() });
        while self.pool.lacks(sequence, ids.len()) && self.reclaim() {}
        if !step.push(sequence, &mut self.pool, &ids, draw) {
            let (wanted, free) = (tokens.len(), start + self.pool.free() * PAGE);
            return Err(Error::Memory(format!("{wanted} tokens do not fit into the cache: {free} are free")));
        }
        self.executor.submit(&step)?;
        let rows = self.executor.collect()?.logits;
        rows.into_iter().zip(outputs.start..).for_each(|(row, i)| each(i, row));
        Ok(())
    }
}
