//! GGUF, the single-file format of llama.cpp: configuration, tokenizer and tensors in one file, or
//! in several that are numbered.

mod architectures;
mod blocks;
mod config;
mod ends;
mod metadata;
mod names;
mod reader;
mod rope;
mod shards;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Checkpoint;
use super::dense::Dtype;
use super::mapping::{Mapping, Slice};
use super::tensor::{Data, Tensor, View};
use crate::{Error, Result};
pub(super) use blocks::BlockType;
use config::Facts;
pub(crate) use ends::{CONTROL, Ends, NORMAL};
pub use metadata::{Metadata, Value};
pub use reader::{Header, Info, parse};

/// Opens the GGUF file at `path` and, if it is one of several, the others.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let files = shards::files(path)?.iter().map(|path| Mapping::open(path)).collect::<Result<Vec<_>>>()?;
    assemble(path, &files)
}

/// Makes a checkpoint of the files of one model, in order.
pub(super) fn assemble(path: &Path, files: &[Arc<Mapping>]) -> Result<Checkpoint> {
    let mut metadata = Metadata::default();
    let mut tensors = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let fail = |message: String| Error::file(file.path(), message);
        let header = parse(file).map_err(fail)?;
        shards::check(&header.metadata, number, files.len()).map_err(fail)?;
        let mut ranges = vec![];
        for info in &header.tensors {
            let data = locate(file, info).map_err(fail)?;
            let (Data::Dense(_, slice) | Data::Ggml(_, slice)) = &data else { continue };
            ranges.push((info.start..info.start + slice.len(), info.name.as_str()));
            if tensors.insert(info.name.clone(), (info.shape.clone(), data)).is_some() {
                return Err(fail(format!("{}: another file has this tensor too", info.name)));
            }
        }
        reader::check_overlap(ranges).map_err(fail)?;
        if number == 0 {
            metadata = header.metadata;
        }
    }
    let fail = |message: String| Error::file(path, message);
    shards::check_total(&metadata, tensors.len()).map_err(fail)?;
    let facts = Facts::new(&metadata, &tensors).map_err(fail)?;
    let config = facts.config().map_err(fail)?;
    let tensors = rename(&facts, &tensors).map_err(fail)?;
    let path = path.to_owned();
    let unreadable = BTreeMap::new();
    Ok(Checkpoint { path, config, generation_config: None, metadata: Some(metadata), tensors, unreadable })
}

/// More matrices than any model has in a tensor that is taken apart.
const MAX_PARTS: usize = 64;

/// Tensors by GGUF name: shape and bytes.
type Stored = BTreeMap<String, (Vec<usize>, Data)>;

/// Finds the bytes of a tensor.
fn locate(file: &Arc<Mapping>, info: &Info) -> Result<Data, String> {
    let fail = |message: String| format!("{}: {message}", info.name);
    let block = blocks::BLOCK_TYPES.iter().find(|ty| ty.id == info.type_id);
    let dtype = match info.type_id {
        0 => Some(Dtype::F32),
        1 => Some(Dtype::F16),
        30 => Some(Dtype::Bf16),
        _ => None,
    };
    let (elements, bytes) = match (block, dtype) {
        (Some(ty), _) => (ty.elements, ty.bytes),
        (_, Some(dtype)) => (1, dtype.size()),
        _ => {
            let known: Vec<_> = blocks::BLOCK_TYPES.iter().map(|ty| ty.name).collect();
            let (id, name) = (info.type_id, blocks::name(info.type_id));
            let remedy = format!("supported are F32, F16, BF16, {}", known.join(", "));
            return Err(fail(format!("type {name} ({id}) is not supported; {remedy}")));
        }
    };
    let cols = info.shape.last().copied().unwrap_or(1);
    if cols % elements != 0 {
        return Err(fail(format!("expected a last dimension divisible by {elements}, found {cols}")));
    }
    let count = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let end = count.and_then(|n| (n / elements).checked_mul(bytes)).and_then(|n| n.checked_add(info.start));
    let slice = end.and_then(|end| Slice::new(file, info.start..end));
    let slice = slice.ok_or_else(|| {
        let (shape, start, len) = (&info.shape, info.start, file.len());
        fail(format!("{shape:?} from offset {start} reaches past the file's {len} bytes: is it complete?"))
    })?;
    Ok(match (block, dtype) {
        (Some(ty), _) => Data::Ggml(ty, slice),
        (_, Some(dtype)) => Data::Dense(dtype, slice),
        _ => return Err(fail("no type".into())),
    })
}

