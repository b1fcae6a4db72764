//! A model directory as the hub serves it: config.json and safetensors files.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde_json::Value;

use super::Checkpoint;
use super::json::read_json;
use super::mapping::Mapping;
use super::quantized::elsewhere;
use super::safetensors::{self, Parts, Tensors};
use crate::{Error, Result};

const INDEX: &str = "model.safetensors.index.json";

/// Opens the model in directory `path`.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let config = path.join("config.json");
    if !config.exists() {
        let names = file_names(path)?;
        let found = match names.iter().find(|name| name.ends_with(".gguf")) {
            Some(gguf) => format!("{gguf}: to read it, open that file"),
            None if names.is_empty() => "nothing".to_owned(),
            None => "no config.json: is this a model's folder?".to_owned(),
        };
        return Err(Error::file(path, format!("expected config.json and *.safetensors, found {found}")));
    }
    let mut config = read_json(&config)?;
    elsewhere::complete(path, &mut config)?;
    let generation = path.join("generation_config.json");
    let generation = generation
        .exists()
        .then(|| read_json(&generation))
        .and_then(|read| read.inspect_err(|e| tracing::warn!("ignored: {e}")).ok());
    let index = path.join(INDEX);
    let parts = if index.exists() { indexed(path, &index)? } else { unindexed(path)? };
    assemble(path, config, generation, parts)
}

/// Joins what was read into a checkpoint.
pub(super) fn assemble(
    path: &Path,
    config: Value,
    generation_config: Option<Value>,
    parts: Parts,
) -> Result<Checkpoint> {
    let tensors = safetensors::tensors(parts, &config).map_err(|e| Error::file(path, e))?;
    refuse_foreign_quantization(path, &config, &tensors)?;
    let Tensors { readable, unreadable } = tensors;
    let path = path.to_owned();
    Ok(Checkpoint { path, config, generation_config, metadata: None, tensors: readable, unreadable })
}

/// A quantization that is not ours to read, if the file has tensors of it: config.json alone does
/// not decide, many files keep the entry after dequantization.
fn refuse_foreign_quantization(path: &Path, config: &Value, tensors: &Tensors) -> Result<()> {
    let method = config.get("quantization_config").or_else(|| config.pointer("/text_config/quantization_config"));
    let Some(method) = method.and_then(|q| q.get("quant_method")).and_then(Value::as_str) else { return Ok(()) };
    let marks =
        [".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", "_blocks", ".absmax", ".SCB", ".W_q"];
    let mut names = tensors.unreadable.keys().chain(tensors.readable.keys());
    match names.find(|name| marks.iter().any(|mark| name.ends_with(mark))) {
        Some(name) => {
            let remedy = "use the float original, an MLX affine or a GGUF conversion of the model";
            Err(Error::file(path, format!("{name}: quantization `{method}` is not supported; {remedy}")))
        }
        None => Ok(()),
    }
}

/// The tensors that the index promises, each from the file it names, and whatever else those files hold.
fn indexed(path: &Path, index: &Path) -> Result<Parts> {
    let fail = |message: String| Error::file(index, message);
    let json = read_json(index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| fail("expected an object `weight_map`".into()))?;
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, file) in map {
        let file = file.as_str().filter(|file| is_plain_file_name(file));
        let file =
            file.ok_or_else(|| fail(format!("{name}: expected the name of a file beside it, found {}", map[name])))?;
        files.entry(file).or_default().push(name);
    }
    let mut all = Parts::new();
    for (file, promised) in files {
        let file_path = path.join(file);
        if !file_path.exists() {
            return Err(fail(format!("{file} holds `{}` and {} more, but is absent", promised[0], promised.len() - 1)));
        }
        let mut parts = safetensors::parts(&Mapping::open(&file_path)?)?;
        if let Some(absent) = promised.iter().find(|name| !parts.contains_key(**name)) {
            return Err(Error::file(file_path, format!("{absent}: promised by {INDEX}, absent from the file")));
        }
        // Where two files hold a tensor, the index says whose counts.
        parts.retain(|name, _| map.get(name).is_none_or(|owner| owner == file));
        all.append(&mut parts);
    }
    Ok(all)
}

/// Without an index: all files `model*`, or else `weight*`, or else all.
fn unindexed(path: &Path) -> Result<Parts> {
    let names = file_names(path)?;
    let tensors = |prefix: &str| -> Vec<&String> {
        names.iter().filter(|n| n.starts_with(prefix) && n.ends_with(".safetensors")).collect()
    };
    let files = ["model", "weight", ""].map(tensors).into_iter().find(|files| !files.is_empty());
    let files =
        files.ok_or_else(|| Error::file(path, "expected *.safetensors files, found none: is the model complete?"))?;
    let mut all = Parts::new();
    for file in files {
        let file = Mapping::open(&path.join(file))?;
        for (name, part) in safetensors::parts(&file)? {
            if all.insert(name.clone(), part).is_some() {
                return Err(Error::file(file.path(), format!("{name}: another file has this tensor too")));
            }
        }
    }
    Ok(all)
}

/// The names in a directory that are text, sorted.
fn file_names(path: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))? {
        let entry = entry.map_err(|e| Error::io(path, e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    plain && name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0'])
}
