//! The dispatches of operations that few architectures have.

use super::{
    convert::header,
    phase::{Emitter, Weights},
};
use crate::{
    Error, Result,
    program::{Conv, HeadLinear, NodeId, Post},
};
use tamarack_api::WeightId;
use tamarack_kernels::{
    View, conv,
    elementwise::{self, Elementwise},
    heads,
    small::{Mean, RowMatMul},
};

/// Rows that share what is read of a head's matrix, where there are many.
const HEAD_ROWS: u32 = 8;

impl Emitter<'_> {
    pub(super) fn mul_weight(&mut self, id: NodeId, weight: WeightId, steps: &[Post]) -> Result<()> {
        // The vector is the same in every row: its rows lie no distance apart.
        let dim = self.model.program.weight_shape(weight)[0] as u32;
        let heads = self.place(id)?.view.heads;
        let vector = View { offset: 0, row: 0, heads, head: 0, dim };
        self.with_vector(id, elementwise::Op::Mul, weight, vector, steps)
    }

    pub(super) fn xielu(&mut self, id: NodeId, parameters: WeightId) -> Result<()> {
        self.with_vector(id, elementwise::Op::Xielu, parameters, View::rows(4), &[])
    }

    fn with_vector(
        &mut self,
        id: NodeId,
        op: elementwise::Op,
        weight: WeightId,
        vector: View,
        steps: &[Post],
    ) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let x = self.place(model.program.nodes[id].inputs[0])?;
        let (post, post_buffers) = self.post(id, steps)?;
        let spec = Elementwise { op, inputs: vec![x.view, vector], gather: false, post, out: out.view };
        let mut buffers = vec![self.buffer(x), &model.vectors[&weight]];
        buffers.extend(post_buffers);
        buffers.push(self.buffer(out));
        self.push(spec.kernel(&model.gpu.caps), model.program.rows(id), buffers);
        Ok(())
    }

    pub(super) fn mean(&mut self, id: NodeId) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let x = self.place(model.program.nodes[id].inputs[0])?;
        let kernel = Mean { x: x.view, out: out.view }.kernel(&model.gpu.caps);
        self.push(kernel, model.program.rows(id), vec![self.buffer(x), self.buffer(out)]);
        Ok(())
    }

    pub(super) fn row_matmul(&mut self, id: NodeId) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let inputs = &model.program.nodes[id].inputs;
        let (a, b) = (self.place(inputs[0])?, self.place(inputs[1])?);
        let kernel = RowMatMul { a: a.view, b: b.view, out: out.view }.kernel(&model.gpu.caps);
        self.push(kernel, model.program.rows(id), vec![self.buffer(a), self.buffer(b), self.buffer(out)]);
        Ok(())
    }

    pub(super) fn head_linear(&mut self, id: NodeId, h: &HeadLinear) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let node = &model.program.nodes[id];
        let (x, rows) = (self.place(node.inputs[0])?, model.program.rows(id));
        let [segment] = &model.matrices[&h.weight].segments[..] else {
            let what = "the matrices of its heads are of several formats or too large for one binding";
            return Err(Error::Model(format!("{}: {}: {what}", node.place, node.op.name())));
        };
        let (format, transposed) = (segment.format, h.transposed);
        let spec = heads::HeadLinear { rows: header(rows), format, transposed, x: x.view, out: out.view };
        let mut buffers = vec![&segment.quants];
        buffers.extend(&segment.scales);
        buffers.extend([self.buffer(x), self.buffer(out)]);
        let kernel = spec.kernel(&model.gpu.caps, self.kind.tokens.unwrap_or(HEAD_ROWS));
        self.push(kernel, rows, buffers);
        let values = model.program.weight_shape(h.weight).iter().map(|n| *n as u64).product();
        if let Some(launch) = self.last() {
            launch.weights = Weights { bytes: segment.bytes(), values };
        }
        Ok(())
    }

    pub(super) fn conv(&mut self, id: NodeId, c: &Conv) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let inputs = &model.program.nodes[id].inputs[..c.inputs()];
        let inputs = inputs.iter().map(|i| self.place(*i)).collect::<Result<Vec<_>>>()?;
        let (post, post_buffers) = self.post(id, &c.post)?;
        let spec = conv::Conv {
            inputs: inputs.iter().map(|p| p.view).collect(),
            kernel: model.program.weight_shape(c.weight)[1] as u32,
            bias: c.bias.is_some(),
            post,
            out: out.view,
        };
        let mut buffers: Vec<_> = inputs.iter().map(|p| self.buffer(*p)).collect();
        buffers.push(&model.vectors[&c.weight]);
        buffers.extend(c.bias.map(|b| &model.vectors[&b]));
        buffers.extend(post_buffers);
        buffers.extend([&model.caches[c.cache], self.buffer(out)]);
        self.push(spec.kernel(&model.gpu.caps), model.program.rows(id), buffers);
        Ok(())
    }
}
