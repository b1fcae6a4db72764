//! The host's fused operations, spelled out as the plain ones that they stand for.

use super::{
    executor::{Context, Reference},
    ops,
};
use crate::{
    exec::Row,
    program::{Binary, Conv, HeadLinear, HeadStep, Heads, MatMul, NodeId, Norm, Post, Prepare},
};
use tamarack_api::{AttentionSpec, RopeId};

impl Reference {
    pub(super) fn matmul(&self, m: &MatMul, x: &[&[f32]], k: usize) -> Vec<f32> {
        let normed = m.norm.as_ref().map(|n| self.norm(n, x[0], k));
        let weight = &self.weights[&m.weight];
        let n = weight.rows();
        let mut y = ops::linear(normed.as_deref().unwrap_or(x[0]), k, n, |i, row| weight.row(i, row));
        if let Some(bias) = m.bias.map(|b| &self.vectors[&b]) {
            y.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(bias).for_each(|(v, b)| *v += b));
        }
        if let Some(act) = m.glu {
            let glu = |row: &[f32]| {
                let (gate, up) = row.split_at(n / 2);
                gate.iter().zip(up).map(|(g, u)| ops::activation(act, *g) * u).collect::<Vec<f32>>()
            };
            y = y.chunks_exact(n).flat_map(glu).collect();
        }
        post(y, &m.post, &x[1..])
    }

    pub(super) fn norm(&self, norm: &Norm, x: &[f32], dim: usize) -> Vec<f32> {
        let vector = |w: tamarack_api::WeightId| self.vectors[&w].as_slice();
        let (weight, bias) = (norm.weight.map(vector), norm.bias.map(vector));
        if norm.center {
            ops::layer_norm(x, dim, weight, bias, norm.eps)
        } else {
            ops::rms_norm(x, dim, weight, norm.eps)
        }
    }

    /// `dims`: [heads, dim].
    pub(super) fn rope(&self, rope: RopeId, x: &[f32], dims: &[usize], c: &Context<'_>) -> Vec<f32> {
        let (spec, half) = self.program.rope(rope);
        ops::rope(x, dims[0], dims[1], &c.ropes[rope as usize], spec.inv_freq.len(), half)
    }

    pub(super) fn prepare(&mut self, p: &Prepare, inputs: &[NodeId], x: &[&[f32]], c: &Context<'_>) -> Vec<f32> {
        let walk = |this: &Reference, heads: &Heads| {
            let dims = this.program.dims(inputs[heads.input]);
            heads.steps.iter().fold(x[heads.input].to_vec(), |v, step| match step {
                HeadStep::Norm(norm) => this.norm(norm, &v, dims[1]),
                HeadStep::Rope(rope) => this.rope(*rope, &v, &dims, c),
                HeadStep::Scale(by) => v.iter().map(|v| v * by).collect(),
            })
        };
        if let Some(kv) = &p.kv {
            let (k, v) = (walk(self, &kv.k), kv.v.as_ref().map(|v| walk(self, v)).unwrap_or_default());
            let cache = self.program.caches[kv.cache];
            let k_width = cache.groups * cache.dk;
            let v_width = cache.width() - k_width;
            let step = c.step_of(&cache);
            for (r, row) in step.rows.iter().enumerate() {
                let slot = [&k[r * k_width..][..k_width], &v[r * v_width..][..v_width]].concat();
                self.caches[kv.cache].set(step.slot(row), &slot);
            }
        }
        p.q.as_ref().map(|q| walk(self, q)).unwrap_or_default()
    }

    pub(super) fn attend(
        &self,
        cache: usize,
        spec: &AttentionSpec,
        q: &[f32],
        heads: usize,
        c: &Context<'_>,
    ) -> Vec<f32> {
        use rayon::prelude::*;
        let (sizes, data) = (self.program.caches[cache], &self.caches[cache]);
        let step = c.step_of(&sizes);
        let values_at = if sizes.latent { 0 } else { sizes.groups * sizes.dk };
        let how = ops::Attend {
            heads,
            groups: sizes.groups,
            dv: sizes.dv,
            scale: spec.scale,
            softcap: spec.softcap,
            sinks: spec.sinks.map(|s| self.vectors[&s].as_slice()),
        };
        let one = |(r, q): (usize, &[f32])| {
            let row = &step.rows[r];
            let end = row.end as usize;
            let window = spec.window.filter(|_| !row.is_whole);
            let start = window.map_or(0, |w| (row.index as usize + 1).saturating_sub(w));
            let slots: Vec<_> = (start..end).map(|p| data.slot(step.slot_at(row, p))).collect();
            let key = |p: usize, g: usize| &slots[p - start][g * sizes.dk..][..sizes.dk];
            let value = |p: usize, g: usize| &slots[p - start][values_at + g * sizes.dv..][..sizes.dv];
            ops::attend(q, &how, start..end, key, value)
        };
        q.par_chunks_exact(heads * sizes.dk).enumerate().flat_map_iter(one).collect()
    }
}

