//! Two registers of eight lanes.
//!
//! SAFETY of all that is unsafe here: intrinsics need a processor that has them, and an [`Avx2`] exists only
//! where [`Avx2::found`] saw that; what is read and written are references to whole arrays. Arrays become registers by
//! `transmute`, whose sizes the compiler compares: a load by pointer is checked each time where tests are built.
#![allow(unsafe_code)]

use super::{Kernel, LANES, Lanes};
use std::{arch::x86_64::*, mem::transmute};

#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn found() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        (found && is_x86_feature_detected!("f16c")).then_some(Avx2(()))
    }
}

/// Expands to a pair made of each half.
macro_rules! both {
    ($i:ident => $e:expr) => {
        unsafe {
            [
                {
                    const $i: usize = 0;
                    $e
                },
                {
                    const $i: usize = 1;
                    $e
                },
            ]
        }
    };
}

impl Lanes for Avx2 {
    type Words = [__m256i; 2];
    type Floats = [__m256; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
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
        unsafe { [_mm256_set1_epi32(word); 2] }
    }

    #[inline(always)]
    fn shift(self, words: Self::Words, by: i32) -> Self::Words {
        let count = unsafe { _mm_cvtsi32_si128(by.abs()) };
        match by {
            0.. => both!(I => _mm256_sll_epi16(words[I], count)),
            _ => both!(I => _mm256_srl_epi16(words[I], count)),
        }
    }

    #[inline(always)]
    fn and(self, words: Self::Words, mask: u32) -> Self::Words {
        both!(I => _mm256_and_si256(words[I], _mm256_set1_epi32(mask as i32)))
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        both!(I => _mm256_or_si256(a[I], b[I]))
    }

    #[inline(always)]
    fn add_sixteenth(self, a: Self::Words, b: Self::Words) -> Self::Words {
        both!(I => _mm256_add_epi32(a[I], _mm256_srai_epi32::<4>(b[I])))
    }

    #[inline(always)]
    fn subtract(self, words: Self::Words, value: i16) -> Self::Words {
        both!(I => _mm256_sub_epi16(words[I], _mm256_set1_epi16(value)))
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], codes: Self::Words) -> Self::Words {
        // The upper byte of each half is 0 and would look up the first entry: its sign bit gives 0 instead.
        let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
        both!(I => {
            let codes = _mm256_or_si256(codes[I], _mm256_set1_epi16(0x8000u16 as i16));
            _mm256_shuffle_epi8(table, codes)
        })
    }

    #[inline(always)]
    fn multiply_add(self, sum: Self::Words, a: Self::Words, x: i32) -> Self::Words {
        both!(I => _mm256_add_epi32(sum[I], _mm256_madd_epi16(a[I], _mm256_set1_epi32(x))))
    }

    #[inline(always)]
    fn to_floats(self, words: Self::Words) -> Self::Floats {
        both!(I => _mm256_cvtepi32_ps(words[I]))
    }

    #[inline(always)]
    fn floats(self, values: &[f32; LANES]) -> Self::Floats {
        unsafe { transmute::<[f32; LANES], Self::Floats>(*values) }
    }

    #[inline(always)]
    fn halves(self, values: &[u16; LANES]) -> Self::Floats {
        let values: [__m128i; 2] = unsafe { transmute(*values) };
        both!(I => _mm256_cvtph_ps(values[I]))
    }

    #[inline(always)]
    fn brains(self, values: &[u16; LANES]) -> Self::Floats {
        let values: [__m128i; 2] = unsafe { transmute(*values) };
        both!(I => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(values[I]))))
    }

    #[inline(always)]
    fn exponents(self, values: &[u8; LANES]) -> Self::Floats {
        both!(I => {
            let words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(values.as_ptr().add(8 * I).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(words))
        })
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]) {
        let _: [(); 2] = both!(I => _mm256_storeu_ps(to.as_mut_ptr().add(8 * I), values[I]));
    }

    #[inline(always)]
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        both!(I => _mm256_mul_ps(a[I], b[I]))
    }

    #[inline(always)]
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        both!(I => _mm256_fmadd_ps(a[I], b[I], c[I]))
    }

    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(values[0], values[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
