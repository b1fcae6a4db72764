//! One model on one device.

use super::{
    Gpu,
    load::{self, layouts_ahead, upload},
    memory::{Workspace, caches, check_sizes, needs, rows, vectors},
    phase::{Attention, Emitter, Kind, Launch, Rows, Weights},
    rounding::Rounding,
    step::step_words,
    tune::tune,
    weights::DeviceMatrix,
};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, Executor, ImagePatches, MemoryUse, PAGE, Step, StepResult, rope_table},
    program::{
        NodeId, Program, custom,
        plan::{Plan, plan},
    },
};
use std::collections::{BTreeSet, HashMap, VecDeque};
use tamarack_api::{Sym, WeightId};
use tamarack_kernels::{Kernel, attend::Keys, matmul::Row};

/// Most parts into which attention splits a long cache.
pub(super) const MAX_SPLITS: usize = tamarack_kernels::attend::MAX_SPLITS as usize;
/// Most rows of a step that still splits: with more there is work enough for every processor.
pub(super) const SPLIT_ROWS: usize = 16;
/// Keys that one workgroup goes through before splitting pays.
const SPLIT_KEYS: usize = 512;
/// Keys in a part at least.
const SPLIT_PART: usize = 64;
/// Dispatches in one submission: a driver resets a device that is busy with one for seconds.
pub(super) const DISPATCHES: usize = 64;

/// All buffers of a model.
pub(super) struct Model {
    pub gpu: Gpu,
    pub program: Program,
    pub plan: Plan,
    pub matrices: HashMap<WeightId, DeviceMatrix>,
    pub vectors: HashMap<WeightId, wgpu::Buffer>,
    pub activations: Vec<wgpu::Buffer>,
    pub rounding: Rounding,
    pub rounded: Vec<wgpu::Buffer>,
    pub caches: Vec<wgpu::Buffer>,
    pub ropes: Vec<wgpu::Buffer>,
    pub scratch: wgpu::Buffer,
    /// The input of a product as f16, what is to be multiplied with each of its rows, and partial sums:
    /// for cooperative matrices.
    pub halves: wgpu::Buffer,
    pub worths: wgpu::Buffer,
    pub sums: wgpu::Buffer,
    pub tiles: wgpu::Buffer,
    pub sorted: wgpu::Buffer,
    /// Rows that a tower has made.
    pub images: wgpu::Buffer,
    pub partials: wgpu::Buffer,
    pub candidates: wgpu::Buffer,
    pub step: wgpu::Buffer,
    /// A tower's step once more, with windows for sequences.
    pub windows: wgpu::Buffer,
    pub sampled: wgpu::Buffer,
    pub results: wgpu::Buffer,
}

/// A dispatch that is compiled and bound.
pub(super) struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    pub kernel: Kernel,
    rows: Sym,
    pub weights: Weights,
}

/// A step under way: where its results will be.
pub(super) struct Pending {
    submission: wgpu::SubmissionIndex,
    staging: wgpu::Buffer,
    outputs: usize,
    logits: Vec<bool>,
}

/// Runs a program through wgpu. Weights, caches and bind groups are made once; a step writes one small
/// buffer and encodes dispatches that are already there.
pub struct WgpuExecutor {
    pub(super) model: Model,
    capacity: Capacity,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
    pub(super) phases: HashMap<Kind, Vec<Dispatch>>,
    pub(super) pending: VecDeque<Pending>,
    spare: Vec<wgpu::Buffer>,
    weight_bytes: u64,
    /// Of a part of a program: where it begins.
    carried: Option<NodeId>,
    pub(super) tower: Option<Box<WgpuExecutor>>,
}

impl WgpuExecutor {
    /// Copies the weights to the device and plans for steps up to `capacity`.
    pub fn load(gpu: Gpu, program: Program, checkpoint: &Checkpoint, capacity: Capacity) -> Result<WgpuExecutor> {
        WgpuExecutor::load_reporting(gpu, program, checkpoint, capacity, &|_| {})
    }

