//! Low-rank products beside those of a program.

use super::{Adapter, LowRank, fuse::adaptable, modules, rows_of};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, Tensor},
    program::{Binary, MatMul, Node, NodeId, Op, Program},
    weights::{Matrix, fold},
};
use rayon::prelude::*;
use std::{collections::BTreeMap, ops::Range};
use tamarack_api::{Dim, Sym, WeightExpr, WeightId, WeightNode};

/// Ranks are filled up to whole numbers of these: kernels go through vectors and blocks.
const RANKS: usize = 32;

/// The programs with `adapters` beside their products, and the tensors of those.
///
/// # Errors
/// [`Error::Model`] if a module of an adapter is no product of the model, or of another shape.
pub(crate) fn apply(
    text: Program,
    tower: Option<Program>,
    checkpoint: &Checkpoint,
    adapters: &[Adapter],
) -> Result<(Program, Option<Program>, BTreeMap<String, Tensor>)> {
    if adapters.is_empty() {
        return Ok((text, tower, BTreeMap::new()));
    }
    let adaptable = adaptable(std::iter::once(&text).chain(&tower));
    let assigned = adapters.iter().map(|adapter| modules::assign(adapter, &adaptable)).collect::<Result<Vec<_>>>()?;
    let mut tensors = BTreeMap::new();
    let text = with_adapters(text, checkpoint, adapters, &assigned, &mut tensors)?;
    let tower = tower.map(|tower| with_adapters(tower, checkpoint, adapters, &assigned, &mut tensors)).transpose()?;
    Ok((text, tower, tensors))
}

fn with_adapters(
    program: Program,
    checkpoint: &Checkpoint,
    adapters: &[Adapter],
    assigned: &[BTreeMap<String, &str>],
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Program> {
    let nodes = program.nodes.clone();
    let program = Program { nodes: Vec::new(), ..program };
    let mut rebuilt = Rebuilt { program, checkpoint, adapters, assigned, ids: None, tensors };
    let mut at: Vec<NodeId> = Vec::new();
    for node in nodes {
        let inputs = node.inputs.iter().map(|i| at[*i]).collect();
        at.push(rebuilt.node(Node { inputs, ..node })?);
    }
    let output = at[rebuilt.program.output];
    Ok(Program { output, ..rebuilt.program })
}

struct Rebuilt<'a> {
    program: Program,
    checkpoint: &'a Checkpoint,
    adapters: &'a [Adapter],
    /// Of each adapter, the modules of the weights that it changes.
    assigned: &'a [BTreeMap<String, &'a str>],
    /// The node that says which adapter each row has.
    ids: Option<NodeId>,
    tensors: &'a mut BTreeMap<String, Tensor>,
}

