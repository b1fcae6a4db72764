//! Products, attention, experts and what else takes weights or the cache.

use super::{
    attend::Attend,
    cache::Kept,
    elements,
    multiply::{ELEMENTS, Job, Product},
    product::Element,
    rounding::Input,
    values::{Context, Memory, Model, Values, each_row},
};
use crate::{
    Result,
    program::{Cache, Conv, ExpertDown, ExpertUp, HeadLinear, HeadStep, Heads, MatMul, NodeId, Prepare},
};
use rayon::prelude::*;
use tamarack_api::{AttentionSpec, Gate, WeightId};

impl Model {
    pub(super) fn matmul(&self, m: &MatMul, x: Values<'_>, others: &[Values<'_>], out: &mut [f32], rows: usize) {
        let (matrix, heads, k) = (&self.matrices[&m.weight], x.heads(), x.dim());
        let mut floats = vec![0.0; rows * heads * k];
        each_row(&mut floats, heads * k, |r, row| {
            row.copy_from_slice(&x.row(r));
            if let Some(norm) = &m.norm {
                self.norm(norm, row, k, r * heads);
            }
        });
        let input = self.how.input(Input::new(floats, k), matrix);
        let all: Vec<u32> = (0..(rows * heads) as u32).collect();
        let jobs: Vec<Job> = matrix.parts.iter().map(|part| Job { part, rows: &all }).collect();
        let products = self.how.products(&input, &jobs);
        let (n, width) = (matrix.rows(), out.len() / rows.max(1));
        let bias = m.bias.map(|b| self.vector(b));
        // One row after the other: the products of all their columns, and what follows them.
        let row = |r: usize, out: &mut [f32]| {
            for (h, out) in out.chunks_exact_mut(width / heads).enumerate() {
                match m.glu {
                    None => gather(&products, r * heads + h, bias, out),
                    Some(act) => {
                        let mut both = vec![0.0; n];
                        gather(&products, r * heads + h, bias, &mut both);
                        let (gate, up) = both.split_at_mut(n / 2);
                        elements::gated(self.how.instructions, Gate::Act(act), gate, up);
                        out.copy_from_slice(gate);
                    }
                }
            }
            elements::post(self.how.instructions, out, &m.post, |i| others[i].row(r));
        };
        each_row(out, width, row);
    }

    pub(super) fn prepare(
        &self,
        id: NodeId,
        p: &Prepare,
        memory: &mut Memory,
        out: &mut [f32],
        c: &Context<'_>,
    ) -> Result<()> {
        let inputs = &self.program.nodes[id].inputs;
        let walk = |heads: &Heads, x: Values<'_>, r: usize, row: &mut [f32]| {
            row.copy_from_slice(&x.row(r));
            for step in &heads.steps {
                match step {
                    HeadStep::Norm(norm) => self.norm(norm, row, x.dim(), r * x.heads()),
                    HeadStep::Rope(rope) => self.rope(*rope, row, x.dim(), r, c),
                    HeadStep::Scale(by) => row.iter_mut().for_each(|v| *v *= by),
                }
            }
        };
        if let Some(kv) = &p.kv {
            let sizes = self.program.caches[kv.cache];
            let (width, keys) = (sizes.width(), sizes.groups * sizes.dk);
            let k = self.values(memory, inputs[kv.k.input])?;
            let v =
                kv.v.as_ref().map(|v| Ok::<_, crate::Error>((v, self.values(memory, inputs[v.input])?))).transpose()?;
            let mut rows = vec![0.0; c.step.rows.len() * width];
            each_row(&mut rows, width, |r, row| {
                walk(&kv.k, k, r, &mut row[..keys]);
                if let Some((heads, v)) = &v {
                    walk(heads, *v, r, &mut row[keys..]);
                }
            });
            keep(&mut memory.caches[kv.cache], &sizes, &rows, c);
        }
        if let Some(q) = &p.q {
            let x = self.values(memory, inputs[q.input])?;
            each_row(out, x.heads() * x.dim(), |r, row| walk(q, x, r, row));
        }
        Ok(())
    }

    pub(super) fn attend(
        &self,
        cache: usize,
        spec: &AttentionSpec,
        q: Values<'_>,
        memory: &Memory,
        out: &mut [f32],
        c: &Context<'_>,
    ) {
        let sizes = self.program.caches[cache];
        let pages = &c.step_of(&sizes).pages;
        match &memory.caches[cache] {
            Kept::Halves(all) => self.attend_to(&sizes, spec, q, (all, pages), out, c),
            // What is quantized is unpacked first, the step's pages in their order.
            packed => {
                let numbers: Vec<u32> = (0..pages.len() as u32).collect();
                self.attend_to(&sizes, spec, q, (&packed.unpacked(&sizes, pages), &numbers), out, c);
            }
        }
    }

    fn attend_to<T: Element + Sync>(
        &self,
        sizes: &Cache,
        spec: &AttentionSpec,
        q: Values<'_>,
        (cache, pages): (&[T], &[u32]),
        out: &mut [f32],
        c: &Context<'_>,
    ) {
        let heads = q.heads();
        let (each, dv) = (heads / sizes.groups, sizes.dv);
        let (sinks, step) = (spec.sinks.map(|s| self.vector(s)), c.step_of(sizes));
        // A task for each row and group.
        let one = |(i, out): (usize, &mut [f32])| {
            let (r, g) = (i / sizes.groups, i % sizes.groups);
            let row = &step.rows[r];
            let window = spec.window.filter(|_| !row.is_whole);
            let first = window.map_or(0, |w| (row.index as usize + 1).saturating_sub(w));
            self.how.instructions.run(Attend {
                q: &q.row(r)[g * each * sizes.dk..][..each * sizes.dk],
                dk: sizes.dk,
                dv,
                cache,
                width: sizes.width(),
                key: g * sizes.dk,
                value: if sizes.latent { 0 } else { sizes.groups * sizes.dk } + g * dv,
                pages: &pages[row.table as usize..],
                range: first..row.end as usize,
                scale: spec.scale,
                softcap: spec.softcap,
                sinks: sinks.map(|s| &s[g * each..][..each]),
                out,
            });
        };
        let seen: usize = step.rows.iter().map(|r| r.end as usize).sum();
        let tasks = out.chunks_exact_mut(each * dv);
        if seen * heads * (sizes.dk + dv) < ELEMENTS {
            tasks.enumerate().for_each(one);
        } else {
            out.par_chunks_exact_mut(each * dv).enumerate().for_each(one);
        }
    }

    pub(super) fn conv(
        &self,
        id: NodeId,
        conv: &Conv,
        memory: &mut Memory,
        out: &mut [f32],
        c: &Context<'_>,
    ) -> Result<()> {
        let inputs = &self.program.nodes[id].inputs;
        let sizes = self.program.caches[conv.cache];
        let kernel = self.program.weight_shape(conv.weight)[1];
        let x = self.values(memory, inputs[0])?;
        let channels = x.heads() * x.dim();
        let gate = if conv.gated { Some(self.values(memory, inputs[1])?) } else { None };
        let mut rows = vec![0.0; c.step.rows.len() * channels];
        each_row(&mut rows, channels, |r, row| {
            row.copy_from_slice(&x.row(r));
            if let Some(gate) = gate {
                row.iter_mut().zip(&*gate.row(r)).for_each(|(v, g)| *v *= g);
            }
        });
        keep(&mut memory.caches[conv.cache], &sizes, &rows, c);
        let others = inputs[conv.inputs()..].iter().map(|i| self.values(memory, *i)).collect::<Result<Vec<_>>>()?;
        let (weight, bias) = (self.vector(conv.weight), conv.bias.map(|b| self.vector(b)));
        let cache = &memory.caches[conv.cache];
        each_row(out, channels, |r, y| {
            let (row, mut x) = (&c.step.rows[r], vec![0.0; channels]);
            match bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(0.0),
            }
            for back in (0..kernel).filter(|back| *back <= row.index as usize) {
                cache.slot(&sizes, c.step.slot_at(row, row.index as usize - back), &mut x);
                for (channel, (y, x)) in y.iter_mut().zip(&x).enumerate() {
                    *y += x * weight[channel * kernel + kernel - 1 - back];
                }
            }
            elements::post(self.how.instructions, y, &conv.post, |i| others[i].row(r));
        });
        Ok(())
    }

    /// -> [rows, top_k, ff]
    pub(super) fn expert_up(&self, up: &ExpertUp, x: Values<'_>, route: Values<'_>, out: &mut [f32], rows: usize) {
        let k = route.dim();
        let chosen = Chosen::of(route, rows, self.program.weight_shape(up.weight)[0]);
        let input = |r: usize| x.row(r).into_owned();
        let products = self.by_experts(up.weight, &chosen, k, Input::new((0..rows).flat_map(input).collect(), x.dim()));
        let (n, ff) = (self.program.weight_shape(up.weight)[1], out.len() / (rows * k).max(1));
        each_row(out, ff, |pair, out| {
            let mut both = vec![0.0; n];
            self.gather_expert(&chosen, &products, pair, up.bias, &mut both);
            if up.spec.interleaved {
                both = (0..2).flat_map(|i| both.iter().skip(i).step_by(2)).copied().collect();
            }
            let (gate, up_half) = both.split_at_mut(n / 2);
            elements::gated(self.how.instructions, up.spec.gate, gate, up_half);
            // Where a route names no expert, its half is 0 and so is what the other half makes of it.
            out.copy_from_slice(gate);
        });
    }

    /// [rows, top_k, ff] -> [rows, dim]
    pub(super) fn expert_down(
        &self,
        down: &ExpertDown,
        x: Values<'_>,
        route: Values<'_>,
        out: &mut [f32],
        rows: usize,
    ) {
        let k = route.dim();
        let chosen = Chosen::of(route, rows, self.program.weight_shape(down.weight)[0]);
        let input = |r: usize| x.row(r).into_owned();
        let products =
            self.by_experts(down.weight, &chosen, 1, Input::new((0..rows).flat_map(input).collect(), x.dim()));
        let n = self.program.weight_shape(down.weight)[1];
        each_row(out, n, |r, out| {
            let (route, mut y) = (route.row(r), vec![0.0; n]);
            out.fill(0.0);
            for slot in 0..k {
                self.gather_expert(&chosen, &products, r * k + slot, down.bias, &mut y);
                out.iter_mut().zip(&y).for_each(|(out, y)| *out += route[k + slot] * y);
            }
        });
    }

    /// The products of all pairs by their experts: of each expert's parts, in order. `share`: pairs that have the same x.
    fn by_experts(&self, weight: WeightId, chosen: &Chosen, share: usize, input: Input) -> Vec<Vec<Product>> {
        let (matrix, each) = (&self.matrices[&weight], self.program.weight_shape(weight)[1]);
        let input = self.how.input(input, matrix);
        let rows: Vec<Vec<u32>> =
            chosen.pairs.iter().map(|pairs| pairs.iter().map(|p| p / share as u32).collect()).collect();
        let mut jobs = Vec::new();
        for (e, rows) in rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            jobs.extend(matrix.parts_of(e, each).iter().map(|part| Job { part, rows }));
        }
        let mut products = self.how.products(&input, &jobs).into_iter();
        let parts = |(e, rows): (usize, &Vec<u32>)| if rows.is_empty() { 0 } else { matrix.parts_of(e, each).len() };
        let counts: Vec<usize> = rows.iter().enumerate().map(parts).collect();
        counts.into_iter().map(|count| products.by_ref().take(count).collect()).collect()
    }

    /// W_e x + b_e of a pair; zeros where it has no expert.
    fn gather_expert(
        &self,
        chosen: &Chosen,
        products: &[Vec<Product>],
        pair: usize,
        bias: Option<WeightId>,
        out: &mut [f32],
    ) {
        match chosen.of_pair[pair] {
            Some((expert, at)) => {
                let bias = bias.map(|b| &self.vector(b)[expert * out.len()..][..out.len()]);
                gather(&products[expert], at, bias, out);
            }
            None => out.fill(0.0),
        }
    }

    /// [rows, heads, k] -> [rows, heads, n], every head by a matrix of its own.
    pub(super) fn head_linear(&self, h: &HeadLinear, x: Values<'_>, out: &mut [f32], rows: usize) {
        let (matrix, [heads, n, k]) =
            (&self.matrices[&h.weight], [0, 1, 2].map(|i| self.program.weight_shape(h.weight)[i]));
        let floats: Vec<f32> = (0..rows).flat_map(|r| x.row(r).into_owned()).collect();
        let vector = |r: usize, head: usize| &floats[(r * heads + head) * x.dim()..][..x.dim()];
        if h.transposed {
            // Rows of the matrix, each as often as its element of x says.
            let head = |head: usize| {
                let (mut row, mut y) = (vec![0.0; k], vec![0.0; rows * k]);
                for i in 0..n {
                    matrix.row(head * n + i, &mut row);
                    for (r, y) in y.chunks_exact_mut(k).enumerate() {
                        let by = vector(r, head)[i];
                        y.iter_mut().zip(&row).for_each(|(y, w)| *y += by * w);
                    }
                }
                y
            };
            let all: Vec<Vec<f32>> = (0..heads).into_par_iter().map(head).collect();
            each_row(out, k, |i, out| out.copy_from_slice(&all[i % heads][i / heads * k..][..k]));
            return;
        }
        let of_head: Vec<Vec<u32>> =
            (0..heads).map(|head| (0..rows).map(|r| (r * heads + head) as u32).collect()).collect();
        let input = self.how.input(Input::new(floats.clone(), k), matrix);
        let parts: Vec<_> = (0..heads).map(|head| matrix.parts_of(head, n)).collect();
        let jobs = parts.iter().zip(&of_head).flat_map(|(parts, rows)| parts.iter().map(|part| Job { part, rows }));
        let mut products = self.how.products(&input, &jobs.collect::<Vec<_>>()).into_iter();
        let products: Vec<Vec<Product>> =
            parts.iter().map(|parts| products.by_ref().take(parts.len()).collect()).collect();
        each_row(out, n, |i, out| gather(&products[i % heads], i / heads, None, out));
    }
}

