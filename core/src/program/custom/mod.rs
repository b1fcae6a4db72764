//! A plugin's own operations: what the host believes of them, and how they run.

mod depth;
mod validate;

pub use validate::{validate, validate_each};

use super::{Node, NodeId, Op, Program, tidy};
use crate::{Error, Result};
use std::{fmt, sync::Arc};
use tamarack_api::{Constant, CustomOp, Graph, WeightId, plugin::PlainRequest};
use tamarack_kernels::{Access, Extent, Kernel};

/// Custom ops of one graph: each is a pipeline of its own.
const MAX_OPS: usize = 256;
/// Bytes of their WGSL together.
const MAX_WGSL: usize = 1 << 20;

/// Checks the WGSL of every custom op of a graph against what the op declares.
///
/// # Errors
/// The line of the plugin that uses the op, and what is wrong with the WGSL and where.
pub fn validate_all(graph: &Graph) -> Result<(), String> {
    let (count, bytes) = (graph.custom.len(), graph.custom.iter().map(|op| op.wgsl.len()).sum::<usize>());
    if count > MAX_OPS || bytes > MAX_WGSL {
        return Err(format!(
            "expected at most {MAX_OPS} different custom ops of {MAX_WGSL} bytes of WGSL in all, found {count} of {bytes} \
             bytes: take what differs between them as a weight"
        ));
    }
    validate_each(&graph.custom).map_err(|(which, e)| {
        let Some(i) = which else { return e };
        let uses =
            |n: &tamarack_api::Node| matches!(&n.op, tamarack_api::Op::Custom { custom, .. } if *custom as usize == i);
        let place = graph.nodes.iter().position(uses).map_or("?", |node| graph.place(node as u32));
        format!("{place}: custom op `{}`: {e}", graph.custom[i].name)
    })
}

/// The text that is compiled: constants stand on the first line, so that the author's lines keep their numbers.
pub fn source(op: &CustomOp) -> String {
    let constant = |(name, value): &(String, Constant)| match value {
        Constant::U32(n) => format!("const {name}: u32 = {n}u; "),
        Constant::F32(x) => format!("const {name}: f32 = {x:?}f; "),
    };
    op.constants.iter().map(constant).collect::<String>() + &op.wgsl
}

/// How a custom op is launched. It has no step buffer: what it sees is its own rows.
pub fn kernel(op: &CustomOp) -> Kernel {
    let mut bindings = vec![Access::Read; op.inputs + op.weights];
    bindings.push(Access::ReadWrite);
    let grid = [Extent::Const(op.groups), Extent::Rows(1), Extent::Const(1)];
    Kernel { name: format!("custom {}", op.name), source: source(op), bindings, grid }
}

/// A program for a device that runs the ops' WGSL: without what they stand for, and with rows that lie
/// without gaps.
pub fn for_device(mut program: Program) -> Program {
    for id in 0..program.nodes.len() {
        let Op::Custom { custom, decomposed, .. } = &mut program.nodes[id].op else { continue };
        let (wanted, custom) = (std::mem::take(decomposed), *custom);
        if wanted {
            program.nodes[id].inputs.truncate(program.custom[custom].inputs);
        }
        for i in 0..program.nodes[id].inputs.len() {
            let input = program.nodes[id].inputs[i];
            if is_cut(&program, input) {
                let Node { shape, place, .. } = program.nodes[input].clone();
                program.nodes.push(Node { op: Op::Map(Vec::new()), inputs: vec![input], shape, place });
                program.nodes[id].inputs[i] = program.nodes.len() - 1;
            }
        }
    }
    if !program.custom.is_empty() {
        tidy::tidy(&mut program);
    }
    program
}

/// Whether a node's rows may lie apart: it looks at a part of another one.
fn is_cut(program: &Program, mut id: NodeId) -> bool {
    while let Op::Reshape = program.nodes[id].op {
        id = program.nodes[id].inputs[0];
    }
    matches!(program.nodes[id].op, Op::Slice { .. })
}

