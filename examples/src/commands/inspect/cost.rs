//! What running a model takes: its program as a device runs it, and the memory of weights and cache.

use serde::Serialize;
use tamarack::{
    Result, Unused,
    checkpoint::Checkpoint,
    plugins::Registry,
    program::{Op, Program, RULES, lower, rewrite},
    weights::{Matrix, fold},
};

/// A model that a plugin has recorded, rewritten for a device.
pub struct Served {
    /// The plugin, and where it comes from.
    pub plugin: String,
    /// What a device runs.
    pub program: Program,
    /// Bytes of the weights on a device.
    pub weights: u64,
    /// Tensors that it does not use.
    pub unused: Unused,
}

/// The dispatches of one step.
#[derive(Serialize)]
pub struct Dispatches {
    /// Of the whole model.
    pub step: usize,
    /// Of one layer, where there are two or more.
    pub layer: Option<usize>,
}

impl Served {
    /// Records `checkpoint` with the plugin that serves it, and refuses unused tensors if it is to be `strict`.
    ///
    /// # Errors
    /// None does, or the files do not fit together.
    pub fn by(registry: &Registry, checkpoint: &Checkpoint, strict: bool) -> Result<Served> {
        let model_type = checkpoint.config()["model_type"].as_str().unwrap_or("");
        let found = registry.find(model_type)?;
        let (graph, unused) = found.record_text(checkpoint, strict)?;
        let format = |p: &Program, w| fold(&p.weights, w, checkpoint).ok()?.format_of_all();
        let (program, _) = rewrite(lower(&graph), RULES, &format);
        let weights = weight_bytes(&program, checkpoint)?;
        Ok(Served { plugin: found.origin(), program, weights, unused })
    }

    /// Bytes that one token takes in the caches of all layers, whose elements are f16.
    pub fn cache_per_token(&self) -> u64 {
        self.program.caches.iter().map(|c| (c.groups * (c.dk + c.dv) * 2) as u64).sum()
    }

    /// How many dispatches a step encodes: one for each node that is not just another view.
    pub fn dispatches(&self) -> Dispatches {
        let ops: Vec<&Op> = self.program.nodes.iter().map(|n| &n.op).collect();
        let ops: Vec<&Op> = ops.into_iter().filter(|op| !op.is_view() && !matches!(op, Op::Tokens)).collect();
        let attends: Vec<usize> = (0..ops.len()).filter(|i| matches!(ops[*i], Op::Attend { .. })).collect();
        let layer = attends.windows(2).map(|pair| pair[1] - pair[0]).max();
        Dispatches { step: ops.len(), layer }
    }
}

fn weight_bytes(program: &Program, checkpoint: &Checkpoint) -> Result<u64> {
    let (matrices, vectors) = program.used_weights();
    let mut bytes = 0;
    for id in matrices {
        bytes += matrix_bytes(&fold(&program.weights, id, checkpoint)?);
    }
    for id in vectors {
        let matrix = fold(&program.weights, id, checkpoint)?;
        bytes += 4 * (matrix.rows() * matrix.cols()) as u64;
    }
    Ok(bytes)
}

/// Bytes of a matrix on a device.
pub fn matrix_bytes(matrix: &Matrix) -> u64 {
    let cols = matrix.cols();
    let words = matrix
        .formats()
        .into_iter()
        .map(|(format, rows)| rows.len() * (format.row_words(cols) + format.row_scale_words(cols)));
    4 * words.sum::<usize>() as u64
}
