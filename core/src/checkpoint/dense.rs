//! Plain float tensors.

use std::fmt;

use half::{bf16, f16};
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

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        })
    }
}
