//! Blocks of interleaved integers times rows of x in f32, for [`crate::gpu::Precision::Full`]: each weight is what its format
//! says, rounded once to f32.

use super::{
    lanes::{Kernel, LANES, Lanes},
    matrix::{Integers, UNIT},
    product::{Codes, for_each_pair},
    rounding::Input,
};

/// A block of interleaved integers times some rows of x: `out` is [rows, 16].
pub(super) struct FullBlock<'a> {
    pub weight: &'a Integers,
    pub block: usize,
    pub x: &'a Input,
    pub rows: &'a [u32],
    pub out: &'a mut [[f32; LANES]],
}

impl Kernel for FullBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match (self.weight.planes, self.weight.table.is_some()) {
            ([8, 0], _) => self.rows::<L, 8, 0, 8, false>(lanes),
            ([4, 2], _) => self.rows::<L, 4, 2, 6, false>(lanes),
            ([4, 1], _) => self.rows::<L, 4, 1, 5, false>(lanes),
            ([4, 0], false) => self.rows::<L, 4, 0, 4, false>(lanes),
            ([4, 0], true) => self.rows::<L, 4, 0, 4, true>(lanes),
            ([2, 1], _) => self.rows::<L, 2, 1, 3, false>(lanes),
            ([2, 0], _) => self.rows::<L, 2, 0, 2, false>(lanes),
            (planes, _) => unreachable!("planes {planes:?}"),
        }
    }
}

impl FullBlock<'_> {
    /// As many rows at a time as share what is unpacked.
    #[inline(always)]
    fn rows<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool>(mut self, lanes: L) {
        let mut at = 0;
        while at < self.rows.len() {
            at += match self.rows.len() - at {
                8.. if L::WIDE => self.some::<L, LOW, HIGH, BITS, TABLE, 8>(lanes, at),
                4.. => self.some::<L, LOW, HIGH, BITS, TABLE, 4>(lanes, at),
                2.. => self.some::<L, LOW, HIGH, BITS, TABLE, 2>(lanes, at),
                _ => self.some::<L, LOW, HIGH, BITS, TABLE, 1>(lanes, at),
            };
        }
    }

    /// Rows `at..at + M`.
    #[inline(always)]
    fn some<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool, const M: usize>(
        &mut self,
        lanes: L,
        at: usize,
    ) -> usize {
        let (w, units, k) = (self.weight, self.x.units(), self.x.k);
        let mut rows: [&[[f32; UNIT]]; M] = [&[]; M];
        for m in 0..M {
            rows[m] = self.x.floats[self.rows[at + m] as usize * k..][..k].as_chunks().0;
        }
        let words = &w.words[self.block * units * BITS..][..units * BITS];
        let scales = w.scales.view();
        let (first, group) = (self.block * w.block_scales(k), w.group.trailing_zeros());
        let mut total = [lanes.splat_float(0.0); M];
        for (u, unit) in words.as_chunks::<BITS>().0.iter().enumerate() {
            let codes = Codes::<L, LOW, HIGH, BITS, TABLE> { lanes, unit, table: &w.table };
            let mut x = [&rows[0][u]; M];
            for m in 1..M {
                x[m] = &rows[m][u];
            }
            let mut of = Scaled { scale: total[0], bias: total[0], x };
            for half in 0..2 {
                let g = (u * UNIT + half * UNIT / 2) >> group;
                let at = first + if w.biased { 2 * g } else { g };
                of.scale = scales.get(lanes, at);
                of.bias = match w.biased {
                    true => scales.get(lanes, at + 1),
                    // What codes are centered by is a power of two, so that nothing is rounded here.
                    false => lanes.multiply(lanes.splat_float(-w.center as f32), of.scale),
                };
                match half {
                    0 => {
                        for_each_pair!(codes.multiply_full(&of, &mut total): 0 1 2 3 4 5 6 7);
                    }
                    _ => {
                        for_each_pair!(codes.multiply_full(&of, &mut total): 8 9 10 11 12 13 14 15);
                    }
                }
            }
        }
        if let Some(factors) = w.factors.get(self.block) {
            for m in 0..M {
                total[m] = lanes.multiply(total[m], lanes.floats(factors));
            }
        }
        for m in 0..M {
            lanes.store(total[m], &mut self.out[at + m]);
        }
        M
    }
}

/// What the codes of half a unit are scaled by, and the unit of each row of x that they meet.
struct Scaled<'a, L: Lanes, const M: usize> {
    scale: L::Floats,
    bias: L::Floats,
    x: [&'a [f32; UNIT]; M],
}

impl<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool>
    Codes<'_, L, LOW, HIGH, BITS, TABLE>
{
    /// Adds the products of pair `p`.
    #[inline(always)]
    fn multiply_full<const M: usize>(&self, of: &Scaled<'_, L, M>, total: &mut [L::Floats; M], p: usize) {
        let lanes = self.lanes;
        let codes = self.pair(0, p);
        for (half, column) in [(1, 4 * (p / 2) + p % 2), (1 << 16, 4 * (p / 2) + p % 2 + 2)] {
            let code = lanes.to_floats(lanes.multiply_add(lanes.splat(0), codes, half));
            let weight = lanes.fused(code, of.scale, of.bias);
            for m in 0..M {
                total[m] = lanes.fused(weight, lanes.splat_float(of.x[m][column]), total[m]);
            }
        }
    }
}
