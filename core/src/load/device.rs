//! A program on the device that was asked for.

use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings},
    engine::MOST_OTHERS,
    exec::{Capacity, Executor, MemoryUse, PAGE},
    gpu::{Gpu, WgpuExecutor, adapters},
    model::{Device, LoadOptions, Phase},
    program::{Cache, Program, RULES, rewrite},
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
    let Planned { program, tower, on, capacity } = planned(program, tower, checkpoint, options)?;
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
    let Planned { program, tower, on, capacity } = planned(program, tower, checkpoint, options)?;
    let of = |program: &Program, capacity: &Capacity| match &on {
        On::Reference => Reference::estimate(program, checkpoint, capacity),
        On::Cpu(_) => CpuExecutor::estimate(program, checkpoint, capacity),
        On::Gpu(gpu) => WgpuExecutor::estimate(gpu, program, checkpoint, capacity),
    };
    let own = of(&program, &capacity)?;
    let Some((tower, capacity)) = tower else { return Ok(own) };
    let images = (capacity.outputs * tower.width(tower.output) * 4) as u64;
    Ok(own.with_tower(of(&tower, &capacity)?, images))
}

/// A device that is ready for a model.
enum On {
    Gpu(Box<Gpu>),
    Cpu(CpuSettings),
    Reference,
}

/// Programs as they will run, where, and what a step of each holds there.
struct Planned {
    program: Program,
    tower: Option<(Program, Capacity)>,
    on: On,
    capacity: Capacity,
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
    let mut usual = ROWS_SLOW;
    let on = match options.device.target()? {
        Target::Gpu(adapter) => {
            if adapter.get_info().device_type != wgpu::DeviceType::Cpu {
                usual = ROWS_FAST;
            }
            On::Gpu(Box::new(Gpu::open(&adapter)?.at(options.precision)))
        }
        Target::Cpu => {
            check_cache(&program, pages, CpuExecutor::slot_bytes)?;
            let mut settings = CpuSettings { threads: options.threads, ..CpuSettings::new()? };
            settings.precision = options.precision.unwrap_or(settings.precision);
            On::Cpu(settings)
        }
        Target::Reference => {
            check_cache(&program, pages, Reference::slot_bytes)?;
            On::Reference
        }
    };
    let rows = usual.max(fitting(least, &program, &on));
    let tower = tower.map(|tower| planned_tower(tower, &on, checkpoint));
    Ok(Planned { program, tower, on, capacity: Capacity { rows, outputs: SEQUENCES, pages, slots: SEQUENCES } })
}

/// A tower as it will run, and what it takes there.
fn planned_tower(tower: Program, on: &On, checkpoint: &Checkpoint) -> (Program, Capacity) {
    let tower = shortened(tower, checkpoint);
    let patches = fitting(PATCHES, &tower, on);
    let outputs = patches / tower.tower.unwrap_or(1).max(1);
    let pages = patches.div_ceil(PAGE) + SEGMENTS;
    (tower, Capacity { rows: patches, outputs, pages, slots: 1 })
}

/// So many rows, or as many as bindings have room for.
fn fitting(rows: usize, program: &Program, on: &On) -> usize {
    let On::Gpu(gpu) = on else { return rows };
    let of_rows = |id: &usize| program.nodes[*id].shape.first().and_then(|d| d.sym()) == Some(Sym::Tokens);
    let widest = (0..program.nodes.len()).filter(of_rows).map(|id| program.width(id)).max().unwrap_or(1).max(1) as u64;
    rows.min((gpu.caps.binding_size / (widest * 4)) as usize)
}

/// What a [`Device`] turns out to be on this machine.
pub enum Target {
    /// An adapter.
    Gpu(wgpu::Adapter),
    /// The processor's cores.
    Cpu,
    /// The oracle.
    Reference,
}

impl Device {
    /// What is meant.
    ///
    /// # Errors
    /// No adapter has such an index or name.
    pub fn target(&self) -> Result<Target> {
        let wanted = match self {
            Device::Cpu => return Ok(Target::Cpu),
            Device::Reference => return Ok(Target::Reference),
            Device::Auto => {
                let gpu = adapters().into_iter().find(|a| a.get_info().device_type != wgpu::DeviceType::Cpu);
                return Ok(gpu.map_or(Target::Cpu, Target::Gpu));
            }
            Device::Named(name) => name.to_lowercase(),
        };
        let adapters = adapters();
        let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
        let unknown = || Error::Device(unknown(&wanted, &names));
        match position(&names, &wanted) {
            Some(at) => Ok(Target::Gpu(adapters.into_iter().nth(at).ok_or_else(unknown)?)),
            None => Err(unknown()),
        }
    }
}

/// An index, or part of a name.
fn position(names: &[String], wanted: &str) -> Option<usize> {
    let index = wanted.parse().ok().filter(|i| *i < names.len());
    index.or_else(|| names.iter().position(|name| name.to_lowercase().contains(wanted)))
}

fn unknown(wanted: &str, names: &[String]) -> String {
    let numbered = names.iter().enumerate().map(|(i, name)| format!("{i}: {name}"));
    let all: Vec<String> = numbered.chain(["auto", "cpu", "reference"].map(str::to_owned)).collect();
    format!("no device `{wanted}`: there are {}", all.join(", "))
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
    fn devices_are_found_by_index_and_by_name() {
        let names = ["NVIDIA H100".to_owned(), "llvmpipe (LLVM 19)".to_owned()];
        for (wanted, expected) in
            [("0", Some(0)), ("1", Some(1)), ("h100", Some(0)), ("llvm", Some(1)), ("19", Some(1)), ("amd", None)]
        {
            assert_eq!(position(&names, wanted), expected, "{wanted}");
        }
        let expected = "no device `amd`: there are 0: NVIDIA H100, 1: llvmpipe (LLVM 19), auto, cpu, reference";
        assert_eq!(unknown("amd", &names), expected);
    }

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
