//! Attention over the pages of a cache: softmax as it comes, arXiv:1805.02867, a page of keys at a time.

use super::{
    elements::exp,
    lanes::{Kernel, LANES, Lanes},
    product::{Element, padded},
};
use crate::exec::PAGE;
use std::ops::Range;

/// One row's queries of one group of heads, against the keys and values that they see.
pub(super) struct Attend<'a, T> {
    /// [heads of the group, dk]
    pub q: &'a [f32],
    pub dk: usize,
    pub dv: usize,
    /// The whole cache, [slots, width].
    pub cache: &'a [T],
    pub width: usize,
    /// Where the group's keys and values begin in a slot.
    pub key: usize,
    pub value: usize,
    /// The sequence's pages, and the positions that are seen.
    pub pages: &'a [u32],
    pub range: Range<usize>,
    pub scale: f32,
    pub softcap: Option<f32>,
    /// One extra logit per head, that takes probability and gives no value.
    pub sinks: Option<&'a [f32]>,
    /// [heads of the group, dv]
    pub out: &'a mut [f32],
}

/// What a head has seen so far.
#[derive(Clone, Copy)]
struct Seen {
    most: f32,
    total: f32,
}

impl<T: Element> Kernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        let heads = self.q.len() / self.dk;
        self.out.fill(0.0);
        // As many heads at a time as there are registers for: keys and values are read once for them.
        let mut head = 0;
        while head < heads {
            head += match heads - head {
                4.. => self.heads::<L, 4>(lanes, head),
                2.. => self.heads::<L, 2>(lanes, head),
                _ => self.heads::<L, 1>(lanes, head),
            };
        }
    }
}

impl<T: Element> Attend<'_, T> {
    #[inline(always)]
    fn heads<L: Lanes, const H: usize>(&mut self, lanes: L, head: usize) -> usize {
        // A sink is one more score, arXiv:2309.17453.
        let mut seen: [Seen; H] = std::array::from_fn(|h| match self.sinks {
            Some(sinks) => Seen { most: sinks[head + h], total: 1.0 },
            None => Seen { most: f32::NEG_INFINITY, total: 0.0 },
        });
        let first_page = self.range.start / PAGE;
        for page in first_page..self.range.end.div_ceil(PAGE) {
            let from = self.range.start.max(page * PAGE) - page * PAGE;
            let to = self.range.end.min((page + 1) * PAGE) - page * PAGE;
            let slots = &self.cache[self.pages[page] as usize * PAGE * self.width..][..PAGE * self.width];
            let mut weights = [[0f32; PAGE]; H];
            for p in from..to {
                let key = &slots[p * self.width + self.key..][..self.dk];
                let scores = self.scores::<L, H>(lanes, head, key);
                for h in 0..H {
                    weights[h][p] = scores[h];
                }
            }
            for h in 0..H {
                let most = weights[h][from..to].iter().fold(seen[h].most, |most, s| most.max(*s));
                // How much less all earlier ones weigh. Nothing was seen, or nothing can be: no number then.
                let less = if most == seen[h].most { 1.0 } else { exp(seen[h].most - most) };
                if less != 1.0 {
                    self.out[(head + h) * self.dv..][..self.dv].iter_mut().for_each(|v| *v *= less);
                }
                let mut total = seen[h].total * less;
                for w in &mut weights[h][from..to] {
                    *w = exp(*w - most);
                    total += *w;
                }
                seen[h] = Seen { most, total };
            }
            self.values::<L, H>(lanes, head, slots, &weights, from..to);
        }
        for h in 0..H {
            let by = 1.0 / seen[h].total;
            self.out[(head + h) * self.dv..][..self.dv].iter_mut().for_each(|v| *v *= by);
        }
        H
    }

    /// Of a key, with each head.
    #[inline(always)]
    fn scores<L: Lanes, const H: usize>(&self, lanes: L, head: usize, key: &[T]) -> [f32; H] {
        let q: [&[f32]; H] = std::array::from_fn(|h| &self.q[(head + h) * self.dk..][..self.dk]);
        let mut sums = [lanes.splat_float(0.0); H];
        let (chunks, rest) = key.as_chunks::<LANES>();
        for (c, key) in chunks.iter().enumerate() {
            let key = T::load(lanes, key);
            for h in 0..H {
                sums[h] = lanes.fused(lanes.floats(&q[h].as_chunks::<LANES>().0[c]), key, sums[h]);
            }
        }
        if !rest.is_empty() {
            let key = T::load(lanes, &padded(rest));
            for h in 0..H {
                sums[h] = lanes.fused(lanes.floats(&padded(q[h].as_chunks::<LANES>().1)), key, sums[h]);
            }
        }
        let mut scores = [0.0; H];
        for h in 0..H {
            let score = lanes.sum(sums[h]) * self.scale;
            scores[h] = self.softcap.map_or(score, |cap| (score / cap).tanh() * cap);
        }
        scores
    }

    /// Adds a page's values, as their keys' weights have it.
    #[inline(always)]
    fn values<L: Lanes, const H: usize>(
        &mut self,
        lanes: L,
        head: usize,
        slots: &[T],
        weights: &[[f32; PAGE]; H],
        positions: Range<usize>,
    ) {
        for start in (0..self.dv).step_by(LANES) {
            let len = LANES.min(self.dv - start);
            let at: [usize; H] = std::array::from_fn(|h| (head + h) * self.dv + start);
            let mut sums = [lanes.splat_float(0.0); H];
            for h in 0..H {
                sums[h] = match self.out[at[h]..][..len].first_chunk() {
                    Some(out) => lanes.floats(out),
                    None => lanes.floats(&padded(&self.out[at[h]..][..len])),
                };
            }
            for p in positions.clone() {
                let value = &slots[p * self.width + self.value + start..][..len];
                let value = match value.first_chunk() {
                    Some(value) => T::load(lanes, value),
                    None => T::load(lanes, &padded(value)),
                };
                for h in 0..H {
                    sums[h] = lanes.fused(lanes.splat_float(weights[h][p]), value, sums[h]);
                }
            }
            for h in 0..H {
                let mut all = [0.0; LANES];
                lanes.store(sums[h], &mut all);
                self.out[at[h]..][..len].copy_from_slice(&all[..len]);
            }
        }
    }
}
