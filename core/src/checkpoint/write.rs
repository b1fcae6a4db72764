//! Writing a quantized model, as `mlx_lm.convert` lays it out: the directory of the original, its matrices
//! replaced, `quantization` added to config.json.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::{Checkpoint, Kind, Quantize, Tensor};
use crate::{Error, Result};

/// Bytes of a file before the next begins.
const SHARD: u64 = 5 << 30;
/// Rows that are quantized together, on all cores.
const ROWS: usize = 1024;
/// What else belongs to a model.
const KEPT: [&str; 5] = ["json", "jinja", "txt", "model", "tiktoken"];

/// Quantizes the model in folder `from` and writes it to the folder `to`, which is not there yet. Nothing
/// has that name before all of it is written. `told` hears of the bytes of `from` that are done, and of all.
///
/// # Errors
/// `from` is no folder of a float model, `to` exists, or the disk is full.
pub fn write_mlx(from: &Path, to: &Path, quantize: Quantize, told: &dyn Fn(u64, u64)) -> Result<()> {
    if !from.is_dir() {
        return Err(Error::file(from, "expected the folder of a model in safetensors"));
    }
    if to.exists() {
        return Err(Error::file(to, "is there already: name a new folder, or remove it"));
    }
    let checkpoint = Checkpoint::open(from)?;
    // The same error as when it is quantized on loading.
    Checkpoint::open(from)?.quantize(quantize)?;
    let name = to.file_name().ok_or_else(|| Error::file(to, "expected the name of a new folder"))?;
    let mut unfinished = name.to_owned();
    unfinished.push(".incomplete");
    let folder = to.with_file_name(unfinished);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    }
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let written = write_all(&checkpoint, &folder, quantize, told);
    let written = written.and_then(|()| fs::rename(&folder, to).map_err(|e| Error::io(to, e)));
    if written.is_err() {
        // What is left of it is of no use; the reason is the first error.
        let _ = fs::remove_dir_all(&folder);
    }
    written
}

fn write_all(checkpoint: &Checkpoint, folder: &Path, quantize: Quantize, told: &dyn Fn(u64, u64)) -> Result<()> {
    let tensors: Vec<&Tensor> = checkpoint.tensors().map(|(_, tensor)| tensor).collect();
    let shards = shards(&tensors, quantize);
    let total = tensors.iter().map(|t| t.bytes()).sum();
    let (mut done, mut map, mut size) = (0, Map::new(), 0);
    for (i, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let path = folder.join(&file);
        let parts: Vec<Part> = shard.iter().flat_map(|tensor| parts(tensor, quantize)).collect();
        size += parts.iter().map(|part| part.bytes).sum::<u64>();
        map.extend(parts.iter().map(|part| (part.name.clone(), json!(file))));
        let out = fs::File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(|e| Error::io(&path, e));
        put(&header(&parts))?;
        for tensor in shard {
            write_tensor(tensor, quantize, &mut put)?;
            done += tensor.bytes();
            told(done, total);
        }
        out.flush().map_err(|e| Error::io(&path, e))?;
    }
    let index = json!({ "metadata": { "total_size": size }, "weight_map": map });
    write_json(&folder.join("model.safetensors.index.json"), &index)?;
    let mut config = checkpoint.config().clone();
    let quantization = json!({ "group_size": quantize.group, "bits": quantize.bits, "mode": "affine" });
    for key in ["quantization", "quantization_config"] {
        config[key] = quantization.clone();
    }
    write_json(&folder.join("config.json"), &config)?;
    copy_others(checkpoint.path(), folder)
}

/// A tensor of a file.
struct Part {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
}

/// Whether a tensor is written quantized: MLX knows such only as `X.weight`.
fn is_quantized(tensor: &Tensor, quantize: Quantize) -> bool {
    tensor.name().ends_with(".weight") && quantize.applies(tensor)
}

