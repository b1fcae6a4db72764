//! Which way of sharing out a product's work is the fastest here: tried once, kept on disk.
//!
//! A kernel's candidates run over all the buffers that the model has for it, one layer's after the
//! other's, so that a matrix is read from memory as it is in a step and not from the cache that the
//! last try left it in.

use super::{Gpu, memory, phase::Launch};
use crate::{Result, exec::Capacity};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tamarack_kernels::{Kernel, matmul::Candidate};

/// Dispatches that one measurement of a row has at least: one alone is shorter than the clock's steps.
const DISPATCHES: usize = 24;
/// How often each candidate is measured; the shortest time counts.
const ROUNDS: usize = 5;
/// How long a device works before it is measured: clocks rise within milliseconds.
const AWAKE: Duration = Duration::from_millis(60);

/// By a hash of all candidates, the place of the fastest.
type Choices = BTreeMap<String, usize>;

/// Gives each product that can be computed in several ways the fastest of them. What fails here is
/// no error: the defaults are right, too.
pub(super) fn tune(gpu: &Gpu, capacity: &Capacity, launches: &mut [Launch<'_>]) {
    if !gpu.settings.tune || !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return;
    }
    let file = file(gpu);
    let mut choices = file.as_deref().map(read).unwrap_or_default();
    let known = choices.len();
    for group in groups(launches) {
        let Some(tunable) = &launches[group[0]].tunable else { continue };
        let candidates = tunable.candidates(gpu);
        if candidates.len() < 2 {
            continue;
        }
        let key = key(&candidates);
        let kept = choices.get(&key).copied().filter(|best| *best < candidates.len());
        let rows = tunable.rows().min(memory::rows(launches[group[0]].rows, capacity) as u32);
        let best = kept.or_else(|| search(gpu, launches, &group, &candidates, rows));
        let Some(best) = best else { continue };
        choices.insert(key, best);
        for i in group {
            launches[i].kernel = candidates[best].kernel.clone();
        }
    }
    if let Some(file) = file.filter(|_| choices.len() > known)
        && let Err(e) = write(&file, &choices)
    {
        tracing::warn!("{}: what was tuned is not kept: {e}", file.display());
    }
}

