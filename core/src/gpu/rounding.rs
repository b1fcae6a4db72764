//! Which results are stored rounded by the kernel that makes them, so that the products that take them
//! need not round: see [`tamarack_kernels::rounded`]. In steps of few rows: there nothing hides it.

use super::{Gpu, weights::Layout};
use crate::program::{MatMul, Node, NodeId, Op, Program, plan::Plan};
use std::collections::HashMap;
use tamarack_api::{Sym, WeightId};
use tamarack_kernels::{
    matmul::{Precision, Row},
    rounded::{UNIT, words},
};

/// A result that is stored rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Made {
    /// In which of [`Rounding::buffers`].
    pub buffer: usize,
    /// The weight of the norm that comes next.
    pub gain: Option<WeightId>,
    /// Whether it is needed in f32, too.
    pub store: bool,
}

/// What is stored rounded in steps of few rows.
pub(super) struct Rounding {
    /// By the node that makes it.
    pub made: Vec<Option<Made>>,
    /// By the node that takes it: in which buffer.
    pub taken: Vec<Option<usize>>,
    /// Bytes of a row in each buffer.
    pub buffers: Vec<u64>,
}

impl Rounding {
    /// Finds every result that a product with quantized weights takes.
    pub fn of(gpu: &Gpu, program: &Program, plan: &Plan, matrices: &HashMap<WeightId, Layout>) -> Rounding {
        let count = program.nodes.len();
        let mut rounding = Rounding { made: vec![None; count], taken: vec![None; count], buffers: Vec::new() };
        let precision = gpu.settings.precision;
        if precision == Precision::Full {
            return rounding;
        }
        // The nodes that use each value itself, views looked through.
        let mut users: Vec<Vec<(NodeId, usize)>> = vec![Vec::new(); count];
        for (id, node) in program.nodes.iter().enumerate().filter(|(_, n)| !passes(plan, n)) {
            node.inputs.iter().enumerate().for_each(|(i, input)| users[source(program, plan, *input)].push((id, i)));
        }
        let mut busy_until: Vec<NodeId> = Vec::new();
        for (id, node) in program.nodes.iter().enumerate() {
            let makes = match &node.op {
                Op::MatMul(m) => rounding.taken[id].is_some() && matrices[&m.weight].segments.len() == 1,
                Op::Embedding { .. } => true,
                Op::Attend { cache, .. } => (program.caches[*cache].dv as u32).is_multiple_of(UNIT),
                _ => false,
            };
            let width = program.width(id) as u32;
            let dense = plan.places[id].is_some_and(|p| p.view.is_dense());
            if !makes || !dense || !width.is_multiple_of(UNIT) || program.rows(id) != Sym::Tokens {
                continue;
            }
            let serves = |(user, input): &(NodeId, usize)| match &program.nodes[*user].op {
                Op::MatMul(m) if *input == 0 => {
                    let segments = &matrices[&m.weight].segments;
                    segments.iter().all(|s| Row::serves(s.0, width, precision)) && can_wait(program, m)
                }
                _ => false,
            };
            let takers: Vec<NodeId> = users[id].iter().filter(|u| serves(u)).map(|u| u.0).collect();
            let gain = |taker: &NodeId| match &program.nodes[*taker].op {
                Op::MatMul(m) => m.norm.as_ref().map(|n| n.weight),
                _ => None,
            };
            let Some(first) = takers.first().map(gain) else { continue };
            // One norm, or none, for all that take it.
            let takers: Vec<NodeId> = takers.into_iter().filter(|t| gain(t) == first).collect();
            let last = takers.iter().max().copied().unwrap_or(id);
            let free = busy_until.iter().position(|until| *until < id);
            let buffer = free.unwrap_or_else(|| {
                busy_until.push(0);
                rounding.buffers.push(0);
                busy_until.len() - 1
            });
            busy_until[buffer] = last;
            let bytes = u64::from(words(width, precision)) * 4;
            rounding.buffers[buffer] = rounding.buffers[buffer].max(bytes);
            takers.iter().for_each(|t| rounding.taken[*t] = Some(buffer));
            let store = users[id].iter().any(|(user, input)| *input != 0 || !takers.contains(user));
            rounding.made[id] = Some(Made { buffer, gain: first.flatten(), store });
        }
        rounding
    }
}

/// Whether the norm of a product's input can be finished after it.
fn can_wait(program: &Program, m: &MatMul) -> bool {
    m.norm.as_ref().is_none_or(|n| !n.center && n.bias.is_none() && flat(program, n.weight))
}

fn flat(program: &Program, weight: Option<WeightId>) -> bool {
    weight.is_none_or(|w| program.weight_shape(w).len() == 1)
}

/// The node whose value this is, all of it and in order, where every row is an output.
fn source(program: &Program, plan: &Plan, mut id: NodeId) -> NodeId {
    while passes(plan, &program.nodes[id]) {
        id = program.nodes[id].inputs[0];
    }
    id
}

/// Whether a node passes its input on as it is: another shape, or the rows that there are.
fn passes(plan: &Plan, node: &Node) -> bool {
    match &node.op {
        Op::Outputs => true,
        Op::Reshape => plan.places[node.inputs[0]].is_some_and(|p| p.view.is_dense() && p.view.offset == 0),
        _ => false,
    }
}
