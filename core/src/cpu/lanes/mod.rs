//! Sixteen lanes at a time, whatever the processor has for it.
//!
//! A kernel is written once, over [`Lanes`], and compiled once for each instruction set. A value of a type
//! that implements [`Lanes`] is the proof that the processor has its instructions: only [`Instructions::found`]
//! makes one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::{Error, Result};
use std::fmt;

/// Lanes of every instruction set: wider than most registers, so that a type may stand for several.
pub(super) const LANES: usize = 16;

/// The operations that kernels are made of, on 16 lanes of 32 bits.
pub(super) trait Lanes: Copy {
    /// Integers: 16 of 32 bits, or 32 of 16 bits.
    type Words: Copy;
    /// Floats.
    type Floats: Copy;
    /// Whether there are registers for the sums of eight rows of x, and not just of six.
    const WIDE: bool;

    /// Runs a kernel, compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    fn load(self, words: &[u32; LANES]) -> Self::Words;
    fn splat(self, word: i32) -> Self::Words;
    /// Shifts each half of a word by itself: to the left, or to the right if it is less than 0.
    fn shift(self, words: Self::Words, by: i32) -> Self::Words;
    fn and(self, words: Self::Words, mask: u32) -> Self::Words;
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a + b / 16`, of signed words, where nothing is left over.
    fn add_sixteenth(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Takes `value` off each half of a word.
    fn subtract(self, words: Self::Words, value: i16) -> Self::Words;
    /// `table[code]` for a code below 16 in each half of a word.
    fn look_up(self, table: &[u8; 16], codes: Self::Words) -> Self::Words;
    /// `sum + a.low * x.low + a.high * x.high`, where halves are signed; `x` is the same in all lanes.
    fn multiply_add(self, sum: Self::Words, a: Self::Words, x: i32) -> Self::Words;
    /// Signed words as floats.
    fn to_floats(self, words: Self::Words) -> Self::Floats;

    fn floats(self, values: &[f32; LANES]) -> Self::Floats;
    /// Floats of 16 bits, 5 of them exponent.
    fn halves(self, values: &[u16; LANES]) -> Self::Floats;
    /// Floats of 16 bits, 8 of them exponent.
    fn brains(self, values: &[u16; LANES]) -> Self::Floats;
    /// Powers of two, as the exponent of an f32 alone.
    fn exponents(self, values: &[u8; LANES]) -> Self::Floats;
    fn splat_float(self, value: f32) -> Self::Floats;
    fn store(self, values: Self::Floats, to: &mut [f32; LANES]);
    fn multiply(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`
    fn fused(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Of all lanes.
    fn sum(self, values: Self::Floats) -> f32;
}

/// What is compiled once for each instruction set. `run` has to be `#[inline(always)]`: it is part of a function
/// that may use the instructions, and by itself would not.
pub(super) trait Kernel {
    type Output;

    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// The instruction set that kernels use.
#[derive(Clone, Copy, Debug)]
pub struct Instructions(Set);

#[derive(Clone, Copy, Debug)]
enum Set {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

/// Names one of [`Instructions::found`], to test and to compare: `portable`, `avx2`, `avx512`, `neon`.
pub const INSTRUCTIONS: &str = "TAMARACK_CPU";

impl Instructions {
    /// All that this processor has, the best first.
    pub fn found() -> Vec<Instructions> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(avx512::Avx512::found().map(Set::Avx512));
            found.extend(avx2::Avx2::found().map(Set::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        found.extend(neon::Neon::found().map(Set::Neon));
        found.push(Set::Portable(portable::Portable));
        found.into_iter().map(Instructions).collect()
    }

    /// The best, or the one that the environment names.
    ///
    /// # Errors
    /// This processor has none of that name.
    pub fn chosen() -> Result<Instructions> {
        let found = Instructions::found();
        let Some(wanted) = std::env::var_os(INSTRUCTIONS).filter(|name| !name.is_empty()) else { return Ok(found[0]) };
        let named = found.iter().find(|set| wanted.eq_ignore_ascii_case(set.name()));
        named.copied().ok_or_else(|| {
            let names: Vec<&str> = found.iter().map(|set| set.name()).collect();
            let (wanted, names) = (wanted.to_string_lossy(), names.join(", "));
            Error::Device(format!("{INSTRUCTIONS}={wanted}: this processor has {names}"))
        })
    }

    /// What [`INSTRUCTIONS`] calls it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Set::Neon(_) => "neon",
        }
    }

    /// Runs a kernel.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Portable(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(lanes) => lanes.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(lanes) => lanes.run(kernel),
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.name() {
            "avx2" => "AVX2, FMA, F16C",
            "avx512" => "AVX-512, VNNI",
            "neon" => "NEON",
            _ => "portable",
        })
    }
}
