//! What runs a program: one step is rows of any number of sequences, each with its own position and
//! its own pages of the cache. A single chat is the batch of one.

mod kept;
mod lost;
mod media;
mod rope;
mod sequence;

pub use kept::{pack, unpack};
pub(crate) use lost::Lost;
pub use media::{ImageHash, ImagePatches, ImageStore, Media, PlacedImage};
pub use rope::{RopeLengths, rope_table};
pub use sequence::{Draw, Lead, Pool, Sequence};

use crate::{Error, Result, checkpoint::Checkpoint};
use std::collections::BTreeSet;
use tamarack_kernels::step::FULL_PAGE;

/// Tokens in one page of the cache.
pub const PAGE: usize = tamarack_kernels::step::PAGE as usize;

/// What one step computes.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Step {
    /// Token rows. Those of one sequence are adjacent and in order.
    pub rows: Vec<Row>,
    /// The rows whose logits are wanted, in the order of their rows.
    pub outputs: Vec<Output>,
    /// Page tables of the step's sequences, one after the other: physical pages, those in full flagged
    /// ([`tamarack_kernels::step::FULL_PAGE`]).
    pub pages: Vec<u32>,
}

/// One token of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Its id.
    pub token: Token,
    /// Its place in its sequence's cache.
    pub index: u32,
    /// One past the last place in the cache that it looks at.
    pub end: u32,
    /// Whether it looks at all places before that, whatever a window says.
    pub is_whole: bool,
    /// Its position as rotary embeddings see it: the same on all axes, but for the tokens of images.
    pub position: [u32; 3],
    /// The row among those of images that it stands for, see [`Executor::see`].
    pub image: Option<u32>,
    /// Where its sequence's pages begin in [`Step::pages`].
    pub table: u32,
    /// The step's first row of the same sequence.
    pub first: u32,
    /// The length that chooses length-dependent ropes: that for which its sequence was admitted, or its own where that is
    /// longer.
    pub length: u32,
    /// Which of the model's adapters it has, counted from 1; 0 is none.
    pub adapter: u32,
}

/// Where a token id comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The host knows it.
    Id(u32),
    /// The last one sampled for this slot, which the host may not have seen yet.
    Sampled(u32),
}

/// A row whose logits are wanted, and what is made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Output {
    /// Which row.
    pub row: u32,
    /// The slot that keeps the sampled token: one per running sequence.
    pub slot: u32,
    /// 1 / temperature; 0 takes the most likely token.
    pub inv_temperature: f32,
    /// The seed of the sequence's random numbers.
    pub seed: u32,
    /// Tokens that the sequence has sampled before.
    pub counter: u32,
    /// Whether the host wants the logits themselves.
    pub logits: bool,
}

/// What a step gives, in the order of its outputs.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct StepResult {
    /// The sampled tokens.
    pub tokens: Vec<u32>,
    /// The logits of each output that asked for them; empty for the others.
    pub logits: Vec<Vec<f32>>,
}

/// What an executor was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Rows in a step.
    pub rows: usize,
    /// Outputs in a step.
    pub outputs: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Sequences that may sample: valid values of [`Output::slot`].
    pub slots: usize,
}

/// What a model takes of a device's memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct MemoryUse {
    /// Its weights.
    pub weights: u64,
    /// Keys and values of all sequences.
    pub kv: u64,
    /// What lies between operations, and all else.
    pub workspace: u64,
}

impl std::ops::Add for MemoryUse {
    type Output = MemoryUse;

    fn add(self, other: MemoryUse) -> MemoryUse {
        MemoryUse {
            weights: self.weights + other.weights,
            kv: self.kv + other.kv,
            workspace: self.workspace + other.workspace,
        }
    }
}

impl MemoryUse {
    /// With what a tower takes, and the rows that it has made.
    pub(crate) fn with_tower(self, tower: MemoryUse, images: u64) -> MemoryUse {
        let workspace = self.workspace + tower.workspace + tower.kv + images;
        MemoryUse { weights: self.weights + tower.weights, workspace, ..self }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.workspace
    }
}

/// Runs the steps of one model on one device. Steps run in the order in which they are submitted.
pub trait Executor: Send {
    /// What it was built for.
    fn capacity(&self) -> Capacity;

    /// Entries of a row of logits.
    fn vocabulary(&self) -> usize;

