//! Mixtures of experts as dispatches. Few rows go through their experts' matrices one by one; many are
//! sorted by expert first, so that each matrix is read once. No number comes back to the host.

use super::{
    convert::{activation, header},
    phase::{Emitter, Weights, copy},
};
use crate::{
    Result,
    program::{ExpertDown, ExpertUp, NodeId, Op, Program, plan::Place},
};
use tamarack_api::{Gate, GroupScore, Others, RouteSpec, Scoring, Sym, WeightId};
use tamarack_kernels::{
    Format, View,
    experts::{self, Combine, Experts, Route, Sort},
};

impl<'a> Emitter<'a> {
    pub(super) fn route(&mut self, id: NodeId, spec: &RouteSpec) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let logits = self.place(model.program.nodes[id].inputs[0])?;
        let groups = spec.groups.map(|g| experts::Groups {
            count: g.count as u32,
            keep: g.keep as u32,
            two: g.score == GroupScore::Top2Sum,
            zero: g.others == Others::Zero,
        });
        let route = Route {
            logits: logits.view,
            top_k: spec.top_k as u32,
            scoring: match spec.scoring {
                Scoring::Softmax => experts::Scoring::Softmax,
                Scoring::Sigmoid => experts::Scoring::Sigmoid,
                Scoring::SoftmaxAfterTopK => experts::Scoring::SoftmaxAfterTopK,
                Scoring::SparseMixer { jitter } => experts::Scoring::SparseMixer { near: 2.0 * jitter },
            },
            normalize: spec.normalize.then_some(spec.eps),
            scale: spec.scale,
            bias: spec.choice_bias.is_some(),
            groups,
            out: out.view,
        };
        let mut buffers = vec![self.buffer(logits)];
        buffers.extend(spec.choice_bias.map(|b| &model.vectors[&b]));
        buffers.push(self.buffer(out));
        self.push(route.kernel(&model.gpu.caps), model.program.rows(id), buffers);
        Ok(())
    }

    pub(super) fn expert_up(&mut self, id: NodeId, up: &ExpertUp) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let mut x = self.place(model.program.nodes[id].inputs[0])?;
        let mut x_buffer = self.buffer(x);
        if !x.view.is_dense() {
            let to = View::rows(x.view.width());
            self.push(copy(x.view, to).kernel(&model.gpu.caps), model.program.rows(id), vec![x_buffer, &model.scratch]);
            (x.view, x_buffer) = (to, &model.scratch);
        }
        let gate = match up.spec.gate {
            Gate::Act(f) => experts::Gate::Act(activation(f)),
            Gate::OaiSwiglu { alpha, limit } => experts::Gate::OaiSwiglu { alpha, limit },
        };
        let spec = Experts {
            gate: Some(gate),
            interleaved: up.spec.interleaved,
            ..self.experts(id, up.weight, up.bias.is_some(), x.view, out.view)?
        };
        self.each_segment(
            id,
            up.weight,
            &spec,
            Buffers { x: x_buffer, bias: up.bias, post: &[], out: self.buffer(out) },
        )
    }

    pub(super) fn expert_down(&mut self, id: NodeId, down: &ExpertDown) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let x = self.place(model.program.nodes[id].inputs[0])?;
        let spec = self.experts(id, down.weight, down.bias.is_some(), x.view, out.view)?;
        let (post, post_buffers) = self.post(id, &down.post)?;
        let mut buffers = Buffers { x: self.buffer(x), bias: down.bias, post: &post_buffers, out: self.buffer(out) };
        let whole = model.matrices[&down.weight].segments.len() == 1;
        if self.few(model.program.rows(id)).is_some() && whole {
            return self.each_segment(id, down.weight, &Experts { sum: true, post, ..spec }, buffers);
        }
        // Each choice apart, and then their sums.
        let apart = Experts { out: View::heads(spec.top_k, out.view.width()), ..spec };
        (buffers.post, buffers.out) = (&[], &model.scratch);
        self.each_segment(id, down.weight, &apart, buffers)?;
        let route = self.place(model.program.nodes[id].inputs[1])?;
        let combine = Combine { top_k: apart.top_k, experts: apart.experts, route: route.view, post, out: out.view };
        let mut buffers = vec![&model.scratch, self.buffer(route)];
        buffers.extend(post_buffers);
        buffers.push(self.buffer(out));
        self.push(combine.kernel(&model.gpu.caps), model.program.rows(id), buffers);
        Ok(())
    }

    /// Nothing fused, of experts that a node takes from its route.
    fn experts(&self, id: NodeId, weight: WeightId, bias: bool, x: View, out: View) -> Result<Experts> {
        let program = &self.model.program;
        let route = program.nodes[id].inputs[1];
        let shape = program.weight_shape(weight);
        Ok(Experts {
            rows: header(program.rows(id)),
            top_k: program.dims(route)[1] as u32,
            route: self.place(route)?.view,
            experts: shape[0] as u32,
            first_expert: 0,
            held: 0,
            n: 0,
            k: shape[2] as u32,
            format: Format::F32,
            x,
            bias,
            gate: None,
            interleaved: false,
            sum: false,
            post: Vec::new(),
            first: 0,
            out,
        })
    }

    /// A dispatch for each part of the experts' matrices.
    fn each_segment(&mut self, id: NodeId, weight: WeightId, spec: &Experts, io: Buffers<'a, '_>) -> Result<()> {
        let (model, rows) = (self.model, self.model.program.rows(id));
        let route = self.place(model.program.nodes[id].inputs[1])?;
        let few = self.few(rows).is_some();
        let choices = if few { vec![self.buffer(route)] } else { self.sort(id, route)? };
        for segment in &model.matrices[&weight].segments {
            let spec = Experts {
                first_expert: segment.experts.start,
                held: segment.experts.len() as u32,
                n: segment.rows,
                first: segment.first,
                format: segment.format,
                ..spec.clone()
            };
            let kernel = if few { spec.vector(&model.gpu.caps) } else { spec.tiled(&model.gpu.caps) };
            let mut buffers = vec![io.x, &segment.quants];
            buffers.extend(&segment.scales);
            buffers.extend(&choices);
            buffers.extend(io.bias.map(|b| &model.vectors[&b]));
            buffers.extend(io.post);
            buffers.push(io.out);
            self.push(kernel, rows, buffers);
            let values = segment.rows * if spec.gate.is_some() { 2 } else { 1 } * spec.k * spec.top_k;
            // Of one row: more rows may choose the same experts.
            let bytes = segment.bytes() * u64::from(spec.top_k.min(spec.held)) / u64::from(spec.held.max(1));
            self.weigh(Weights { bytes, values: u64::from(values) });
        }
        Ok(())
    }

    /// The tiles and choices of a route, sorted by expert, once for all that take the route.
    fn sort(&mut self, id: NodeId, route: Place) -> Result<Vec<&'a wgpu::Buffer>> {
        let (model, from) = (self.model, self.model.program.nodes[id].inputs[1]);
        let rows = model.program.rows(id);
        if self.sorted != Some(from) {
            let sort = sort(&model.program, id, route.view);
            let buffers = vec![self.buffer(route), &model.tiles, &model.sorted];
            self.push(sort.kernel(&model.gpu.caps), rows, buffers);
            self.sorted = Some(from);
        }
        Ok(vec![&model.tiles, &model.sorted])
    }
}

