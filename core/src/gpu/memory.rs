//! What a model takes of a device's memory.

use super::{Gpu, experts::Room};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, PAGE},
    program::{Program, plan::Plan},
};
use tamarack_api::Sym;

/// Refuses before anything is allocated what the device's bindings cannot hold.
pub(super) fn check_sizes(gpu: &Gpu, program: &Program, plan: &Plan, capacity: &Capacity) -> Result<()> {
    let limit = gpu.caps.binding_size;
    let slot = program.caches.iter().map(|c| c.width() * 2).max().unwrap_or(1) as u64;
    let tokens = (capacity.pages * PAGE) as u64;
    if slot * tokens > limit {
        let (device, most) = (&gpu.info().name, limit / slot);
        let need = slot * tokens;
        let message = format!(
            "{device}: a context of {tokens} tokens needs {need} bytes of cache in each layer, a binding holds \
             {limit}: ask for a context of at most {most} tokens"
        );
        return Err(Error::Memory(message));
    }
    let rows = |sym| if sym == Sym::Tokens { capacity.rows } else { capacity.outputs };
    let choices = Room::of(program, rows).scratch as u64 * 4;
    match plan.buffers.iter().copied().max().map(|most| most.max(choices)) {
        Some(bytes) if bytes > limit => {
            let device = &gpu.info().name;
            let rows = capacity.rows;
            let message =
                format!("{device}: steps of {rows} rows need a buffer of {bytes} bytes, a binding holds {limit}");
            Err(Error::Memory(message))
        }
        _ => Ok(()),
    }
}

/// What a model takes of a device's memory, for people who have too little.
pub(super) fn needs(program: &Program, plan: &Plan, checkpoint: &Checkpoint, capacity: &Capacity) -> String {
    let tokens = capacity.pages * PAGE;
    let cache: u64 = program.caches.iter().map(|c| (c.width() * 2 * tokens) as u64).sum();
    let weights: u64 = checkpoint.tensors().map(|(_, tensor)| tensor.bytes()).sum();
    let [weights, cache, rest] = [weights, cache, plan.buffers.iter().sum()].map(|bytes| bytes.div_ceil(1 << 20));
    format!(
        "weights take some {weights} MiB, a context of {tokens} tokens {cache} MiB, activations {rest} MiB: ask for a \
         smaller context, or for a model of fewer bits"
    )
}
