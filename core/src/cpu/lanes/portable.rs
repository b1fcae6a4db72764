//! Plain Rust, which compilers turn into whatever every processor of a kind has.

use super::{Kernel, LANES, Lanes};
use half::{bf16, f16};

#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

#[inline(always)]
fn each<A: Copy, B: Copy + Default>(a: &[A; LANES], f: impl Fn(A) -> B) -> [B; LANES] {
    std::array::from_fn(|i| f(a[i]))
}

impl Lanes for Portable {
    type Words = [u32; LANES];
    type Floats = [f32; LANES];
    const WIDE: bool = false;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn load(self, words: &[u32; LANES]) -> Self::Words {
        *words
    }

    #[inline(always)]
    fn splat(self, word: i32) -> Self::Words {
        [word as u32; LANES]
    }

    #[inline(always)]
    fn shift(self, words: Self::Words, by: i32) -> Self::Words {
        let half = |h: u16| u32::from(if by < 0 { h >> -by } else { h << by });
        each(&words, |w| half(w as u16) | half((w >> 16) as u16) << 16)
    }

    #[inline(always)]
    fn and(self, words: Self::Words, mask: u32) -> Self::Words {
        each(&words, |w| w & mask)
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn add_sixteenth(self, a: Self::Words, b: Self::Words) -> Self::Words {
        std::array::from_fn(|i| (a[i] as i32).wrapping_add(b[i] as i32 >> 4) as u32)
    }

    #[inline(always)]
    fn subtract(self, words: Self::Words, value: i16) -> Self::Words {
        let take = |half: u16| u32::from(half.wrapping_sub(value as u16));
        each(&words, |w| take(w as u16) | take((w >> 16) as u16) << 16)
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: Self::Words) -> Self::Words {
        each(&codes, |w| u32::from(table[(w & 15) as usize]) | u32::from(table[(w >> 16 & 15) as usize]) << 16)
    }

    #[inline(always)]
    fn multiply_add(self, sum: Self::Words, a: Self::Words, x: i32) -> Self::Words {
        let halves = |w: u32| [i32::from(w as i16), i32::from((w >> 16) as i16)];
        let [low, high] = halves(x as u32);
        std::array::from_fn(|i| {
            let [a_low, a_high] = halves(a[i]);
            (sum[i] as i32).wrapping_add(a_low * low).wrapping_add(a_high * high) as u32
        })
    }

    #[inline(always)]
    fn to_floats(self, words: Self::Words) -> Self::Floats {
        each(&words, |w| w as i32 as f32)
    }

    #[inline(always)]
    fn floats(self, values: &[f32; LANES]) -> Self::Floats {
        *values
    }

    #[inline(always)]
    fn halves(self, values: &[u16; LANES]) -> Self::Floats {
        each(values, |v| f16::from_bits(v).to_f32())
    }

    #[inline(always)]
    fn brains(self, values: &[u16; LANES]) -> Self::Floats {
        each(values, |v| bf16::from_bits(v).to_f32())
    }

    #[inline(always)]
    fn exponents(self, values: &[u8; LANES]) -> Self::Floats {
        each(values, |v| f32::from_bits(u32::from(v) << 23))
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        *to = values;
    }

    #[inline(always)]
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        values.iter().sum()
    }
}
