//! A model's parameters by name, and changing them.

use super::Model;
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, Mapping, Tensor},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// How many names an error lists.
const SHOWN: usize = 5;

/// What is checked before parameters change. Shapes always have to be the model's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// Nothing: names that the model does not have are left out.
    None,
    /// The model has every name that is given.
    #[default]
    NoUnusedKeys,
    /// The names are those of all of the model's parameters.
    All,
}

/// Values for parameters, by name.
///
/// ```
/// use tamarack::model::Parameters;
///
/// let mut parameters = Parameters::default();
/// parameters.insert("model.norm.weight", &[4], vec![1.0, 1.0, 0.5, 1.0])?;
/// assert_eq!(parameters.names().collect::<Vec<_>>(), ["model.norm.weight"]);
/// # Ok::<(), tamarack::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<String, Tensor>);

impl Parameters {
    /// The tensors of a safetensors file, in f32, f16 or bf16. They stay in the file until they are used.
    ///
    /// # Errors
    /// The file is absent, damaged or of another kind.
    pub fn open(path: &Path) -> Result<Parameters> {
        let file = Checkpoint::from_safetensors(path, serde_json::json!({}), &[Mapping::open(path)?])?;
        Ok(Parameters(file.tensors().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()))
    }

    /// Values, row-major.
    ///
    /// # Errors
    /// [`Error::Model`] if there are not as many as the shape says.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<()> {
        self.0.insert(name.to_owned(), Tensor::from_values(name, shape, &values)?);
        Ok(())
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The files that a model is made of, and which of their tensors it uses.
pub(crate) struct Files {
    checkpoint: Checkpoint,
    names: BTreeSet<String>,
}

impl Files {
    /// The files of a model that uses these tensors of them.
    pub fn new(checkpoint: Checkpoint, names: BTreeSet<String>) -> Files {
        Files { checkpoint, names }
    }
}

impl Model {
    /// The parameters that the model computes with: their names and shapes, sorted by name.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let files = self.files.iter();
        files.flat_map(|f| f.names.iter().filter_map(move |n| Some((n.as_str(), f.checkpoint.get(n)?.shape()))))
    }

    /// The values of a parameter, row-major, as the model's files (or the last update) have them.
    pub fn parameter(&self, name: &str) -> Option<Vec<f32>> {
        let files = self.files.as_ref().filter(|f| f.names.contains(name))?;
        let tensor = files.checkpoint.get(name)?;
        let mut values = vec![0.0; tensor.rows() * tensor.cols()];
        values.chunks_exact_mut(tensor.cols()).enumerate().for_each(|(i, row)| tensor.row(i, row));
        Some(values)
    }

    /// Changes parameters. Either all of them change or none does. Generations that run go on with the new ones: their
    /// caches are computed anew. What is given stays in host memory as long as the model is loaded. A parameter that was
    /// quantized is so no more.
    ///
    /// ```no_run
    /// use tamarack::model::{Parameters, Verify};
    ///
    /// # async fn example(container: tamarack::ModelContainer) -> tamarack::Result<()> {
    /// let parameters = Parameters::open("finetuned.safetensors".as_ref())?;
    /// container.update(move |context| context.model.update(&parameters, Verify::NoUnusedKeys)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Request`] if names or shapes are not the model's, [`Error::Memory`] if the new values do not fit.
    pub fn update(&mut self, parameters: &Parameters, verify: Verify) -> Result<()> {
        let files = self.files.as_mut();
        let files = files.ok_or_else(|| Error::Request("update: the model has no files".to_owned()))?;
        let unused = parameters.names().filter(|name| !files.names.contains(*name));
        refuse(unused, "the model has no parameter", verify != Verify::None)?;
        let missing = files.names.iter().map(String::as_str).filter(|name| !parameters.0.contains_key(*name));
        refuse(missing, "no value is given for", verify == Verify::All)?;
        let given = parameters.0.iter().filter(|(name, _)| files.names.contains(*name));
        let given: BTreeMap<String, Tensor> = given.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        for (name, tensor) in &given {
            let expected = files.checkpoint.get(name).map(Tensor::shape).unwrap_or_default();
            if tensor.shape() != expected {
                let found = tensor.shape();
                return Err(Error::Request(format!("update: {name}: expected {expected:?}, found {found:?}")));
            }
        }
        let changed = given.keys().cloned().collect();
        let checkpoint = files.checkpoint.with(given);
        self.executor.update(&checkpoint, &changed)?;
        files.checkpoint = checkpoint;
        self.is_changed = true;
        Ok(())
    }
}

fn refuse<'a>(mut names: impl Iterator<Item = &'a str>, what: &str, is_checked: bool) -> Result<()> {
    let shown: Vec<&str> = names.by_ref().take(SHOWN).collect();
    if !is_checked || shown.is_empty() {
        return Ok(());
    }
    let more = match names.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::Request(format!("update: {what} {}{more}", shown.join(", "))))
}
