//! What a step has to read from memory, whatever runs it.

use super::super::inspect::cost::matrix_bytes;
use tamarack::{
    Result,
    checkpoint::Checkpoint,
    program::{ExpertDown, ExpertUp, Op, Program},
    weights::fold,
};
use tamarack_api::Sym;

/// Bytes that a model reads. Activations, norms and single rows of the embedding are too few to count.
pub struct Traffic {
    /// Of weights, in each step; of experts those of one row.
    pub weights: u64,
    /// Multiplications and additions with weights for each token, those for its logits aside.
    pub flops: u64,
    /// Of each attention: bytes a token of the cache, and how far back it looks.
    pub caches: Vec<(u64, Option<usize>)>,
}

impl Traffic {
    /// What `program` reads.
    pub fn of(program: &Program, checkpoint: &Checkpoint) -> Result<Traffic> {
        let (mut weights, mut flops, mut caches) = (0, 0, Vec::new());
        for (id, node) in program.nodes.iter().enumerate() {
            match &node.op {
                Op::MatMul(m) => {
                    weights += matrix_bytes(&fold(&program.weights, m.weight, checkpoint)?);
                    if program.rows(id) == Sym::Tokens {
                        flops += 2 * program.weight_shape(m.weight).iter().product::<usize>() as u64;
                    }
                }
                Op::ExpertUp(ExpertUp { weight, .. }) | Op::ExpertDown(ExpertDown { weight, .. }) => {
                    // Those that one row chooses.
                    let (chosen, experts) = (program.dims(node.inputs[1])[1], program.weight_shape(*weight)[0]);
                    let share = |all: u64| all * chosen as u64 / experts as u64;
                    weights += share(matrix_bytes(&fold(&program.weights, *weight, checkpoint)?));
                    flops += share(2 * program.weight_shape(*weight).iter().product::<usize>() as u64);
                }
                Op::Attend { cache, spec } => {
                    let cache = program.caches[*cache];
                    // Keys and values are f16.
                    caches.push(((cache.width() * 2) as u64, spec.window));
                }
                Op::HeadLinear(h) => weights += matrix_bytes(&fold(&program.weights, h.weight, checkpoint)?),
                _ => {}
            }
        }
        Ok(Traffic { weights, flops, caches })
    }

    /// Bytes of a step that decodes one token for each of `batch` sequences of `length` tokens.
    pub fn step(&self, batch: usize, length: f64) -> f64 {
        let seen = |window: &Option<usize>| window.map_or(length, |w| length.min(w as f64));
        let caches: f64 = self.caches.iter().map(|(bytes, window)| *bytes as f64 * seen(window)).sum();
        self.weights as f64 + batch as f64 * caches
    }
}
