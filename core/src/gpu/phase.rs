//! A program as dispatches: what runs, over which buffers, for steps of one kind.
//!
//! Few rows multiply by matrix-vector kernels, many by tiles; attention folds heads at decode, splits
//! long caches over workgroups, and works in tiles at prefill. Homes are the same in every phase.

mod attention;
mod product;

use super::{
    Gpu,
    convert::{activation, post},
    executor::Model,
    rounding::Made,
};
use crate::{
    Error, Result,
    program::{self, Binary, HeadStep, NodeId, Op, Prepare, plan::Place},
};
use tamarack_api::Sym;
use tamarack_kernels::{
    Kernel, Post, View,
    attend::Keys,
    elementwise::{self, Elementwise},
    embedding::{Embedding, Ids, embedding},
    matmul::{self, Candidate, Row},
    norm::{Norm, NormKind},
    sample::Sample,
    step,
};

/// What kind of step a phase serves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Kind {
    /// Token rows.
    pub tokens: Rows,
    /// Output rows.
    pub outputs: Rows,
    /// Whether outputs are the first rows, in order.
    pub in_order: bool,
    /// How attention runs.
    pub attention: Attention,
}

/// How many rows a product has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Rows {
    /// So many at most, for matrix-vector kernels.
    Few(u32),
    /// For tiles: so many at most, or [`Rows::MOST`] and any number more.
    Many(u32),
}

impl Rows {
    /// Up to here tiles are the same.
    const LEAST: u32 = 16;
    /// From here on tiles are the same.
    pub const MOST: u32 = 512;

    /// The kind of so many rows, where up to `few` of them, 8 at most, are few.
    pub fn of(rows: usize, few: u32) -> Rows {
        match rows.max(1).next_power_of_two() as u32 {
            rows if rows <= few => Rows::Few(rows),
            rows => Rows::Many(rows.clamp(Rows::LEAST, Rows::MOST)),
        }
    }

    /// How many, if they are few.
    pub fn few(self) -> Option<u32> {
        if let Rows::Few(n) = self { Some(n) } else { None }
    }

    /// All kinds that take tiles.
    pub fn tiles() -> impl Iterator<Item = u32> {
        (Rows::LEAST.ilog2()..=Rows::MOST.ilog2()).map(|log| 1 << log)
    }
}

/// How attention runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Attention {
    /// One row at a time.
    Vector(Keys),
    /// The only row of each sequence: its key and value are made on the way.
    Single(Keys),
    /// Tiles of rows.
    Tiled,
}

/// One dispatch, not yet compiled.
pub(super) struct Launch<'a> {
    pub kernel: Kernel,
    pub buffers: Vec<&'a wgpu::Buffer>,
    pub rows: Sym,
    /// Whether it is a plugin's, and compiled with every check.
    pub checked: bool,
    /// The weights that it multiplies by; none for what is no product.
    pub weights: Weights,
    /// A product whose work can be shared out in other ways.
    pub tunable: Option<Tunable>,
}

/// What can be computed in several ways.
pub(super) enum Tunable {
    /// A product with so many rows at most.
    Few(matmul::MatMul, u32),
    /// A product with a rounded row.
    Row(Row),
    /// A product with so many rows, in tiles.
    Many(matmul::MatMul, u32),
}

impl Tunable {
    /// The ways.
    pub fn candidates(&self, gpu: &Gpu) -> Vec<Candidate> {
        match self {
            Tunable::Few(spec, rows) => matmul::candidates(spec, &gpu.caps, *rows, gpu.settings.precision),
            Tunable::Row(row) => row.candidates(&gpu.caps),
            Tunable::Many(spec, rows) => matmul::many_candidates(spec, &gpu.caps, *rows, gpu.settings.precision),
        }
    }

    /// With how many rows they are compared.
    pub fn rows(&self) -> u32 {
        if let Tunable::Many(_, rows) = self { *rows } else { 1 }
    }
}

/// How much of a matrix a dispatch goes through.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Weights {
    /// On the device.
    pub bytes: u64,
    /// Values.
    pub values: u64,
}

/// Writes out a program's dispatches.
pub(super) struct Emitter<'a> {
    pub(super) model: &'a Model,
    pub(super) kind: Kind,
    launches: Vec<Launch<'a>>,
    /// The route whose choices lie sorted in the model's buffers.
    pub(super) sorted: Option<NodeId>,
    /// The product whose input lies in the model's halves.
    pub(super) halved: Option<NodeId>,
}