    /// Begins a step, and returns before it is done where the device works on its own.
    fn submit(&mut self, step: &Step) -> Result<()>;

    /// Waits for the oldest submitted step that has not been collected.
    fn collect(&mut self) -> Result<StepResult>;

    /// Rows of images that it has room for; none without a tower.
    fn image_rows(&self) -> usize {
        0
    }

    /// Patches of an image that its tower has room for.
    fn patches(&self) -> usize {
        0
    }

    /// Has the tower compute the rows of an image, which go to the rows of images from `at` on. Steps that are submitted later
    /// find them there.
    fn see(&mut self, _image: &ImagePatches, _at: usize) -> Result<()> {
        Err(Error::Request("the model takes no images".to_owned()))
    }

    /// Some of the rows of images, one after the other: for people.
    fn read_image_rows(&mut self, _rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        Err(Error::Request("the model takes no images".to_owned()))
    }

    /// What it takes of its device's memory.
    fn memory(&self) -> MemoryUse;

    /// Takes over the `changed` tensors of a checkpoint, whose shapes are those of the one that it was loaded from.
    /// Steps that were submitted are done by then.
    ///
    /// # Errors
    /// Nothing has changed where this fails.
    fn update(&mut self, checkpoint: &Checkpoint, changed: &BTreeSet<String>) -> Result<()>;

    /// Makes the kinds of steps ready that every generation has, and says how many of how many are.
    fn compile(&mut self, _report: &dyn Fn(u64, u64)) -> Result<()> {
        Ok(())
    }

    /// Elements that each cache keeps of a token: of its keys, and of its values.
    fn cache_widths(&self) -> Vec<[usize; 2]>;

    /// What a cache keeps in these pages: keys and values of each place, [pages * [`PAGE`], sum of its widths]. Steps
    /// that were submitted are done by then.
    fn read_cache(&mut self, cache: usize, pages: &[u32]) -> Result<Vec<f32>>;

    /// Puts back what [`Executor::read_cache`] gave, into any pages.
    fn write_cache(&mut self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()>;

    /// The device, for people.
    fn device(&self) -> String;

    /// Whether a processor stands in for a GPU.
    fn is_software(&self) -> bool {
        true
    }

    /// That its device was lost: nothing that was submitted will be done, and nothing that was kept is there.
    fn lost(&self) -> Option<Error> {
        None
    }

    /// Gives its device up, as a driver may at any time, if it has one: to see what becomes of a program then.
    fn lose(&mut self) {}
}

impl Step {
    /// Where row `r` keeps its key and value: slots are numbered through all pages, and flagged as they are.
    pub fn slot(&self, row: &Row) -> usize {
        self.slot_at(row, row.index as usize)
    }

    /// The slot of position `index` of the sequence that `row` belongs to.
    pub fn slot_at(&self, row: &Row, index: usize) -> usize {
        self.pages[row.table as usize + index / PAGE] as usize * PAGE + index % PAGE
    }

    /// Checks a step against what the executor can hold, so that no executor has to.
    pub fn check(&self, capacity: &Capacity, vocabulary: usize) -> Result<()> {
        let wrong = |what: String| Err(Error::Request(what));
        if self.rows.len() > capacity.rows || self.outputs.len() > capacity.outputs {
            let (rows, outputs) = (self.rows.len(), self.outputs.len());
            return wrong(format!("a step of {rows} rows and {outputs} outputs, room for {capacity:?}"));
        }
        for row in &self.rows {
            match row.token {
                // An image's token may be none of the table's: its row is replaced.
                Token::Id(id) if id as usize >= vocabulary && row.image.is_none() => {
                    return wrong(format!("token {id} is outside the vocabulary of {vocabulary}"));
                }
                Token::Sampled(slot) if slot as usize >= capacity.slots => return wrong(format!("slot {slot}")),
                _ => {}
            }
            for index in [row.index, row.end.saturating_sub(1)] {
                let page = self.pages.get(row.table as usize + index as usize / PAGE);
                if row.end <= row.index || page.is_none_or(|p| (*p % FULL_PAGE) as usize >= capacity.pages) {
                    return wrong(format!("position {index} of a sequence has no page"));
                }
            }
        }
        let sound = |o: &Output| (o.row as usize) < self.rows.len() && (o.slot as usize) < capacity.slots;
        if self.outputs.iter().all(sound) { Ok(()) } else { wrong("an output names no row or slot".to_owned()) }
    }
}
