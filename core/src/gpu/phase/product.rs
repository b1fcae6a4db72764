//! Products with weights: a matrix-vector kernel, plain tiles, or tiles of cooperative matrices.

use super::{Emitter, Rows, Tunable, Weights, copy};
use crate::{
    Error, Result,
    gpu::{
        convert::{activation, header},
        rounding::Made,
        weights::Segment,
    },
    program::{MatMul, NodeId, Norm, Op},
};
use tamarack_api::Sym;
use tamarack_kernels::{
    Post, View,
    halves::Halves,
    matmul::{self, Row, few_rows, many_rows},
    rounded::Rounded,
};

impl<'a> Emitter<'a> {
    pub(super) fn matmul(&mut self, id: NodeId, m: &MatMul) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let node = &model.program.nodes[id];
        let rows = model.program.rows(id);
        if node.shape.len() != 2 {
            let shape = &node.shape;
            return Err(Error::Model(format!("{}: linear over {shape:?} is not supported on GPUs", node.place)));
        }
        let kind = self.rows(rows);
        if self.rounds()
            && let (Some(source), Some(most)) = (model.rounding.taken[id], kind.few())
        {
            return self.row(id, m, source, most);
        }
        let matrix = &model.matrices[&m.weight];
        let halves = matches!(kind, Rows::Many(_)) && model.gpu.caps.cooperative.is_some() && matrix.fits_halves();
        let mut x = self.place(node.inputs[0])?;
        let mut x_buffer = self.buffer(x);
        let mut norm = m.norm.as_ref();
        if matches!(kind, Rows::Many(_))
            && !halves
            && let Some(n) = norm.take()
        {
            // Tiles would compute the norm once for each tile of columns; here it runs once.
            let width = model.program.width(node.inputs[0]);
            let to = View::rows(width as u32);
            self.norm_into(rows, x, n, &[], Vec::new(), (to, &model.scratch))?;
            (x.view, x_buffer) = (to, &model.scratch);
        }
        if !x.view.is_dense() && self.halved != Some(id) {
            let to = View::rows(x.view.width());
            let copy = copy(x.view, to);
            self.push(copy.kernel(&model.gpu.caps), rows, vec![x_buffer, &model.scratch]);
            (x.view, x_buffer) = (to, &model.scratch);
        }
        if halves && self.halved == Some(id) {
            norm = None;
        } else if halves {
            let k = matrix.cols;
            let norm = norm.take();
            let spec = norm.map(|n| matmul::Norm { eps: n.eps, weight: n.weight.is_some() });
            let mut buffers = vec![x_buffer];
            buffers.extend(norm.and_then(|n| n.weight).map(|w| &model.vectors[&w]));
            buffers.extend([&model.halves, &model.worths]);
            self.push(Halves { x: x.view, k, norm: spec }.kernel(&model.gpu.caps), rows, buffers);
        }
        let (steps, post_buffers) = self.post(id, &m.post)?;
        let precision = model.gpu.settings.precision;
        for segment in &matrix.segments {
            let norm_spec = norm.map(|n| matmul::Norm { eps: n.eps, weight: n.weight.is_some() });
            let spec = matmul::MatMul { x: x.view, norm: norm_spec, ..self.product(id, m, segment, &steps)? };
            let mut last: Vec<_> = m.bias.iter().map(|b| &model.vectors[b]).collect();
            last.extend(&post_buffers);
            last.push(self.buffer(out));
            let kernel = match kind {
                Rows::Many(n) if halves => {
                    self.cooperative(id, m, &spec, n, segment, last);
                    continue;
                }
                Rows::Few(n) => few_rows(&spec, &model.gpu.caps, n, precision),
                Rows::Many(n) => many_rows(&spec, &model.gpu.caps, n, precision),
            };
            let mut buffers = vec![x_buffer, &segment.quants];
            buffers.extend(&segment.scales);
            buffers.extend(norm.and_then(|n| n.weight).map(|w| &model.vectors[&w]));
            buffers.extend(last);
            self.push(kernel, rows, buffers);
            let tunable = match kind {
                Rows::Few(n) => Tunable::Few(spec, n),
                Rows::Many(n) => Tunable::Many(spec, n),
            };
            self.is_product(m, segment, Some(tunable));
        }
        Ok(())
    }

    /// A product of x that lies in halves; `last` is what its sums meet, and where they go.
    fn cooperative(
        &mut self,
        id: NodeId,
        m: &MatMul,
        spec: &matmul::MatMul,
        most: u32,
        segment: &'a Segment,
        last: Vec<&'a wgpu::Buffer>,
    ) {
        let (model, rows) = (self.model, if spec.rows == header(Sym::Tokens) { Sym::Tokens } else { Sym::Outputs });
        let mut weights = vec![&segment.quants];
        weights.extend(&segment.scales);
        let into_halves = self.next_halves(id).and_then(|(next, norm)| {
            let spec_norm = norm.map(|n| matmul::Norm { eps: n.eps, weight: n.weight.is_some() });
            let kernels = matmul::cooperative_next(spec, &model.gpu.caps, most, spec_norm)?;
            Some((next, norm.and_then(|n| n.weight), kernels))
        });
        if let Some((next, gain, [product, sum])) = into_halves {
            self.push(product, rows, [vec![&model.halves], weights, vec![&model.sums]].concat());
            self.is_product(m, segment, None);
            let mut buffers = [vec![&model.sums, &model.worths], last].concat();
            buffers.extend(gain.map(|w| &model.vectors[&w]));
            buffers.push(&model.halves);
            self.push(sum, rows, buffers);
            self.halved = Some(next);
            return;
        }
        let mut kernels = matmul::cooperative(spec, &model.gpu.caps, most).unwrap_or_default().into_iter();
        match (kernels.next(), kernels.next()) {
            (Some(product), None) => {
                self.push(product, rows, [vec![&model.halves, &model.worths], weights, last].concat());
                self.is_product(m, segment, None);
            }
            (Some(product), Some(sum)) => {
                self.push(product, rows, [vec![&model.halves], weights, vec![&model.sums]].concat());
                self.is_product(m, segment, None);
                self.push(sum, rows, [vec![&model.sums, &model.worths], last].concat());
            }
            _ => {}
        }
    }

    /// The product that reads halves next, and its norm, if what it reads is this product.
    fn next_halves(&self, id: NodeId) -> Option<(NodeId, Option<&'a Norm>)> {
        let (model, nodes) = (self.model, &self.model.program.nodes);
        let next = (id + 1..nodes.len()).find(|next| matches!(nodes[*next].op, Op::MatMul(_)))?;
        let Op::MatMul(m) = &nodes[next].op else { return None };
        let rows = model.program.rows(next) == model.program.rows(id);
        let whole = model.matrices[&m.weight].fits_halves() && model.plan.places[id].is_some_and(|p| p.view.is_dense());
        (nodes[next].inputs[0] == id && rows && whole).then_some((next, m.norm.as_ref()))
    }

    /// A product with at most so many rows that their maker has rounded.
    fn row(&mut self, id: NodeId, m: &MatMul, source: usize, rows: u32) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let (steps, post_buffers) = self.post(id, &m.post)?;
        let made = self.made(id);
        let precision = model.gpu.settings.precision;
        for segment in &model.matrices[&m.weight].segments {
            let matmul = self.product(id, m, segment, &steps)?;
            let next = made.map(|made| self.rounded(id, made));
            let row = Row { matmul, rows, precision, store: made.is_none_or(|m| m.store), next };
            let mut buffers = vec![&model.rounded[source], &segment.quants];
            buffers.extend(&segment.scales);
            buffers.extend(m.bias.map(|b| &model.vectors[&b]));
            buffers.extend(&post_buffers);
            buffers.extend(made.and_then(|m| m.gain).map(|w| &model.vectors[&w]));
            buffers.extend(row.store.then(|| self.buffer(out)));
            buffers.extend(made.map(|made| &model.rounded[made.buffer]));
            self.push(row.kernel(&model.gpu.caps), model.program.rows(id), buffers);
            self.is_product(m, segment, Some(Tunable::Row(row)));
        }
        Ok(())
    }

    /// How a node's results are rounded.
    pub(super) fn rounded(&self, id: NodeId, made: Made) -> Rounded {
        let columns = self.model.program.width(id) as u32;
        Rounded { columns, precision: self.model.gpu.settings.precision, gain: made.gain.is_some() }
    }

    /// A product with a segment of its weight, and dense rows.
    fn product(&self, id: NodeId, m: &MatMul, segment: &Segment, steps: &[Post]) -> Result<matmul::MatMul> {
        let k = self.model.matrices[&m.weight].cols;
        Ok(matmul::MatMul {
            rows: header(self.model.program.rows(id)),
            n: segment.rows,
            k,
            format: segment.format,
            x: View::rows(k),
            norm: m.norm.as_ref().map(|n| matmul::Norm { eps: n.eps, weight: false }),
            bias: m.bias.is_some(),
            glu: m.glu.map(activation),
            post: steps.to_vec(),
            first: segment.first,
            out: self.place(id)?.view,
        })
    }

    /// Says of the last launch that it multiplies by a segment of a weight.
    fn is_product(&mut self, m: &MatMul, segment: &Segment, tunable: Option<Tunable>) {
        if let Some(launch) = self.launches.last_mut() {
            let rows = u64::from(segment.rows) * if m.glu.is_some() { 2 } else { 1 };
            let cols = u64::from(self.model.matrices[&m.weight].cols);
            launch.weights = Weights { bytes: segment.bytes(), values: rows * cols };
            launch.tunable = tunable;
        }
    }
}
