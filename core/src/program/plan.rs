//! Where each value lives: which buffer, and how its rows lie in it.
//!
//! Activations share a few buffers. A buffer is given back when the last node that needs it has run,
//! and the buffer freed longest ago is taken first: wgpu orders whole buffers, so that reusing the
//! newest one would make a dispatch wait for another that it has nothing to do with.

use crate::{
    Error, Result,
    program::{NodeId, Op, Program},
};
use std::collections::VecDeque;
use tamarack_api::Sym;
use tamarack_kernels::View;

/// Free buffers that stay unused before one is taken again.
const SPARE: usize = 2;

/// A value's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Index into [`Plan::buffers`].
    pub buffer: usize,
    /// Its rows.
    pub view: View,
}

/// Homes of all values of a program, the same in every phase.
pub(crate) struct Plan {
    /// By node; `None` for what is no tensor (token ids, a cache write).
    pub places: Vec<Option<Place>>,
    /// Bytes of each buffer.
    pub buffers: Vec<u64>,
    /// Views that cannot be read in place and are copied: the node has a buffer of its own.
    pub copied: Vec<bool>,
}

/// Plans a program for steps of so many rows.
pub(crate) fn plan(program: &Program, rows: impl Fn(Sym) -> usize) -> Result<Plan> {
    let n = program.nodes.len();
    let mut plan = Plan { places: vec![None; n], buffers: Vec::new(), copied: vec![false; n] };
    let last = last_uses(program);
    let mut free: VecDeque<usize> = VecDeque::new();
    // The last node that reads each buffer's present value.
    let mut held: Vec<NodeId> = Vec::new();
    for (id, node) in program.nodes.iter().enumerate() {
        let view = node.op.is_view().then(|| view(program, id, plan.places[node.inputs[0]].as_ref())).transpose()?;
        match view {
            Some(Some(place)) => {
                plan.places[id] = Some(place);
                held[place.buffer] = held[place.buffer].max(last[id]);
            }
            _ if has_value(&node.op) => {
                let bytes = rows(program.rows(id)) as u64 * program.width(id) as u64 * 4;
                // What comes with patches, or from another device, is there before anything runs.
                let comes = matches!(node.op, Op::Patches | Op::PatchInput(_) | Op::Carried);
                let may_reuse = id != program.output && !comes && free.len() > SPARE;
                let buffer = match if may_reuse { free.pop_front() } else { None } {
                    Some(buffer) => buffer,
                    None => {
                        plan.buffers.push(0);
                        held.push(0);
                        plan.buffers.len() - 1
                    }
                };
                plan.buffers[buffer] = plan.buffers[buffer].max(bytes);
                held[buffer] = last[id];
                plan.copied[id] = node.op.is_view();
                plan.places[id] = Some(Place { buffer, view: dense(&program.dims(id)) });
            }
            _ => {}
        }
        free.extend((0..held.len()).filter(|b| held[*b] == id));
    }
    Ok(plan)
}

fn has_value(op: &Op) -> bool {
    match op {
        Op::Tokens | Op::Adapters => false,
        Op::Prepare(p) => p.q.is_some(),
        _ => true,
    }
}

/// The last node that reads each value, itself or through a view; the output is read after all.
fn last_uses(program: &Program) -> Vec<NodeId> {
    let mut last: Vec<NodeId> = (0..program.nodes.len()).collect();
    for (id, node) in program.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|i| last[*i] = id);
    }
    last[program.output] = NodeId::MAX;
    for (id, node) in program.nodes.iter().enumerate().rev() {
        // Outputs: in a step of one row this is the same row, which is then read where it is. Prepare: attention
        // may do what comes before it.
        if node.op.is_view() || matches!(node.op, Op::Outputs | Op::Prepare(_)) {
            node.inputs.iter().for_each(|i| last[*i] = last[*i].max(last[id]));
        }
    }
    last
}

