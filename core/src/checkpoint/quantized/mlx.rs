//! MLX's own: `X.weight` (packed u32), `X.scales` and, for whole numbers, `X.biases` are one tensor.
//!
//! Each row of `X.weight` is one little-endian bitstream, quant `i` at bits `i*b .. (i+1)*b`, which
//! may straddle words. 32 quants are exactly `b` words, so groups begin at a word.
//! Format: <https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>.

use serde_json::Value;
use tamarack_kernels::Values;

use super::{Codes, Grid, Number, Offset, Order, Part, Quantized};
use crate::checkpoint::tensor::Tensor;

/// What MLX divides a `global_scale` by: the largest values of E2M1 and E4M3, 6 and 448.
const GLOBAL: f32 = 2688.0;

/// The `quantization` of a config.json, or `quantization_config` in the same shape.
pub(in crate::checkpoint) struct Quantization<'a>(Option<&'a serde_json::Map<String, Value>>);

/// How the layer at a path is quantized.
struct Layer {
    mode: String,
    bits: u64,
    group: u64,
}

impl<'a> Quantization<'a> {
    /// Finds it in `config`.
    pub fn of(config: &'a Value) -> Quantization<'a> {
        let mlx = |key| config.get(key).and_then(Value::as_object).filter(|q| q.contains_key("bits"));
        let mlx = |key| mlx(key).filter(|q: &&serde_json::Map<_, _>| !q.contains_key("quant_method"));
        Quantization(mlx("quantization").or_else(|| mlx("quantization_config")))
    }

    /// That of the layer at `path`: its own entry, or the entry for all.
    fn layer(&self, path: &str) -> Result<Layer, String> {
        let all = self.0.ok_or("config.json has no `quantization` that says its bits and group_size")?;
        let own = all.get(path).and_then(Value::as_object).unwrap_or(all);
        let mode = own.get("mode").or_else(|| all.get("mode")).and_then(Value::as_str).unwrap_or("affine").to_owned();
        let field = |key: &str| {
            let value = own.get(key).or_else(|| all.get(key));
            value.and_then(Value::as_u64).ok_or_else(|| format!("config.json: quantization.{key} is not an integer"))
        };
        Ok(Layer { mode, bits: field("bits")?, group: field("group_size")? })
    }
}

/// The parts of a layer beside its packed words.
pub(in crate::checkpoint) struct Beside {
    /// `X.scales`
    pub scales: Part,
    /// `X.biases`
    pub biases: Option<Part>,
    /// `X.global_scale`
    pub global: Option<Part>,
}

/// Joins the parts of the layer at `path` into the tensor `{path}.weight`.
pub(in crate::checkpoint) fn join(
    path: &str,
    quantization: &Quantization,
    weight: Part,
    beside: Beside,
) -> Result<Tensor, String> {
    let name = format!("{path}.weight");
    let fail = |message: String| format!("{name}: {message}");
    let Layer { mode, bits, group } = quantization.layer(path).map_err(fail)?;
    let scales = beside.scales;
    let (method, values, number) = match (mode.as_str(), bits, group) {
        ("affine", 2 | 3 | 4 | 5 | 6 | 8, 32 | 64 | 128) => ("mlx", None, Number::of(scales.dtype)),
        ("mxfp4", 4, 32) => ("mxfp4", Some(Values::E2m1), Some(Number::E8m0)),
        ("mxfp8", 8, 32) => ("mxfp8", Some(Values::E4m3), Some(Number::E8m0)),
        ("nvfp4", 4, 16) => ("nvfp4", Some(Values::E2m1), Some(Number::E4m3)),
        ("affine", ..) => {
            let want = "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128";
            return Err(fail(format!("expected {want}, config.json says {bits} bits in groups of {group}")));
        }
        ("mxfp4" | "mxfp8" | "nvfp4", ..) => {
            let want = "mxfp4 of 4 bits g32, mxfp8 of 8 bits g32, nvfp4 of 4 bits g16";
            return Err(fail(format!("expected {want}; config.json says {mode} of {bits} bits g{group}")));
        }
        _ => {
            let known = "quantize the original with affine, mxfp4, mxfp8 or nvfp4";
            return Err(fail(format!("quantization mode `{mode}` is not supported; {known}")));
        }
    };
    let expected = if values.is_none() { "float" } else { "u8" };
    let is_byte = matches!(number, Some(Number::E8m0 | Number::E4m3));
    let fits = if values.is_none() { !is_byte } else { scales.dtype == safetensors::Dtype::U8 };
    let Some(number) = number.filter(|_| fits) else {
        return Err(fail(format!("expected {expected} scales, `{path}.scales` is {}", scales.dtype)));
    };
    let (Some((&words, lead)), Some((&groups, scales_lead))) = (weight.shape.split_last(), scales.shape.split_last())
    else {
        return Err(fail("expected matrices, found a scalar".into()));
    };
    let cols = groups.checked_mul(group as usize);
    let wanted = cols.and_then(|cols| (cols / 32).checked_mul(bits as usize));
    let rows = lead.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let (Some(cols), Some(rows), true) = (cols, rows, wanted == Some(words) && lead == scales_lead) else {
        let (w, s) = (&weight.shape, &scales.shape);
        let what = format!("{bits} bits in groups of {group} (config.json)");
        return Err(fail(format!("weight {w:?} and scales {s:?} do not fit {what}")));
    };
    let shape = lead.iter().copied().chain([cols]).collect();
    let grid = |part: Part| Grid::new(part.bytes, number, (1, group as usize), (rows, groups));
    let offset = match (values, beside.biases) {
        (Some(_), _) => Offset::None,
        (None, Some(biases)) if biases.dtype == scales.dtype && biases.shape == scales.shape => {
            Offset::Biases(grid(biases))
        }
        (None, Some(biases)) => {
            let (a, b, c, d) = (scales.dtype, &scales.shape, biases.dtype, &biases.shape);
            return Err(fail(format!("expected biases {a} {b:?} like the scales, file has {c} {d:?}")));
        }
        (None, None) => {
            return Err(fail(format!("expected `{path}.biases` beside `{path}.scales`, found none")));
        }
    };
    let factors = match beside.global {
        Some(global) if number == Number::E4m3 => {
            let number = Number::of(global.dtype).ok_or_else(|| fail("expected a float global_scale".into()))?;
            let values = number.all(&global.bytes);
            values.into_iter().map(|v| v / GLOBAL).collect()
        }
        _ => vec![1.0],
    };
    let codes = Codes { bytes: weight.bytes, order: Order::Rows(4 * words), bits: bits as u8, rows, cols, flip: 0 };
    let quantized =
        Quantized { factors, ..Quantized::new(method, codes, values, grid(scales), offset, group as usize) };
    quantized.named(&name, shape)
}

#[cfg(test)]
mod tests {
    use ::safetensors::Dtype as Stored;
    use serde_json::json;
    use tamarack_kernels::{Format, Scales};