/// The launches of each kernel that can be tuned.
fn groups(launches: &[Launch<'_>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (i, launch) in launches.iter().enumerate().filter(|(_, launch)| launch.tunable.is_some()) {
        let group = *known.entry(&launch.kernel.source).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

/// A candidate that is compiled, and bound to the buffers of every launch of its group.
struct Try<'a> {
    place: usize,
    kernel: &'a Kernel,
    pipeline: wgpu::ComputePipeline,
    bindings: Vec<wgpu::BindGroup>,
    /// Seconds of one dispatch.
    least: f64,
}

/// The place of the fastest candidate in steps of so many rows.
fn search(gpu: &Gpu, launches: &[Launch<'_>], group: &[usize], candidates: &[Candidate], rows: u32) -> Option<usize> {
    // Many rows take long, and arithmetic, not memory, decides: a dispatch is enough.
    let (group, dispatches) = if rows == 1 { (group, DISPATCHES) } else { (&group[..1], 1) };
    // So that kernels store what they compute. The step that comes next writes its own.
    gpu.queue.write_buffer(launches[group[0]].buffers[0], 0, bytemuck::cast_slice(&[rows; 2]));
    // Compiling takes longest, and drivers do it on many processors at once.
    let pipelines: Vec<_> = candidates.par_iter().map(|c| gpu.compile(&c.kernel)).collect();
    let size = group.iter().filter_map(|i| launches[*i].buffers.last()).map(|b| b.size()).max()?;
    let out = gpu.buffer("tuning", size);
    let tried = candidates.iter().zip(pipelines).enumerate().filter_map(|(place, (candidate, pipeline))| {
        let (kernel, pipeline) = (&candidate.kernel, pipeline.ok()?);
        let bound = |i: &usize| {
            let mut buffers = launches[*i].buffers.clone();
            if let Some(last) = buffers.last_mut() {
                *last = &out;
            }
            gpu.bind(&kernel.name, &pipeline, &buffers)
        };
        let bindings = group.iter().map(bound).collect();
        Some(Try { place, kernel, pipeline, bindings, least: f64::INFINITY })
    });
    let mut tried: Vec<_> = tried.collect();
    // A device that had nothing to do while kernels were compiled has to be awake first.
    let begin = Instant::now();
    while begin.elapsed() < AWAKE {
        tried.first()?.time(gpu, rows, dispatches).ok()?;
    }
    // One after the other, and again: what changes meanwhile, changes for all.
    for _ in 0..ROUNDS {
        tried.retain_mut(|t| t.time(gpu, rows, dispatches).map(|seconds| t.least = t.least.min(seconds)).is_ok());
    }
    for Try { place, least, .. } in &tried {
        let Candidate { tuning, kernel } = &candidates[*place];
        tracing::trace!(kernel = kernel.name, us = least * 1e6, tuning, "tried");
    }
    let best = tried.iter().min_by(|a, b| a.least.total_cmp(&b.least))?;
    let (default, tuning) = (tried.first().map_or(0.0, |t| t.least), &candidates[best.place].tuning);
    tracing::debug!(kernel = best.kernel.name, us = best.least * 1e6, default = default * 1e6, tuning, "tuned");
    Some(best.place)
}

impl Try<'_> {
    /// Seconds of one dispatch of at least so many, over the buffers of every launch of the group. All write to one
    /// buffer, so that each waits for the one before it, as in a step.
    fn time(&self, gpu: &Gpu, rows: u32, dispatches: usize) -> Result<f64> {
        let repeats = dispatches.div_ceil(self.bindings.len());
        let seconds = gpu.timed(|pass| {
            pass.set_pipeline(&self.pipeline);
            for bindings in std::iter::repeat_n(&self.bindings, repeats).flatten() {
                pass.set_bind_group(0, bindings, &[]);
                let [x, y, z] = self.kernel.groups(rows, 1);
                pass.dispatch_workgroups(x, y, z);
            }
        })?;
        gpu.take_errors()?;
        Ok(seconds / (repeats * self.bindings.len()) as f64)
    }
}

impl Gpu {
    /// Seconds that the device spends in one pass.
    fn timed(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let (ty, label, count) = (wgpu::QueryType::Timestamp, Some("tuning"), 2);
        let set = self.device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count });
        let size = u64::from(count * wgpu::QUERY_SIZE);
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved =
            self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let stamps = wgpu::ComputePassTimestampWrites {
            query_set: &set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        };
        let descriptor = wgpu::ComputePassDescriptor { label, timestamp_writes: Some(stamps) };
        record(&mut encoder.begin_compute_pass(&descriptor));
        encoder.resolve_query_set(&set, 0..count, &resolved, 0);
        self.queue.submit([encoder.finish()]);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&self.read(&resolved, size)?);
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * f64::from(self.queue.get_timestamp_period()) * 1e-9)
    }
}

fn key(candidates: &[Candidate]) -> String {
    let mut hasher = DefaultHasher::new();
    candidates.iter().for_each(|c| c.kernel.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// Where this adapter's choices are kept.
fn file(gpu: &Gpu) -> Option<PathBuf> {
    let info = gpu.info();
    let name = format!("{} {:?} {} {}", info.name, info.backend, info.driver, info.driver_info);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let folder = directories::ProjectDirs::from("", "", "tamarack")?.cache_dir().join("tuning");
    Some(folder.join(format!("{name}.json")))
}

/// What is damaged or absent is found again.
fn read(file: &Path) -> Choices {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write(file: &Path, choices: &Choices) -> std::io::Result<()> {
    write_whole(file, &serde_json::to_vec_pretty(choices)?)
}

/// Whole or not at all: another process may read it meanwhile.
pub(super) fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    new.persist(file)?;
    Ok(())
}