impl<'a> Emitter<'a> {
    /// All dispatches of a step of this kind, sampling included.
    pub fn emit(model: &'a Model, kind: Kind) -> Result<Vec<Launch<'a>>> {
        let mut emitter = Emitter { model, kind, launches: Vec::new(), sorted: None, halved: None };
        for id in 0..model.program.nodes.len() {
            emitter.node(id)?;
        }
        if model.program.tower.is_none() {
            emitter.sample()?;
        }
        Ok(emitter.launches)
    }

    pub(super) fn push(&mut self, kernel: Kernel, rows: Sym, buffers: Vec<&'a wgpu::Buffer>) {
        self.push_for(None, kernel, rows, buffers);
    }

    /// The same for what writes or reads a cache, whose sequences may be windows.
    pub(super) fn push_for(&mut self, cache: Option<usize>, kernel: Kernel, rows: Sym, buffers: Vec<&'a wgpu::Buffer>) {
        let windowed = cache.is_some_and(|cache| self.model.program.caches[cache].windowed);
        let step = if windowed { &self.model.windows } else { &self.model.step };
        let buffers = std::iter::once(step).chain(buffers).collect();
        let weights = Weights::default();
        self.launches.push(Launch { kernel, buffers, rows, checked: false, weights, tunable: None });
    }

    /// Notes how much of a matrix the last dispatch goes through.
    pub(super) fn weigh(&mut self, weights: Weights) {
        if let Some(launch) = self.launches.last_mut() {
            launch.weights = weights;
        }
    }

    /// How many rows of this kind there are.
    fn rows(&self, rows: Sym) -> Rows {
        if rows == Sym::Outputs { self.kind.outputs } else { self.kind.tokens }
    }

    /// The most rows of a matrix-vector kernel for rows of this kind, if they are few enough for one.
    pub(super) fn few(&self, rows: Sym) -> Option<u32> {
        self.rows(rows).few()
    }

    /// Whether the step has one row.
    fn is_one_row(&self) -> bool {
        self.kind.tokens == Rows::Few(1) && self.kind.outputs == Rows::Few(1)
    }

    /// Whether what makes a value rounds it, too: steps of few rows, the first of which are the outputs.
    fn rounds(&self) -> bool {
        self.kind.tokens.few().is_some() && self.kind.in_order
    }

    /// How a node's results are rounded, if they are.
    fn made(&self, id: NodeId) -> Option<Made> {
        self.model.rounding.made[id].filter(|_| self.rounds())
    }

    pub(super) fn last(&mut self) -> Option<&mut Launch<'a>> {
        self.launches.last_mut()
    }

    /// Whether the rows wanted are the first that there are. Views have their places in what is planned for all phases:
    /// what they look at is copied.
    fn is_read_in_place(&self, id: NodeId) -> bool {
        let nodes = &self.model.program.nodes;
        let is_viewed = || nodes.iter().any(|n| n.op.is_view() && n.inputs.contains(&id));
        matches!(nodes[id].op, Op::Outputs) && self.rounds() && !is_viewed()
    }

    pub(super) fn place(&self, id: NodeId) -> Result<Place> {
        let node = &self.model.program.nodes[id];
        if self.is_read_in_place(id) {
            return self.place(node.inputs[0]);
        }
        let none = || Error::Model(format!("{}: {} is used as a tensor", node.place, node.op.name()));
        self.model.plan.places[id].ok_or_else(none)
    }