impl Rebuilt<'_> {
    fn push(&mut self, op: Op, inputs: Vec<NodeId>, like: &Node, width: Option<usize>) -> NodeId {
        let mut shape = like.shape.clone();
        if let (Some(width), Some(last)) = (width, shape.last_mut()) {
            *last = width.into();
        }
        self.program.nodes.push(Node { op, inputs, shape, place: like.place.clone() });
        self.program.nodes.len() - 1
    }

    /// Adds a node, and what adapters add to it. The node whose result is the sum.
    fn node(&mut self, node: Node) -> Result<NodeId> {
        let Op::MatMul(m) = &node.op else {
            self.program.nodes.push(node);
            return Ok(self.program.nodes.len() - 1);
        };
        let Some((name, rows)) = rows_of(&self.program, m.weight) else {
            let id = self.push(node.op.clone(), node.inputs.clone(), &node, None);
            return Ok(id);
        };
        let found = self.adapters.iter().zip(self.assigned).enumerate().filter_map(|(i, (adapter, assigned))| {
            let (module, low) = adapter.modules.get_key_value(*assigned.get(&name)?)?;
            Some((i, module, low))
        });
        let found: Vec<(usize, &String, &LowRank)> = found.collect();
        let total = self.checkpoint.get(&name).map_or(0, Tensor::rows);
        let inputs = self.program.weight_shape(m.weight)[1];
        for (i, module, low) in &found {
            if (low.outputs(), low.inputs()) != (total, inputs) {
                let (adapter, found) = (&self.adapters[*i].name, [low.outputs(), low.inputs()]);
                let message = format!("adapter `{adapter}`: {module}: expected [{total}, {inputs}], found {found:?}");
                return Err(Error::Model(message));
            }
        }
        if found.is_empty() {
            return Ok(self.push(node.op.clone(), node.inputs.clone(), &node, None));
        }
        let lows: Vec<(usize, &LowRank)> = found.iter().map(|(i, _, low)| (*i, *low)).collect();
        self.adapted(&node, m, &format!("{name}[{}..{}]", rows.start, rows.end), rows, &lows)
    }

    fn adapted(
        &mut self,
        node: &Node,
        m: &MatMul,
        name: &str,
        rows: Range<usize>,
        lows: &[(usize, &LowRank)],
    ) -> Result<NodeId> {
        let (x, outputs) = (node.inputs[0], rows.len());
        let ranks: usize = lows.iter().map(|(_, low)| low.rank).sum();
        let wide = ranks.next_multiple_of(RANKS);
        let inputs = lows[0].1.inputs();
        let mut a: Vec<f32> = lows.iter().flat_map(|(_, low)| low.a.iter().copied()).collect();
        a.resize(wide * inputs, 0.0);
        let (mut b, mut mask) = (vec![0.0; outputs * wide], vec![0.0; (self.adapters.len() + 1) * wide]);
        let mut first = 0;
        for (i, low) in lows {
            let own = low.b.chunks_exact(low.rank).skip(rows.start);
            b.chunks_exact_mut(wide).zip(own).for_each(|(b, own)| b[first..first + low.rank].copy_from_slice(own));
            mask[(i + 1) * wide + first..][..low.rank].fill(low.scale);
            first += low.rank;
        }
        let down = self.weight(name, "a", [wide, inputs], a)?;
        let up = self.weight(name, "b", [outputs, wide], b)?;
        let low = self.push(Op::MatMul(MatMul::plain(down, None)), vec![x], node, Some(wide));
        let mask = self.chosen(node, name, "mask", mask)?;
        let low = self.push(binary(Binary::Mul), vec![low, mask], node, Some(wide));
        let low = self.push(Op::MatMul(MatMul::plain(up, None)), vec![low], node, None);

        if lows.iter().all(|(_, low)| low.magnitude.is_none()) {
            let whole = self.push(node.op.clone(), node.inputs.clone(), node, None);
            return Ok(self.push(binary(Binary::Add), vec![whole, low], node, None));
        }
        let base = fold(&self.program.weights, m.weight, self.checkpoint)?;
        let mut factors = vec![1.0; (self.adapters.len() + 1) * outputs];
        for (i, low) in lows {
            factors[(i + 1) * outputs..][..outputs].copy_from_slice(&lengths(&base, low, &rows));
        }
        let factors = self.chosen(node, name, "factors", factors)?;
        let whole = self.push(Op::MatMul(MatMul::plain(m.weight, None)), node.inputs.clone(), node, None);
        let whole = self.push(binary(Binary::Add), vec![whole, low], node, None);
        let whole = self.push(binary(Binary::Mul), vec![whole, factors], node, None);
        let Some(bias) = m.bias else { return Ok(whole) };
        let bias = fold(&self.program.weights, bias, self.checkpoint)?.values();
        let bias = self.chosen(node, name, "bias", bias.repeat(self.adapters.len() + 1))?;
        Ok(self.push(binary(Binary::Add), vec![whole, bias], node, None))
    }

    /// The row of a table [adapters + 1, width] that belongs to each row's adapter.
    fn chosen(&mut self, node: &Node, name: &str, what: &str, table: Vec<f32>) -> Result<NodeId> {
        let tokens = Dim::from(Sym::Tokens);
        let place = node.place.clone();
        let ids = self.ids.unwrap_or_else(|| {
            let ids = Node { op: Op::Adapters, inputs: Vec::new(), shape: vec![tokens], place: place.clone() };
            self.program.nodes.push(ids);
            self.program.nodes.len() - 1
        });
        self.ids = Some(ids);
        let count = self.adapters.len() + 1;
        let width = table.len() / count;
        let weight = self.weight(name, what, [count, width], table)?;
        let op = Op::Embedding { weight, scale: 1.0 };
        self.program.nodes.push(Node { op, inputs: vec![ids], shape: vec![tokens, width.into()], place });
        let rows = self.program.nodes.len() - 1;
        if node.shape.first().and_then(|d| d.sym()) == Some(Sym::Outputs) {
            return Ok(self.push(Op::Outputs, vec![rows], node, Some(width)));
        }
        Ok(rows)
    }

    fn weight(&mut self, name: &str, what: &str, shape: [usize; 2], values: Vec<f32>) -> Result<WeightId> {
        let name = format!("adapters.{what}.{name}");
        self.tensors.insert(name.clone(), Tensor::from_values(&name, &shape, &values)?);
        self.program.weights.push(WeightNode { expr: WeightExpr::Tensor(name), shape: shape.to_vec() });
        Ok(self.program.weights.len() as WeightId - 1)
    }
}

fn binary(op: Binary) -> Op {
    Op::Binary { op, post: Vec::new() }
}

/// What each row of the adapted weight is multiplied by, to have the length that DoRA learnt.
fn lengths(base: &Matrix, low: &LowRank, rows: &Range<usize>) -> Vec<f32> {
    let length = |i: usize| {
        let mut row = vec![0.0; base.cols()];
        base.row(i, &mut row);
        low.adapt(rows.start + i, &mut row)
    };
    (0..rows.len()).into_par_iter().map(length).collect()
}
