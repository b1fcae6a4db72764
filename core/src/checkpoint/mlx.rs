//! MLX's affine quantization: `X.weight` (packed u32), `X.scales` and `X.biases` are one tensor.
//!
//! Each row of `X.weight` is one little-endian bitstream, quant `i` at bits `i*b .. (i+1)*b`, which
//! may straddle words. 32 quants are exactly `b` words, so groups begin at a word.
//! Format: <https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>.

use std::path::Path;
use std::sync::OnceLock;

use half::f16;
use serde_json::Value;
use tamarack_kernels::Scales;

use super::block::Block;
use super::dense::Dtype;
use super::mapping::Slice;
use super::tensor::{Data, Tensor, View};

/// The stored parts of one quantized tensor.
pub(super) struct Affine {
    /// 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
    /// Columns per (scale, bias): 32, 64 or 128.
    pub group: u16,
    words: Slice,
    scales: Slice,
    biases: Slice,
    dtype: Dtype,
    /// Groups in a row.
    groups: usize,
    canonical: OnceLock<Scales>,
}

/// One stored part: its dimensions and bytes.
pub(super) struct Part {
    /// The dimensions, slowest first.
    pub shape: Vec<usize>,
    /// The type's name in safetensors.
    pub dtype: safetensors::Dtype,
    /// As many bytes as shape and type demand.
    pub bytes: Slice,
}

impl Affine {
    /// Decodes group `i` of `row`.
    pub fn decode(&self, row: usize, i: usize, block: &mut Block) {
        let at = row * self.groups + i;
        block.set(0, self.dtype.get(&self.scales, at), self.dtype.get(&self.biases, at));
        let (bits, group) = (u32::from(self.bits), self.group as usize);
        let bytes = group / 8 * self.bits as usize;
        let mut stream = self.words[at * bytes..(at + 1) * bytes].chunks_exact(4);
        let (mut buffer, mut filled) = (0u64, 0);
        for q in &mut block.q[..group] {
            if filled < bits
                && let Some(word) = stream.next()
            {
                buffer |= u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])) << filled;
                filled += 32;
            }
            *q = (buffer & ((1 << bits) - 1)) as u8;
            buffer >>= bits;
            filled -= bits;
        }
    }

    /// Stored bytes.
    pub fn bytes(&self) -> u64 {
        (self.words.len() + self.scales.len() + self.biases.len()) as u64
    }

    /// The file of the packed words.
    pub fn path(&self) -> &Path {
        self.words.path()
    }

    /// f16 if every scale and bias survives the rounding. Found out once, by reading them all (an
    /// eighth of the tensor or less, which loading reads anyway).
    pub fn scales(&self) -> Scales {
        *self.canonical.get_or_init(|| {
            let count = self.scales.len() / self.dtype.size();
            let fits = |part: &[u8]| (0..count).all(|i| survives_f16(self.dtype.get(part, i)));
            let f16 = self.dtype == Dtype::F16 || (fits(&self.scales) && fits(&self.biases));
            if f16 { Scales::F16 } else { Scales::F32 }
        })
    }
}

/// Whether rounding to f16 keeps `v` exactly or to half a unit in the last of its 11 places. Below
/// 2^-14 f16 has fewer places, so only exact values pass, and those that MLX writes for groups of
/// equal weights (1e-7, its smallest scale): they multiply nothing of size.
fn survives_f16(v: f32) -> bool {
    let rounded = f16::from_f32(v).to_f32();
    rounded == v || v.abs() <= 1.01e-7 || ((rounded - v).abs() <= v.abs() / 2048.0 && rounded.is_finite())
}

/// The `quantization` of a config.json, or `quantization_config` in the same shape.
pub(super) struct Quantization<'a>(Option<&'a serde_json::Map<String, Value>>);

impl<'a> Quantization<'a> {
    /// Finds it in `config`.
    pub fn of(config: &'a Value) -> Quantization<'a> {
        let mlx = |key| config.get(key).and_then(Value::as_object).filter(|q| q.contains_key("bits"));
        Quantization(mlx("quantization").or_else(|| mlx("quantization_config")))
    }

    /// (bits, group) of the layer at `path`: its own entry, or the entry for all.
    fn layer(&self, path: &str) -> Result<(u64, u64), String> {
        let all = self.0.ok_or("config.json has no `quantization` that says its bits and group_size")?;
        let own = all.get(path).and_then(Value::as_object).unwrap_or(all);
        let mode = own.get("mode").or_else(|| all.get("mode")).and_then(Value::as_str).unwrap_or("affine");
        if mode != "affine" {
            return Err(format!("quantization mode `{mode}` is not supported; requantize with mode `affine`"));
        }
        let field = |key: &str| {
            let value = own.get(key).or_else(|| all.get(key));
            value.and_then(Value::as_u64).ok_or_else(|| format!("config.json: quantization.{key} is not an integer"))
        };
        Ok((field("bits")?, field("group_size")?))
    }
}

/// Joins the three parts of the layer at `path` into the tensor `{path}.weight`.
pub(super) fn join(
    path: &str,
    quantization: &Quantization,
    weight: Part,
    scales: Part,
    biases: Option<Part>,
) -> Result<Tensor, String> {
    let name = format!("{path}.weight");
    let fail = |message: String| format!("{name}: {message}");
    let (bits, group) = quantization.layer(path).map_err(fail)?;
    let biases = biases.ok_or_else(|| fail(format!("expected `{path}.biases` beside `{path}.scales`, found none")))?;
    if ![2, 3, 4, 5, 6, 8].contains(&bits) || ![32, 64, 128].contains(&group) {
        let want = "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128";
        return Err(fail(format!("expected {want}, config.json says {bits} bits in groups of {group}")));
    }
    let dtype = match scales.dtype {
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        other => return Err(fail(format!("expected float scales, `{path}.scales` is {other}"))),
    };
    if biases.dtype != scales.dtype || biases.shape != scales.shape {
        let (a, b, c, d) = (scales.dtype, &scales.shape, biases.dtype, &biases.shape);
        return Err(fail(format!("expected biases {a} {b:?} like the scales, file has {c} {d:?}")));
    }
    let (Some((&words, lead)), Some((&groups, scales_lead))) = (weight.shape.split_last(), scales.shape.split_last())
    else {
        return Err(fail("expected matrices, found a scalar".into()));
    };
    let cols = groups.checked_mul(group as usize);
    let wanted = cols.and_then(|cols| (cols / 32).checked_mul(bits as usize));
    let (Some(cols), true) = (cols, wanted == Some(words) && lead == scales_lead) else {
        let (w, s) = (&weight.shape, &scales.shape);
        let what = format!("{bits} bits in groups of {group} (config.json)");
        return Err(fail(format!("weight {w:?} and scales {s:?} do not fit {what}")));
    };
    let shape = lead.iter().copied().chain([cols]).collect();
    let (bits, group) = (bits as u8, group as u16);
    let (words, scales, biases) = (weight.bytes, scales.bytes, biases.bytes);
    let affine = Affine { bits, group, words, scales, biases, dtype, groups, canonical: OnceLock::new() };
    Tensor::new(&name, shape, Data::Mlx(affine.into()), View::default())
}
