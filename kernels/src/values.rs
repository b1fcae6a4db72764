//! The codes of [`Format::Scaled`](crate::Format::Scaled), and the numbers that they stand for.

/// What the codes of a matrix stand for, before they are scaled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Values {
    /// 4 bits, a float of 2 bits of exponent and 1 of mantissa: FP4 of the OCP's MX formats.
    E2m1,
    /// 8 bits, a float of 4 bits of exponent and 3 of mantissa, without infinities.
    E4m3,
    /// 4 bits, the quantiles of the normal distribution, arXiv:2305.14314.
    Nf4,
    /// 4 bits, the FP4 of bitsandbytes, which is not E2M1.
    BnbFp4,
    /// 4 bits, the levels of ggml's IQ4 types.
    Iq4,
}

impl Values {
    /// All of them.
    pub const ALL: [Values; 5] = [Values::E2m1, Values::E4m3, Values::Nf4, Values::BnbFp4, Values::Iq4];

    /// Bits of a code.
    pub fn bits(self) -> u8 {
        if self == Values::E4m3 { 8 } else { 4 }
    }

    /// The number that `code` stands for. Of E4M3 the code 0x7f, which is no number, stands for 480 here:
    /// whoever fills a matrix keeps it out.
    pub fn value(self, code: u8) -> f32 {
        match self {
            Values::E4m3 => e4m3(code),
            Values::E2m1 => E2M1[usize::from(code & 15)],
            Values::Nf4 => NF4[usize::from(code & 15)],
            Values::BnbFp4 => BNB_FP4[usize::from(code & 15)],
            Values::Iq4 => IQ4[usize::from(code & 15)],
        }
    }

    /// The numbers of all 4-bit codes.
    pub(crate) fn table(self) -> [f32; 16] {
        std::array::from_fn(|code| self.value(code as u8))
    }

    /// What kernels multiply scales by, so that they may read codes as what is easiest for them: E2M1
    /// as twice its value, a whole number; E4M3 by the rules of f16, whose exponents begin 8 lower.
    pub(crate) fn unit(self) -> f32 {
        match self {
            Values::E2m1 => 0.5,
            Values::E4m3 => 256.0,
            _ => 1.0,
        }
    }

    /// Whether kernels read codes as signed bytes.
    pub(crate) fn are_integers(self) -> bool {
        matches!(self, Values::E2m1 | Values::Iq4)
    }
}

impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Values::E2m1 => "e2m1",
            Values::E4m3 => "e4m3",
            Values::Nf4 => "nf4",
            Values::BnbFp4 => "bnb-fp4",
            Values::Iq4 => "iq4",
        })
    }
}

/// The float of 4 bits of exponent and 3 of mantissa that `code` is.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
    let size = if exponent == 0 { mantissa * 2f32.powi(-6) } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) };
    if code & 0x80 == 0 { size } else { -size }
}

/// <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>, 5.3.3
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// As bitsandbytes writes them.
#[allow(clippy::excessive_precision)]
const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// `create_fp4_map` of bitsandbytes, by hand: 0, 1/16, 8, 12, 4, 6, 2, 3 twelfths.
const BNB_FP4: [f32; 16] = {
    let twelfths = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let (mut table, mut i) = ([0.0; 16], 0);
    while i < 8 {
        table[i] = twelfths[i] / 12.0;
        table[i + 8] = -twelfths[i] / 12.0;
        i += 1;
    }
    table
};

/// `kvalues_iq4nl` of ggml.
const IQ4: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];
