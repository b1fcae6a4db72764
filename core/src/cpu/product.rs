//! Blocks of sixteen rows of a matrix, times rows of x. What takes lanes is never in a closure: one that is not inlined is
//! compiled without the instructions.

use super::{
    lanes::{Kernel, LANES, Lanes},
    matrix::{GroupScales, Integers, Rows, UNIT},
    rounding::{Input, PAIRS, Rounded},
};
use half::{bf16, f16};
use tamarack_kernels::Format;

/// Calls a method for each of these pairs. Each call is inlined with its own number, so that shifts and masks are constants.
macro_rules! for_each_pair {
    ($codes:ident.$method:ident($a:expr, $b:expr): $($p:literal)*) => { $( $codes.$method($a, $b, $p); )* };
}
pub(super) use for_each_pair;

/// A block of interleaved integers times some rows of x: `out` is [rows, 16].
pub(super) struct IntegerBlock<'a> {
    pub weight: &'a Integers,
    pub block: usize,
    pub x: &'a Input,
    pub rows: &'a [u32],
    pub out: &'a mut [[f32; LANES]],
}

impl Kernel for IntegerBlock<'_> {
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

impl IntegerBlock<'_> {
    /// As many rows at a time as share what is unpacked.
    #[inline(always)]
    fn rows<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool>(mut self, lanes: L) {
        let mut at = 0;
        while at < self.rows.len() {
            at += match self.rows.len() - at {
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
        let (w, units) = (self.weight, self.x.units());
        let mut rows: [&[Rounded]; M] = [&[]; M];
        for m in 0..M {
            rows[m] = &self.x.rounded[self.rows[at + m] as usize * units..][..units];
        }
        let words = &w.words[self.block * units * BITS..][..units * BITS];
        let scaling = Scaling { weight: w, scales: w.scales.view(), first: self.block * w.block_scales(self.x.k) };
        // A group is 16, 32, 64 or 128 columns.
        let (by_halves, group) = (w.group < UNIT, w.group.trailing_zeros());
        let mut total = [lanes.splat_float(0.0); M];
        for (u, unit) in words.as_chunks::<BITS>().0.iter().enumerate() {
            let codes = Codes::<L, LOW, HIGH, BITS, TABLE> { lanes, unit, table: &w.table };
            let (mut x, mut by, mut x_sums) = ([&[0; PAIRS]; M], [0.0; M], [0.0; M]);
            for m in 0..M {
                let rounded = &rows[m][u];
                (x[m], by[m], x_sums[m]) = (&rounded.pairs, rounded.scale, rounded.sums[if by_halves { 0 } else { 2 }]);
            }
            let mut sum = [[lanes.splat(0); 2]; M];
            for_each_pair!(codes.multiply(&x, &mut sum): 0 1 2 3 4 5 6 7);
            if by_halves {
                scaling.add::<L, M>(lanes, (u * UNIT) >> group, &sum, &by, &x_sums, &mut total);
                sum = [[lanes.splat(0); 2]; M];
                for m in 0..M {
                    x_sums[m] = rows[m][u].sums[1];
                }
            }
            for_each_pair!(codes.multiply(&x, &mut sum): 8 9 10 11 12 13 14 15);
            scaling.add::<L, M>(lanes, (u * UNIT + UNIT / 2) >> group, &sum, &by, &x_sums, &mut total);
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

/// Sums of a group: of products as they are, and of products times 16.
type Sums<L, const M: usize> = [[<L as Lanes>::Words; 2]; M];

/// The scales of a block, which begin at `first`.
struct Scaling<'a> {
    weight: &'a Integers,
    scales: GroupScales<'a>,
    first: usize,
}

impl Scaling<'_> {
    /// Adds a group's sums to the totals. What x sums up to takes off what codes are centered by, or goes with the bias.
    #[inline(always)]
    fn add<L: Lanes, const M: usize>(
        &self,
        lanes: L,
        group: usize,
        sum: &Sums<L, M>,
        by: &[f32; M],
        x_sums: &[f32; M],
        total: &mut [L::Floats; M],
    ) {
        let w = self.weight;
        let at = self.first + if w.biased { 2 * group } else { group };
        let scale = self.scales.get(lanes, at);
        let mut sums = [scale; M];
        for m in 0..M {
            sums[m] = lanes.to_floats(if in_place(M) { lanes.add_sixteenth(sum[m][0], sum[m][1]) } else { sum[m][0] });
        }
        if w.biased {
            let bias = self.scales.get(lanes, at + 1);
            for m in 0..M {
                total[m] = lanes.fused(bias, lanes.splat_float(x_sums[m]), total[m]);
                total[m] = lanes.fused(sums[m], lanes.multiply(scale, lanes.splat_float(by[m])), total[m]);
            }
        } else {
            let center = lanes.splat_float(-w.center as f32);
            for m in 0..M {
                let off = lanes.multiply(center, lanes.splat_float(x_sums[m]));
                let value = lanes.fused(sums[m], lanes.splat_float(by[m]), off);
                total[m] = lanes.fused(value, scale, total[m]);
            }
        }
    }
}

/// Whether every other code of four bits is multiplied where it lies in its word, as 16 times what it is, and has sums of its
/// own: for few rows that spares half of the shifts, for more there are too few registers.
#[inline(always)]
const fn in_place(rows: usize) -> bool {
    rows <= 2
}

/// The codes of a unit of sixteen rows.
pub(super) struct Codes<'a, L, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool> {
    pub lanes: L,
    pub unit: &'a [[u32; LANES]; BITS],
    pub table: &'a Option<[u8; 16]>,
}

impl<L: Lanes, const LOW: u32, const HIGH: u32, const BITS: usize, const TABLE: bool>
    Codes<'_, L, LOW, HIGH, BITS, TABLE>
{
    /// Pair `p`: columns `4 * quad + odd` and `4 * quad + odd + 2`, in the halves of a word, lowest bits at `to`.
    #[inline(always)]
    pub fn pair(&self, to: u32, p: usize) -> L::Words {
        let (lanes, quad, odd) = (self.lanes, p / 2, p as u32 % 2);
        let mut codes = plane::<L, LOW>(lanes, self.unit, quad, odd, to);
        if HIGH > 0 {
            codes = lanes.or(codes, plane::<L, HIGH>(lanes, &self.unit[LOW as usize..], quad, odd, to + LOW));
        }
        match self.table {
            Some(table) if TABLE => lanes.look_up(table, codes),
            _ => codes,
        }
    }

    /// Pair `p` times that of each x.
    #[inline(always)]
    fn multiply<const M: usize>(&self, x: &[&[i32; PAIRS]; M], sum: &mut Sums<L, M>, p: usize) {
        let is_raised = in_place(M) && LOW == 4 && !TABLE && p / 2 % 2 == 1;
        let codes = self.pair(if is_raised { 4 } else { 0 }, p);
        for m in 0..M {
            let sum = &mut sum[m][usize::from(is_raised)];
            *sum = self.lanes.multiply_add(*sum, codes, x[m][p]);
        }
    }
}

/// A pair of the plane that begins with the first word, its lowest bit at `to`.
#[inline(always)]
fn plane<L: Lanes, const BITS: u32>(lanes: L, words: &[[u32; LANES]], quad: usize, odd: u32, to: u32) -> L::Words {
    // Quads in a word; no plane has no bits.
    let quads = 8 / (BITS.max(1) as usize);
    let from = BITS * (quad % quads) as u32 + 8 * odd;
    let moved = lanes.shift(lanes.load(&words[quad / quads]), to as i32 - from as i32);
    if to == 0 && from + BITS == 16 { moved } else { lanes.and(moved, (((1 << BITS) - 1) * 0x0001_0001) << to) }
}

/// Sixteen rows of floats times some rows of x: `out` is [rows, 16].
pub(super) struct FloatBlock<'a> {
    pub weight: &'a Rows,
    pub first: usize,
    pub x: &'a Input,
    pub rows: &'a [u32],
    pub out: &'a mut [[f32; LANES]],
}