    /// The same, and says how many bytes of weights are on the device.
    pub fn load_reporting(
        gpu: Gpu,
        program: Program,
        checkpoint: &Checkpoint,
        capacity: Capacity,
        report: &dyn Fn(u64),
    ) -> Result<WgpuExecutor> {
        custom::validate_each(&program.custom).map_err(|(i, e)| {
            let name = i.map_or("?", |i| program.custom[i].name.as_str());
            Error::Plugin(format!("custom op `{name}`: {e}"))
        })?;
        let program = custom::for_device(program);
        let plan = plan(&program, |sym| rows(sym, &capacity))?;
        check_sizes(&gpu, &program, &plan, &capacity)?;
        let needs = needs(&program, &plan, checkpoint, &capacity);
        let full = |e| if let Error::Memory(e) = e { Error::Memory(format!("{e}: {needs}")) } else { e };
        let (matrices, vectors, weight_bytes) = upload(&gpu, &program, checkpoint, &|_| true, report).map_err(full)?;
        let model = Model::new(gpu, program, plan, &capacity, matrices, vectors);
        model.gpu.take_errors().map_err(full)?;
        let (pipelines, phases) = (HashMap::new(), HashMap::new());
        let (pending, spare) = (VecDeque::new(), Vec::new());
        let carried = model.program.carried_node();
        Ok(WgpuExecutor { model, capacity, pipelines, phases, pending, spare, weight_bytes, carried, tower: None })
    }

    /// What [`Executor::memory`] will say of the same arguments, as far as can be known before.
    pub fn estimate(gpu: &Gpu, program: &Program, checkpoint: &Checkpoint, capacity: &Capacity) -> Result<MemoryUse> {
        let program = &custom::for_device(program.clone());
        let plan = plan(program, |sym| rows(sym, capacity))?;
        check_sizes(gpu, program, &plan, capacity)?;
        let matrices = layouts_ahead(gpu, program, checkpoint)?;
        let weights = matrices.values().map(|m| m.bytes).sum::<u64>() + vectors(program, checkpoint)?;
        let rounding = Rounding::of(gpu, program, &plan, &matrices);
        let workspace = Workspace::of(gpu, program, &plan, &rounding, &matrices, capacity).bytes();
        Ok(MemoryUse { weights, kv: caches(program, capacity).sum(), workspace })
    }

    /// Bytes of weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// The dispatches of a step of so many token rows, each of another sequence, the first of which are outputs,
    /// over caches of `length` tokens, by name.
    pub fn dispatches(&mut self, rows: usize, outputs: usize, length: usize) -> Result<Vec<String>> {
        let (kind, _) = self.kind([rows, rows.min(1), outputs], true, length);
        self.prepare(kind)?;
        Ok(self.phases[&kind].iter().map(|d| d.kernel.name.clone()).collect())
    }

    /// The kind of a step, and the keys per part where attention splits.
    fn kind(&self, [rows, rows_of_one, outputs]: [usize; 3], in_order: bool, length: usize) -> (Kind, usize) {
        let keys = match () {
            _ if length <= SPLIT_KEYS => Keys::Few,
            _ if rows <= SPLIT_ROWS => Keys::Split,
            _ => Keys::Many,
        };
        let attention = match () {
            _ if self.model.program.tower.is_some() => Attention::Tiled,
            _ if rows_of_one > 8 => Attention::Tiled,
            _ if rows_of_one <= 1 => Attention::Single(keys),
            _ => Attention::Vector(keys),
        };
        // From five rows on, tiles of cooperative matrices take less time than matrix-vector kernels.
        let few = if self.model.gpu.caps.cooperative.is_some() { 4 } else { 8 };
        let [tokens, outputs] = [rows, outputs].map(|rows| Rows::of(rows, few));
        // Nothing but steps of few rows cares.
        let in_order = in_order && tokens.few().is_some_and(|rows| rows <= Row::most(&self.model.gpu.caps));
        let part = length.div_ceil(MAX_SPLITS).max(SPLIT_PART).next_multiple_of(PAGE);
        (Kind { tokens, outputs, in_order, attention }, part)
    }

