//! A model directory as the hub serves it: config.json and safetensors files.

use std::path::Path;

use serde_json::Value;

use super::Checkpoint;
use super::json::read_json;
use super::mapping::Mapping;
use super::quantized::elsewhere;
use super::safetensors::{self, Parts, Tensors};
use super::weight_files::{self, WeightFiles, file_names};
use crate::{Error, Result};

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
    assemble(path, config, generation, read(path)?)
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

/// What is stored in the weight files of `folder`, by name.
fn read(folder: &Path) -> Result<Parts> {
    let WeightFiles { files, owners } = weight_files::choose(folder)?;
    let mut all = Parts::new();
    for file in &files {
        let mapping = Mapping::open(&folder.join(file))?;
        for (name, part) in safetensors::parts(&mapping)? {
            let is_owner = owners.get(&name).map(|owner| owner == file);
            if all.contains_key(&name) {
                match is_owner {
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        return Err(Error::file(mapping.path(), format!("{name}: another file has this tensor too")));
                    }
                }
            }
            all.insert(name, part);
        }
    }
    Ok(all)
}
