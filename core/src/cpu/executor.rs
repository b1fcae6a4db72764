//! One model on the processor.

use super::{
    Instructions,
    matrix::CpuMatrix,
    multiply::How,
    threads::pool,
    values::{Context, Memory, Model},
};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, Executor, PAGE, Step, StepResult, Token, rope_table},
    gpu::Precision,
    program::{Op, Program, custom, plan::plan},
    reference::ops,
    weights::fold,
};
use half::f16;
use rayon::{ThreadPool, prelude::*};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use tamarack_api::{Sym, WeightId};

/// How a model is to run on the processor.
#[derive(Clone, Copy, Debug)]
pub struct CpuSettings {
    /// What its kernels are made of.
    pub instructions: Instructions,
    /// Threads; `None` is one for each physical core.
    pub threads: Option<usize>,
    /// `Full` keeps activations in f32; else they are rounded to 16 bits where weights are integers.
    pub precision: Precision,
}

impl CpuSettings {
    /// The best instructions that there are, or those that the environment names.
    ///
    /// # Errors
    /// The processor does not have what the environment names.
    pub fn new() -> Result<CpuSettings> {
        Ok(CpuSettings { instructions: Instructions::chosen()?, threads: None, precision: Precision::default() })
    }
}

/// Runs a program on the processor's cores.
pub struct CpuExecutor {
    model: Model,
    memory: Memory,
    pool: Arc<ThreadPool>,
    capacity: Capacity,
    sampled: Vec<u32>,
    done: VecDeque<StepResult>,
}

impl CpuExecutor {
    /// Packs the weights, and makes room for steps up to `capacity`.
    ///
    /// # Errors
    /// The model does not fit, or has an op that only a GPU can run.
    pub fn load(
        settings: CpuSettings,
        program: Program,
        checkpoint: &Checkpoint,
        capacity: Capacity,
    ) -> Result<CpuExecutor> {
        custom::check_plain(&program)?;
        let rows = |sym| if sym == Sym::Tokens { capacity.rows } else { capacity.outputs };
        let plan = plan(&program, rows)?;
        let pool = pool(settings.threads)?;
        let (matrices, vectors) = pool.install(|| pack(&program, checkpoint))?;
        let slots = capacity.pages * PAGE;
        let memory = Memory {
            buffers: plan.buffers.iter().map(|bytes| vec![0.0; *bytes as usize / size_of::<f32>()]).collect(),
            caches: program.caches.iter().map(|c| vec![f16::ZERO; slots * c.width()]).collect(),
        };
        let how = How { instructions: settings.instructions, rounded: settings.precision != Precision::Full };
        let model = Model { program, plan, matrices, vectors, how };
        Ok(CpuExecutor { model, memory, pool, capacity, sampled: vec![0; capacity.slots], done: VecDeque::new() })
    }

    /// Bytes of weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        let vectors = self.model.vectors.values().map(|v| size_of_val(&v[..]) as u64).sum::<u64>();
        vectors + self.model.matrices.values().map(|m| m.bytes() as u64).sum::<u64>()
    }

    fn run(&mut self, step: &Step) -> Result<StepResult> {
        step.check(&self.capacity, self.vocabulary())?;
        let token = |t: &Token| match *t {
            Token::Id(id) => id,
            Token::Sampled(slot) => self.sampled[slot as usize],
        };
        let context = Context {
            step,
            tokens: step.rows.iter().map(|r| token(&r.token)).collect(),
            ropes: self.model.program.ropes.iter().map(|r| rope_table(r, &step.rows)).collect(),
        };
        let (model, memory, pool) = (&self.model, &mut self.memory, &self.pool);
        let result = pool.install(|| {
            model.run(memory, &context)?;
            let logits = model.values(memory, model.program.output)?;
            let mut result = StepResult::default();
            for (i, o) in step.outputs.iter().enumerate() {
                let row = logits.row(i);
                result.tokens.push(sample(&row, o.inv_temperature, o.seed, o.counter));
                result.logits.push(if o.logits { row.into_owned() } else { Vec::new() });
            }
            Ok::<_, Error>(result)
        })?;
        for (o, token) in step.outputs.iter().zip(&result.tokens) {
            self.sampled[o.slot as usize] = *token;
        }
        Ok(result)
    }
}

