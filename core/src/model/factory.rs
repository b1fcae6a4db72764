//! From a configuration to a loaded model.

use super::{Identifier, LoadOptions, ModelConfiguration, ModelContainer};
use crate::{Result, engine::Engine, load, plugins::Registry};
use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

/// Loads language models with a set of plugins.
#[derive(Clone)]
pub struct LlmModelFactory {
    plugins: Arc<Registry>,
}

static SHARED: LazyLock<LlmModelFactory> = LazyLock::new(|| LlmModelFactory::new(Registry::from_env()));

impl LlmModelFactory {
    /// The factory of this process, with the plugins of [`Registry::from_env`].
    pub fn shared() -> &'static LlmModelFactory {
        &SHARED
    }

    /// A factory with plugins of the program's choice.
    pub fn new(plugins: Registry) -> LlmModelFactory {
        LlmModelFactory { plugins: Arc::new(plugins) }
    }

    /// Its plugins.
    pub fn plugins(&self) -> &Registry {
        &self.plugins
    }

    /// Loads a model: its files, the graph that a plugin records for them, and the device.
    ///
    /// # Errors
    /// What is absent, damaged, unsupported or too large, with names and numbers.
    pub async fn load_container(
        &self,
        configuration: &ModelConfiguration,
        options: LoadOptions,
    ) -> Result<ModelContainer> {
        let path = path(configuration);
        let tokenizer = configuration.tokenizer_id.as_ref().map(PathBuf::from);
        let (plugins, configuration) = (self.plugins.clone(), configuration.clone());
        let (engine, shared) =
            Engine::start(move || load::load(&plugins, configuration, &path, tokenizer.as_deref(), &options)).await?;
        Ok(ModelContainer::new(engine, shared))
    }
}

/// Loads a model with the shared factory.
///
/// # Errors
/// As for [`LlmModelFactory::load_container`].
pub async fn load_container(configuration: &ModelConfiguration, options: LoadOptions) -> Result<ModelContainer> {
    LlmModelFactory::shared().load_container(configuration, options).await
}

/// Where the model's files are on this machine.
fn path(configuration: &ModelConfiguration) -> PathBuf {
    match &configuration.id {
        Identifier::Directory(path) | Identifier::Gguf(path) => path.clone(),
        Identifier::Hub { id, .. } => PathBuf::from(id),
    }
}
