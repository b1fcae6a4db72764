//! A program on the device that was asked for.

use super::{
    Target,
    place::{Parts, Placed, Placement},
};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings},
    engine::MOST_OTHERS,
    exec::{Capacity, Executor, MemoryUse, PAGE},
    gpu::{Gpu, WgpuExecutor},
    mixed::MixedExecutor,
    model::{LoadOptions, Phase},
    program::{Cache, Program, RULES, Split, rewrite},
    reference::Reference,
    weights::fold,
};
use serde_json::Value;
use tamarack_api::Sym;

/// Sequences that run together, and outputs in a step.
const SEQUENCES: usize = 64;
/// Tokens of the cache when nobody says how many.
const DEFAULT_CONTEXT: usize = 8192;

/// Rows in a step where a processor computes them, so that others' tokens and cancellations need not
/// wait for long; and where a GPU does, which needs as many to be busy.
const ROWS_SLOW: usize = 128;
const ROWS_FAST: usize = 512;

/// Patches that a tower has room for, where bindings are large enough.
const PATCHES: usize = 8192;
/// Pages beyond those of all patches: a segment begins with a page of its own.
const SEGMENTS: usize = 512;

/// Makes `program` ready to run, beside a tower if there is one. `name` is what reports call the model.
pub(super) fn executor(
    program: Program,
    tower: Option<Program>,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    name: &str,
) -> Result<Box<dyn Executor>> {
    let Planned { program, tower, on, capacity, .. } = planned(program, tower, checkpoint, options)?;
    match on {
        On::Gpu(gpu) => {
            let total = WgpuExecutor::estimate(&gpu, &program, checkpoint, &capacity)?.weights;
            let report = |done: u64| options.report(Phase::Load, name, done.min(total), total);
            report(0);
            let mut executor = WgpuExecutor::load_reporting((*gpu).clone(), program, checkpoint, capacity, &report)?;
            if let Some((tower, capacity)) = tower {
                executor = executor.with_tower(WgpuExecutor::load(*gpu, tower, checkpoint, capacity)?)?;
            }
            report(total);
            Ok(Box::new(executor))
        }
        On::Cpu(settings) => {
            let total = CpuExecutor::estimate(&program, checkpoint, &capacity)?.weights;
            options.report(Phase::Load, name, 0, total);
            let mut executor = CpuExecutor::load(settings, program, checkpoint, capacity)?;
            if let Some((tower, capacity)) = tower {
                executor = executor.with_tower(CpuExecutor::load(settings, tower, checkpoint, capacity)?)?;
            }
            options.report(Phase::Load, name, total, total);
            Ok(Box::new(executor))
        }
        On::Mixed(both) => {
            let Both { gpu, settings, split } = *both;
            let total = MixedExecutor::estimate(&gpu, &split, checkpoint, &capacity)?.weights;
            let report = |done: u64| options.report(Phase::Load, name, done.min(total), total);
            report(0);
            let mut executor = MixedExecutor::load(settings, gpu, split, checkpoint, capacity, &report)?;
            if let Some((tower, capacity)) = tower {
                executor = executor.with_tower(CpuExecutor::load(settings, tower, checkpoint, capacity)?)?;
            }
            report(total);
            Ok(Box::new(executor))
        }
        On::Reference => {
            // Nothing is copied: rows of weights are read where they lie, when they are needed.
            let bytes = checkpoint.tensors().map(|(_, t)| t.bytes()).sum();
            let mut reference = Reference::load(program, checkpoint, capacity)?;
            if let Some((tower, capacity)) = tower {
                reference = reference.with_tower(Reference::load(tower, checkpoint, capacity)?);
            }
            options.report(Phase::Load, name, bytes, bytes);
            Ok(Box::new(reference))
        }
    }
}

