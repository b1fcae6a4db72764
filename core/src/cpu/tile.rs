//! Blocks of sixteen rows of a matrix, times many rows of x: codes are unpacked once for all of them, as integers that only
//! need to be multiplied. What takes lanes is never in a closure (see [`super::product`]).

use super::{
    lanes::{Kernel, LANES, Lanes},
    matrix::{Integers, UNIT},
    product::{Codes, for_each_pair},
    rounding::{Input, PAIRS, Rounded},
};
use std::ops::Range;

/// Units that are unpacked together: 20 KB, so that there is room beside them in the first cache for the rows of x.
const UNITS: usize = 16;

/// Blocks of interleaved integers times rows of x: `out` is [blocks, rows, 16].
pub(super) struct IntegerTile<'a> {
    pub weight: &'a Integers,
    /// The first block.
    pub first: usize,
    pub x: &'a Input,
    pub rows: &'a [u32],
    pub out: &'a mut [[f32; LANES]],
}

/// 32 columns of sixteen rows.
#[derive(Clone, Copy)]
struct Unpacked<L: Lanes> {
    /// Less what they are centered by.
    codes: [L::Words; PAIRS],
    /// Of the first half and of the last.
    scales: [L::Floats; 2],
    biases: [L::Floats; 2],
}

impl Kernel for IntegerTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        let (units, by_halves) = (self.x.units(), self.weight.group < UNIT);
        let zeros = [lanes.splat_float(0.0); 2];
        let mut unpacked = [Unpacked::<L> { codes: [lanes.splat(0); PAIRS], scales: zeros, biases: zeros }; UNITS];
        for block in 0..self.out.len() / self.rows.len() {
            for start in (0..units).step_by(UNITS) {
                let of = start..units.min(start + UNITS);
                self.unpack(lanes, block, of.clone(), &mut unpacked);
                match (by_halves, self.weight.biased) {
                    (false, false) => self.multiply::<L, false, false>(lanes, block, of, &unpacked),
                    (false, true) => self.multiply::<L, false, true>(lanes, block, of, &unpacked),
                    (true, false) => self.multiply::<L, true, false>(lanes, block, of, &unpacked),
                    (true, true) => self.multiply::<L, true, true>(lanes, block, of, &unpacked),
                }
            }
        }
    }
}

