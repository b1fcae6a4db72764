//! What a model takes of a device's memory.

use super::{
    Gpu,
    executor::{MAX_SPLITS, SPLIT_ROWS},
    experts::Room,
    phase::Rows,
    rounding::Rounding,
    weights::Layout,
};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, PAGE},
    program::{Op, Program, plan::Plan},
    weights::fold,
};
use std::collections::HashMap;
use tamarack_api::{Sym, WeightId};
use tamarack_kernels::{View, halves::padded, matmul, sample::Sample, step as words};

/// Refuses before anything is allocated what the device's bindings cannot hold.
pub(super) fn check_sizes(gpu: &Gpu, program: &Program, plan: &Plan, capacity: &Capacity) -> Result<()> {
    let limit = gpu.caps.binding_size;
    let slot = program.caches.iter().map(|c| c.words() * 4).max().unwrap_or(1) as u64;
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
    let cache: u64 = program.caches.iter().map(|c| (c.words() * 4 * tokens) as u64).sum();
    let weights: u64 = checkpoint.tensors().map(|(_, tensor)| tensor.bytes()).sum();
    let [weights, cache, rest] = [weights, cache, plan.buffers.iter().sum()].map(|bytes| bytes.div_ceil(1 << 20));
    format!(
        "weights take some {weights} MiB, a context of {tokens} tokens {cache} MiB, activations {rest} MiB: ask for a \
         smaller context, or for a model of fewer bits"
    )
}

/// Rows of a step that has all that fits. Kernels for few rows read as many as they are made for.
pub(super) fn rows(sym: Sym, capacity: &Capacity) -> usize {
    let rows = if sym == Sym::Tokens { capacity.rows } else { capacity.outputs };
    if rows < 8 { rows.next_power_of_two() } else { rows }
}

/// Bytes of a program's vectors.
pub(super) fn vectors(program: &Program, checkpoint: &Checkpoint) -> Result<u64> {
    let vectors = program.used_weights().1.into_iter().map(|id| fold(&program.weights, id, checkpoint));
    vectors.map(|vector| vector.map(|v| (v.rows() * v.cols() * 4) as u64)).sum()
}

/// Bytes of each cache.
pub(super) fn caches(program: &Program, capacity: &Capacity) -> impl Iterator<Item = u64> {
    let slots = capacity.pages * PAGE;
    program.caches.iter().map(move |c| (slots * c.words() * 4) as u64)
}

/// Bytes of the buffers beside weights and caches.
pub(super) struct Workspace {
    pub activations: Vec<u64>,
    pub rounded: Vec<u64>,
    pub ropes: Vec<u64>,
    pub scratch: u64,
    pub halves: u64,
    pub worths: u64,
    pub sums: u64,
    pub tiles: u64,
    pub sorted: u64,
    pub partials: u64,
    pub candidates: u64,
    pub step: u64,
    pub windows: u64,
    pub sampled: u64,
    pub results: u64,
}

impl Workspace {
    /// For steps up to `capacity`.
    pub fn of(
        gpu: &Gpu,
        program: &Program,
        plan: &Plan,
        rounding: &Rounding,
        matrices: &HashMap<WeightId, Layout>,
        capacity: &Capacity,
    ) -> Workspace {
        let bytes = |words: usize| words as u64 * 4;
        let step = words::HEADER_WORDS as usize
            + capacity.rows * words::ROW_WORDS as usize
            + capacity.outputs * words::OUTPUT_WORDS as usize
            + capacity.pages
            + capacity.slots;
        let vocab = program.width(program.output) as u32;
        let room = Room::of(program, |sym| rows(sym, capacity));
        let sample = Sample { vocab, logits: View::rows(vocab) };
        let [halves, sums] = cooperative_words(gpu, program, matrices, capacity);
        Workspace {
            activations: plan.buffers.clone(),
            rounded: rounding.buffers.iter().map(|row| row * rows(Sym::Tokens, capacity).min(8) as u64).collect(),
            ropes: program.ropes.iter().map(|r| bytes(capacity.rows * r.width())).collect(),
            scratch: bytes(scratch_words(program, capacity).max(room.scratch)),
            halves: bytes(halves),
            worths: bytes(capacity.rows.max(capacity.outputs)),
            sums: bytes(sums),
            tiles: bytes(room.tiles),
            sorted: bytes(room.sorted),
            partials: bytes(partial_words(program) * MAX_SPLITS * SPLIT_ROWS.min(capacity.rows)),
            candidates: bytes(sample.partial_words(&gpu.caps) as usize * capacity.outputs),
            step: bytes(step),
            windows: if program.caches.iter().any(|c| c.windowed) { bytes(step) } else { 0 },
            sampled: bytes(capacity.slots),
            results: bytes(capacity.outputs),
        }
    }

    /// All of them.
    pub fn bytes(&self) -> u64 {
        let many = [&self.activations, &self.rounded, &self.ropes].into_iter().flatten().sum::<u64>();
        let products = self.scratch + self.halves + self.worths + self.sums + self.tiles + self.sorted;
        let steps = self.step + self.windows + self.sampled + self.results;
        many + products + self.partials + self.candidates + steps
    }
}

/// Room for the halves and the partial sums of any product.
fn cooperative_words(
    gpu: &Gpu,
    program: &Program,
    matrices: &HashMap<WeightId, Layout>,
    capacity: &Capacity,
) -> [usize; 2] {
    let (mut halves, mut sums) = (0, 0);
    for (id, node) in program.nodes.iter().enumerate() {
        let Op::MatMul(m) = &node.op else { continue };
        let matrix = &matrices[&m.weight];
        if gpu.caps.cooperative.is_none() || !matrix.fits_halves {
            continue;
        }
        let rows = rows(program.rows(id), capacity);
        halves = halves.max(rows * padded(matrix.cols) as usize / 2);
        for most in Rows::tiles() {
            let rows = if most == Rows::MOST { rows } else { rows.min(most as usize) };
            let parts = if m.glu.is_some() { 2 } else { 1 };
            let words = |n: u32| matmul::partial_words(n, matrix.cols, parts, most, rows as u32) as usize;
            sums = sums.max(matrix.segments.iter().map(|(_, n)| words(*n)).max().unwrap_or(0));
        }
    }
    [halves, sums]
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