    /// Begins a step of a part of a program, which begins with these rows: [`crate::program::Program::split`].
    ///
    /// # Errors
    /// The step does not fit, or has other rows.
    pub fn submit_carried(&mut self, step: &Step, carried: &[f32]) -> Result<()> {
        let (kind, splits) = self.begin(step)?;
        let Model { gpu, program, plan, activations, .. } = &self.model;
        if let Some(id) = self.carried {
            let (expected, found) = (step.rows.len() * program.width(id), carried.len());
            let place = plan.places[id]
                .filter(|_| found == expected)
                .ok_or_else(|| Error::Request(format!("carried rows: expected {expected} values, found {found}")))?;
            gpu.queue.write_buffer(&activations[place.buffer], 0, bytemuck::cast_slice(carried));
        }
        let pending = self.encode(kind, step, splits);
        self.pending.push_back(pending);
        Ok(())
    }

    /// Compiles and binds the dispatches of a kind of step, the first time it occurs.
    fn prepare(&mut self, kind: Kind) -> Result<()> {
        if self.phases.contains_key(&kind) {
            return Ok(());
        }
        let mut dispatches = Vec::new();
        let mut launches = Emitter::emit(&self.model, kind)?;
        tune(&self.model.gpu, &self.capacity, &mut launches);
        for launch in launches {
            let pipeline = match self.pipelines.get(&launch.kernel.source) {
                Some(pipeline) => pipeline.clone(),
                None => {
                    let pipeline = match launch.checked {
                        true => self.model.gpu.compile_checked(&launch.kernel)?,
                        false => self.model.gpu.compile(&launch.kernel)?,
                    };
                    self.pipelines.insert(launch.kernel.source.clone(), pipeline.clone());
                    pipeline
                }
            };
            let bindings = self.model.gpu.bind(&launch.kernel.name, &pipeline, &launch.buffers);
            let Launch { kernel, rows, weights, .. } = launch;
            dispatches.push(Dispatch { pipeline, bindings, kernel, rows, weights });
        }
        self.model.gpu.take_errors()?;
        self.model.gpu.keep_pipelines();
        self.phases.insert(kind, dispatches);
        Ok(())
    }

    /// Does all for a step but to encode it; its kind, and the parts into which attention splits.
    pub(super) fn begin(&mut self, step: &Step) -> Result<(Kind, u32)> {
        let is_tower = self.model.program.tower.is_some();
        step.check(&self.capacity, if is_tower { usize::MAX } else { self.vocabulary() })?;
        let length = step.rows.iter().map(|r| r.end as usize).max().unwrap_or(0);
        let of_one = step.rows.iter().enumerate().map(|(i, r)| i + 1 - r.first as usize).max().unwrap_or(0);
        let in_order = step.outputs.iter().enumerate().all(|(i, o)| o.row as usize == i);
        let (kind, part) = self.kind([step.rows.len(), of_one, step.outputs.len()], in_order, length);
        self.prepare(kind)?;
        let is_split = matches!(kind.attention, Attention::Vector(Keys::Split) | Attention::Single(Keys::Split));
        let splits = if is_split { length.div_ceil(part) as u32 } else { 1 };
        self.write(step, splits, part);
        Ok((kind, splits))
    }

    /// Writes what the step's dispatches read: the step buffer and the rope tables.
    fn write(&self, step: &Step, splits: u32, part: usize) {
        let queue = &self.model.gpu.queue;
        queue.write_buffer(&self.model.step, 0, bytemuck::cast_slice(&step_words(step, splits, part)));
        for (rope, buffer) in self.model.program.ropes.iter().zip(&self.model.ropes) {
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(&rope_table(rope, &step.rows)));
        }
    }

    /// Encodes the dispatches in submissions of bounded length, and the copies of the results.
    fn encode(&mut self, kind: Kind, step: &Step, splits: u32) -> Pending {
        let gpu = &self.model.gpu;
        let logits: Vec<bool> = step.outputs.iter().map(|o| o.logits).collect();
        let (row_bytes, outputs) = (self.vocabulary() as u64 * 4, step.outputs.len());
        let wanted = if logits.contains(&true) { row_bytes * outputs as u64 } else { 0 };
        let token_bytes = (outputs as u64 * 4).next_multiple_of(16);
        let staging = staging(gpu, &mut self.spare, token_bytes + wanted);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        // Short steps go in one piece: nothing in them takes long.
        let piece = if matches!(kind.tokens, Rows::Few(_)) { usize::MAX } else { DISPATCHES };
        for (i, dispatches) in self.phases[&kind].chunks(piece).enumerate() {
            if i > 0 {
                let full = std::mem::replace(&mut encoder, gpu.device.create_command_encoder(&Default::default()));
                gpu.queue.submit([full.finish()]);
            }
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for d in dispatches {
                d.record(&mut pass, d.rows_of(step), splits);
            }
        }
        if outputs > 0 {
            encoder.copy_buffer_to_buffer(&self.model.results, 0, &staging, 0, outputs as u64 * 4);
        }
        if wanted > 0
            && let Some(place) = self.model.plan.places[self.model.program.output]
        {
            encoder.copy_buffer_to_buffer(&self.model.activations[place.buffer], 0, &staging, token_bytes, wanted);
        }
        let submission = gpu.queue.submit([encoder.finish()]);
        Pending { submission, staging, outputs, logits }
    }
}

