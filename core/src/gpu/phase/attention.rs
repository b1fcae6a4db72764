//! Attention, and what comes before it: queries, keys and values, and the cache that the latter two go to.

use super::{Attention, Emitter};
use crate::{
    Error, Result,
    program::{self, HeadStep, NodeId, Op, Prepare},
};
use tamarack_api::{AttentionSpec, Sym};
use tamarack_kernels::{
    CacheFormat, View,
    attend::{Attend, Besides, Keys},
    prepare,
};

impl<'a> Emitter<'a> {
    /// Whether attention does it on the way.
    pub(super) fn is_besides(&self, p: &Prepare) -> bool {
        matches!(self.kind.attention, Attention::Single(_))
            && p.q.is_some()
            && p.kv
                .as_ref()
                .is_some_and(|kv| kv.v.is_some() && self.model.program.caches[kv.cache].format == CacheFormat::F16)
    }

    pub(super) fn prepare(&mut self, id: NodeId, p: &Prepare) -> Result<()> {
        let out = if p.q.is_some() { Some(self.place(id)?) } else { None };
        let (kernel, mut bound) = self.prepared(id, p, out.map_or(View::rows(1), |o| o.view))?;
        bound.extend(out.map(|o| self.buffer(o)));
        bound.extend(p.kv.as_ref().map(|kv| &self.model.caches[kv.cache]));
        let cache = p.kv.as_ref().map(|kv| kv.cache);
        self.push_for(cache, kernel.kernel(&self.model.gpu.caps), Sym::Tokens, bound);
        Ok(())
    }

    /// What comes before attention, and the buffers that it reads.
    fn prepared(&self, id: NodeId, p: &Prepare, out: View) -> Result<(prepare::Prepare, Vec<&'a wgpu::Buffer>)> {
        let model = self.model;
        let node = &model.program.nodes[id];
        let (mut buffers, mut ropes): (Vec<usize>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut heads = |this: &Self, h: &program::Heads| -> Result<prepare::Heads> {
            let place = this.place(node.inputs[h.input])?;
            let input = index_of(&mut buffers, place.buffer);
            let steps = h.steps.iter().map(|s| match s {
                HeadStep::Norm(n) => prepare::HeadStep::Norm { eps: n.eps, weight: n.weight.is_some() },
                HeadStep::Scale(c) => prepare::HeadStep::Scale(*c),
                HeadStep::Rope(rope) => {
                    let (spec, half) = model.program.rope(*rope);
                    let pairs = spec.inv_freq.len() as u32;
                    prepare::HeadStep::Rope { table: index_of(&mut ropes, *rope), half, pairs }
                }
            });
            Ok(prepare::Heads { input, view: place.view, steps: steps.collect() })
        };
        let q = p.q.as_ref().map(|h| heads(self, h)).transpose()?;
        let kv = p.kv.as_ref().map(|kv| {
            let k = heads(self, &kv.k)?;
            Ok::<_, Error>((k, kv.v.as_ref().map(|v| heads(self, v)).transpose()?))
        });
        let kv = kv.transpose()?;
        let cache = p.kv.as_ref().map(|kv| model.program.caches[kv.cache].format).unwrap_or_default();
        let tables = ropes.iter().map(|r| model.program.rope(*r).0.inv_freq.len() as u32).collect();
        let kernel = prepare::Prepare { q, kv, inputs: buffers.len() as u32, tables, cache, out };
        let mut bound: Vec<&wgpu::Buffer> = buffers.iter().map(|b| &model.activations[*b]).collect();
        bound.extend(p.norms().filter_map(|n| n.weight).map(|w| &model.vectors[&w]));
        bound.extend(ropes.iter().map(|r| &model.ropes[*r as usize]));
        Ok((kernel, bound))
    }

    pub(super) fn attend(&mut self, id: NodeId, cache: usize, spec: &AttentionSpec) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let input = model.program.nodes[id].inputs[0];
        let q = self.place(input)?;
        let (sizes, caps) = (model.program.caches[cache], &model.gpu.caps);
        let attend = Attend {
            heads: q.view.heads,
            kv_heads: sizes.groups as u32,
            dk: sizes.dk as u32,
            dv: sizes.dv as u32,
            scale: spec.scale,
            window: spec.window.map(|w| w.min(u32::MAX as usize) as u32),
            softcap: spec.softcap,
            sinks: spec.sinks.is_some(),
            latent: sizes.latent,
            cache: sizes.format,
            q: q.view,
            out: out.view,
        };
        let sinks = spec.sinks.map(|s| &model.vectors[&s]);
        match self.kind.attention {
            Attention::Tiled => {
                let buffers = [self.buffer(q), &model.caches[cache]].into_iter().chain(sinks);
                let kernel = attend.cooperative(caps).unwrap_or_else(|| attend.tiled(caps));
                self.push_for(Some(cache), kernel, Sym::Tokens, buffers.chain([self.buffer(out)]).collect());
            }
            Attention::Vector(keys) | Attention::Single(keys) => {
                let made = self.made(id);
                let mut buffers = vec![self.buffer(q)];
                let mut besides = Besides {
                    prepare: None,
                    alone: self.is_one_row(),
                    store: made.is_none_or(|made| made.store),
                    next: made.map(|made| self.rounded(id, made)),
                };
                if let Op::Prepare(p) = &model.program.nodes[input].op
                    && self.is_besides(p)
                {
                    let (prepare, inputs) = self.prepared(input, p, q.view)?;
                    (besides.prepare, buffers) = (Some(prepare), inputs);
                }
                buffers.push(&model.caches[cache]);
                let mut end: Vec<&wgpu::Buffer> = sinks.into_iter().collect();
                end.extend(made.and_then(|m| m.gain).map(|w| &model.vectors[&w]));
                end.extend(besides.store.then(|| self.buffer(out)));
                end.extend(made.map(|made| &model.rounded[made.buffer]));
                if keys == Keys::Split {
                    // Sinks take part once, when the parts are put together.
                    buffers.push(&model.partials);
                    end.insert(0, &model.partials);
                    self.push(attend.vector_with(caps, keys, &besides), Sym::Tokens, buffers);
                    self.push(attend.reduce_with(caps, &besides), Sym::Tokens, end);
                } else {
                    buffers.extend(end);
                    self.push(attend.vector_with(caps, keys, &besides), Sym::Tokens, buffers);
                }
            }
        }
        Ok(())
    }
}

/// The index of `x`, which is appended if it is new.
fn index_of<T: PartialEq>(all: &mut Vec<T>, x: T) -> u32 {
    let found = all.iter().position(|y| *y == x).unwrap_or_else(|| {
        all.push(x);
        all.len() - 1
    });
    found as u32
}