/// Custom ops in plain arithmetic, which the plugin computes: for the reference executor.
#[derive(Clone)]
pub struct PlainOps(Arc<Compute>);

type Compute = dyn Fn(PlainRequest, &[&[f32]]) -> Result<Vec<f32>, String> + Send + Sync;

impl PlainOps {
    /// `compute` gets the rows of every input and the values of every weight, and gives the rows of the result.
    pub fn new(
        compute: impl Fn(PlainRequest, &[&[f32]]) -> Result<Vec<f32>, String> + Send + Sync + 'static,
    ) -> PlainOps {
        PlainOps(Arc::new(compute))
    }

    /// Asks for what a request describes.
    ///
    /// # Errors
    /// The plugin has no such op, or panicked.
    pub fn call(&self, request: PlainRequest, values: &[&[f32]]) -> Result<Vec<f32>, String> {
        (self.0)(request, values)
    }

    /// The rows of a custom op's result, which has so many values in all.
    pub(crate) fn compute(
        &self,
        op: &CustomOp,
        rows: usize,
        values: &[&[f32]],
        len: usize,
    ) -> Result<Vec<f32>, String> {
        let (inputs, weights) = values.split_at(op.inputs);
        let request = PlainRequest {
            architecture: String::new(),
            op: op.name.clone(),
            constants: op.constants.clone(),
            rows,
            inputs: inputs.iter().map(|x| x.len().checked_div(rows).unwrap_or(0)).collect(),
            weights: weights.iter().map(|w| w.len()).collect(),
        };
        let found = self.call(request, values).map_err(|e| format!("custom op `{}`: {e}", op.name))?;
        if found.len() != len {
            let (name, found) = (&op.name, found.len());
            return Err(format!(
                "custom op `{name}`: its plain form gives {found} values for {rows} rows, wants {len}"
            ));
        }
        Ok(found)
    }
}

impl fmt::Debug for PlainOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainOps")
    }
}

/// Refuses an op that only a GPU can run.
pub(crate) fn check_plain(program: &Program) -> Result<()> {
    for node in &program.nodes {
        let Op::Custom { custom, decomposed: false, .. } = &node.op else { continue };
        let op = &program.custom[*custom];
        let wrong = |e: String| Error::Model(format!("{}: {e}: choose a GPU to run it", node.place));
        let plain = program.plain.as_ref();
        let plain = plain.ok_or_else(|| wrong(format!("custom op `{}` has no plain form here", op.name)))?;
        let nothing: Vec<&[f32]> = vec![&[]; op.inputs + op.weights];
        plain.compute(op, 0, &nothing, 0).map_err(wrong)?;
    }
    Ok(())
}

/// What a custom op stands for, or its plain form, on a processor: `x` are the rows of its inputs.
pub(crate) fn plain<'a>(
    program: &Program,
    id: NodeId,
    x: &[&'a [f32]],
    vector: impl Fn(WeightId) -> &'a [f32],
) -> Result<Vec<f32>> {
    let node = &program.nodes[id];
    let (custom, weights) = match &node.op {
        Op::Custom { decomposed: false, custom, weights } => (&program.custom[*custom], weights),
        _ => return Ok(x.last().map(|x| x.to_vec()).unwrap_or_default()),
    };
    let rows = x[0].len() / program.width(node.inputs[0]).max(1);
    let values: Vec<&[f32]> = x.iter().copied().chain(weights.iter().map(|w| vector(*w))).collect();
    let plain = program.plain.as_ref().map(|p| p.compute(custom, rows, &values, rows * program.width(id)));
    plain.unwrap_or(Ok(Vec::new())).map_err(|e| Error::Plugin(format!("{}: {e}", node.place)))
}

/// Whether both are the same plugin's.
impl PartialEq for PlainOps {
    fn eq(&self, other: &PlainOps) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