/// Row `r` of products whose outputs are one beside the other, and the bias.
fn gather(products: &[Product], r: usize, bias: Option<&[f32]>, out: &mut [f32]) {
    let mut start = 0;
    for product in products {
        product.row(r, &mut out[start..][..product.outputs]);
        start += product.outputs;
    }
    if let Some(bias) = bias {
        out.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
    }
}

/// Writes rows into their slots.
fn keep(kept: &mut Kept, cache: &Cache, rows: &[f32], c: &Context<'_>) {
    let step = c.step_of(cache);
    let each = rows.len() / step.rows.len().max(1);
    for (row, values) in step.rows.iter().zip(rows.chunks_exact(each.max(1))) {
        kept.set(cache, step.slot(row), values);
    }
}

/// The pairs of rows and slots that chose an expert.
struct Chosen {
    /// Of each expert.
    pairs: Vec<Vec<u32>>,
    /// Of each pair its expert, and its place among the expert's.
    of_pair: Vec<Option<(usize, usize)>>,
}

impl Chosen {
    fn of(route: Values<'_>, rows: usize, experts: usize) -> Chosen {
        let mut chosen = Chosen { pairs: vec![Vec::new(); experts], of_pair: Vec::new() };
        for r in 0..rows {
            for e in &route.row(r)[..route.dim()] {
                let expert = (*e >= 0.0 && e.fract() == 0.0 && (*e as usize) < experts).then_some(*e as usize);
                let pair = chosen.of_pair.len() as u32;
                chosen.of_pair.push(expert.map(|e| (e, chosen.pairs[e].len())));
                expert.into_iter().for_each(|e| chosen.pairs[e].push(pair));
            }
        }
        chosen
    }
}