/// A float as a matrix has it.
pub(super) trait Element: Copy + Default + bytemuck::Pod {
    fn load<L: Lanes>(lanes: L, values: &[Self; LANES]) -> L::Floats;
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, values: &[f32; LANES]) -> L::Floats {
        lanes.floats(values)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, values: &[f16; LANES]) -> L::Floats {
        lanes.halves(bytemuck::cast_ref(values))
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, values: &[bf16; LANES]) -> L::Floats {
        lanes.brains(bytemuck::cast_ref(values))
    }
}

impl Kernel for FloatBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        let words = self.weight.format.row_words(self.x.k);
        let count = (self.weight.quants.len() / words - self.first).min(LANES);
        for i in 0..count {
            let row = &self.weight.quants[(self.first + i) * words..][..words];
            match self.weight.format {
                Format::F32 => self.columns::<L, f32>(lanes, i, bytemuck::cast_slice(row)),
                Format::F16 => self.columns::<L, f16>(lanes, i, bytemuck::cast_slice(row)),
                _ => self.columns::<L, bf16>(lanes, i, bytemuck::cast_slice(row)),
            }
        }
    }
}

impl FloatBlock<'_> {
    #[inline(always)]
    fn columns<L: Lanes, T: Element>(&mut self, lanes: L, i: usize, row: &[T]) {
        let mut at = 0;
        while at < self.rows.len() {
            at += match self.rows.len() - at {
                4.. => self.some::<L, T, 4>(lanes, i, at, row),
                _ => self.some::<L, T, 1>(lanes, i, at, row),
            };
        }
    }

    #[inline(always)]
    fn some<L: Lanes, T: Element, const M: usize>(&mut self, lanes: L, i: usize, at: usize, row: &[T]) -> usize {
        let x: [&[f32]; M] =
            std::array::from_fn(|m| &self.x.floats[self.rows[at + m] as usize * self.x.k..][..self.x.k]);
        let mut sums = [lanes.splat_float(0.0); M];
        for (c, w) in row.as_chunks::<LANES>().0.iter().enumerate() {
            let w = T::load(lanes, w);
            for m in 0..M {
                sums[m] = lanes.fused(lanes.floats(&x[m].as_chunks::<LANES>().0[c]), w, sums[m]);
            }
        }
        let rest = row.as_chunks::<LANES>().1;
        if !rest.is_empty() {
            let w = T::load(lanes, &padded(rest));
            for m in 0..M {
                sums[m] = lanes.fused(lanes.floats(&padded(x[m].as_chunks::<LANES>().1)), w, sums[m]);
            }
        }
        for m in 0..M {
            self.out[at + m][i] = lanes.sum(sums[m]);
        }
        M
    }
}

/// Fewer than sixteen values, and zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default>(values: &[T]) -> [T; LANES] {
    let mut all = [T::default(); LANES];
    all[..values.len()].copy_from_slice(values);
    all
}