/// What [`Emitter::each_segment`] binds beside the matrices.
struct Buffers<'a, 'b> {
    x: &'a wgpu::Buffer,
    bias: Option<WeightId>,
    post: &'b [&'a wgpu::Buffer],
    out: &'a wgpu::Buffer,
}

/// The sorting of what the node `id` takes.
fn sort(program: &Program, id: NodeId, route: View) -> Sort {
    let node = &program.nodes[id];
    let experts = match &node.op {
        Op::ExpertUp(ExpertUp { weight, .. }) | Op::ExpertDown(ExpertDown { weight, .. }) => {
            program.weight_shape(*weight)[0]
        }
        _ => 0,
    };
    let top_k = program.dims(node.inputs[1])[1] as u32;
    Sort { rows: header(program.rows(id)), top_k, experts: experts as u32, route }
}

/// Words of the buffers that mixtures of experts need beside activations, in steps of so many rows.
pub(super) struct Room {
    /// What experts make of each choice.
    pub scratch: usize,
    /// Tiles of sorted choices.
    pub tiles: usize,
    /// Sorted choices.
    pub sorted: usize,
}

impl Room {
    /// For the largest of a program's mixtures.
    pub fn of(program: &Program, rows: impl Fn(Sym) -> usize) -> Room {
        let mut room = Room { scratch: 0, tiles: 0, sorted: 0 };
        let downs = program.nodes.iter().enumerate().filter(|(_, node)| matches!(node.op, Op::ExpertDown(_)));
        for (id, _) in downs {
            let (sort, rows) = (sort(program, id, View::rows(1)), rows(program.rows(id)));
            let choices = rows * sort.top_k as usize;
            room.scratch = room.scratch.max(choices * program.width(id));
            room.tiles = room.tiles.max(sort.tiles_words(rows as u32) as usize);
            room.sorted = room.sorted.max(choices);
        }
        room
    }
}
