//! What the nodes of a program compute, and where it lies.

use super::{
    cache::Kept,
    elements::{self, RmsNorm},
    matrix::CpuMatrix,
    multiply::{ELEMENTS, How},
};
use crate::{
    Error, Result,
    exec::{ImagePatches, Step},
    program::{
        Binary, Cache, NodeId, Norm, Op, Post, Program, custom,
        plan::{Place, Plan},
    },
    reference::{fused, moe, ops},
};
use rayon::prelude::*;
use std::{borrow::Cow, collections::HashMap};
use tamarack_api::{Gate, Sym, WeightId};
use tamarack_kernels::View;

/// A program with its weights.
pub(super) struct Model {
    pub program: Program,
    pub plan: Plan,
    pub matrices: HashMap<WeightId, CpuMatrix>,
    pub vectors: HashMap<WeightId, Vec<f32>>,
    pub how: How,
}

/// What steps change.
pub(super) struct Memory {
    pub buffers: Vec<Vec<f32>>,
    pub caches: Vec<Kept>,
    /// Rows that a tower has made.
    pub images: Vec<f32>,
}

/// What the nodes of one step share.
pub(super) struct Context<'a> {
    pub step: &'a Step,
    pub tokens: Vec<u32>,
    pub ropes: Vec<Vec<[f32; 2]>>,
    /// Of a tower's step, and the step whose sequences are windows.
    pub image: Option<(&'a ImagePatches, Step)>,
    /// Of a part of a program: the rows that it begins with.
    pub carried: &'a [f32],
}

impl Context<'_> {
    /// The step as a cache sees it.
    pub fn step_of(&self, cache: &Cache) -> &Step {
        self.image.as_ref().filter(|_| cache.windowed).map_or(self.step, |(_, windows)| windows)
    }
}

/// A node's result.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    data: &'a [f32],
    view: View,
}

impl<'a> Values<'a> {
    /// Row `r`: copied together where its heads lie apart.
    pub fn row(&self, r: usize) -> Cow<'a, [f32]> {
        let start = (self.view.offset + r as u32 * self.view.row) as usize;
        if self.view.is_dense() {
            return Cow::Borrowed(&self.data[start..][..self.view.width() as usize]);
        }
        let head = |h: u32| &self.data[start + (h * self.view.head) as usize..][..self.view.dim as usize];
        Cow::Owned((0..self.view.heads).flat_map(head).copied().collect())
    }

    /// Elements that belong together: the last dimension.
    pub fn dim(&self) -> usize {
        self.view.dim as usize
    }

    /// How many of these a row has.
    pub fn heads(&self) -> usize {
        self.view.heads as usize
    }

    fn rows(&self, rows: usize) -> Vec<f32> {
        (0..rows).flat_map(|r| self.row(r).into_owned()).collect()
    }
}

/// Runs `f` on each row of `width`, in parallel where that pays.
pub(super) fn each_row(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() < ELEMENTS {
        out.chunks_exact_mut(width.max(1)).enumerate().for_each(|(r, row)| f(r, row));
    } else {
        let rows = out.par_chunks_exact_mut(width).with_min_len((ELEMENTS / 4).div_ceil(width));
        rows.enumerate().for_each(|(r, row)| f(r, row));
    }
}

impl Model {
    /// Computes all nodes.
    pub fn run(&self, memory: &mut Memory, c: &Context<'_>) -> Result<()> {
        for id in 0..self.program.nodes.len() {
            let op = &self.program.nodes[id].op;
            if op.is_view() && !self.plan.copied[id] {
                continue;
            }
            // No node's result lies where one of its inputs does.
            let home = self.plan.places[id].map(|p| p.buffer);
            let mut buffer = home.map(|b| std::mem::take(&mut memory.buffers[b])).unwrap_or_default();
            let len = if home.is_some() { self.rows(id, c) * self.program.width(id) } else { 0 };
            let result = self.node(id, memory, &mut buffer[..len], c);
            if let Some(home) = home {
                memory.buffers[home] = buffer;
            }
            result?;
        }
        Ok(())
    }

    pub fn rows(&self, id: NodeId, c: &Context<'_>) -> usize {
        if self.program.rows(id) == Sym::Tokens { c.step.rows.len() } else { c.step.outputs.len() }
    }

