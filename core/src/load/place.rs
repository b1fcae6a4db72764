//! Which layers run on the processor where a GPU has no room for all: as few as can be, if the GPU is faster.

use crate::{
    Result,
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings},
    exec::{Capacity, Draw, Executor, MemoryUse, Pool, Sequence, Step, Token},
    gpu::{Gpu, WgpuExecutor},
    mixed::MixedExecutor,
    program::{Program, Split},
};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Of a layer's speed, the best of so many.
const MEASUREMENTS: usize = 5;
/// Tokens that a GPU is given at once for one measurement: waiting for each would be what is measured.
const TOKENS: usize = 16;

/// Where the layers of a model run that has a GPU and the processor ([`crate::Device::Mixed`]), and why there.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Placement {
    /// The adapter.
    pub gpu: String,
    /// Layers on the processor, from the first on.
    pub cpu_layers: usize,
    /// Layers on the GPU, up to the last; the output's matrix is there, too, if there is any.
    pub gpu_layers: usize,
    /// Whether the embeddings are on the GPU, too: nothing is on the processor then.
    pub all_on_gpu: bool,
    /// What the model takes of the GPU's memory.
    pub gpu_memory: MemoryUse,
    /// Bytes that all of the model would take there.
    pub gpu_bytes_of_all: u64,
    /// Bytes that the GPU has room for, as far as was asked: not more than all of it would take. `None` where the number of
    /// layers was given.
    pub gpu_room: Option<u64>,
    /// How long one token takes in a layer, measured. `None` where the number of layers was given.
    pub layer_times: Option<LayerTimes>,
}

/// How long one token takes in one of a model's layers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct LayerTimes {
    /// On the processor, in seconds.
    pub cpu_seconds: f64,
    /// On the GPU, in seconds.
    pub gpu_seconds: f64,
}

/// What is to be placed.
pub(super) struct Parts<'a> {
    pub gpu: &'a Gpu,
    pub settings: CpuSettings,
    pub program: &'a Program,
    pub checkpoint: &'a Checkpoint,
    /// A step where the processor takes part, and where the GPU has all.
    pub mixed: Capacity,
    pub whole: Capacity,
    /// Bytes that the model's tower takes on the GPU.
    pub tower: u64,
}

/// Both parts, where there are two.
pub(super) enum Placed {
    Gpu,
    Cpu,
    Mixed(Box<Split>),
}

impl Parts<'_> {
    /// Puts the last `wanted` layers on the GPU, or as many as it has room for.
    pub fn place(&self, wanted: Option<usize>) -> Result<(Placed, Placement)> {
        let Parts { gpu, program, checkpoint, .. } = *self;
        let cuts = program.cuts();
        let whole = WgpuExecutor::estimate(gpu, program, checkpoint, &self.whole)?;
        let all = whole.total() + self.tower;
        let (mut room, mut times) = (None, None);
        let on_gpu = |at: usize| program.split(cuts[at]);
        let placed = match wanted {
            Some(layers) if layers >= cuts.len() => Placed::Gpu,
            Some(0) => Placed::Cpu,
            Some(layers) => Placed::Mixed(Box::new(on_gpu(cuts.len() - layers)?)),
            None => {
                let measured = self.layer_times(&cuts)?;
                let free = gpu.room(all)?;
                (room, times) = (Some(free), measured);
                match measured {
                    Some(t) if t.gpu_seconds > t.cpu_seconds => Placed::Cpu,
                    _ if free >= all => Placed::Gpu,
                    _ => {
                        let fits = |at: usize| {
                            let memory = MixedExecutor::on_gpu(gpu, &on_gpu(at)?, checkpoint, &self.mixed)?;
                            Ok::<_, crate::Error>(memory.total() <= free)
                        };
                        // Of the cuts, from the first on, each leaves less to the GPU than the one before.
                        let (mut none, mut some) = (0, cuts.len());
                        while none < some {
                            let middle = (none + some) / 2;
                            if fits(middle)? { some = middle } else { none = middle + 1 }
                        }
                        if some < cuts.len() { Placed::Mixed(Box::new(on_gpu(some)?)) } else { Placed::Cpu }
                    }
                }
            }
        };
        let (gpu_layers, gpu_memory) = match &placed {
            Placed::Gpu => (cuts.len(), whole),
            Placed::Cpu => (0, MemoryUse::default()),
            Placed::Mixed(split) => {
                (split.back_caches.len(), MixedExecutor::on_gpu(gpu, split, checkpoint, &self.mixed)?)
            }
        };
        let placement = Placement {
            gpu: gpu.info().name.clone(),
            cpu_layers: match &placed {
                Placed::Gpu => 0,
                Placed::Cpu => cuts.len(),
                Placed::Mixed(split) => split.front_caches.len(),
            },
            gpu_layers,
            all_on_gpu: matches!(placed, Placed::Gpu),
            gpu_memory,
            gpu_bytes_of_all: all,
            gpu_room: room,
            layer_times: times,
        };
        Ok((placed, placement))
    }

    /// How long one token takes in the model's middle layer.
    fn layer_times(&self, cuts: &[usize]) -> Result<Option<LayerTimes>> {
        let Some(first) = cuts.len().checked_sub(1).map(|last| last / 2) else { return Ok(None) };
        let layer = match cuts.get(first + 1) {
            Some(next) => self.program.split(*next)?.front.split(cuts[first])?.back,
            None => self.program.split(cuts[first])?.back,
        };
        let capacity = Capacity { rows: 1, outputs: 1, pages: 1, slots: 1 };
        let mut step = Step::default();
        step.push(&mut Sequence::new(0, 1), &mut Pool::new(1), &[Token::Id(0)], |_| Some(Draw::default()));
        let carried = vec![0.5; layer.carried_width()];

        let mut cpu = CpuExecutor::load(self.settings, layer.clone(), self.checkpoint, capacity)?;
        let cpu_seconds = best(|| cpu.hand_on(&step, &carried).map(drop))?;
        let mut gpu = WgpuExecutor::load(self.gpu.clone(), layer, self.checkpoint, capacity)?;
        let gpu_seconds = best(|| {
            (0..TOKENS).try_for_each(|_| gpu.submit_carried(&step, &carried))?;
            (0..TOKENS).try_for_each(|_| gpu.collect().map(drop))
        })?;
        Ok(Some(LayerTimes { cpu_seconds, gpu_seconds: gpu_seconds / TOKENS as f64 }))
    }
}

/// The least seconds that something takes. The first time does not count: it compiles.
fn best(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut least = Duration::MAX;
    for _ in 0..MEASUREMENTS {
        let start = Instant::now();
        f()?;
        least = least.min(start.elapsed());
    }
    Ok(least.as_secs_f64())
}