/// [rows, ..dims] without gaps.
pub(crate) fn dense(dims: &[usize]) -> View {
    match dims {
        [outer @ .., dim] if !outer.is_empty() => View::heads(outer.iter().product::<usize>() as u32, *dim as u32),
        _ => View::rows(dims.iter().product::<usize>() as u32),
    }
}

/// The place of a view's result within its input, if rows, heads and a stride each can express it.
fn view(program: &Program, id: NodeId, input: Option<&Place>) -> Result<Option<Place>> {
    let node = &program.nodes[id];
    let wrong = |what: &str| Error::Model(format!("{}: {what}", node.place));
    let Place { buffer, view } = *input.ok_or_else(|| wrong("a view of what is no tensor"))?;
    let (from, to) = (program.dims(node.inputs[0]), program.dims(id));
    let shape = dense(&to);
    let view = match &node.op {
        Op::Reshape if program.rows(id) != program.rows(node.inputs[0]) => {
            if !view.is_dense() || view.row != view.width() {
                return Err(wrong("rows that are merged do not lie side by side: merge them before they are cut"));
            }
            Some(View { offset: view.offset, ..shape })
        }
        Op::Reshape if view.is_dense() => Some(View { offset: view.offset, row: view.row, ..shape }),
        Op::Reshape => (shape.heads == view.heads && shape.dim == view.dim).then_some(view),
        Op::Slice { dim, start } => slice(view, &from, &to, dim - 1, *start as u32)?,
        _ => None,
    };
    Ok(view.map(|view| Place { buffer, view }))
}

/// `dim` counts the constant dimensions.
fn slice(view: View, from: &[usize], to: &[usize], dim: usize, start: u32) -> Result<Option<View>> {
    if dim + 1 == from.len() {
        return Ok(Some(View { offset: view.offset + start, dim: to[dim] as u32, ..view }));
    }
    let inner: usize = from[dim + 1..from.len() - 1].iter().product();
    let outer: usize = from[..dim].iter().product();
    if outer != 1 {
        return Err(Error::Model(format!("a slice of dimension {} of [rows, {from:?}] is not supported", dim + 1)));
    }
    let heads = (to[dim] * inner) as u32;
    Ok(Some(View { offset: view.offset + start * inner as u32 * view.head, heads, ..view }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{MatMul, Node};
    use tamarack_api::{Dim, WeightExpr, WeightNode};

    /// Products one after the other, of any number of layers.
    #[test]
    fn layers_share_a_few_buffers() {
        let node = |op, inputs: &[usize], width: &[usize]| {
            let dims = width.iter().map(|n| Dim::from(*n));
            let shape = [Dim::from(Sym::Tokens)].into_iter().chain(dims).collect();
            Node { op, inputs: inputs.to_vec(), shape, place: String::new() }
        };
        let mut nodes = vec![node(Op::Tokens, &[], &[]), node(Op::Embedding { weight: 0, scale: 1.0 }, &[0], &[64])];
        for _ in 0..40 {
            let x = nodes.len() - 1;
            nodes.push(node(Op::MatMul(MatMul::plain(0, None)), &[x], &[64]));
            nodes.push(node(Op::MatMul(MatMul::plain(0, None)), &[x + 1], &[64]));
        }
        let weights = vec![WeightNode { expr: WeightExpr::Tensor("w".to_owned()), shape: vec![64, 64] }];
        let output = nodes.len() - 1;
        let program = Program { nodes, weights, output, ..Program::default() };
        let plan = plan(&program, |_| 16).unwrap();
        // One that is read, one that is written, those that stay unused for a while, and the output's.
        assert_eq!(plan.buffers, [16 * 64 * 4; 3 + SPARE]);
        let places: Vec<usize> = plan.places.iter().flatten().map(|p| p.buffer).collect();
        assert!(places.windows(2 + SPARE).all(|next| !next[1..].contains(&next[0])), "{places:?}");
    }
}