/// The tensors of the file that stand for one, in the order in which [`write_tensor`] writes them.
fn parts(tensor: &Tensor, quantize: Quantize) -> Vec<Part> {
    let part = |name: String, dtype, size: usize, last: Option<usize>| {
        let mut shape = tensor.shape().to_vec();
        if let (Some(dim), Some(last)) = (shape.last_mut(), last) {
            *dim = last;
        }
        let bytes = shape.iter().product::<usize>() as u64 * size as u64;
        Part { name, dtype, shape, bytes }
    };
    let path = tensor.name().strip_suffix(".weight").filter(|_| is_quantized(tensor, quantize));
    let Some(path) = path else {
        let (dtype, size) = match tensor.kind() {
            Kind::Dense(super::Dtype::F16) => ("F16", 2),
            Kind::Dense(super::Dtype::Bf16) => ("BF16", 2),
            _ => ("F32", 4),
        };
        return vec![part(tensor.name().to_owned(), dtype, size, None)];
    };
    let (words, groups) =
        (tensor.cols() / 32 * usize::from(quantize.bits), tensor.cols() / usize::from(quantize.group));
    vec![
        part(format!("{path}.weight"), "U32", 4, Some(words)),
        part(format!("{path}.scales"), "F16", 2, Some(groups)),
        part(format!("{path}.biases"), "F16", 2, Some(groups)),
    ]
}

/// Tensors, file by file.
fn shards<'a>(tensors: &[&'a Tensor], quantize: Quantize) -> Vec<Vec<&'a Tensor>> {
    let (mut shards, mut size) = (vec![vec![]], 0);
    for tensor in tensors {
        let bytes: u64 = parts(tensor, quantize).iter().map(|part| part.bytes).sum();
        if size > 0 && size + bytes > SHARD {
            shards.push(vec![]);
            size = 0;
        }
        size += bytes;
        if let Some(last) = shards.last_mut() {
            last.push(*tensor);
        }
    }
    shards
}

/// Format: <https://huggingface.co/docs/safetensors>.
fn header(parts: &[Part]) -> Vec<u8> {
    let (mut all, mut at) = (Map::new(), 0);
    all.insert("__metadata__".into(), json!({ "format": "mlx" }));
    for part in parts {
        let info = json!({ "dtype": part.dtype, "shape": part.shape, "data_offsets": [at, at + part.bytes] });
        all.insert(part.name.clone(), info);
        at += part.bytes;
    }
    let mut text = Value::Object(all).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

fn write_tensor(tensor: &Tensor, quantize: Quantize, put: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let rows = tensor.rows();
    if !is_quantized(tensor, quantize) {
        return (0..rows).try_for_each(|row| match tensor.dense_row(row) {
            Some(bytes) => put(bytes),
            None => {
                let mut values = vec![0.0; tensor.cols()];
                tensor.row(row, &mut values);
                values.iter().try_for_each(|v| put(&v.to_le_bytes()))
            }
        });
    }
    let (mut scales, mut biases) = (vec![], vec![]);
    for first in (0..rows).step_by(ROWS) {
        let quantized: Vec<_> =
            (first..rows.min(first + ROWS)).into_par_iter().map(|r| row(tensor, r, quantize)).collect();
        for (words, of_row) in quantized {
            put(&words)?;
            for (scale, bias) in of_row {
                let pair = [scale, bias].map(f16::from_f32);
                if !pair.iter().all(|v| v.is_finite()) {
                    return Err(Error::Model(format!("{}: has values that 16 bits do not hold", tensor.name())));
                }
                scales.extend(pair[0].to_le_bytes());
                biases.extend(pair[1].to_le_bytes());
            }
        }
    }
    put(&scales)?;
    put(&biases)
}

/// The words of a row, and its scales and biases.
fn row(tensor: &Tensor, row: usize, quantize: Quantize) -> (Vec<u8>, Vec<(f32, f32)>) {
    let mut values = vec![0.0; tensor.cols()];
    tensor.row(row, &mut values);
    let mut q = vec![0; values.len()];
    let groups = values.chunks_exact(usize::from(quantize.group)).zip(q.chunks_exact_mut(usize::from(quantize.group)));
    let pairs = groups.map(|(values, q)| quantize.group(values, q)).collect();
    // Codes of 4 bits lie two in a byte, the first in the lower half.
    let words = if quantize.bits == 4 { q.chunks_exact(2).map(|q| q[0] | q[1] << 4).collect() } else { q };
    (words, pairs)
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e.to_string()))?;
    fs::write(path, text + "\n").map_err(|e| Error::io(path, e))
}

/// The tokenizer and the rest, but no weights and nothing that is written here.
fn copy_others(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).map_err(|e| Error::io(from, e))?;
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    for path in paths {
        let kept = path.extension().is_some_and(|e| KEPT.iter().any(|kept| e == *kept));
        let Some(name) = path.file_name().filter(|_| kept && path.is_file()) else { continue };
        let text = name.to_string_lossy();
        if text != "config.json" && !text.ends_with(".index.json") {
            fs::copy(&path, to.join(name)).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}
