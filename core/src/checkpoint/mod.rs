//! Model files: whatever their format, they end as tensors under their HuggingFace names.
//!
//! [`Checkpoint::open`] reads headers only; bytes stay in the mapped files until [`Tensor::row`]
//! decodes them or [`Tensor::pack`] writes them in the device's form. Files are not trusted: every
//! size is checked before it is used, and what is wrong is an error that names file and tensor.

mod block;
mod canonical;
mod dense;
mod directory;
pub mod gguf;
mod json;
mod mapping;
mod quantize;
mod quantized;
mod safetensors;
mod sniff;
mod synthetic;
mod tensor;
mod weight_files;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::{Error, Result};
pub(crate) use canonical::unpack_scale;
pub use canonical::{pack_dense, unpack};
pub use dense::Dtype;
pub use mapping::Mapping;
pub use quantize::Quantize;
use synthetic::Synthetic;
pub use tamarack_kernels::{Format, Scales, Values};
pub use tensor::{Kind, Tensor};
pub use write::write_mlx;

/// What stands for the path of a checkpoint that was never in a file.
const SYNTHETIC: &str = "synthetic";

pub(crate) use json::{BYTE_ORDER_MARK, read_json};

/// The `config.json` of the model in `folder`, alone.
pub(crate) fn config(folder: &Path) -> Result<Value> {
    read_json(&folder.join("config.json"))
}

/// A model's files, opened: its configuration and its tensors.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    config: Value,
    generation_config: Option<Value>,
    metadata: Option<gguf::Metadata>,
    tensors: BTreeMap<String, Tensor>,
    unreadable: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens the model at `path`: a directory (config.json, `*.safetensors`, perhaps
    /// `model.safetensors.index.json`) or a `.gguf` file (of a split model any one of its files,
    /// `NAME-00001-of-0000N.gguf`).
    ///
    /// # Errors
    /// A file is absent, damaged or of a kind that is not supported; the message names it, and the
    /// tensor or key.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        if !path.exists() {
            let wanted = "a model's folder, a .gguf file or the id of a model on the hub, ORGANISATION/NAME";
            return Err(Error::file(path, format!("there is no such file or folder: expected {wanted}")));
        }
        if path.is_dir() { directory::open(path) } else { gguf::open(path) }
    }

    /// A model whose config.json and safetensors files are in memory already. `path` is what
    /// errors call it.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`].
    pub fn from_safetensors(path: &Path, config: Value, files: &[Arc<Mapping>]) -> Result<Checkpoint> {
        let mut parts = safetensors::Parts::new();
        for file in files {
            parts.append(&mut safetensors::parts(file)?);
        }
        directory::assemble(path, config, None, parts)
    }

    /// A model whose GGUF files are in memory already, in order.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`].
    pub fn from_gguf(path: &Path, files: &[Arc<Mapping>]) -> Result<Checkpoint> {
        gguf::assemble(path, files)
    }

    /// A model of random weights, to measure without its files: matrices in `format`, vectors in f32,
    /// norms near 1 and biases near 0. Nothing is held in memory; rows are made when they are read.
    ///
    /// # Errors
    /// [`Error::Model`] if the rows of a matrix are not whole blocks of `format`.
    pub fn synthetic(
        config: Value,
        index: impl IntoIterator<Item = (String, Vec<usize>)>,
        format: Format,
    ) -> Result<Checkpoint> {
        let mut tensors = BTreeMap::new();
        for (seed, (name, shape)) in index.into_iter().enumerate() {
            let cols = shape.last().copied().unwrap_or(1);
            let vector = shape.len() <= 1;
            let format = if vector { Format::F32 } else { format };
            let offset = if vector && !name.ends_with("bias") { 1.0 } else { 0.0 };
            let data = tensor::Data::Synthetic(Synthetic::new(format, seed as u64, cols));
            let view = tensor::View { offset, ..tensor::View::default() };
            let tensor = Tensor::new(&name, shape, data, view).map_err(Error::Model)?;
            tensors.insert(name, tensor);
        }
        Ok(Checkpoint {
            path: SYNTHETIC.into(),
            config,
            generation_config: None,
            metadata: None,
            tensors,
            unreadable: BTreeMap::new(),
        })
    }

    /// Quantizes the dense matrices, each when it is read.
    ///
    /// # Errors
    /// [`Error::Model`] if there are none: the model is quantized already.
    pub fn quantize(&mut self, quantize: Quantize) -> Result<()> {
        if !self.tensors.values().any(|tensor| quantize.applies(tensor)) {
            let Quantize { bits, group } = quantize;
            let wanted = format!("expected float matrices to quantize to {bits} bits in groups of {group}, found none");
            return Err(Error::file(&self.path, format!("{wanted}: is the model quantized already?")));
        }
        for tensor in self.tensors.values_mut() {
            *tensor = tensor.rounded(quantize).map_err(Error::Model)?;
        }
        Ok(())
    }

    /// The same files with other tensors in place of some.
    pub(crate) fn with(&self, tensors: BTreeMap<String, Tensor>) -> Checkpoint {
        let mut all = self.clone();
        all.tensors.extend(tensors);
        all
    }

    /// config.json, or what GGUF metadata makes of it: HuggingFace's field names.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// generation_config.json, if the directory has a readable one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// The metadata of a GGUF file: tokenizer and chat template are in it.
    pub fn metadata(&self) -> Option<&gguf::Metadata> {
        self.metadata.as_ref()
    }

    /// The directory or file this was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor named `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Tensors that are in the files and cannot be weights, and why, sorted by name.
    pub(crate) fn all_unreadable(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.unreadable.iter().map(|(name, why)| (name.as_str(), why.as_str()))
    }

    /// Why the file's `name` is not among the tensors (integers, a type that is not supported, no
    /// elements): for the message when an architecture asks for it.
    pub fn unreadable(&self, name: &str) -> Option<&str> {
        self.unreadable.get(name).map(String::as_str)
    }
}
