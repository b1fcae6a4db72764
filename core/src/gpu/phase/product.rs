//! Products with weights: a matrix-vector kernel, plain tiles, or tiles of cooperative matrices.

use super::{Emitter, Rows, Weights, copy};
use crate::{
    Error, Result,
    gpu::{
        convert::{activation, header},
        weights::Segment,
    },
    program::{MatMul, NodeId},
};
use tamarack_api::Sym;
use tamarack_kernels::{
    View,
    halves::Halves,
    matmul::{self, few_rows, tiled_for},
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
        let kind = if rows == Sym::Outputs { self.kind.outputs } else { self.kind.tokens };
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
        if !x.view.is_dense() {
            let to = View::rows(x.view.width());
            let copy = copy(x.view, to, false);
            self.push(copy.kernel(&model.gpu.caps), rows, vec![x_buffer, &model.scratch]);
            (x.view, x_buffer) = (to, &model.scratch);
        }
        if halves {
            let k = matrix.cols;
            let norm = norm.take();
            let spec = norm.map(|n| matmul::Norm { eps: n.eps, weight: n.weight.is_some() });
            let mut buffers = vec![x_buffer];
            buffers.extend(norm.and_then(|n| n.weight).map(|w| &model.vectors[&w]));
            buffers.extend([&model.halves, &model.worths]);
            self.push(Halves { x: x.view, k, norm: spec }.kernel(&model.gpu.caps), rows, buffers);
        }
        let (steps, post_buffers) = self.post(id, &m.post)?;
        for segment in &matrix.segments {
            let spec = matmul::MatMul {
                rows: header(rows),
                n: segment.rows,
                k: matrix.cols,
                format: segment.format,
                x: x.view,
                norm: norm.map(|n| matmul::Norm { eps: n.eps, weight: n.weight.is_some() }),
                bias: m.bias.is_some(),
                glu: m.glu.map(activation),
                post: steps.clone(),
                first: segment.first,
                out: out.view,
            };
            let last: Vec<_> = m
                .bias
                .map(|b| &model.vectors[&b])
                .into_iter()
                .chain(post_buffers.clone())
                .chain([self.buffer(out)])
                .collect();
            let first = self.launches.len();
            match kind {
                Rows::Many(n) if halves => self.cooperative(&spec, n, rows, segment, last),
                _ => {
                    let kernel = match kind {
                        Rows::Few(n) => few_rows(&spec, &model.gpu.caps, n, model.gpu.settings.precision),
                        Rows::Many(n) => tiled_for(&spec, &model.gpu.caps, n),
                    };
                    let mut buffers = vec![x_buffer, &segment.quants];
                    buffers.extend(&segment.scales);
                    buffers.extend(norm.and_then(|n| n.weight).map(|w| &model.vectors[&w]));
                    buffers.extend(last);
                    self.push(kernel, rows, buffers);
                }
            }
            if let Some(launch) = self.launches.get_mut(first) {
                let rows = u64::from(segment.rows) * if m.glu.is_some() { 2 } else { 1 };
                launch.weights = Weights { bytes: segment.bytes(), values: rows * u64::from(matrix.cols) };
                launch.tunable = kind.few().map(|n| (spec, n));
            }
        }
        Ok(())
    }

    /// A product of x that lies in halves; `last` is what its sums meet, and where they go.
    fn cooperative(
        &mut self,
        spec: &matmul::MatMul,
        most: u32,
        rows: Sym,
        segment: &'a Segment,
        last: Vec<&'a wgpu::Buffer>,
    ) {
        let model = self.model;
        let mut x = vec![&model.halves];
        let mut weights = vec![&segment.quants];
        weights.extend(&segment.scales);
        let mut kernels = matmul::cooperative(spec, &model.gpu.caps, most).unwrap_or_default().into_iter();
        match (kernels.next(), kernels.next()) {
            (Some(product), None) => {
                x.push(&model.worths);
                self.push(product, rows, [x, weights, last].concat());
            }
            (Some(product), Some(sum)) => {
                let partials = vec![&model.sums];
                self.push(product, rows, [x, weights, partials.clone()].concat());
                self.push(sum, rows, [partials, vec![&model.worths], last].concat());
            }
            _ => {}
        }
    }
}
