//! Four registers of four lanes.
//!
//! SAFETY of all that is unsafe here: every processor of this architecture has NEON, and [`Neon::found`] asks
//! nevertheless; what is read and written are references to whole arrays.
#![allow(unsafe_code)]

use super::{Kernel, LANES, Lanes};
use std::arch::aarch64::*;

#[derive(Clone, Copy, Debug)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn found() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// Four results, one for each quarter.
macro_rules! quarters {
    ($i:ident => $e:expr) => {{
        #[inline(always)]
        fn four<T>(f: impl Fn(usize) -> T) -> [T; 4] {
            [f(0), f(1), f(2), f(3)]
        }
        four(#[inline(always)]
        |$i| unsafe { $e })
    }};
}

impl Lanes for Neon {
    type Words = [uint32x4_t; 4];
    type Floats = [float32x4_t; 4];
    const WIDE: bool = false;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel>(lanes: Neon, kernel: K) -> K::Output {
            kernel.run(lanes)
        }
        unsafe { compiled(self, kernel) }
    }

    #[inline(always)]
    fn load(self, words: &[u32; LANES]) -> Self::Words {
        quarters!(i => vld1q_u32(words.as_ptr().add(4 * i)))
    }

    #[inline(always)]
    fn splat(self, word: i32) -> Self::Words {
        unsafe { [vdupq_n_u32(word as u32); 4] }
    }

    #[inline(always)]
    fn shift(self, words: Self::Words, by: i32) -> Self::Words {
        // To the right where the count is less than 0.
        quarters!(i => {
            vreinterpretq_u32_u16(vshlq_u16(vreinterpretq_u16_u32(words[i]), vdupq_n_s16(by as i16)))
        })
    }

    #[inline(always)]
    fn and(self, words: Self::Words, mask: u32) -> Self::Words {
        quarters!(i => vandq_u32(words[i], vdupq_n_u32(mask)))
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        quarters!(i => vorrq_u32(a[i], b[i]))
    }

    #[inline(always)]
    fn add_sixteenth(self, a: Self::Words, b: Self::Words) -> Self::Words {
        quarters!(i => vaddq_u32(a[i], vreinterpretq_u32_s32(vshrq_n_s32::<4>(vreinterpretq_s32_u32(b[i])))))
    }

    #[inline(always)]
    fn subtract(self, words: Self::Words, value: i16) -> Self::Words {
        quarters!(i => {
            vreinterpretq_u32_u16(vsubq_u16(vreinterpretq_u16_u32(words[i]), vdupq_n_u16(value as u16)))
        })
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: Self::Words) -> Self::Words {
        // What is past the table is 0: so the upper bytes look up nothing.
        quarters!(i => {
            let codes = vorrq_u8(vreinterpretq_u8_u32(codes[i]), vreinterpretq_u8_u16(vdupq_n_u16(0x8000)));
            vreinterpretq_u32_u8(vqtbl1q_u8(vld1q_u8(table.as_ptr()), codes))
        })
    }

    #[inline(always)]
    fn multiply_add(self, sum: Self::Words, a: Self::Words, x: i32) -> Self::Words {
        quarters!(i => {
            let (a, x) = (vreinterpretq_s16_u32(a[i]), vreinterpretq_s16_s32(vdupq_n_s32(x)));
            let pairs = vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(x)), vmull_high_s16(a, x));
            vaddq_u32(sum[i], vreinterpretq_u32_s32(pairs))
        })
    }

    #[inline(always)]
    fn to_floats(self, words: Self::Words) -> Self::Floats {
        quarters!(i => vcvtq_f32_s32(vreinterpretq_s32_u32(words[i])))
    }

    #[inline(always)]
    fn floats(self, values: &[f32; LANES]) -> Self::Floats {
        quarters!(i => vld1q_f32(values.as_ptr().add(4 * i)))
    }

    #[inline(always)]
    fn halves(self, values: &[u16; LANES]) -> Self::Floats {
        // The exponent of an f16 begins 112 lower. Infinities become 65536 and more; no cache or scale keeps any.
        quarters!(i => {
            let wide = vmovl_u16(vld1_u16(values.as_ptr().add(4 * i)));
            let sign = vshlq_n_u32::<16>(vandq_u32(wide, vdupq_n_u32(0x8000)));
            let size = vreinterpretq_f32_u32(vshlq_n_u32::<13>(vandq_u32(wide, vdupq_n_u32(0x7fff))));
            let size = vmulq_f32(size, vdupq_n_f32(f32::from_bits(239 << 23)));
            vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(size), sign))
        })
    }

    #[inline(always)]
    fn brains(self, values: &[u16; LANES]) -> Self::Floats {
        quarters!(i => vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(values.as_ptr().add(4 * i))))))
    }

    #[inline(always)]
    fn exponents(self, values: &[u8; LANES]) -> Self::Floats {
        let wide: [u32; LANES] = std::array::from_fn(|i| u32::from(values[i]));
        quarters!(i => vreinterpretq_f32_u32(vshlq_n_u32::<23>(vld1q_u32(wide.as_ptr().add(4 * i)))))
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        unsafe { [vdupq_n_f32(value); 4] }
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        for (values, to) in values.into_iter().zip(to.chunks_exact_mut(4)) {
            unsafe { vst1q_f32(to.as_mut_ptr(), values) }
        }
    }

    #[inline(always)]
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        quarters!(i => vmulq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        quarters!(i => vfmaq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        let all = quarters!(i => vaddvq_f32(values[i]));
        all.iter().sum()
    }
}