impl IntegerTile<'_> {
    #[inline(always)]
    fn unpack<L: Lanes>(&self, lanes: L, block: usize, of: Range<usize>, to: &mut [Unpacked<L>; UNITS]) {
        match (self.weight.planes, self.weight.table.is_some()) {
            ([8, 0], _) => self.codes::<L, 8, 0, 8, false>(lanes, block, of.clone(), to),
            ([4, 2], _) => self.codes::<L, 4, 2, 6, false>(lanes, block, of.clone(), to),
            ([4, 1], _) => self.codes::<L, 4, 1, 5, false>(lanes, block, of.clone(), to),
            ([4, 0], false) => self.codes::<L, 4, 0, 4, false>(lanes, block, of.clone(), to),
            ([4, 0], true) => self.codes::<L, 4, 0, 4, true>(lanes, block, of.clone(), to),
            ([2, 1], _) => self.codes::<L, 2, 1, 3, false>(lanes, block, of.clone(), to),
            ([2, 0], _) => self.codes::<L, 2, 0, 2, false>(lanes, block, of.clone(), to),
            (planes, _) => unreachable!("planes {planes:?}"),
        }
        let w = self.weight;
        let (group, each) = (w.group.trailing_zeros(), if w.biased { 2 } else { 1 });
        let first = (self.first + block) * w.block_scales(self.x.k);
        let scales = w.scales.view();
        let factor = match w.factors.get(self.first + block) {
            Some(factors) => lanes.floats(factors),
            None => lanes.splat_float(1.0),
        };
        for (u, to) in of.zip(to) {
            for half in 0..2 {
                let at = first + each * ((u * UNIT + half * UNIT / 2) >> group);
                to.scales[half] = lanes.multiply(scales.get(lanes, at), factor);
                if w.biased {
                    to.biases[half] = lanes.multiply(scales.get(lanes, at + 1), factor);
                }
            }
        }
    }

    #[inline(always)]
    fn codes<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool>(
        &self,
        lanes: L,
        block: usize,
        of: Range<usize>,
        to: &mut [Unpacked<L>; UNITS],
    ) {
        let w = self.weight;
        let words = &w.words[(self.first + block) * self.x.units() * BITS..][of.start * BITS..of.end * BITS];
        for (unit, to) in words.as_chunks::<BITS>().0.iter().zip(to) {
            let codes = Codes::<L, LOW, HIGH, BITS, TABLE> { lanes, unit, table: &w.table };
            for_each_pair!(codes.unpack(w.center as i16, &mut to.codes): 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        }
    }

    /// As many rows at a time as there are registers for.
    #[inline(always)]
    fn multiply<L: Lanes, const BY_HALVES: bool, const BIASED: bool>(
        &mut self,
        lanes: L,
        block: usize,
        of: Range<usize>,
        unpacked: &[Unpacked<L>; UNITS],
    ) {
        let mut at = 0;
        while at < self.rows.len() {
            at += match self.rows.len() - at {
                8.. if L::WIDE => self.some::<L, 8, BY_HALVES, BIASED>(lanes, block, at, of.clone(), unpacked),
                6.. => self.some::<L, 6, BY_HALVES, BIASED>(lanes, block, at, of.clone(), unpacked),
                4.. => self.some::<L, 4, BY_HALVES, BIASED>(lanes, block, at, of.clone(), unpacked),
                2.. => self.some::<L, 2, BY_HALVES, BIASED>(lanes, block, at, of.clone(), unpacked),
                _ => self.some::<L, 1, BY_HALVES, BIASED>(lanes, block, at, of.clone(), unpacked),
            };
        }
    }

    /// Rows `at..at + M`.
    #[inline(always)]
    fn some<L: Lanes, const M: usize, const BY_HALVES: bool, const BIASED: bool>(
        &mut self,
        lanes: L,
        block: usize,
        at: usize,
        of: Range<usize>,
        unpacked: &[Unpacked<L>; UNITS],
    ) -> usize {
        let out = &mut self.out[block * self.rows.len() + at..][..M];
        let (mut rows, mut total): ([&[Rounded]; M], _) = ([&[]; M], [lanes.splat_float(0.0); M]);
        for m in 0..M {
            rows[m] = &self.x.rounded[self.rows[at + m] as usize * self.x.units()..][of.clone()];
            if of.start > 0 {
                total[m] = lanes.floats(&out[m]);
            }
        }
        for u in 0..of.len().min(UNITS) {
            let unit = &unpacked[u];
            let mut x = [&rows[0][u]; M];
            for m in 1..M {
                x[m] = &rows[m][u];
            }
            let mut sum = [lanes.splat(0); M];
            if BY_HALVES {
                unit.multiply(lanes, &x, &mut sum, 0..PAIRS / 2);
                unit.add::<M, BIASED>(lanes, &x, &sum, 0, 0, &mut total);
                sum = [lanes.splat(0); M];
                unit.multiply(lanes, &x, &mut sum, PAIRS / 2..PAIRS);
                unit.add::<M, BIASED>(lanes, &x, &sum, 1, 1, &mut total);
            } else {
                unit.multiply(lanes, &x, &mut sum, 0..PAIRS);
                unit.add::<M, BIASED>(lanes, &x, &sum, 0, 2, &mut total);
            }
        }
        for m in 0..M {
            lanes.store(total[m], &mut out[m]);
        }
        M
    }
}

impl<L: Lanes> Unpacked<L> {
    /// Products of pairs. Two in each round: with all at once compilers run out of registers.
    #[inline(always)]
    fn multiply<const M: usize>(&self, lanes: L, x: &[&Rounded; M], sum: &mut [L::Words; M], pairs: Range<usize>) {
        for p in pairs.step_by(2) {
            for p in [p, p + 1] {
                for m in 0..M {
                    sum[m] = lanes.multiply_add(sum[m], self.codes[p], x[m].pairs[p]);
                }
            }
        }
    }

    /// Adds sums of integers to the totals, by the scales of a half. `of` names the sum of x that goes with the bias.
    #[inline(always)]
    fn add<const M: usize, const BIASED: bool>(
        &self,
        lanes: L,
        x: &[&Rounded; M],
        sum: &[L::Words; M],
        half: usize,
        of: usize,
        total: &mut [L::Floats; M],
    ) {
        for m in 0..M {
            if BIASED {
                total[m] = lanes.fused(self.biases[half], lanes.splat_float(x[m].sums[of]), total[m]);
            }
            let scale = lanes.multiply(self.scales[half], lanes.splat_float(x[m].scale));
            total[m] = lanes.fused(lanes.to_floats(sum[m]), scale, total[m]);
        }
    }
}

impl<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool>
    Codes<'_, L, LOW, HIGH, BITS, TABLE>
{
    /// Pair `p`, less `center`.
    #[inline(always)]
    fn unpack(&self, center: i16, to: &mut [L::Words; PAIRS], p: usize) {
        to[p] = self.lanes.subtract(self.pair(0, p), center);
    }
}
