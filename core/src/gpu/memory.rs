//! What a model takes of a device's memory.

use super::{
    Gpu,
    executor::{MAX_SPLITS, SPLIT_ROWS},
    experts::Room,
    plan::Plan,
    weights::matrix_bytes,
};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, PAGE},
    program::{Op, Program},
    weights::fold,
};
use tamarack_api::Sym;
use tamarack_kernels::{View, sample::Sample, step as words};

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

/// Rows of a step that has all that fits.
pub(super) fn rows(sym: Sym, capacity: &Capacity) -> usize {
    if sym == Sym::Tokens { capacity.rows } else { capacity.outputs }
}

/// Bytes of a program's weights.
pub(super) fn weights(program: &Program, checkpoint: &Checkpoint) -> Result<u64> {
    let (matrices, vectors) = program.used_weights();
    let mut bytes = 0;
    for id in matrices {
        bytes += matrix_bytes(&fold(&program.weights, id, checkpoint)?);
    }
    for id in vectors {
        let vector = fold(&program.weights, id, checkpoint)?;
        bytes += (vector.rows() * vector.cols() * 4) as u64;
    }
    Ok(bytes)
}

/// Bytes of each cache: keys and values in f16.
pub(super) fn caches(program: &Program, capacity: &Capacity) -> impl Iterator<Item = u64> {
    let slots = capacity.pages * PAGE;
    program.caches.iter().map(move |c| (slots * c.width() * 2) as u64)
}

/// Bytes of the buffers beside weights, caches and what lies between operations.
pub(super) struct Workspace {
    pub ropes: Vec<u64>,
    pub scratch: u64,
    pub tiles: u64,
    pub sorted: u64,
    pub partials: u64,
    pub candidates: u64,
    pub step: u64,
    pub sampled: u64,
    pub results: u64,
}

impl Workspace {
    /// For steps up to `capacity`.
    pub fn of(gpu: &Gpu, program: &Program, capacity: &Capacity) -> Workspace {
        let bytes = |words: usize| words as u64 * 4;
        let step = words::HEADER_WORDS as usize
            + capacity.rows * words::ROW_WORDS as usize
            + capacity.outputs * words::OUTPUT_WORDS as usize
            + capacity.pages
            + capacity.slots;
        let vocab = program.width(program.output) as u32;
        let room = Room::of(program, |sym| rows(sym, capacity));
        let sample = Sample { vocab, logits: View::rows(vocab) };
        Workspace {
            ropes: program.ropes.iter().map(|r| bytes(capacity.rows * r.width())).collect(),
            scratch: bytes(scratch_words(program, capacity).max(room.scratch)),
            tiles: bytes(room.tiles),
            sorted: bytes(room.sorted),
            partials: bytes(partial_words(program) * MAX_SPLITS * SPLIT_ROWS.min(capacity.rows)),
            candidates: bytes(sample.partial_words(&gpu.caps) as usize * capacity.outputs),
            step: bytes(step),
            sampled: bytes(capacity.slots),
            results: bytes(capacity.outputs),
        }
    }

    /// All of them.
    pub fn bytes(&self) -> u64 {
        let Workspace { ropes, scratch, tiles, sorted, partials, candidates, step, sampled, results } = self;
        ropes.iter().sum::<u64>() + scratch + tiles + sorted + partials + candidates + step + sampled + results
    }
}

/// What attention keeps of a row's part of the keys.
fn partial_words(program: &Program) -> usize {
    let partial = |(id, node): (usize, &crate::program::Node)| match node.op {
        Op::Attend { cache, .. } => program.dims(id)[0] * (program.caches[cache].dv + 2),
        _ => 0,
    };
    program.nodes.iter().enumerate().map(partial).max().unwrap_or(0)
}

/// Room for a normed or copied input of any product.
fn scratch_words(program: &Program, capacity: &Capacity) -> usize {
    let products = program.nodes.iter().filter(|n| matches!(n.op, Op::MatMul(_) | Op::ExpertUp(_)));
    let inputs = products.map(|n| n.inputs[0]);
    inputs.map(|i| program.width(i) * rows(program.rows(i), capacity)).max().unwrap_or(0)
}
