//! Running steps, and the clock.

use super::profile::Profile;
use clap::{Args, builder::RangedU64ValueParser};
use serde::Serialize;
use std::time::Instant;
use tamarack::{
    Error, Result,
    exec::{Draw, Executor, Pool, Sequence, Step, Token},
    gpu::WgpuExecutor,
};

/// Seconds that a device runs before anything counts: its clocks are low at first.
const WARM_UP: f64 = 0.3;

/// What is run.
#[derive(Args, Serialize, Clone)]
pub struct Workload {
    /// Tokens in the prompt of each sequence
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = number(0))]
    pub prompt: usize,
    /// Tokens to generate for each sequence
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = number(0))]
    pub generate: usize,
    /// Tokens that are in the cache before, one measurement for each number
    #[arg(long, value_name = "N,..", default_value = "0,4096", value_delimiter = ',', value_parser = number(0))]
    pub depth: Vec<usize>,
    /// Sequences that run together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1))]
    pub batch: usize,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = number(1))]
    pub repetitions: usize,
}

/// Numbers of at least `min`, and small enough to multiply with.
pub fn number(min: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min..=1 << 24)
}

impl Workload {
    /// Tokens that a sequence has in the end, at most.
    pub fn longest(&self) -> usize {
        let depth = self.depth.iter().max().copied().unwrap_or(0);
        depth.saturating_add(self.prompt.max(self.generate))
    }
}

/// Sequences that grow together.
struct Batch {
    pool: Pool,
    sequences: Vec<Sequence>,
}

/// Runs a workload on an executor.
pub struct Runner<'a, E: Executor> {
    executor: &'a mut E,
    workload: &'a Workload,
}

impl Runner<'_, WgpuExecutor> {
    /// Where the time of one step of prefill and one of decoding goes.
    pub fn profiles(&mut self, depth: usize) -> Result<Vec<Profile>> {
        let rows = self.workload.prompt.min(self.executor.capacity().rows / self.workload.batch);
        let mut all = Vec::new();
        for (name, rows) in [("prefill", rows), ("decode", self.workload.generate.min(1))] {
            if rows == 0 {
                continue;
            }
            let mut batch = self.at(depth)?;
            let mut step = Step::default();
            for i in 0..self.workload.batch {
                let tokens = self.tokens(i, depth, rows);
                batch.push(i, &mut step, &tokens, true)?;
            }
            all.push(Profile::of(name, step.rows.len(), || self.executor.profile(&step))?);
        }
        Ok(all)
    }
}

impl<'a, E: Executor> Runner<'a, E> {
    /// Nothing runs yet.
    pub fn new(executor: &'a mut E, workload: &'a Workload) -> Runner<'a, E> {
        Runner { executor, workload }
    }

    /// Seconds until the prompts' first tokens: kernels that run for the first time are compiled.
    pub fn first_token(&mut self) -> Result<f64> {
        let mut batch = self.batch();
        self.prefill(&mut batch, self.workload.prompt)
    }

    /// Seconds of each repetition's prefill and decoding, on top of `depth` tokens.
    pub fn measure(&mut self, depth: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let mut batch = self.batch();
        self.prefill(&mut batch, depth)?;
        let start = Instant::now();
        loop {
            self.once(depth)?;
            if start.elapsed().as_secs_f64() > WARM_UP {
                break;
            }
        }
        let all: Result<Vec<(f64, f64)>> = (0..self.workload.repetitions).map(|_| self.once(depth)).collect();
        Ok(all?.into_iter().unzip())
    }

    /// One prefill and one decoding, each on top of `depth` tokens that are in the cache.
    fn once(&mut self, depth: usize) -> Result<(f64, f64)> {
        let mut batch = self.at(depth)?;
        let prefill = self.prefill(&mut batch, self.workload.prompt)?;
        let mut batch = self.at(depth)?;
        Ok((prefill, self.decode(&mut batch, self.workload.generate)?))
    }

    fn batch(&self) -> Batch {
        let length = self.workload.longest();
        let sequence = |slot| Sequence::new(slot as u32, length);
        let pool = Pool::new(self.executor.capacity().pages);
        Batch { pool, sequences: (0..self.workload.batch).map(sequence).collect() }
    }

    /// Sequences of `depth` tokens. They take the same pages each time, and what once was written
    /// there is still there: nothing writes before `depth`.
    fn at(&self, depth: usize) -> Result<Batch> {
        let mut batch = self.batch();
        self.steps(&mut batch, depth)?;
        Ok(batch)
    }

    /// Runs `count` more tokens of each sequence; the seconds until all of them have a next token.
    fn prefill(&mut self, batch: &mut Batch, count: usize) -> Result<f64> {
        let steps = self.steps(batch, count)?;
        let start = Instant::now();
        self.run(steps)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The same for tokens that the device samples itself, one after the other.
    fn decode(&mut self, batch: &mut Batch, count: usize) -> Result<f64> {
        let mut steps = Vec::new();
        for i in 0..count {
            let mut step = Step::default();
            for slot in 0..self.workload.batch {
                let first = self.tokens(slot, batch.sequences[slot].len(), 1);
                let sampled = [Token::Sampled(slot as u32)];
                batch.push(slot, &mut step, if i == 0 { &first } else { &sampled }, true)?;
            }
            steps.push(step);
        }
        let start = Instant::now();
        self.run(steps)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Each step is submitted before the results of the one before are waited for.
    fn run(&mut self, steps: Vec<Step>) -> Result<()> {
        let count = steps.len();
        for (i, step) in steps.iter().enumerate() {
            self.executor.submit(step)?;
            if i > 0 {
                self.executor.collect()?;
            }
        }
        if count > 0 {
            self.executor.collect()?;
        }
        Ok(())
    }

    /// Steps, as full as they get, that feed `count` tokens of each sequence.
    fn steps(&self, batch: &mut Batch, count: usize) -> Result<Vec<Step>> {
        let rows = self.executor.capacity().rows;
        let (mut steps, mut step) = (Vec::new(), Step::default());
        for i in 0..self.workload.batch {
            let tokens = self.tokens(i, batch.sequences[i].len(), count);
            let mut left = &tokens[..];
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(rows - step.rows.len()));
                batch.push(i, &mut step, now, later.is_empty())?;
                left = later;
                if step.rows.len() == rows {
                    steps.push(std::mem::take(&mut step));
                }
            }
        }
        if !step.rows.is_empty() {
            steps.push(step);
        }
        Ok(steps)
    }

    /// Tokens of all over the vocabulary, as a real text's are.
    fn tokens(&self, sequence: usize, start: usize, count: usize) -> Vec<Token> {
        let vocabulary = self.executor.vocabulary() as u64;
        // Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4).
        let id = |i: usize| ((sequence * 1_000_003 + i) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (start..start + count).map(|i| Token::Id((id(i) % vocabulary) as u32)).collect()
    }
}

impl Batch {
    /// Adds tokens of sequence `i`; with `draw`, the last one's successor is sampled.
    fn push(&mut self, i: usize, step: &mut Step, tokens: &[Token], draw: bool) -> Result<()> {
        let last = |j: usize| (draw && j + 1 == tokens.len()).then(Draw::default);
        if step.push(&mut self.sequences[i], &mut self.pool, tokens, last) {
            Ok(())
        } else {
            Err(Error::Memory("the cache has no page left".to_owned()))
        }
    }
}