    pub(super) fn buffer(&self, place: Place) -> &'a wgpu::Buffer {
        &self.model.activations[place.buffer]
    }

    fn node(&mut self, id: NodeId) -> Result<()> {
        let model = self.model;
        let node = &model.program.nodes[id];
        match &node.op {
            Op::Tokens | Op::Patches | Op::PatchInput(_) | Op::Carried | Op::Adapters => Ok(()),
            Op::MergeEmbeddings => self.merge_embeddings(id, None),
            Op::AddEmbeddings(part) => self.merge_embeddings(id, Some(*part)),
            Op::Embedding { weight, scale } => self.embedding(id, *weight, *scale),
            Op::MatMul(m) => self.matmul(id, m),
            Op::Norm { norm, post } => self.norm(id, norm, post),
            Op::Map(steps) => self.elementwise(id, elementwise::Op::Copy, 1, steps),
            Op::Binary { op, post } => self.elementwise(id, binary(*op), 2, post),
            Op::Reshape | Op::Slice { .. } if model.plan.copied[id] => {
                self.elementwise(id, elementwise::Op::Copy, 1, &[])
            }
            Op::Reshape | Op::Slice { .. } => Ok(()),
            Op::Concat => self.concat(id),
            Op::Rope(rope) => {
                let steps = vec![HeadStep::Rope(*rope)];
                let q = Some(program::Heads { input: 0, steps });
                self.prepare(id, &Prepare { q, kv: None })
            }
            Op::Prepare(p) if self.is_besides(p) => Ok(()),
            Op::Prepare(p) => self.prepare(id, p),
            Op::Attend { cache, spec } => self.attend(id, *cache, spec),
            Op::Route(spec) => self.route(id, spec),
            Op::ExpertUp(up) => self.expert_up(id, up),
            Op::ExpertDown(down) => self.expert_down(id, down),
            Op::Outputs if self.is_read_in_place(id) => Ok(()),
            Op::MulWeight { weight, post } => self.mul_weight(id, *weight, post),
            Op::Xielu(parameters) => self.xielu(id, *parameters),
            Op::Mean => self.mean(id),
            Op::RowMatMul => self.row_matmul(id),
            Op::HeadLinear(h) => self.head_linear(id, h),
            Op::Conv(conv) => self.conv(id, conv),
            Op::Outputs => self.outputs(id),
            Op::Custom { custom, weights, .. } => self.custom(id, *custom, weights),
        }
    }

    fn embedding(&mut self, id: NodeId, weight: u32, scale: f32) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let table = &model.matrices[&weight];
        let made = self.made(id);
        let source = model.program.nodes[id].inputs[0];
        let (ids, computed) = match model.program.nodes[source].op {
            Op::Tokens => (Ids::Step(step::ROW_TOKEN), None),
            Op::Adapters => (Ids::Step(step::ROW_ADAPTER), None),
            _ => {
                let place = self.place(source)?;
                (Ids::Computed(place.view), Some(self.buffer(place)))
            }
        };
        for segment in &table.segments {
            let spec = Embedding {
                rows: step::TOKENS,
                ids,
                first: segment.first,
                count: segment.rows,
                total: model.program.weight_shape(weight)[0] as u32,
                dim: table.cols,
                format: segment.format,
                scale,
                out: out.view,
                next: made.map(|made| self.rounded(id, made)),
            };
            let mut buffers = vec![&model.sampled];
            buffers.extend(computed);
            buffers.push(&segment.quants);
            buffers.extend(&segment.scales);
            buffers.extend(made.and_then(|m| m.gain).map(|w| &model.vectors[&w]));
            buffers.push(self.buffer(out));
            buffers.extend(made.map(|made| &model.rounded[made.buffer]));
            self.push(embedding(&spec, &model.gpu.caps), Sym::Tokens, buffers);
        }
        Ok(())
    }

    fn norm(&mut self, id: NodeId, norm: &program::Norm, steps: &[program::Post]) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let x = self.place(model.program.nodes[id].inputs[0])?;
        let (steps, buffers) = self.post(id, steps)?;
        self.norm_into(model.program.rows(id), x, norm, &steps, buffers, (out.view, self.buffer(out)))
    }

    fn norm_into(
        &mut self,
        rows: Sym,
        x: Place,
        norm: &program::Norm,
        steps: &[Post],
        post_buffers: Vec<&'a wgpu::Buffer>,
        (view, out): (View, &'a wgpu::Buffer),
    ) -> Result<()> {
        let model = self.model;
        let len = |w: u32| model.program.weight_shape(w).iter().product::<usize>() as u32;
        let spec = Norm {
            x: x.view,
            kind: if norm.center { NormKind::Layer } else { NormKind::Rms },
            eps: norm.eps,
            weight: norm.weight.map_or(0, len),
            bias: norm.bias.is_some(),
            post: steps.to_vec(),
            out: view,
        };
        let mut buffers = vec![self.buffer(x)];
        buffers.extend(norm.weights().map(|w| &model.vectors[&w]));
        buffers.extend(post_buffers);
        buffers.push(out);
        self.push(spec.kernel(&model.gpu.caps), rows, buffers);
        Ok(())
    }

    fn elementwise(&mut self, id: NodeId, op: elementwise::Op, inputs: usize, steps: &[program::Post]) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let node = &model.program.nodes[id];
        let mut places = node.inputs[..inputs].iter().map(|i| self.place(*i)).collect::<Result<Vec<_>>>()?;
        for p in &mut places {
            if p.view.heads == 1 && p.view.dim == out.view.dim {
                // One head for all of them: they lie no distance apart.
                p.view =
                    View { heads: out.view.heads, head: if out.view.heads == 1 { p.view.head } else { 0 }, ..p.view };
            }
            let repeats = p.view.dim == 1 && (p.view.heads == 1 || p.view.heads == out.view.heads);
            if p.view.width() != out.view.width() && !repeats {
                let what = "this repetition of a dimension is not supported on GPUs";
                return Err(Error::Model(format!("{}: {}: {what}", node.place, node.op.name())));
            }
        }
        let (post, post_buffers) = self.post(id, steps)?;
        let inputs = places.iter().map(|p| p.view).collect();
        let kernel = Elementwise { op, inputs, gather: false, post, out: out.view }.kernel(&model.gpu.caps);
        let mut buffers: Vec<_> = places.iter().map(|p| self.buffer(*p)).collect();
        buffers.extend(post_buffers);
        buffers.push(self.buffer(out));
        self.push(kernel, model.program.rows(id), buffers);
        Ok(())
    }

    fn concat(&mut self, id: NodeId) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let mut start = 0;
        for input in &model.program.nodes[id].inputs {
            let x = self.place(*input)?;
            let to = View { offset: out.view.offset + start, dim: x.view.dim, ..out.view };
            start += x.view.dim;
            let kernel = copy(x.view, to).kernel(&model.gpu.caps);
            self.push(kernel, model.program.rows(id), vec![self.buffer(x), self.buffer(out)]);
        }
        Ok(())
    }

    fn outputs(&mut self, id: NodeId) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let x = self.place(model.program.nodes[id].inputs[0])?;
        let kernel = Elementwise { gather: true, ..copy(x.view, out.view) }.kernel(&model.gpu.caps);
        self.push(kernel, Sym::Outputs, vec![self.buffer(x), self.buffer(out)]);
        Ok(())
    }

    /// A plugin's kernel, whose inputs [`program::custom::for_device`] has laid out without gaps.
    fn custom(&mut self, id: NodeId, custom: usize, weights: &[u32]) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let inputs = &model.program.nodes[id].inputs;
        let places = inputs.iter().map(|i| self.place(*i)).collect::<Result<Vec<_>>>()?;
        let mut buffers: Vec<_> = places.iter().map(|p| self.buffer(*p)).collect();
        buffers.extend(weights.iter().map(|w| &model.vectors[w]));
        buffers.push(self.buffer(out));
        let kernel = program::custom::kernel(&model.program.custom[custom]);
        let (rows, weights) = (model.program.rows(id), Weights::default());
        self.launches.push(Launch { kernel, buffers, rows, checked: true, weights, tunable: None });
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let model = self.model;
        let logits = self.place(model.program.output)?;
        let spec = Sample { vocab: logits.view.width(), logits: logits.view };
        let caps = &model.gpu.caps;
        self.push(spec.partial(caps), Sym::Outputs, vec![self.buffer(logits), &model.candidates]);
        self.push(spec.finish(caps), Sym::Outputs, vec![&model.candidates, &model.sampled, &model.results]);
        Ok(())
    }

    /// A node's post steps, and the buffers that they take.
    pub(super) fn post(&self, id: NodeId, steps: &[program::Post]) -> Result<(Vec<Post>, Vec<&'a wgpu::Buffer>)> {
        let program = &self.model.program;
        let inputs = &program.nodes[id].inputs[program.post_inputs(id)];
        let places = inputs.iter().map(|i| self.place(*i)).collect::<Result<Vec<_>>>()?;
        let buffers = places.iter().map(|p| self.buffer(*p)).collect();
        Ok((post(steps, places.into_iter().map(|p| p.view)), buffers))
    }
}

/// A copy of all rows.
pub(super) fn copy(from: View, to: View) -> Elementwise {
    Elementwise { op: elementwise::Op::Copy, inputs: vec![from], gather: false, post: Vec::new(), out: to }
}

fn binary(op: Binary) -> elementwise::Op {
    match op {
        Binary::Add => elementwise::Op::Add,
        Binary::Sub => elementwise::Op::Sub,
        Binary::Mul => elementwise::Op::Mul,
        Binary::Div => elementwise::Op::Div,
        Binary::Glu(f) => elementwise::Op::Glu(activation(f)),
    }
}