impl Reference {
    /// `dims`: [heads, k].
    pub(super) fn head_linear(&self, h: &HeadLinear, x: &[f32], dims: &[usize]) -> Vec<f32> {
        let (weight, shape) = (&self.weights[&h.weight], self.program.weight_shape(h.weight));
        let (rows, cols) = (shape[1], shape[2]);
        let n = if h.transposed { cols } else { rows };
        let mut y = vec![0.0; x.len() / dims[1] * n];
        let mut row = vec![0.0; cols];
        for i in 0..dims[0] * rows {
            weight.row(i, &mut row);
            let (head, i) = (i / rows, i % rows);
            for (x, y) in x.chunks_exact(dims[0] * dims[1]).zip(y.chunks_exact_mut(dims[0] * n)) {
                let (x, y) = (&x[head * dims[1]..][..dims[1]], &mut y[head * n..][..n]);
                if h.transposed {
                    y.iter_mut().zip(&row).for_each(|(y, w)| *y += x[i] * w);
                } else {
                    y[i] = ops::dot(x, &row);
                }
            }
        }
        y
    }

    pub(super) fn conv(&mut self, conv: &Conv, x: &[&[f32]], c: &Context<'_>) -> Vec<f32> {
        let [channels, kernel] = *self.program.weight_shape(conv.weight) else { return Vec::new() };
        let gated: Vec<f32> = match conv.gated {
            true => x[0].iter().zip(x[1]).map(|(a, b)| a * b).collect(),
            false => x[0].to_vec(),
        };
        let cache = &mut self.caches[conv.cache];
        for (row, x) in c.step.rows.iter().zip(gated.chunks_exact(channels)) {
            cache.set(c.step.slot(row), x);
        }
        let (weight, bias) = (&self.vectors[&conv.weight], conv.bias.map(|b| &self.vectors[&b]));
        let one = |row: &Row, channel: usize| {
            let taps = (0..kernel).filter(|back| *back <= row.index as usize).map(|back| {
                let x = cache.slot(c.step.slot_at(row, row.index as usize - back))[channel];
                x * weight[channel * kernel + kernel - 1 - back]
            });
            taps.sum::<f32>() + bias.map_or(0.0, |b| b[channel])
        };
        let y = c.step.rows.iter().flat_map(|row| (0..channels).map(move |channel| (row, channel)));
        post(y.map(|(row, channel)| one(row, channel)).collect(), &conv.post, &x[conv.inputs()..])
    }
}

/// Steps over single elements; `inputs` are those of its sums and products, as wide as `y`.
pub(super) fn post(mut y: Vec<f32>, steps: &[Post], inputs: &[&[f32]]) -> Vec<f32> {
    let mut inputs = inputs.iter();
    for step in steps {
        let other = if step.takes_input() { inputs.next().copied().unwrap_or(&[]) } else { &[] };
        for (i, v) in y.iter_mut().enumerate() {
            *v = match step {
                Post::Activation(f) => ops::activation(*f, *v),
                Post::Scale(c) => *v * c,
                Post::AddScalar(c) => *v + c,
                Post::Clamp(min, max) => v.max(*min).min(*max),
                Post::Sqrt => v.sqrt(),
                Post::Add => *v + other[i],
                Post::Mul => *v * other[i],
            };
        }
    }
    y
}

/// Dimensions of 1 repeat.
pub(crate) fn binary(op: Binary, a: &[f32], a_dims: &[usize], b: &[f32], b_dims: &[usize], dims: &[usize]) -> Vec<f32> {
    let width: usize = dims.iter().product();
    let rows = a.len() / a_dims.iter().product::<usize>().max(1);
    let at = |x: &[f32], x_dims: &[usize], row: usize, i: usize| {
        let (mut rest, mut stride, mut offset) = (i, 1, 0);
        for (d, n) in dims.iter().zip(x_dims).rev() {
            offset += if *n == 1 { 0 } else { rest % d * stride };
            rest /= d;
            stride *= n;
        }
        x[row * stride + offset]
    };
    let apply = |a: f32, b: f32| match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Glu(f) => ops::activation(f, a) * b,
    };
    (0..rows * width).map(|i| apply(at(a, a_dims, i / width, i % width), at(b, b_dims, i / width, i % width))).collect()
}

/// Indices `start..start + len` of constant dimension `dim`.
pub(super) fn slice(x: &[f32], dims: &[usize], dim: usize, start: usize, len: usize) -> Vec<f32> {
    let inner: usize = dims[dim + 1..].iter().product();
    x.chunks_exact(dims[dim] * inner).flat_map(|c| c[start * inner..(start + len) * inner].iter().copied()).collect()
}

/// Parts side by side.
pub(crate) fn concat(x: &[&[f32]], widths: &[usize]) -> Vec<f32> {
    let rows = x[0].len() / widths[0].max(1);
    let row = |r: usize| x.iter().zip(widths).flat_map(move |(x, w)| x[r * w..][..*w].iter().copied());
    (0..rows).flat_map(row).collect()
}
