//! Activations on their way into products with integers: rounded to 16 bits, with one scale for 32 columns.
//!
//! An error of 1/65534 of the largest of 32 neighbours is what nothing can tell from f32 in the end (docs/performance.md
//! has the figures for rounding to 8 and to 16 bits), and a processor multiplies pairs of 16 bits in one instruction.

use super::{
    lanes::{Kernel, Lanes},
    matrix::UNIT,
};

/// Pairs of a unit.
pub(super) const PAIRS: usize = UNIT / 2;
/// The largest magnitude that a value is rounded to.
const MOST: f32 = 32767.0;
/// An f32 this large has a last place of 1: adding it rounds to an integer.
const MAGIC: f32 = 12_582_912.0;

/// Rows of x, [rows, k].
#[derive(Default)]
pub(super) struct Input {
    pub k: usize,
    /// As they are.
    pub floats: Vec<f32>,
    /// Rounded, [rows, k / 32].
    pub rounded: Vec<Rounded>,
}

/// 32 columns of a row of x.
#[derive(Clone, Copy, Default)]
pub(super) struct Rounded {
    /// Two to a word. Of each four columns the first and the third come first, then the others, as the words of weights have them.
    pub pairs: [i32; PAIRS],
    /// What 1 is worth.
    pub scale: f32,
    /// What the first 16 columns, the last 16 and all of them sum up to, as rounded.
    pub sums: [f32; 3],
}

impl Input {
    /// Rows of `k` floats.
    pub fn new(floats: Vec<f32>, k: usize) -> Input {
        Input { k, floats, ..Input::default() }
    }

    pub fn rows(&self) -> usize {
        self.floats.len() / self.k.max(1)
    }

    pub fn units(&self) -> usize {
        self.k / UNIT
    }
}

/// Rounds whole units.
pub(super) struct Round<'a> {
    pub x: &'a [f32],
    pub rounded: &'a mut [Rounded],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (x, rounded) in self.x.as_chunks::<UNIT>().0.iter().zip(self.rounded) {
            let mut lanes = [0f32; 8];
            for x in x.as_chunks::<8>().0 {
                for i in 0..8 {
                    lanes[i] = lanes[i].max(x[i].abs());
                }
            }
            let most = lanes.iter().fold(0f32, |most, v| most.max(*v));
            let scale = most / MOST;
            // What is smaller than a normal number is nothing beside any weight.
            let by = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
            let mut q = [0i32; UNIT];
            for i in 0..UNIT {
                q[i] = ((x[i] * by + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
            }
            let [first, last]: [i32; 2] = [q[..UNIT / 2].iter().sum(), q[UNIT / 2..].iter().sum()];
            rounded.scale = scale;
            rounded.sums = [first, last, first + last].map(|sum| scale * sum as f32);
            for (four, pairs) in q.as_chunks::<4>().0.iter().zip(rounded.pairs.as_chunks_mut::<2>().0) {
                *pairs = [0, 1].map(|i| four[i] & 0xffff | four[i + 2] << 16);
            }
        }
    }
}