impl Dispatch {
    /// The rows that it has in a step.
    pub fn rows_of(&self, step: &Step) -> u32 {
        if self.rows == Sym::Tokens { step.rows.len() as u32 } else { step.outputs.len() as u32 }
    }

    /// Encodes it, unless there is nothing to do.
    pub fn record(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32, splits: u32) {
        let [x, y, z] = self.kernel.groups(rows, splits);
        if x * y * z > 0 {
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

impl Executor for WgpuExecutor {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn vocabulary(&self) -> usize {
        self.model.program.width(self.model.program.output)
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        self.submit_carried(step, &[])
    }

    fn collect(&mut self) -> Result<StepResult> {
        let pending = self.pending.pop_front();
        let pending = pending.ok_or_else(|| Error::Request("no step was submitted".to_owned()))?;
        let bytes = self.model.gpu.map(&pending.staging, pending.submission)?;
        self.model.gpu.take_errors()?;
        self.spare.push(pending.staging);
        let all: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        let vocabulary = self.vocabulary();
        let rows = all.get((pending.outputs * 4).next_multiple_of(16) / 4..).unwrap_or(&[]).chunks_exact(vocabulary);
        let row = |(want, row): (&bool, &[u32])| {
            if *want { row.iter().map(|w| f32::from_bits(*w)).collect() } else { Vec::new() }
        };
        let logits = if pending.logits.contains(&true) {
            pending.logits.iter().zip(rows).map(row).collect()
        } else {
            vec![Vec::new(); pending.outputs]
        };
        Ok(StepResult { tokens: all[..pending.outputs].to_vec(), logits })
    }

    fn image_rows(&self) -> usize {
        self.tower.as_ref().map_or(0, |t| t.capacity.outputs)
    }

    fn patches(&self) -> usize {
        self.tower.as_ref().map_or(0, |t| t.capacity.rows)
    }

    fn see(&mut self, image: &ImagePatches, at: usize) -> Result<()> {
        self.tower_see(image, at)
    }

    fn read_image_rows(&mut self, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        self.read_images(rows)
    }

    fn memory(&self) -> MemoryUse {
        let m = &self.model;
        let all = |buffers: &[wgpu::Buffer]| buffers.iter().map(wgpu::Buffer::size).sum::<u64>();
        let vectors: u64 = m.vectors.values().map(wgpu::Buffer::size).sum();
        let products = [&m.scratch, &m.halves, &m.worths, &m.sums, &m.tiles, &m.sorted];
        let others = [&m.partials, &m.candidates, &m.step, &m.windows, &m.sampled, &m.results];
        let single: u64 = products.iter().chain(&others).map(|b| b.size()).sum();
        let own = MemoryUse {
            weights: m.matrices.values().map(|m| m.layout().bytes).sum::<u64>() + vectors,
            kv: all(&m.caches),
            workspace: all(&m.activations) + all(&m.ropes) + all(&m.rounded) + all(&self.spare) + single,
        };
        match &self.tower {
            Some(tower) => own.with_tower(tower.memory(), m.images.size()),
            None => own,
        }
    }

    fn update(&mut self, checkpoint: &Checkpoint, changed: &BTreeSet<String>) -> Result<()> {
        let Model { gpu, program, .. } = &self.model;
        let is_changed = |id: WeightId| program.weight_names(id).iter().any(|name| changed.contains(*name));
        let (matrices, vectors, _) = upload(gpu, program, checkpoint, &is_changed, &|_| {})?;
        // What can be rounded, and what products take room for, depends on formats and values.
        let mut layouts = load::layouts(&self.model.matrices);
        layouts.extend(load::layouts(&matrices));
        let rounding = Rounding::of(gpu, program, &self.model.plan, &layouts);
        let w = Workspace::of(gpu, program, &self.model.plan, &rounding, &layouts, &self.capacity);
        let rounded = w.rounded.iter().map(|bytes| gpu.buffer("rounded", *bytes)).collect();
        let (halves, sums) = (gpu.buffer("halves", w.halves), gpu.buffer("partial sums", w.sums));
        gpu.take_errors()?;
        // Bind groups hold the old buffers.
        self.phases.clear();
        let m = &mut self.model;
        m.matrices.extend(matrices);
        m.vectors.extend(vectors);
        (m.rounding, m.rounded, m.halves, m.sums) = (rounding, rounded, halves, sums);
        self.weight_bytes = self.memory().weights;
        self.tower.as_mut().map_or(Ok(()), |tower| tower.update(checkpoint, changed))
    }

    fn compile(&mut self, report: &dyn Fn(u64, u64)) -> Result<()> {
        let rows = self.capacity.rows;
        // A token of one sequence, and a prompt.
        let kinds = [self.kind([1, 1, 1], true, 1).0, self.kind([rows, rows, 1], false, rows).0];
        for (i, kind) in kinds.iter().enumerate() {
            report(i as u64, kinds.len() as u64);
            self.prepare(*kind)?;
        }
        report(kinds.len() as u64, kinds.len() as u64);
        Ok(())
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        self.model.program.cache_widths()
    }

    fn read_cache(&mut self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        self.model.read_cache(cache, pages)
    }

    fn write_cache(&mut self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        self.model.write_cache(cache, pages, rows)
    }

    fn device(&self) -> String {
        let info = self.model.gpu.info();
        format!("{} ({:?}, {:?})", info.name, info.backend, info.device_type)
    }

    fn is_software(&self) -> bool {
        self.model.gpu.info().device_type == wgpu::DeviceType::Cpu
    }

    fn lost(&self) -> Option<Error> {
        self.model.gpu.lost()
    }

    fn lose(&mut self) {
        self.model.gpu.device.destroy();
    }
}

impl Model {
    fn new(
        gpu: Gpu,
        program: Program,
        plan: Plan,
        capacity: &Capacity,
        matrices: HashMap<WeightId, DeviceMatrix>,
        vectors: HashMap<WeightId, wgpu::Buffer>,
    ) -> Model {
        let caches = caches(&program, capacity).map(|bytes| gpu.buffer("cache", bytes)).collect();
        let layouts = load::layouts(&matrices);
        let rounding = Rounding::of(&gpu, &program, &plan, &layouts);
        let w = Workspace::of(&gpu, &program, &plan, &rounding, &layouts, capacity);
        let all = |label: &str, sizes: &[u64]| sizes.iter().map(|bytes| gpu.buffer(label, *bytes)).collect();
        Model {
            activations: all("activation", &w.activations),
            rounded: all("rounded", &w.rounded),
            rounding,
            caches,
            ropes: all("rope", &w.ropes),
            scratch: gpu.buffer("scratch", w.scratch),
            halves: gpu.buffer("halves", w.halves),
            worths: gpu.buffer("worths", w.worths),
            sums: gpu.buffer("partial sums", w.sums),
            tiles: gpu.buffer("tiles", w.tiles),
            sorted: gpu.buffer("sorted choices", w.sorted),
            images: gpu.buffer("images", 0),
            partials: gpu.buffer("attention parts", w.partials),
            candidates: gpu.buffer("candidates", w.candidates),
            step: gpu.buffer("step", w.step),
            windows: gpu.buffer("windows", w.windows),
            sampled: gpu.buffer("sampled", w.sampled),
            results: gpu.buffer("results", w.results),
            gpu,
            program,
            plan,
            matrices,
            vectors,
        }
    }
}

/// A buffer to read results through: a spare one that is large enough, or a new one.
fn staging(gpu: &Gpu, spare: &mut Vec<wgpu::Buffer>, bytes: u64) -> wgpu::Buffer {
    let bytes = bytes.max(16);
    match spare.iter().position(|b| b.size() == bytes) {
        Some(i) => spare.swap_remove(i),
        None => {
            spare.truncate(4);
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("results"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        }
    }
}
