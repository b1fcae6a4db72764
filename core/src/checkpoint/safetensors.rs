//! One safetensors file: its parts by name, and parts joined into tensors.
//! Format: <https://huggingface.co/docs/safetensors>.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::Dtype as Stored;
use safetensors::tensor::Metadata;
use serde_json::Value;

use super::dense::{Dtype, converted};
use super::mapping::{Mapping, Slice};
use super::quantized::mlx::{self, Beside, Quantization};
use super::quantized::{Part, foreign};
use super::sniff;
use super::tensor::{Data, Tensor, View};
use crate::{Error, Result};

/// The largest header that is read; the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// What is stored in a file, by name.
pub(super) type Parts = BTreeMap<String, Part>;

/// Reads the header of `file`. Nothing is allocated but what the header itself spells out.
pub(super) fn parts(file: &Arc<Mapping>) -> Result<Parts> {
    let fail = |message: String| Error::file(file.path(), message);
    let prefix = file.first_chunk().ok_or_else(|| fail(format!("{} bytes are no safetensors file", file.len())))?;
    let length = u64::from_le_bytes(*prefix);
    if length > MAX_HEADER {
        let found = sniff::format(file).map_or_else(String::new, |what| format!(": the file is {what}"));
        return Err(fail(format!("expected a header of {MAX_HEADER} bytes at most, it claims {length}{found}")));
    }
    // Fits: both numbers are small.
    let data = 8 + length as usize;
    let header = file.get(8..data);
    let header = header.ok_or_else(|| fail(format!("expected {data} bytes of header, file has {}", file.len())))?;
    // The crate checks that the tensors follow each other without holes and that their sizes fit.
    let header: Metadata = serde_json::from_slice(header).map_err(|e| fail(format!("damaged header: {e}")))?;
    if Some(file.len()) != header.data_len().checked_add(data) {
        let (want, found) = (header.data_len(), file.len() - data);
        return Err(fail(format!("expected {want} bytes of tensors, file has {found}: is it complete?")));
    }
    let mut parts = Parts::new();
    for (name, info) in header.tensors() {
        let (start, end) = info.data_offsets;
        let bytes = Slice::new(file, data + start..data + end);
        let bytes = bytes.ok_or_else(|| fail(format!("{name}: lies outside the file")))?;
        parts.insert(name, Part { shape: info.shape.clone(), dtype: info.dtype, bytes });
    }
    Ok(parts)
}

/// What all parts of a model make together.
#[derive(Default)]
pub(super) struct Tensors {
    /// By name.
    pub readable: BTreeMap<String, Tensor>,
    /// Names of what cannot be a weight (integers, types that are not supported), and why.
    pub unreadable: BTreeMap<String, String>,
}

/// Makes tensors of `parts`: of each `X.weight`, `X.scales` and `X.biases` one, and of what other
/// quantizers wrote. The message of an error names the tensor.
pub(super) fn tensors(mut parts: Parts, config: &Value) -> Result<Tensors, String> {
    let mut all = Tensors::default();
    for tensor in foreign::join(foreign::Config::of(config), &mut parts)? {
        all.readable.insert(tensor.name().to_owned(), tensor);
    }
    let quantization = &Quantization::of(config);
    let packed = parts.iter().filter(|(_, part)| part.dtype == Stored::U32);
    let packed: Vec<_> = packed.filter_map(|(name, _)| name.strip_suffix(".weight")).map(str::to_owned).collect();
    for path in packed {
        let mut take = |kind: &str| parts.remove(&format!("{path}.{kind}"));
        if let (Some(weight), Some(scales)) = (take("weight"), take("scales")) {
            let beside = Beside { scales, biases: take("biases"), global: take("global_scale") };
            let tensor = mlx::join(&path, quantization, weight, beside)?;
            all.readable.insert(format!("{path}.weight"), tensor);
        } else {
            all.unreadable.insert(format!("{path}.weight"), format!("packed, but `{path}.scales` is absent"));
        }
    }
    for (name, Part { shape, dtype, bytes }) in parts {
        let (dtype, bytes) = match dtype {
            Stored::F32 => (Dtype::F32, bytes),
            Stored::F16 => (Dtype::F16, bytes),
            Stored::BF16 => (Dtype::Bf16, bytes),
            // An 8-bit float of a quantized model means nothing without its scale.
            Stored::F8_E4M3 | Stored::F8_E5M2 if config.get("quantization_config").is_some() => {
                all.unreadable.insert(name, format!("type {dtype} without a scale beside it"));
                continue;
            }
            other => match converted(other, &bytes) {
                Some((dtype, values)) => (dtype, Slice::of(Mapping::from_bytes(bytes.path(), values))),
                None => {
                    all.unreadable.insert(name, format!("type {other} is not supported"));
                    continue;
                }
            },
        };
        match Tensor::new(&name, shape, Data::Dense(dtype, bytes), View::default()) {
            Ok(tensor) => all.readable.insert(name, tensor).map(drop),
            Err(reason) => all.unreadable.insert(name, reason).map(drop),
        };
    }
    Ok(all)
}
