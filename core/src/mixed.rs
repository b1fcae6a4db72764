//! One model on two devices: the processor computes its first layers, a GPU the others and the tokens.
//!
//! The first layers have the embeddings and the images, the last ones the output's matrix, which is large. What goes
//! from one to the other are rows as wide as the model, a few KB a token.

use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings},
    exec::{Capacity, Executor, ImagePatches, MemoryUse, Step, StepResult, Token},
    gpu::{Gpu, WgpuExecutor},
    program::{CacheId, Split},
};
use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

/// Runs a program's first part on the processor, its second on a GPU.
pub struct MixedExecutor {
    front: CpuExecutor,
    back: WgpuExecutor,
    caches: [Vec<CacheId>; 2],
    /// The slots of the steps that the GPU has not been asked for yet.
    waiting: VecDeque<Vec<u32>>,
    done: VecDeque<StepResult>,
    sampled: Vec<u32>,
}

impl MixedExecutor {
    /// Copies the weights of both parts, each to its device.
    ///
    /// # Errors
    /// A part does not fit.
    pub fn load(
        settings: CpuSettings,
        gpu: Gpu,
        split: Split,
        checkpoint: &Checkpoint,
        capacity: Capacity,
        report: &dyn Fn(u64),
    ) -> Result<MixedExecutor> {
        let front = CpuExecutor::load(settings, split.front, checkpoint, capacity)?;
        let there = front.weight_bytes();
        let report = |bytes| report(there + bytes);
        let back = WgpuExecutor::load_reporting(gpu, split.back, checkpoint, capacity, &report)?;
        let (waiting, done, sampled) = (VecDeque::new(), VecDeque::new(), vec![0; capacity.slots]);
        Ok(MixedExecutor { front, back, caches: [split.front_caches, split.back_caches], waiting, done, sampled })
    }

    /// With a tower: the processor's, as images are put into the first layers.
    ///
    /// # Errors
    /// As for [`CpuExecutor::with_tower`].
    pub fn with_tower(self, tower: CpuExecutor) -> Result<MixedExecutor> {
        Ok(MixedExecutor { front: self.front.with_tower(tower)?, ..self })
    }

    /// What [`Executor::memory`] will say of the same arguments.
    ///
    /// # Errors
    /// A part cannot be planned.
    pub fn estimate(gpu: &Gpu, split: &Split, checkpoint: &Checkpoint, capacity: &Capacity) -> Result<MemoryUse> {
        let front = CpuExecutor::estimate(&split.front, checkpoint, capacity)?;
        Ok(front + MixedExecutor::on_gpu(gpu, split, checkpoint, capacity)?)
    }

    /// The GPU's part of it.
    ///
    /// # Errors
    /// The part cannot be planned.
    pub fn on_gpu(gpu: &Gpu, split: &Split, checkpoint: &Checkpoint, capacity: &Capacity) -> Result<MemoryUse> {
        WgpuExecutor::estimate(gpu, &split.back, checkpoint, capacity)
    }

    /// Waits for the oldest step, and notes what it sampled.
    fn next(&mut self) -> Result<Option<StepResult>> {
        let Some(slots) = self.waiting.pop_front() else { return Ok(None) };
        let result = self.back.collect()?;
        for (slot, token) in slots.iter().zip(&result.tokens) {
            self.sampled[*slot as usize] = *token;
        }
        Ok(Some(result))
    }

    /// The step with all tokens known.
    fn known(&mut self, step: &Step) -> Result<Step> {
        let is_sampled = |t: &Token| matches!(t, Token::Sampled(_));
        if step.rows.iter().any(|row| is_sampled(&row.token)) {
            while let Some(result) = self.next()? {
                self.done.push_back(result);
            }
        }
        let mut step = step.clone();
        for row in &mut step.rows {
            if let Token::Sampled(slot) = row.token {
                row.token = Token::Id(self.sampled[slot as usize]);
            }
        }
        Ok(step)
    }

    /// The part that has a cache, and its number there.
    fn part(&mut self, cache: CacheId) -> (&mut dyn Executor, CacheId) {
        match self.caches[0].binary_search(&cache) {
            Ok(own) => (&mut self.front, own),
            Err(before) => (&mut self.back, cache - before),
        }
    }
}

impl Executor for MixedExecutor {
    fn capacity(&self) -> Capacity {
        self.back.capacity()
    }

    fn vocabulary(&self) -> usize {
        self.back.vocabulary()
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        step.check(&self.capacity(), self.vocabulary())?;
        let step = self.known(step)?;
        let rows = self.front.hand_on(&step, &[])?;
        self.back.submit_carried(&step, &rows)?;
        self.waiting.push_back(step.outputs.iter().map(|o| o.slot).collect());
        Ok(())
    }

    fn collect(&mut self) -> Result<StepResult> {
        let next = match self.done.pop_front() {
            Some(done) => Some(done),
            None => self.next()?,
        };
        next.ok_or_else(|| Error::Request("no step was submitted".to_owned()))
    }

    fn image_rows(&self) -> usize {
        self.front.image_rows()
    }

    fn patches(&self) -> usize {
        self.front.patches()
    }

    fn see(&mut self, image: &ImagePatches, at: usize) -> Result<()> {
        self.front.see(image, at)
    }

    fn read_image_rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>> {
        self.front.read_image_rows(rows)
    }

    fn memory(&self) -> MemoryUse {
        self.front.memory() + self.back.memory()
    }

    fn update(&mut self, checkpoint: &Checkpoint, changed: &BTreeSet<String>) -> Result<()> {
        let front = self.front.changed(checkpoint, changed)?;
        self.back.update(checkpoint, changed)?;
        self.front.replace(front);
        Ok(())
    }

    fn compile(&mut self, report: &dyn Fn(u64, u64)) -> Result<()> {
        self.back.compile(report)
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        let parts = [self.front.cache_widths(), self.back.cache_widths()];
        let mut all: Vec<(CacheId, [usize; 2])> = self.caches.iter().flatten().copied().zip(parts.concat()).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, widths)| widths).collect()
    }

    fn read_cache(&mut self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        let (part, own) = self.part(cache);
        part.read_cache(own, pages)
    }

    fn write_cache(&mut self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let (part, own) = self.part(cache);
        part.write_cache(own, pages, rows)
    }

    fn device(&self) -> String {
        let [front, back] = [0, 1].map(|part| self.caches[part].len());
        format!("{front} layers on {}, {back} on {}", self.front.device(), self.back.device())
    }

    fn is_software(&self) -> bool {
        self.back.is_software()
    }

    fn lost(&self) -> Option<Error> {
        self.back.lost()
    }

    fn lose(&mut self) {
        self.back.lose();
    }
}
