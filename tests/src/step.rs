//! A step over several sequences, and the step buffer that says so.

use crate::gpu::random;
use tamarack_kernels::step::*;

/// A sequence's share of a step.
#[derive(Clone, Copy)]
pub struct Sequence {
    /// Keys that are in its cache after the step.
    pub context: u32,
    /// How many of the last ones are rows of this step.
    pub rows: u32,
}

/// A row of a step.
#[derive(Clone, Copy)]
pub struct Row {
    /// Which sequence it belongs to.
    pub sequence: usize,
    /// Where it stands in it.
    pub position: u32,
}

/// A step, whose sequences lie on shuffled pages.
#[derive(Clone)]
pub struct Step {
    /// The step buffer.
    pub words: Vec<u32>,
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// The sequences, in order.
    pub sequences: Vec<Sequence>,
    /// How many slots the cache has; some belong to no sequence.
    pub slots: u32,
    pages: Vec<Vec<u32>>,
}

impl Step {
    /// A step over `sequences`, attention in `splits` parts of `split_keys` keys.
    pub fn new(sequences: &[Sequence], splits: u32, split_keys: u32) -> Step {
        let needed: Vec<u32> = sequences.iter().map(|s| s.context.div_ceil(PAGE)).collect();
        let total = needed.iter().sum::<u32>() + 3;
        let mut free: Vec<u32> = (0..total).collect();
        let keys = random(u64::from(total), total as usize);
        free.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
        let pages: Vec<Vec<u32>> = needed.iter().map(|n| free.split_off(free.len() - *n as usize)).collect();

        let mut step = Step {
            words: vec![0; HEADER_WORDS as usize],
            rows: Vec::new(),
            sequences: sequences.to_vec(),
            slots: total * PAGE,
            pages,
        };
        let mut table = 0;
        for (i, sequence) in sequences.iter().enumerate() {
            let first = step.rows.len() as u32;
            for position in sequence.context - sequence.rows..sequence.context {
                step.rows.push(Row { sequence: i, position });
                let mut record = [0; ROW_WORDS as usize];
                record[ROW_POSITION as usize] = position;
                record[ROW_SLOT as usize] = step.slot(i, position);
                record[ROW_TABLE as usize] = table;
                record[ROW_END as usize] = position + 1;
                record[ROW_FIRST as usize] = first;
                step.words.extend(record);
            }
            table += needed[i];
        }
        let pages_at = step.words.len() as u32;
        step.words.extend(step.pages.iter().flatten());
        let header = [step.rows.len() as u32, 0, splits, split_keys, 0, 0, pages_at, 0];
        step.words[..HEADER_WORDS as usize].copy_from_slice(&header);
        step
    }

    /// The same with the first pages of each sequence in full, each in place of `run` others.
    pub fn with_full(mut self, count: usize, run: u32) -> Step {
        let mut next = (self.slots / PAGE).next_multiple_of(run);
        for page in self.pages.iter_mut().flat_map(|pages| pages.iter_mut().take(count)) {
            *page = next | FULL_PAGE;
            next += run;
        }
        self.slots = next * PAGE;
        for r in 0..self.rows.len() {
            let Row { sequence, position } = self.rows[r];
            self.set(r, ROW_SLOT, self.slot(sequence, position));
        }
        let table: Vec<u32> = self.pages.concat();
        let at = self.words[PAGES_AT as usize] as usize;
        self.words[at..at + table.len()].copy_from_slice(&table);
        self
    }

    /// The cache slot of a position, flagged where its page is in full.
    pub fn slot(&self, sequence: usize, position: u32) -> u32 {
        self.pages[sequence][(position / PAGE) as usize] * PAGE + position % PAGE
    }

    /// One past the last position that a row sees.
    pub fn end(&self, row: usize) -> u32 {
        self.word(row, ROW_END)
    }

    /// A word of a row's record.
    pub fn word(&self, row: usize, field: u32) -> u32 {
        self.words[HEADER_WORDS as usize + row * ROW_WORDS as usize + field as usize]
    }

    /// Changes a word of a row's record.
    pub fn set(&mut self, row: usize, field: u32, value: u32) {
        self.words[HEADER_WORDS as usize + row * ROW_WORDS as usize + field as usize] = value;
    }
}
