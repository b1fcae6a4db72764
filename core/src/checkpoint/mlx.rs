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
        let (bits, group) = (self.bits as usize, self.group as usize);
        let bytes = group / 8 * bits;
        let row = self.words[at * bytes..(at + 1) * bytes].chunks_exact(bits);
        // Eight quants are as many bytes as a quant has bits.
        for (q, bytes) in block.q[..group].chunks_exact_mut(8).zip(row) {
            let mut stream = [0; 8];
            stream[..bits].copy_from_slice(bytes);
            let stream = u64::from_le_bytes(stream);
            q.iter_mut().enumerate().for_each(|(i, q)| *q = (stream >> (bits * i) & ((1 << bits) - 1)) as u8);
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

/// Whether f16 holds `v` exactly, as it does what was bf16 or f16 before: at 8 bits a bias is some
/// hundred scales, and rounding it would move every weight of its group the same way. The scales that
/// MLX writes for groups of equal weights (1e-7, its smallest) pass: they multiply nothing of size.
fn survives_f16(v: f32) -> bool {
    v.is_finite() && (v.abs() <= 1.01e-7 || f16::from_f32(v).to_f32() == v)
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

#[cfg(test)]
mod tests {
    use ::safetensors::Dtype as Stored;
    use serde_json::json;
    use tamarack_kernels::Format;

    use super::*;
    use crate::checkpoint::mapping::Mapping;
    use crate::checkpoint::{safetensors, unpack};

    /// Goldens: rows that MLX quantized, see tests/goldens/quantized.py.
    fn goldens() -> safetensors::Parts {
        let bytes = include_bytes!("../../../tests/goldens/mlx.safetensors");
        safetensors::parts(&Mapping::from_bytes("mlx.safetensors", bytes.to_vec())).unwrap()
    }

    fn join_golden(path: &str, config: &Value) -> Result<Tensor, String> {
        let mut parts = goldens();
        let mut take = |kind: &str| parts.remove(&format!("{path}.{kind}"));
        join(path, &Quantization::of(config), take("weight").unwrap(), take("scales").unwrap(), take("biases"))
    }

    #[test]
    fn every_width_and_group_decodes_and_packs_exactly() {
        let goldens = goldens();
        for bits in [2, 3, 4, 5, 6, 8] {
            for group in [32, 64, 128] {
                let path = format!("b{bits}g{group}");
                let config = json!({ "quantization": { "bits": bits, "group_size": group } });
                let tensor = join_golden(&path, &config).unwrap();
                assert_eq!(tensor.shape(), [2, 128], "{path}");
                let pair = |part: &str, i| Dtype::F16.get(&goldens[&format!("{path}.{part}")].bytes, i);
                let quants = &goldens[&format!("{path}.quants")].bytes;
                let (mut words, mut scales, mut row) = (vec![], vec![], [0.0; 128]);
                tensor.pack(0..2, &mut words, &mut scales).unwrap();
                let mut packed = [0.0; 256];
                unpack(tensor.format(), 128, &words, &scales, &mut packed);
                for r in 0..2 {
                    tensor.row(r, &mut row);
                    for (i, &value) in row.iter().enumerate() {
                        let (at, g) = (r * 128 + i, (r * 128 + i) / group);
                        let want = pair("scales", g) * f32::from(quants[at]) + pair("biases", g);
                        assert_eq!((value, packed[at]), (want, want), "{path} row {r} column {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_layer_may_have_its_own_quantization() {
        let own = json!({ "bits": 3, "group_size": 32 });
        for (config, ok) in [
            (json!({ "quantization": { "bits": 4, "group_size": 64, "b3g32": own } }), true),
            (json!({ "quantization_config": { "bits": 4, "group_size": 64, "b3g32": own } }), true),
            (json!({ "quantization": { "bits": 4, "group_size": 32, "b3g32": { "bits": 3 } } }), true),
            (json!({ "quantization": { "bits": 3, "group_size": 32, "b3g32": false } }), true),
            (json!({ "quantization": { "bits": 4, "group_size": 64 } }), false),
            (json!({ "quantization": { "bits": 3, "group_size": 0 } }), false),
            (json!({ "quantization": { "bits": 1, "group_size": 96 } }), false),
            (json!({ "quantization": { "bits": 4, "group_size": 32, "mode": "mxfp4" } }), false),
            (json!({}), false),
        ] {
            match join_golden("b3g32", &config) {
                Ok(tensor) => assert!(ok && tensor.kind().to_string() == "mlx 3-bit g32", "{config}"),
                Err(message) => assert!(!ok && message.starts_with("b3g32.weight: "), "{config}: {message}"),
            }
        }
    }

    #[test]
    fn scales_are_f16_where_f16_holds_them() {
        for (v, survives) in [
            (0.0, true),
            (1.0 / 3.0, false),
            (0.333_984_38, true),
            (-65504.0, true),
            (70000.0, false),
            (f32::INFINITY, false),
            (f32::NAN, false),
            (2f32.powi(-14) * 1.25, true),
            (2f32.powi(-17) * 1.25, true),
            (2f32.powi(-22) * 1.3, false),
            (2f32.powi(-24), true),
            (1e-7, true),
        ] {
            assert_eq!(survives_f16(v), survives, "{v}");
        }
        let part = |dtype, shape: &[usize], bytes: Vec<u8>| {
            let end = bytes.len();
            let bytes = Slice::new(&Mapping::from_bytes("m", bytes), 0..end).unwrap();
            Part { shape: shape.to_vec(), dtype, bytes }
        };
        let config = json!({ "quantization": { "bits": 4, "group_size": 32 } });
        for (scale, want) in [(0.5f32, Scales::F16), (0.3, Scales::F32)] {
            let floats = |v: f32| part(Stored::F32, &[1, 1], v.to_le_bytes().to_vec());
            let words = part(Stored::U32, &[1, 4], (0..16).map(|i| i * 17).collect());
            let tensor = join("x", &Quantization::of(&config), words, floats(scale), Some(floats(-1.0))).unwrap();
            assert_eq!(tensor.format(), Format::Affine { bits: 4, group: 32, scales: want });
            let (mut words, mut pairs, mut row, mut back) = (vec![], vec![], [0.0; 32], [0.0; 32]);
            tensor.pack(0..1, &mut words, &mut pairs).unwrap();
            tensor.row(0, &mut row);
            unpack(tensor.format(), 32, &words, &pairs, &mut back);
            assert_eq!(row, back);
        }
    }
}
