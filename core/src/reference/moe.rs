//! Mixtures of experts on rows of plain f32.

use super::{executor::Reference, ops};
use crate::program::{ExpertDown, ExpertUp};
use tamarack_api::{Gate, GroupScore, Groups, Others, RouteSpec, Scoring, WeightId};

/// The experts that each row of `n` logits chooses, and their weights: [rows, 2, top_k]. See [`RouteSpec`].
pub fn route(logits: &[f32], n: usize, spec: &RouteSpec, choice_bias: Option<&[f32]>) -> Vec<f32> {
    logits.chunks_exact(n).flat_map(|row| route_row(row, spec, choice_bias)).collect()
}

fn route_row(logits: &[f32], spec: &RouteSpec, choice_bias: Option<&[f32]>) -> Vec<f32> {
    let scores: Vec<f32> = match spec.scoring {
        Scoring::Softmax => softmax(logits),
        Scoring::Sigmoid => logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
        Scoring::SoftmaxAfterTopK | Scoring::SparseMixer { .. } => logits.to_vec(),
    };
    let mut choice = scores.clone();
    if let Some(bias) = choice_bias {
        choice.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
    }
    if let Some(groups) = spec.groups {
        limit(&mut choice, &groups);
    }
    let chosen = best(&choice, spec.top_k);
    let mut weights: Vec<f32> = chosen.iter().map(|e| scores[*e]).collect();
    match spec.scoring {
        Scoring::SoftmaxAfterTopK => weights = softmax(&weights),
        Scoring::SparseMixer { jitter } => {
            weights = (0..chosen.len()).map(|i| share(logits, &chosen[..i], chosen[i], jitter)).collect();
        }
        _ => {}
    }
    if spec.normalize {
        let sum = weights.iter().sum::<f32>() + spec.eps;
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    chosen.iter().map(|e| *e as f32).chain(weights.iter().map(|w| w * spec.scale)).collect()
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

/// The places of the `k` largest, the largest first; of equal ones the first. NaN is no larger than anything.
fn best(x: &[f32], k: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for _ in 0..k {
        let left = (0..x.len()).filter(|i| !chosen.contains(i));
        chosen.extend(left.reduce(|best, i| if x[i] > x[best] { i } else { best }));
    }
    chosen
}

/// Takes experts out of the choice whose group is not among the best.
fn limit(choice: &mut [f32], groups: &Groups) {
    let size = choice.len() / groups.count;
    let worth: Vec<f32> = choice
        .chunks_exact(size)
        .map(|group| {
            let best = best(group, if groups.score == GroupScore::Max { 1 } else { 2 });
            best.iter().map(|i| group[*i]).sum()
        })
        .collect();
    let kept = best(&worth, groups.keep);
    for (_, group) in choice.chunks_exact_mut(size).enumerate().filter(|(g, _)| !kept.contains(g)) {
        group.fill(if groups.others == Others::Zero { 0.0 } else { f32::NEG_INFINITY });
    }
}

/// The sparse mixer's weight of an expert, the best of those that were not `taken` before.
fn share(logits: &[f32], taken: &[usize], expert: usize, jitter: f32) -> f32 {
    let max = logits[expert];
    let left = logits.iter().enumerate().filter(|(i, _)| !taken.contains(i)).map(|(_, s)| *s);
    // 0 / 0, an expert as good as the best where that is worth 0, is near enough.
    let far = |s: &f32| (max - s) / s.abs().max(max) > 2.0 * jitter;
    1.0 / left.filter(|s| !far(s)).map(|s| (s - max).exp()).sum::<f32>()
}

/// What experts do between their products.
pub fn gate(gate: Gate, g: f32, up: f32) -> f32 {
    match gate {
        Gate::Act(f) => ops::activation(f, g) * up,
        Gate::OaiSwiglu { alpha, limit } => {
            let g = g.min(limit);
            g / (1.0 + (-alpha * g).exp()) * (up.clamp(-limit.abs(), limit.abs()) + 1.0)
        }
    }
}

impl Reference {
    /// `sizes`: [dim, top_k]. -> [rows, top_k, ff]
    pub(super) fn expert_up(&self, up: &ExpertUp, x: &[f32], route: &[f32], [dim, k]: [usize; 2]) -> Vec<f32> {
        let input = |pair: usize| &x[pair / k * dim..][..dim];
        let both = self.each_expert(up.weight, up.bias, route, k, input);
        let width = both.first().map_or(0, Vec::len);
        let pair = |i: usize| if up.spec.interleaved { [2 * i, 2 * i + 1] } else { [i, width / 2 + i] };
        let one = |y: Vec<f32>| {
            let halves = (0..width / 2).map(|i| pair(i).map(|j| y[j]));
            halves.map(|[g, u]| gate(up.spec.gate, g, u)).collect::<Vec<f32>>()
        };
        both.into_iter().flat_map(one).collect()
    }

    /// `sizes`: [top_k, ff]. -> [rows, dim]
    pub(super) fn expert_down(&self, down: &ExpertDown, x: &[f32], route: &[f32], sizes: &[usize]) -> Vec<f32> {
        let (k, ff) = (sizes[0], sizes[1]);
        let each = self.each_expert(down.weight, down.bias, route, k, |pair| &x[pair * ff..][..ff]);
        let row = |(r, each): (usize, &[Vec<f32>])| {
            let mut sum = vec![0.0; each[0].len()];
            for (slot, y) in each.iter().enumerate() {
                let weight = route[(2 * r + 1) * k + slot];
                sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
            }
            sum
        };
        each.chunks_exact(k).enumerate().flat_map(row).collect()
    }

    /// W_e x + b_e of every pair of a row and one of its `k` experts; zeros where a route names none.
    fn each_expert<'a>(
        &self,
        weight: WeightId,
        bias: Option<WeightId>,
        route: &[f32],
        k: usize,
        input: impl Fn(usize) -> &'a [f32],
    ) -> Vec<Vec<f32>> {
        let matrix = &self.weights[&weight];
        let shape = self.program.weight_shape(weight);
        let (experts, n, width) = (shape[0], shape[1], shape[2]);
        let expert = |pair: usize| route[pair / k * 2 * k + pair % k];
        let mut results = vec![vec![0.0; n]; route.len() / 2];
        for e in 0..experts {
            let pairs: Vec<usize> = (0..results.len()).filter(|p| expert(*p) == e as f32).collect();
            if pairs.is_empty() {
                continue;
            }
            let x: Vec<f32> = pairs.iter().flat_map(|p| input(*p)).copied().collect();
            let y = ops::linear(&x, width, n, |i, row| matrix.row(e * n + i, row));
            for (pair, y) in pairs.iter().zip(y.chunks_exact(n)) {
                results[*pair].copy_from_slice(y);
                if let Some(bias) = bias.map(|b| &self.vectors[&b][e * n..][..n]) {
                    results[*pair].iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                }
            }
        }
        results
    }
}