    /// A node's result.
    pub fn values<'a>(&self, memory: &'a Memory, id: NodeId) -> Result<Values<'a>> {
        let Some(Place { buffer, view }) = self.plan.places[id] else {
            let node = &self.program.nodes[id];
            return Err(Error::Model(format!("{}: {} is used as a tensor", node.place, node.op.name())));
        };
        Ok(Values { data: &memory.buffers[buffer], view })
    }

    pub fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[&id]
    }

    fn node(&self, id: NodeId, memory: &mut Memory, out: &mut [f32], c: &Context<'_>) -> Result<()> {
        let node = &self.program.nodes[id];
        match &node.op {
            // They write the cache.
            Op::Prepare(p) => return self.prepare(id, p, memory, out, c),
            Op::Conv(conv) => return self.conv(id, conv, memory, out, c),
            Op::Tokens | Op::Adapters => return Ok(()),
            _ => {}
        }
        let memory = &*memory;
        if let Op::Embedding { weight, scale } = &node.op {
            let table = &self.matrices[weight];
            let computed = match self.program.nodes[node.inputs[0]].op {
                Op::Tokens | Op::Adapters => None,
                _ => Some(self.values(memory, node.inputs[0])?),
            };
            let of_adapters = self.program.nodes[node.inputs[0]].op == Op::Adapters;
            each_row(out, self.program.width(id), |r, row| {
                let token = match computed {
                    Some(ids) => ids.row(r)[0] as usize,
                    None if of_adapters => c.step.rows[r].adapter as usize,
                    None => c.tokens[r] as usize,
                };
                table.row(if token < table.rows() { token } else { 0 }, row);
                row.iter_mut().for_each(|v| *v *= scale);
            });
            return Ok(());
        }
        if matches!(node.op, Op::Patches | Op::PatchInput(_)) {
            let values = c.image.as_ref().and_then(|(image, _)| match &node.op {
                Op::PatchInput(name) => Some(image.ordered(image.inputs.get(name)?)),
                _ => Some(image.ordered(&image.pixels)),
            });
            let values = values.unwrap_or_default();
            let (expected, found) = (out.len(), values.len());
            if found != expected {
                return Err(Error::Request(format!("an image: expected {expected} values of patches, found {found}")));
            }
            out.copy_from_slice(&values);
            return Ok(());
        }
        if node.op == Op::Carried {
            let (expected, found) = (out.len(), c.carried.len());
            if found != expected {
                return Err(Error::Request(format!("carried rows: expected {expected} values, found {found}")));
            }
            out.copy_from_slice(c.carried);
            return Ok(());
        }
        // What comes after the first is no tensor in some: a cache write.
        let x: Vec<Option<Values>> = node.inputs.iter().map(|i| self.values(memory, *i).ok()).collect();
        let at = |i: usize| x.get(i).copied().flatten().ok_or_else(|| self.values(memory, node.inputs[i]).err());
        let input = |i: usize| at(i).map_err(|e| e.unwrap_or(Error::Model(node.place.clone())));
        let first = input(0)?;
        let others = x[self.program.post_inputs(id).start.min(x.len())..].iter().flatten().copied().collect::<Vec<_>>();
        let width = self.program.width(id);
        let post = |r: usize, row: &mut [f32], steps: &[Post]| {
            elements::post(self.how.instructions, row, steps, |i| others[i].row(r));
        };
        match &node.op {
            Op::MatMul(m) => self.matmul(m, first, &others, out, self.rows(id, c)),
            Op::Norm { norm, post: steps } => each_row(out, width, |r, row| {
                row.copy_from_slice(&first.row(r));
                self.norm(norm, row, first.dim(), r * first.heads());
                post(r, row, steps);
            }),
            Op::Map(steps) => each_row(out, width, |r, row| {
                row.copy_from_slice(&first.row(r));
                post(r, row, steps);
            }),
            Op::Binary { op, post: steps } => {
                let second = input(1)?;
                let [a_dims, b_dims, dims] = [node.inputs[0], node.inputs[1], id].map(|i| self.program.dims(i));
                each_row(out, width, |r, row| {
                    let (a, b) = (first.row(r), second.row(r));
                    if a_dims == dims && b_dims == dims {
                        self.binary(*op, &a, &b, row);
                    } else {
                        row.copy_from_slice(&fused::binary(*op, &a, &a_dims, &b, &b_dims, &dims));
                    }
                    post(r, row, steps);
                });
            }
            Op::MulWeight { weight, post: steps } => {
                let weight = self.vector(*weight);
                each_row(out, width, |r, row| {
                    let x = first.row(r);
                    row.iter_mut().zip(&*x).zip(weight.iter().cycle()).for_each(|((y, x), w)| *y = x * w);
                    post(r, row, steps);
                });
            }
            Op::Xielu(parameters) => {
                let p = self.vector(*parameters);
                each_row(out, width, |r, row| {
                    let x = first.row(r);
                    row.iter_mut().zip(&*x).for_each(|(y, x)| *y = ops::xielu(*x, [p[0], p[1], p[2], p[3]]));
                });
            }
            Op::Mean => each_row(out, width, |r, row| row.copy_from_slice(&ops::mean(&first.row(r), first.dim()))),
            Op::RowMatMul => {
                let (second, [m, k]) = (input(1)?, [first.heads(), first.dim()]);
                each_row(out, width, |r, row| {
                    row.copy_from_slice(&ops::row_matmul(&first.row(r), &second.row(r), m, k, second.dim()));
                });
            }
            Op::Reshape | Op::Slice { .. } => each_row(out, width, |r, row| row.copy_from_slice(&first.row(r))),
            Op::Concat => {
                let all = (0..x.len()).map(input).collect::<Result<Vec<Values>>>()?;
                each_row(out, width, |r, row| {
                    let rows: Vec<_> = all.iter().map(|x| x.row(r)).collect();
                    let (rows, widths): (Vec<&[f32]>, Vec<usize>) =
                        rows.iter().zip(&all).map(|(row, x)| (&**row, x.dim())).unzip();
                    row.copy_from_slice(&fused::concat(&rows, &widths));
                });
            }
            Op::Rope(rope) => each_row(out, width, |r, row| {
                row.copy_from_slice(&first.row(r));
                self.rope(*rope, row, first.dim(), r, c);
            }),
            Op::Attend { cache, spec } => self.attend(*cache, spec, first, memory, out, c),
            Op::Route(spec) => {
                let bias = spec.choice_bias.map(|b| self.vector(b));
                each_row(out, width, |r, row| {
                    row.copy_from_slice(&moe::route(&first.row(r), first.dim(), spec, bias));
                });
            }
            Op::ExpertUp(up) => self.expert_up(up, first, input(1)?, out, self.rows(id, c)),
            Op::ExpertDown(down) => {
                self.expert_down(down, first, input(1)?, out, self.rows(id, c));
                each_row(out, width, |r, row| post(r, row, &down.post));
            }
            Op::HeadLinear(h) => self.head_linear(h, first, out, self.rows(id, c)),
            Op::Outputs => {
                each_row(out, width, |i, row| row.copy_from_slice(&first.row(c.step.outputs[i].row as usize)));
            }
            Op::MergeEmbeddings | Op::AddEmbeddings(_) => {
                let whole = self.program.image_width().unwrap_or(width);
                let part = if let Op::AddEmbeddings(part) = node.op { Some(part) } else { None };
                each_row(out, width, |r, row| {
                    row.copy_from_slice(&first.row(r));
                    let Some(at) = c.step.rows[r].image else { return };
                    let image = &memory.images[at as usize * whole + part.unwrap_or(0) * width..][..width];
                    match part {
                        Some(_) => row.iter_mut().zip(image).for_each(|(v, more)| *v += more),
                        None => row.copy_from_slice(image),
                    }
                });
            }
            Op::Custom { .. } => {
                let rows = self.rows(id, c);
                let all: Vec<Vec<f32>> = (0..x.len()).map(|i| Ok(input(i)?.rows(rows))).collect::<Result<_>>()?;
                let all: Vec<&[f32]> = all.iter().map(|x| &x[..]).collect();
                out.copy_from_slice(&custom::plain(&self.program, id, &all, |w| self.vector(w))?);
            }
            // See above.
            Op::Tokens | Op::Adapters | Op::Patches | Op::PatchInput(_) | Op::Carried => {}
            Op::Embedding { .. } | Op::Prepare(_) | Op::Conv(_) => {}
        }
        Ok(())
    }

    /// A norm of each `dim` values of a row; the first of them is number `first` of all.
    pub fn norm(&self, norm: &Norm, row: &mut [f32], dim: usize, first: usize) {
        let all = |w: Option<WeightId>| w.map(|w| self.vector(w));
        let (weight, bias) = (all(norm.weight), all(norm.bias));
        for (i, x) in row.chunks_exact_mut(dim).enumerate() {
            let weight = weight.map(|w| &w[(first + i) % (w.len() / dim) * dim..][..dim]);
            if norm.center {
                x.copy_from_slice(&ops::layer_norm(x, dim, weight, bias, norm.eps));
            } else {
                self.how.instructions.run(RmsNorm { x, eps: norm.eps, weight });
            }
        }
    }

    /// Rotates the heads of a row.
    pub fn rope(&self, rope: u32, row: &mut [f32], dim: usize, r: usize, c: &Context<'_>) {
        let (spec, half) = self.program.rope(rope);
        let pairs = spec.inv_freq.len();
        let table = &c.ropes[rope as usize][r * pairs..][..pairs];
        for v in row.chunks_exact_mut(dim) {
            for (j, [cos, sin]) in table.iter().enumerate() {
                let (a, b) = if half { (j, j + pairs) } else { (2 * j, 2 * j + 1) };
                (v[a], v[b]) = (v[a] * cos - v[b] * sin, v[b] * cos + v[a] * sin);
            }
        }
    }

    fn binary(&self, op: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
        let both = out.iter_mut().zip(a.iter().zip(b));
        match op {
            Binary::Add => both.for_each(|(y, (a, b))| *y = a + b),
            Binary::Sub => both.for_each(|(y, (a, b))| *y = a - b),
            Binary::Mul => both.for_each(|(y, (a, b))| *y = a * b),
            Binary::Div => both.for_each(|(y, (a, b))| *y = a / b),
            Binary::Glu(f) => {
                out.copy_from_slice(a);
                elements::gated(self.how.instructions, Gate::Act(f), out, b);
            }
        }
    }
}