/// What [`Executor::memory`] will say of the executor of the same arguments.
pub(super) fn estimate(
    program: Program,
    tower: Option<Program>,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<MemoryUse> {
    let Planned { program, tower, on, capacity, .. } = planned(program, tower, checkpoint, options)?;
    let of = |program: &Program, capacity: &Capacity| match &on {
        On::Reference => Reference::estimate(program, checkpoint, capacity),
        On::Cpu(_) => CpuExecutor::estimate(program, checkpoint, capacity),
        On::Gpu(gpu) => WgpuExecutor::estimate(gpu, program, checkpoint, capacity),
        On::Mixed(_) => CpuExecutor::estimate(program, checkpoint, capacity),
    };
    let own = match &on {
        On::Mixed(both) => MixedExecutor::estimate(&both.gpu, &both.split, checkpoint, &capacity)?,
        _ => of(&program, &capacity)?,
    };
    let Some((tower, capacity)) = tower else { return Ok(own) };
    let images = (capacity.outputs * tower.width(tower.output) * 4) as u64;
    Ok(own.with_tower(of(&tower, &capacity)?, images))
}

/// Which layers run where, if that was to be found out.
pub(super) fn placement(
    program: Program,
    tower: Option<Program>,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Option<Placement>> {
    Ok(planned(program, tower, checkpoint, options)?.placement)
}

/// A device that is ready for a model.
enum On {
    Gpu(Box<Gpu>),
    Cpu(CpuSettings),
    Mixed(Box<Both>),
    Reference,
}

/// Two devices, and what each runs.
struct Both {
    gpu: Gpu,
    settings: CpuSettings,
    split: Split,
}

impl On {
    fn gpu(&self) -> Option<&Gpu> {
        match self {
            On::Gpu(gpu) => Some(gpu),
            On::Mixed(both) => Some(&both.gpu),
            On::Cpu(_) | On::Reference => None,
        }
    }
}

/// Programs as they will run, where, and what a step of each holds there.
struct Planned {
    program: Program,
    tower: Option<(Program, Capacity)>,
    on: On,
    capacity: Capacity,
    placement: Option<Placement>,
}

fn planned(
    program: Program,
    tower: Option<Program>,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Planned> {
    let pages = cache_pages(options, checkpoint.config())?;
    let mut program = shortened(program, checkpoint);
    options.kv.map_or(Ok(()), |kv| kv.apply(&mut program))?;
    // Tokens that see each other go into one step, beside those of others who generate.
    let least = tower.as_ref().map_or(0, |tower| tower.span.saturating_add(MOST_OTHERS).clamp(ROWS_FAST, PATCHES));
    let capacity = |usual: usize, gpu: Option<&Gpu>| {
        let rows = usual.max(fitting(least, &program, gpu));
        Capacity { rows, outputs: SEQUENCES, pages, slots: SEQUENCES }
    };
    let (mut usual, mut placement) = (ROWS_SLOW, None);
    let on = match options.device.target()? {
        Target::Gpu(adapter) => {
            usual = usual_rows(&adapter);
            On::Gpu(Box::new(Gpu::open(&adapter)?.at(options.precision)))
        }
        Target::Cpu => On::Cpu(cpu_settings(options)?),
        Target::Mixed(adapter) => {
            let (gpu, settings) = (Gpu::open(&adapter)?.at(options.precision), cpu_settings(options)?);
            let [mixed, whole] = [ROWS_SLOW, usual_rows(&adapter)].map(|usual| capacity(usual, Some(&gpu)));
            let tower = match &tower {
                Some(tower) => {
                    let (tower, capacity) = planned_tower(tower.clone(), Some(&gpu), checkpoint);
                    WgpuExecutor::estimate(&gpu, &tower, checkpoint, &capacity)?.total()
                }
                None => 0,
            };
            let parts = Parts { gpu: &gpu, settings, program: &program, checkpoint, mixed, whole, tower };
            let (placed, found) = parts.place(options.gpu_layers)?;
            placement = Some(found);
            match placed {
                Placed::Gpu => {
                    usual = usual_rows(&adapter);
                    On::Gpu(Box::new(gpu))
                }
                Placed::Cpu => On::Cpu(settings),
                Placed::Mixed(split) => On::Mixed(Box::new(Both { gpu, settings, split: *split })),
            }
        }
        Target::Reference => On::Reference,
    };
    match &on {
        On::Cpu(_) => check_cache(&program, pages, CpuExecutor::slot_bytes)?,
        On::Mixed(both) => check_cache(&both.split.front, pages, CpuExecutor::slot_bytes)?,
        On::Reference => check_cache(&program, pages, Reference::slot_bytes)?,
        On::Gpu(_) => {}
    }
    let capacity = capacity(usual, on.gpu());
    let tower = tower.map(|tower| planned_tower(tower, on.gpu(), checkpoint));
    Ok(Planned { program, tower, on, capacity, placement })
}

/// Rows in a step of a model that an adapter runs.
fn usual_rows(adapter: &wgpu::Adapter) -> usize {
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu { ROWS_SLOW } else { ROWS_FAST }
}

fn cpu_settings(options: &LoadOptions) -> Result<CpuSettings> {
    let settings = CpuSettings { threads: options.threads, ..CpuSettings::new()? };
    Ok(CpuSettings { precision: options.precision.unwrap_or(settings.precision), ..settings })
}

/// A tower as it will run, and what it takes there.
fn planned_tower(tower: Program, gpu: Option<&Gpu>, checkpoint: &Checkpoint) -> (Program, Capacity) {
    let tower = shortened(tower, checkpoint);
    let patches = fitting(PATCHES, &tower, gpu);
    let outputs = patches / tower.tower.unwrap_or(1).max(1);
    let pages = patches.div_ceil(PAGE) + SEGMENTS;
    (tower, Capacity { rows: patches, outputs, pages, slots: 1 })
}

/// So many rows, or as many as bindings have room for.
fn fitting(rows: usize, program: &Program, gpu: Option<&Gpu>) -> usize {
    let Some(gpu) = gpu else { return rows };
    let of_rows = |id: &usize| program.nodes[*id].shape.first().and_then(|d| d.sym()) == Some(Sym::Tokens);
    let widest = (0..program.nodes.len()).filter(of_rows).map(|id| program.width(id)).max().unwrap_or(1).max(1) as u64;
    rows.min((gpu.caps.binding_size / (widest * 4)) as usize)
}

/// The program after every rewrite that fits. A stack of weights that is too long for one binding is
/// the executor's to cut.
fn shortened(program: Program, checkpoint: &Checkpoint) -> Program {
    let format = |p: &Program, weight| fold(&p.weights, weight, checkpoint).ok()?.format_of_all();
    let (program, log) = rewrite(program, RULES, &format);
    tracing::debug!(?log, nodes = program.nodes.len(), "rewritten");
    program
}

/// Pages of the cache: a sequence as long as the context fits, whatever its first pages take.
fn cache_pages(options: &LoadOptions, config: &Value) -> Result<usize> {
    let (lead, pages) = (options.lead(), pages(options.context, config)?);
    Ok(lead.pages_for(pages * PAGE).next_multiple_of(lead.run))
}

/// Tokens that the cache holds.
pub(super) fn context(options: &LoadOptions, config: &Value) -> Result<usize> {
    Ok(options.lead().tokens_in(cache_pages(options, config)?))
}

/// Pages of a context.
fn pages(context: Option<usize>, config: &Value) -> Result<usize> {
    let made_for =
        config.get("max_position_embeddings").or_else(|| config.pointer("/text_config/max_position_embeddings"));
    let made_for = made_for.and_then(Value::as_u64).map_or(DEFAULT_CONTEXT, |n| n as usize);
    match context {
        Some(0) => Err(Error::Request("context: expected at least 1 token, found 0".to_owned())),
        // Places in the cache are numbered in 32 bits.
        Some(tokens) if tokens > u32::MAX as usize / 2 => {
            Err(Error::Memory(format!("context: expected {} tokens at most, found {tokens}", u32::MAX / 2)))
        }
        Some(tokens) => Ok(tokens.div_ceil(PAGE)),
        None => Ok(made_for.clamp(1, DEFAULT_CONTEXT).div_ceil(PAGE)),
    }
}

/// Refuses a cache that cannot be, before anything is allocated.
fn check_cache(program: &Program, pages: usize, slot_bytes: fn(&Cache) -> usize) -> Result<()> {
    let per_token: usize = program.caches.iter().map(slot_bytes).sum();
    let tokens = pages * PAGE;
    let fits = |tokens: &usize| {
        let bytes = per_token.checked_mul(*tokens);
        bytes.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok())
    };
    if fits(&tokens) {
        return Ok(());
    }
    let most = std::iter::successors(Some(tokens / 2), |tokens| Some(tokens / 2)).find(fits).unwrap_or(0);
    Err(Error::Memory(format!(
        "a context of {tokens} tokens needs {} MiB of cache ({per_token} bytes a token), this machine has room for \
         {most} tokens: ask for a smaller context",
        (per_token as u128 * tokens as u128) >> 20
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_cache_is_as_large_as_the_model_was_made_for() {
        for (context, config, expected) in [
            (None, json!({ "max_position_embeddings": 2000 }), 125),
            (None, json!({ "text_config": { "max_position_embeddings": 131072 } }), 512),
            (None, json!({ "max_position_embeddings": 0 }), 1),
            (None, json!({}), 512),
            (Some(100_000), json!({ "max_position_embeddings": 2048 }), 6250),
            (Some(1), json!({}), 1),
        ] {
            assert_eq!(pages(context, &config).unwrap(), expected, "{context:?} {config}");
        }
        assert!(pages(Some(0), &json!({})).is_err());
        assert!(pages(Some(usize::MAX), &json!({})).is_err());
    }

    #[test]
    fn an_absurd_cache_is_refused_with_numbers() {
        let caches = vec![Cache { groups: 1 << 20, dk: 1 << 20, dv: 1 << 20, ..Cache::default() }; 2];
        let program = Program { caches, ..Program::default() };
        let e = check_cache(&program, 1 << 20, Reference::slot_bytes).unwrap_err().to_string();
        assert!(e.contains("16777216 tokens") && e.contains("bytes a token), this machine has room for "), "{e}");
    }
}
