//! Quantizing a dense model, as MLX does: `mlx.core.quantize` in mode affine.
//! <https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>

use std::str::FromStr;

use half::f16;
use tamarack_kernels::{Format, Scales};

use super::canonical::{pack_pair, pack_quants};
use super::tensor::{Kind, Tensor};

/// How a dense model is quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quantize {
    /// 4 or 8.
    pub bits: u8,
    /// Columns per scale: 32, 64 or 128.
    pub group: u16,
}

/// The smallest scale: groups of equal values have none of their own.
const SMALLEST: f32 = 1e-7;

impl FromStr for Quantize {
    type Err = String;

    /// `4`, `8`, `4:32`: bits, and the group after a colon; 64 is the default.
    fn from_str(text: &str) -> Result<Quantize, String> {
        let (bits, group) = text.split_once(':').unwrap_or((text, "64"));
        match (bits.parse(), group.parse()) {
            (Ok(bits @ (4 | 8)), Ok(group @ (32 | 64 | 128))) => Ok(Quantize { bits, group }),
            _ => Err(format!("expected 4 or 8, or with a group of 32, 64 or 128 such as 4:32, found `{text}`")),
        }
    }
}

impl Quantize {
    /// What a quantized matrix is on the device. Scales are f16, which keep three digits and are never bf16.
    pub fn format(self) -> Format {
        Format::Affine { bits: self.bits, group: self.group, scales: Scales::F16 }
    }

    /// Whether MLX would quantize a tensor: matrices of floats whose rows are whole groups.
    pub fn applies(self, tensor: &Tensor) -> bool {
        let matrix = tensor.shape().len() >= 2 && tensor.rows() > 1;
        matrix && matches!(tensor.kind(), Kind::Dense(_)) && tensor.cols().is_multiple_of(usize::from(self.group))
    }

    /// The scale and bias of a group, and its quants.
    pub fn group(self, values: &[f32], q: &mut [u8]) -> (f32, f32) {
        let most = f32::from((1u16 << self.bits) - 1);
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let size = ((high - low) / most).max(SMALLEST);
        // The end that is further from 0 is hit exactly, and 0 as well.
        let (scale, edge) = if low.abs() > high.abs() { (size, low) } else { (-size, high) };
        let steps = (edge / scale).round_ties_even();
        let (scale, bias) = if steps == 0.0 { (scale, 0.0) } else { (edge / steps, edge) };
        for (q, v) in q.iter_mut().zip(values) {
            *q = ((v - bias) / scale).round_ties_even().clamp(0.0, most) as u8;
        }
        (scale, bias)
    }

    /// Appends a row in [`Quantize::format`]. False if a value is no number, or too large for f16.
    #[must_use]
    pub(super) fn pack(self, row: &[f32], quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> bool {
        let mut q = [0; 128];
        row.chunks_exact(usize::from(self.group)).all(|values| {
            let q = &mut q[..values.len()];
            let (scale, bias) = self.group(values, q);
            pack_quants(self.bits, q, quants);
            pack_pair(Scales::F16, 0, scale, bias, scales)
        })
    }

    /// What is left of a row.
    pub(super) fn round(self, row: &mut [f32]) {
        let mut q = [0; 128];
        for values in row.chunks_exact_mut(usize::from(self.group)) {
            let (scale, bias) = self.group(values, &mut q);
            let [scale, bias] = [scale, bias].map(|v| f16::from_f32(v).to_f32());
            values.iter_mut().zip(q).for_each(|(v, q)| *v = scale * f32::from(q) + bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::mapping::Mapping;
    use crate::checkpoint::{safetensors, unpack};

    /// Goldens: see tests/goldens/quantized.py.
    #[test]
    fn quantizes_as_mlx_does() {
        let bytes = include_bytes!("../../../tests/goldens/mlx.safetensors");
        let mut parts = safetensors::parts(&Mapping::from_bytes("mlx.safetensors", bytes.to_vec())).unwrap();
        parts.retain(|name, _| name.starts_with("made."));
        let parts = safetensors::tensors(parts, &serde_json::json!({})).unwrap().readable;
        let values = |tensor: &Tensor| {
            let mut all = vec![0.0; 512];
            all.chunks_exact_mut(256).enumerate().for_each(|(r, row)| tensor.row(r, row));
            all
        };
        for (bits, group) in [(4, 32), (4, 64), (4, 128), (8, 32), (8, 64), (8, 128)] {
            let quantize: Quantize = format!("{bits}:{group}").parse().unwrap();
            assert_eq!(quantize, Quantize { bits, group });
            let tensor = parts["made.dense"].rounded(quantize).unwrap();
            let (mut words, mut scales, mut packed) = (vec![], vec![], vec![0.0; 512]);
            tensor.pack(0..2, &mut words, &mut scales).unwrap();
            unpack(tensor.format(), 256, &words, &scales, &mut packed);
            assert_eq!(values(&tensor), packed);
            let want = values(&parts[&format!("made.b{bits}g{group}")]);
            for (i, (got, want)) in packed.iter().zip(&want).enumerate() {
                // The largest is 0.4.
                assert!((got - want).abs() <= 4e-4, "{bits}:{group} element {i}: {got} for {want}");
            }
        }
        assert!(["", "3", "4:", "4:16", "4:64:2", "x"].iter().all(|text| text.parse::<Quantize>().is_err()));
    }
}
