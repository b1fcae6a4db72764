//! One register, and one instruction for what takes two elsewhere: to multiply pairs and to add them up.
//!
//! SAFETY of all that is unsafe here: intrinsics need a processor that has them, and an [`Avx512`] exists only
//! where [`Avx512::found`] saw that; what is read and written are references to whole arrays.
#![allow(unsafe_code)]

use super::{Kernel, LANES, Lanes};
use std::{arch::x86_64::*, mem::transmute};

#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn found() -> Option<Avx512> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let more = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx2");
        (found && more && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")).then_some(Avx512(()))
    }
}

impl Lanes for Avx512 {
    type Words = __m512i;
    type Floats = __m512;
    const WIDE: bool = true;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
        fn compiled<K: Kernel>(lanes: Avx512, kernel: K) -> K::Output {
            kernel.run(lanes)
        }
        unsafe { compiled(self, kernel) }
    }

    #[inline(always)]
    fn load(self, words: &[u32; LANES]) -> Self::Words {
        unsafe { transmute::<[u32; LANES], Self::Words>(*words) }
    }

    #[inline(always)]
    fn splat(self, word: i32) -> Self::Words {
        unsafe { _mm512_set1_epi32(word) }
    }

    #[inline(always)]
    fn shift(self, words: Self::Words, by: i32) -> Self::Words {
        unsafe {
            let count = _mm_cvtsi32_si128(by.abs());
            match by {
                0.. => _mm512_sll_epi16(words, count),
                _ => _mm512_srl_epi16(words, count),
            }
        }
    }

    #[inline(always)]
    fn and(self, words: Self::Words, mask: u32) -> Self::Words {
        unsafe { _mm512_and_si512(words, _mm512_set1_epi32(mask as i32)) }
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn add_sixteenth(self, a: Self::Words, b: Self::Words) -> Self::Words {
        unsafe { _mm512_add_epi32(a, _mm512_srai_epi32::<4>(b)) }
    }

    #[inline(always)]
    fn subtract(self, words: Self::Words, value: i16) -> Self::Words {
        unsafe { _mm512_sub_epi16(words, _mm512_set1_epi16(value)) }
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: Self::Words) -> Self::Words {
        // The upper byte of each half is 0 and would look up the first entry: its sign bit gives 0 instead.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, _mm512_or_si512(codes, _mm512_set1_epi16(0x8000u16 as i16)))
        }
    }

    #[inline(always)]
    fn multiply_add(self, sum: Self::Words, a: Self::Words, x: i32) -> Self::Words {
        unsafe { _mm512_dpwssd_epi32(sum, a, _mm512_set1_epi32(x)) }
    }

    #[inline(always)]
    fn to_floats(self, words: Self::Words) -> Self::Floats {
        unsafe { _mm512_cvtepi32_ps(words) }
    }

    #[inline(always)]
    fn floats(self, values: &[f32; LANES]) -> Self::Floats {
        unsafe { transmute::<[f32; LANES], Self::Floats>(*values) }
    }

    #[inline(always)]
    fn halves(self, values: &[u16; LANES]) -> Self::Floats {
        unsafe { _mm512_cvtph_ps(transmute::<[u16; LANES], __m256i>(*values)) }
    }

    #[inline(always)]
    fn brains(self, values: &[u16; LANES]) -> Self::Floats {
        unsafe {
            let words = _mm512_cvtepu16_epi32(transmute::<[u16; LANES], __m256i>(*values));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }

    #[inline(always)]
    fn exponents(self, values: &[u8; LANES]) -> Self::Floats {
        unsafe {
            let words = _mm512_cvtepu8_epi32(_mm_loadu_si128(values.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(words))
        }
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) }
    }

    #[inline(always)]
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        unsafe { _mm512_reduce_add_ps(values) }
    }
}