/// As [`ops::sample`], the draws shared out among threads.
fn sample(logits: &[f32], inv_temperature: f32, seed: u32, counter: u32) -> u32 {
    const PART: usize = 4096;
    let value = |i: usize, l: f32| match inv_temperature {
        0.0 => l,
        by => l * by - (-ops::uniform(seed, counter, i as u32).ln()).ln(),
    };
    let best = |(part, logits): (usize, &[f32])| {
        let all = logits.iter().enumerate().map(|(i, l)| (value(part * PART + i, *l), part * PART + i));
        all.fold((f32::NEG_INFINITY, usize::MAX), |best, new| if new.0 > best.0 { new } else { best })
    };
    // Of equal ones the first.
    let better = |a: (f32, usize), b: (f32, usize)| if b.0 > a.0 || b.0 == a.0 && b.1 < a.1 { b } else { a };
    let nothing = || (f32::NEG_INFINITY, usize::MAX);
    let best = logits.par_chunks(PART).enumerate().map(best).reduce(nothing, better).1;
    if best == usize::MAX { 0 } else { best as u32 }
}

type Packed = (HashMap<WeightId, CpuMatrix>, HashMap<WeightId, Vec<f32>>);

/// All weights that nodes use.
fn pack(program: &Program, checkpoint: &Checkpoint) -> Result<Packed> {
    let (matrix_ids, vector_ids) = program.used_weights();
    // Experts and heads have a matrix each, one below the other.
    let apart = |id: &WeightId| {
        program.nodes.iter().find_map(|node| match &node.op {
            Op::ExpertUp(up) if up.weight == *id => Some(program.weight_shape(*id)[1]),
            Op::ExpertDown(down) if down.weight == *id => Some(program.weight_shape(*id)[1]),
            Op::HeadLinear(heads) if heads.weight == *id => Some(program.weight_shape(*id)[1]),
            _ => None,
        })
    };
    let matrix = |id: WeightId| {
        let folded = fold(&program.weights, id, checkpoint)?;
        Ok((id, CpuMatrix::load(&folded, apart(&id).unwrap_or(usize::MAX))?))
    };
    let vector = |id: WeightId| Ok((id, fold(&program.weights, id, checkpoint)?.values()));
    Ok((
        matrix_ids.into_iter().map(matrix).collect::<Result<_>>()?,
        vector_ids.into_iter().map(vector).collect::<Result<_>>()?,
    ))
}

impl Executor for CpuExecutor {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn vocabulary(&self) -> usize {
        self.model.program.width(self.model.program.output)
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        let result = self.run(step)?;
        self.done.push_back(result);
        Ok(())
    }

    fn collect(&mut self) -> Result<StepResult> {
        self.done.pop_front().ok_or_else(|| Error::Request("no step was submitted".to_owned()))
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        self.model.program.cache_widths()
    }

    fn read_cache(&mut self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        let width = self.cache_widths()[cache].iter().sum::<usize>() * PAGE;
        let page = |p: &u32| &self.memory.caches[cache][*p as usize * width..][..width];
        Ok(pages.iter().flat_map(page).map(|v| v.to_f32()).collect())
    }

    fn write_cache(&mut self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let width = self.cache_widths()[cache].iter().sum::<usize>() * PAGE;
        for (page, rows) in pages.iter().zip(rows.chunks_exact(width)) {
            let kept = &mut self.memory.caches[cache][*page as usize * width..][..width];
            kept.iter_mut().zip(rows).for_each(|(to, v)| *to = f16::from_f32(*v));
        }
        Ok(())
    }

    fn device(&self) -> String {
        let (threads, instructions) = (self.pool.current_num_threads(), self.model.how.instructions);
        format!("cpu ({instructions}, {threads} thread{})", if threads == 1 { "" } else { "s" })
    }
}
