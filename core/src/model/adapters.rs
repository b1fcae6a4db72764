//! Adapters of a loaded model.

use super::{Model, ModelContainer};
use crate::{
    Error, Result,
    adapter::{self, Adapter},
    checkpoint::Checkpoint,
    exec::ImageStore,
    load,
};
use std::path::{Path, PathBuf};

impl Model {
    /// The names of its adapters.
    pub fn adapters(&self) -> impl Iterator<Item = &str> {
        self.adapters.iter().map(|a| &*a.name)
    }

    /// Loads the adapter in `folder` beside those that there are, and says what it is called: as its folder. The model is put on
    /// its device anew, beside itself; generations that run begin anew, with the adapters that they had.
    ///
    /// # Errors
    /// The files are damaged, do not fit the model, or one of this name is there already. Nothing has changed then.
    pub fn load_adapter(&mut self, folder: &Path) -> Result<String> {
        let adapter = Adapter::open(folder)?;
        let name = adapter.name.clone();
        if self.adapters().any(|known| known == name) {
            return Err(Error::Request(format!("adapter `{name}` is loaded already: unload it, or rename its folder")));
        }
        let adapters = self.adapters.iter().cloned().chain([adapter]).collect();
        self.rebuild(self.files()?, adapters)?;
        Ok(name)
    }

    /// Takes an adapter away. Generations that run with it fail.
    ///
    /// # Errors
    /// There is none of this name, or no room to put the model on its device anew.
    pub fn unload_adapter(&mut self, name: &str) -> Result<()> {
        let (_, others) = self.without(name)?;
        self.rebuild(self.files()?, others)
    }

    /// Adds an adapter to the model's own weights for good, as long as it is loaded, and takes it away: the model computes
    /// from then on what it computed with the adapter. Weights that were quantized are so no more where the adapter changes
    /// them.
    ///
    /// # Errors
    /// As for [`Model::unload_adapter`], or a weight that it changes is an embedding, too, which it does not change.
    pub fn fuse_adapter(&mut self, name: &str) -> Result<()> {
        let (adapter, others) = self.without(name)?;
        let files = self.files.as_ref().ok_or_else(no_files)?;
        let fused = adapter::fused(std::iter::once(&files.program).chain(&files.tower), &files.checkpoint, &adapter)?;
        self.rebuild(files.checkpoint.with(fused), others)
    }

    pub(crate) fn adapter_number(&self, name: Option<&str>) -> Result<u32> {
        adapter::number(&self.adapters, name)
    }

    fn without(&self, name: &str) -> Result<(Adapter, Vec<Adapter>)> {
        let at = self.adapter_number(Some(name))? as usize - 1;
        let mut others = self.adapters.clone();
        Ok((others.remove(at), others))
    }

    fn files(&self) -> Result<Checkpoint> {
        let files = self.files.as_ref().map(|f| f.checkpoint.clone());
        files.ok_or_else(no_files)
    }

    /// Puts the model on its device anew, with these weights and adapters.
    pub(super) fn rebuild(&mut self, checkpoint: Checkpoint, adapters: Vec<Adapter>) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let (program, tower) = (files.program.clone(), files.tower.clone());
        self.executor = load::executor(program, tower, &checkpoint, &adapters, &files.options, "")?;
        self.images = ImageStore::new(self.executor.image_rows());
        (files.checkpoint, self.adapters) = (checkpoint, adapters);
        self.is_changed = true;
        Ok(())
    }
}

fn no_files() -> Error {
    Error::Request("adapters: the model has no files".to_owned())
}

impl ModelContainer {
    /// The names of the adapters that generations can ask for: [`crate::GenerateParameters::adapter`].
    ///
    /// # Errors
    /// The model was unloaded.
    pub async fn adapters(&self) -> Result<Vec<String>> {
        self.perform(|context| context.model.adapters().map(str::to_owned).collect()).await
    }

    /// See [`Model::load_adapter`].
    ///
    /// # Errors
    /// As there.
    pub async fn load_adapter(&self, folder: impl Into<PathBuf>) -> Result<String> {
        let folder = folder.into();
        self.update(move |context| context.model.load_adapter(&folder)).await
    }

    /// See [`Model::unload_adapter`].
    ///
    /// # Errors
    /// As there.
    pub async fn unload_adapter(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.update(move |context| context.model.unload_adapter(&name)).await
    }

    /// See [`Model::fuse_adapter`].
    ///
    /// # Errors
    /// As there.
    pub async fn fuse_adapter(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.update(move |context| context.model.fuse_adapter(&name)).await
    }
}