/// Whether `name` is a number beside a weight: what multiplies its products ([`factors`]), or `X.input_scale`, by which they would be
/// multiplied if activations were quantized as well.
fn is_scale(stored: &Stored, name: &str) -> bool {
    let module = name.strip_suffix(".scale").or_else(|| name.strip_suffix(".input_scale"));
    module.is_some_and(|module| stored.contains_key(&format!("{module}.weight")))
}

/// The numbers in `X.scale` beside `X.weight`: one, or one for each expert. Converters write them beside NVFP4, whose own scales
/// are bytes; llama.cpp multiplies products of any type by them (<https://github.com/ggml-org/llama.cpp/pull/19769>).
fn factors(stored: &Stored, weight: &str) -> Result<Vec<f32>, String> {
    let Some(module) = weight.strip_suffix(".weight") else { return Ok(vec![]) };
    let name = format!("{module}.scale");
    let (Some((shape, data)), Some((of, _))) = (stored.get(&name), stored.get(weight)) else { return Ok(vec![]) };
    let count = shape.iter().product::<usize>();
    let fits = count == 1 || (of.len() == 3 && of[0] == count);
    match data {
        Data::Dense(dtype, bytes) if fits => {
            let mut factors = vec![0.0; count];
            dtype.decode(bytes, &mut factors);
            match factors.iter().find(|factor| !factor.is_finite()) {
                Some(bad) => Err(format!("{name}: expected finite numbers, found {bad}")),
                None => Ok(factors),
            }
        }
        _ => Err(format!("{name}: expected one number, or one for each expert of {weight} {of:?}, found {shape:?}")),
    }
}

/// Puts every tensor under its HuggingFace name, as HuggingFace has it.
fn rename(facts: &Facts, stored: &Stored) -> Result<BTreeMap<String, Tensor>, String> {
    let (arch, mut tensors) = (facts.arch, BTreeMap::new());
    let mut put = |from: &str, to: String, shape: &[usize], data: Data, view| {
        let tensor = Tensor::new(&to, shape.to_vec(), data, view).map_err(|e| format!("{from}: {e}"))?;
        match tensors.insert(to.clone(), tensor) {
            Some(_) => Err(format!("{from}: another tensor is {to} already")),
            None => Ok(()),
        }
    };
    for (name, (shape, data)) in stored {
        if config::IS_CONFIG.contains(&name.as_str()) || is_scale(stored, name) {
            continue;
        }
        let to = names::huggingface(arch, name).ok_or_else(|| {
            format!("{name}: architecture `{}` has no such tensor, as far as is known here", arch.gguf)
        })?;
        let mut view = names::view(arch, name, facts.head_dim);
        view.factors = factors(stored, name)?;
        if !to.contains('*') {
            put(name, to, shape, data.clone(), view)?;
            continue;
        }
        let (&n, rest) = shape.split_first().filter(|(n, _)| (1..=MAX_PARTS).contains(*n)).ok_or_else(|| {
            format!("{name}: expected 1 to {MAX_PARTS} matrices one below the other, found {shape:?}")
        })?;
        for i in 0..n {
            let part = data.part(i, n).ok_or_else(|| format!("{name}: {shape:?} is not in {n} equal parts"))?;
            let mut view = view.clone();
            view.factors = if view.factors.len() == n { vec![view.factors[i]] } else { view.factors };
            put(name, to.replace('*', &i.to_string()), rest, part, view)?;
        }
    }
    for (key, name) in arch.numbers {
        for (layer, number) in facts.numbers(key)?.into_iter().enumerate() {
            let bytes = Mapping::from_bytes(*key, number.to_le_bytes().to_vec());
            let slice = Slice::new(&bytes, 0..4).ok_or("no number")?;
            let to = format!("model.layers.{layer}.{name}");
            put(key, to, &[1], Data::Dense(Dtype::F32, slice), View::default())?;
        }
    }
    Ok(tensors)
}