    use super::*;
    use crate::checkpoint::dense::Dtype;
    use crate::checkpoint::mapping::{Mapping, Slice};
    use crate::checkpoint::{safetensors, unpack};

    /// Goldens: rows that MLX quantized, see tests/goldens/quantized.py.
    fn goldens() -> safetensors::Parts {
        let bytes = include_bytes!("../../../../tests/goldens/mlx.safetensors");
        safetensors::parts(&Mapping::from_bytes("mlx.safetensors", bytes.to_vec())).unwrap()
    }

    fn join_golden(path: &str, config: &Value) -> Result<Tensor, String> {
        let mut parts = goldens();
        let mut take = |kind: &str| parts.remove(&format!("{path}.{kind}"));
        let (weight, scales) = (take("weight").unwrap(), take("scales").unwrap());
        let beside = Beside { scales, biases: take("biases"), global: take("global_scale") };
        join(path, &Quantization::of(config), weight, beside)
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
    fn every_floating_mode_decodes_and_packs_exactly() {
        for (path, mode, bits, group) in [
            ("mxfp4", "mxfp4", 4, 32),
            ("mxfp8", "mxfp8", 8, 32),
            ("nvfp4", "nvfp4", 4, 16),
            ("nvfp4global", "nvfp4", 4, 16),
        ] {
            let config = json!({ "quantization": { "bits": bits, "group_size": group, "mode": mode } });
            let tensor = join_golden(path, &config).unwrap();
            assert_eq!(
                (tensor.shape(), tensor.kind().to_string()),
                (&[2, 256][..], format!("{mode} {bits}-bit g{group}"))
            );
            assert_eq!(tensor.format().to_string(), format!("{mode} g{group}"));
            let (mut words, mut scales, mut rows, mut packed) = (vec![], vec![], [0.0; 512], [0.0; 512]);
            tensor.pack(0..2, &mut words, &mut scales).unwrap();
            unpack(tensor.format(), 256, &words, &scales, &mut packed);
            rows.chunks_exact_mut(256).enumerate().for_each(|(r, row)| tensor.row(r, row));
            assert_eq!(rows, packed, "{path}");
            for (i, value) in rows.into_iter().enumerate() {
                let want = Dtype::F32.get(&goldens()[&format!("{path}.values")].bytes, i);
                // MLX multiplies by the global scale and divides by 2688, one after the other.
                let rounded = if path == "nvfp4global" { want.abs() * 2e-7 } else { 0.0 };
                assert!((value - want).abs() <= rounded, "{path} element {i}: {value} for {want}");
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
        let part = |dtype, shape: &[usize], bytes: Vec<u8>| {
            let end = bytes.len();
            let bytes = Slice::new(&Mapping::from_bytes("m", bytes), 0..end).unwrap();
            Part { shape: shape.to_vec(), dtype, bytes }
        };
        let config = json!({ "quantization": { "bits": 4, "group_size": 32 } });
        for (scale, want) in [(0.5f32, Scales::F16), (0.3, Scales::F32)] {
            let floats = |v: f32| part(Stored::F32, &[1, 1], v.to_le_bytes().to_vec());
            let words = part(Stored::U32, &[1, 4], (0..16).map(|i| i * 17).collect());
            let beside = Beside { scales: floats(scale), biases: Some(floats(-1.0)), global: None };
            let tensor = join("x", &Quantization::of(&config), words, beside).unwrap();
            assert_eq!(tensor.format(), Format::Affine { bits: 4, group: 32, scales: want });
            let (mut words, mut pairs, mut row, mut back) = (vec![], vec![], [0.0; 32], [0.0; 32]);
            tensor.pack(0..1, &mut words, &mut pairs).unwrap();
            tensor.row(0, &mut row);
            unpack(tensor.format(), 32, &words, &pairs, &mut back);
            assert_eq!(row, back);
        }
    }
}
