//! One model on the processor.

use super::{
    Instructions,
    cache::Kept,
    matrix::CpuMatrix,
    multiply::How,
    threads::pool,
    values::{Context, Memory, Model, Values},
};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, Executor, ImagePatches, MemoryUse, PAGE, Step, StepResult, Token, rope_table},
    gpu::Precision,
    program::{Cache, Op, Program, custom, plan::plan},
    reference::ops,
    weights::fold,
};
use rayon::{ThreadPool, prelude::*};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Range,
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
    tower: Option<Box<CpuExecutor>>,
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
        let (matrices, vectors) = pool.install(|| pack(&program, checkpoint, |_| true))?;
        let slots = capacity.pages * PAGE;
        let memory = Memory {
            buffers: plan.buffers.iter().map(|bytes| vec![0.0; *bytes as usize / size_of::<f32>()]).collect(),
            caches: program.caches.iter().map(|c| Kept::new(c, slots)).collect(),
            images: Vec::new(),
        };
        let how = How { instructions: settings.instructions, rounded: settings.precision != Precision::Full };
        let model = Model { program, plan, matrices, vectors, how };
        let (sampled, done) = (vec![0; capacity.slots], VecDeque::new());
        Ok(CpuExecutor { model, memory, pool, capacity, sampled, done, tower: None })
    }

    /// With a tower, and room for as many rows as it makes of what it takes at most.
    ///
    /// # Errors
    /// The tower makes rows of another width than the text model's.
    pub fn with_tower(mut self, tower: CpuExecutor) -> Result<CpuExecutor> {
        self.model.program.check_tower(tower.vocabulary())?;
        self.memory.images = vec![0.0; tower.capacity.outputs * tower.vocabulary()];
        self.tower = Some(Box::new(tower));
        Ok(self)
    }

    /// Bytes of a slot of a cache.
    pub fn slot_bytes(cache: &Cache) -> usize {
        Kept::slot_bytes(cache)
    }

    /// What [`Executor::memory`] will say of the same arguments.
    ///
    /// # Errors
    /// The model cannot be planned.
    pub fn estimate(program: &Program, checkpoint: &Checkpoint, capacity: &Capacity) -> Result<MemoryUse> {
        let rows = |sym| if sym == Sym::Tokens { capacity.rows } else { capacity.outputs };
        let workspace = plan(program, rows)?.buffers.iter().map(|bytes| bytes / 4 * 4).sum();
        let (matrices, vectors) = program.used_weights();
        let mut weights = 0;
        for id in matrices {
            weights += CpuMatrix::bytes_of(&fold(&program.weights, id, checkpoint)?, apart(program, id));
        }
        for id in vectors {
            let vector = fold(&program.weights, id, checkpoint)?;
            weights += vector.rows() * vector.cols() * size_of::<f32>();
        }
        let kv: usize = program.caches.iter().map(|c| capacity.pages * PAGE * Kept::slot_bytes(c)).sum();
        Ok(MemoryUse { weights: weights as u64, kv: kv as u64, workspace })
    }

    /// Bytes of weights in memory.
    pub fn weight_bytes(&self) -> u64 {
        self.memory().weights
    }

    /// Computes a step, and what `then` makes of its result.
    fn run<T: Send>(
        &mut self,
        step: &Step,
        image: Option<&ImagePatches>,
        carried: &[f32],
        then: impl FnOnce(Values<'_>) -> T + Send,
    ) -> Result<T> {
        let token = |t: &Token| match *t {
            Token::Id(id) => id,
            Token::Sampled(slot) => self.sampled[slot as usize],
        };
        let context = Context {
            step,
            tokens: step.rows.iter().map(|r| token(&r.token)).collect(),
            ropes: self.model.program.ropes.iter().map(|r| rope_table(r, &step.rows)).collect(),
            image: image.map(|image| (image, image.windows_step())),
            carried,
        };
        let (model, memory) = (&self.model, &mut self.memory);
        self.pool.install(|| {
            model.run(memory, &context)?;
            Ok(then(model.values(memory, model.program.output)?))
        })
    }

    /// The rows of all tokens that a part of a program ends in (see [`Program::split`]), after those that it begins with.
    ///
    /// # Errors
    /// The step does not fit.
    pub fn hand_on(&mut self, step: &Step, carried: &[f32]) -> Result<Vec<f32>> {
        step.check(&self.capacity, usize::MAX)?;
        self.run(step, None, carried, |rows| (0..step.rows.len()).flat_map(|r| rows.row(r).into_owned()).collect())
    }

    /// The weights that are made of `changed` tensors, and the tower's.
    pub(crate) fn changed(&self, checkpoint: &Checkpoint, changed: &BTreeSet<String>) -> Result<Replacement> {
        let program = &self.model.program;
        let wanted = |id| program.weight_names(id).iter().any(|name| changed.contains(*name));
        let own = self.pool.install(|| pack(program, checkpoint, wanted))?;
        let tower = self.tower.as_ref().map(|tower| tower.changed(checkpoint, changed)).transpose()?;
        Ok(Replacement([own, tower.map(|Replacement([own, _])| own).unwrap_or_default()]))
    }

    /// Puts them in place.
    pub(crate) fn replace(&mut self, Replacement([own, of_tower]): Replacement) {
        let tower = self.tower.as_mut().map(|tower| (&mut tower.model, of_tower));
        for (model, (matrices, vectors)) in [Some((&mut self.model, own)), tower].into_iter().flatten() {
            model.matrices.extend(matrices);
            model.vectors.extend(vectors);
        }
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

/// Weights that take the place of others: a model's own, and its tower's.
pub(crate) struct Replacement([Packed; 2]);

/// The weights that nodes use and `wanted` picks.
fn pack(program: &Program, checkpoint: &Checkpoint, wanted: impl Fn(WeightId) -> bool) -> Result<Packed> {
    let (matrices, vectors) = program.used_weights();
    let matrix = |id: WeightId| {
        let folded = fold(&program.weights, id, checkpoint)?;
        Ok((id, CpuMatrix::load(&folded, apart(program, id))?))
    };
    let vector = |id: WeightId| Ok((id, fold(&program.weights, id, checkpoint)?.values()));
    Ok((
        matrices.into_iter().filter(|id| wanted(*id)).map(matrix).collect::<Result<_>>()?,
        vectors.into_iter().filter(|id| wanted(*id)).map(vector).collect::<Result<_>>()?,
    ))
}

/// The rows of a weight that belong together: experts and heads have a matrix each, one below the other.
fn apart(program: &Program, id: WeightId) -> usize {
    let is_apart = |op: &Op| match op {
        Op::ExpertUp(up) => up.weight == id,
        Op::ExpertDown(down) => down.weight == id,
        Op::HeadLinear(heads) => heads.weight == id,
        _ => false,
    };
    if program.nodes.iter().any(|n| is_apart(&n.op)) { program.weight_shape(id)[1] } else { usize::MAX }
}

impl Executor for CpuExecutor {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn vocabulary(&self) -> usize {
        self.model.program.width(self.model.program.output)
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        step.check(&self.capacity, self.vocabulary())?;
        let result = self.run(step, None, &[], |logits| {
            let mut result = StepResult::default();
            for (i, o) in step.outputs.iter().enumerate() {
                let row = logits.row(i);
                result.tokens.push(sample(&row, o.inv_temperature, o.seed, o.counter));
                result.logits.push(if o.logits { row.into_owned() } else { Vec::new() });
            }
            result
        })?;
        for (o, token) in step.outputs.iter().zip(&result.tokens) {
            self.sampled[o.slot as usize] = *token;
        }
        self.done.push_back(result);
        Ok(())
    }

    fn collect(&mut self) -> Result<StepResult> {
        self.done.pop_front().ok_or_else(|| Error::Request("no step was submitted".to_owned()))
    }

    fn image_rows(&self) -> usize {
        self.tower.as_ref().map_or(0, |t| t.capacity.outputs)
    }

    fn patches(&self) -> usize {
        self.tower.as_ref().map_or(0, |t| t.capacity.rows)
    }

    fn see(&mut self, image: &ImagePatches, at: usize) -> Result<()> {
        let tower = self.tower.as_mut().ok_or_else(|| Error::Request("the model takes no images".to_owned()))?;
        let (step, width) = (image.step(), tower.vocabulary());
        step.check(&tower.capacity, usize::MAX)?;
        image.windows_step().check(&tower.capacity, usize::MAX)?;
        let images = &mut self.memory.images[at * width..][..image.tokens * width];
        tower.run(&step, Some(image), &[], |rows| {
            images.chunks_exact_mut(width).enumerate().for_each(|(i, row)| row.copy_from_slice(&rows.row(i)));
        })
    }

    fn read_image_rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>> {
        let width = self.tower.as_ref().map_or(0, |t| t.vocabulary());
        Ok(self.memory.images[rows.start * width..rows.end * width].to_vec())
    }

    fn memory(&self) -> MemoryUse {
        let vectors: usize = self.model.vectors.values().map(|v| size_of_val(&v[..])).sum();
        let matrices: usize = self.model.matrices.values().map(CpuMatrix::bytes).sum();
        let kv: usize = self.memory.caches.iter().map(Kept::bytes).sum();
        let workspace: usize = self.memory.buffers.iter().map(|b| size_of_val(&b[..])).sum();
        let own = MemoryUse { weights: (vectors + matrices) as u64, kv: kv as u64, workspace: workspace as u64 };
        match &self.tower {
            Some(tower) => own.with_tower(tower.memory(), size_of_val(&self.memory.images[..]) as u64),
            None => own,
        }
    }

    fn update(&mut self, checkpoint: &Checkpoint, changed: &BTreeSet<String>) -> Result<()> {
        let changed = self.changed(checkpoint, changed)?;
        self.replace(changed);
        Ok(())
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        self.model.program.cache_widths()
    }

    fn read_cache(&mut self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        let (sizes, kept) = (self.model.program.caches[cache], &self.memory.caches[cache]);
        let mut rows = vec![0.0; pages.len() * PAGE * sizes.width()];
        let slots = pages.iter().flat_map(|p| (0..PAGE).map(|i| *p as usize * PAGE + i));
        slots.zip(rows.chunks_exact_mut(sizes.width())).for_each(|(slot, row)| kept.slot(&sizes, slot, row));
        Ok(rows)
    }

    fn write_cache(&mut self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let (sizes, kept) = (self.model.program.caches[cache], &mut self.memory.caches[cache]);
        let slots = pages.iter().flat_map(|p| (0..PAGE).map(|i| *p as usize * PAGE + i));
        slots.zip(rows.chunks_exact(sizes.width())).for_each(|(slot, row)| kept.set(&sizes, slot, row));
        Ok(())
    }

    fn device(&self) -> String {
        let (threads, instructions) = (self.pool.current_num_threads(), self.model.how.instructions);
        format!("cpu ({instructions}, {threads} thread{})", if threads == 1 { "" } else { "s" })
    }
}
