//! Plain float tensors.

use std::fmt;

use half::{bf16, f16};
use safetensors::Dtype as Stored;
use tamarack_kernels::Format;

/// The float types that weights are stored in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// The device format of the same elements.
    pub(super) fn format(self) -> Format {
        match self {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::Bf16 => Format::Bf16,
        }
    }

    /// Element `i` of little-endian `bytes`.
    pub(super) fn get(self, bytes: &[u8], i: usize) -> f32 {
        let at = i * self.size();
        match self {
            Dtype::F32 => f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]),
            Dtype::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
            Dtype::Bf16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
        }
    }

    /// Every element of little-endian `bytes`.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        out.iter_mut().enumerate().for_each(|(i, out)| *out = self.get(bytes, i));
    }
}

/// The elements of a float type that has no form of its own here, in one that holds them: f64 rounded to f32, as `transformers`
/// does for models in f32, and 8-bit floats as f16, which has all of their values.
pub(super) fn converted(stored: Stored, bytes: &[u8]) -> Option<(Dtype, Vec<u8>)> {
    let halves = |half: fn(u8) -> f16| bytes.iter().flat_map(|b| half(*b).to_le_bytes()).collect();
    match stored {
        Stored::F64 => {
            let (words, _) = bytes.as_chunks::<8>();
            let floats = words.iter().flat_map(|word| (f64::from_le_bytes(*word) as f32).to_le_bytes());
            Some((Dtype::F32, floats.collect()))
        }
        Stored::F8_E4M3 => Some((Dtype::F16, halves(e4m3))),
        Stored::F8_E5M2 => Some((Dtype::F16, halves(|b| f16::from_bits(u16::from(b) << 8)))),
        _ => None,
    }
}

/// Four bits of exponent with bias 7, three of mantissa, no infinity, arXiv:2209.05433.
fn e4m3(byte: u8) -> f16 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * (-9f32).exp2(),
        _ => (8.0 + mantissa) * ((exponent - 10) as f32).exp2(),
    };
    f16::from_f32(if byte & 0x80 == 0 { size } else { -size })
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_floats_are_converted() {
        let halves = |stored, bytes: &[u8]| -> Vec<f32> {
            let (dtype, out) = converted(stored, bytes).unwrap();
            (0..bytes.len()).map(|i| dtype.get(&out, i)).collect()
        };
        // Values of torch.float8_e4m3fn and torch.float8_e5m2.
        assert_eq!(
            halves(Stored::F8_E4M3, &[0x00, 0x01, 0x08, 0x38, 0xb9, 0x7e]),
            [0.0, 0.001953125, 0.015625, 1.0, -1.125, 448.0]
        );
        assert!(halves(Stored::F8_E4M3, &[0x7f])[0].is_nan());
        assert_eq!(halves(Stored::F8_E5M2, &[0x01, 0x3c, 0xbd, 0x7b]), [1.525_878_9e-5, 1.0, -1.25, 57344.0]);
        let (dtype, bytes) = converted(Stored::F64, &(-0.1f64).to_le_bytes()).unwrap();
        assert_eq!((dtype, dtype.get(&bytes, 0)), (Dtype::F32, -0.1));
        assert!(converted(Stored::I64, &[0; 8]).is_none());
    }
}
