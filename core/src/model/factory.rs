//! From a configuration to a loaded model.

use super::{Identifier, LoadOptions, ModelConfiguration, ModelContainer, Phase};
use crate::{
    Result,
    engine::Engine,
    hub::{self, Hub, MODEL_FILES, TOKENIZER_FILES},
    load,
    plugins::Registry,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

/// Loads language models with a set of plugins.
///
/// ```no_run
/// use tamarack::{LlmModelFactory, LoadOptions, ModelConfiguration, plugins::Registry};
///
/// # async fn example() -> tamarack::Result<()> {
/// let mut plugins = Registry::linked();
/// plugins.load_dir("/opt/tamarack/plugins".as_ref());
/// let factory = LlmModelFactory::new(plugins);
/// let configuration = ModelConfiguration::hub("HuggingFaceTB/SmolLM2-135M-Instruct");
/// let container = factory.load_container(&configuration, LoadOptions::default()).await?;
/// println!("{}", container.device());
/// # Ok(())
/// # }
/// ```
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
    /// Models of the hub are fetched first, which needs a tokio runtime.
    ///
    /// # Errors
    /// What is absent, damaged, unsupported or too large, with names and numbers.
    pub async fn load_container(
        &self,
        configuration: &ModelConfiguration,
        options: LoadOptions,
    ) -> Result<ModelContainer> {
        let path = files(configuration, &options).await?;
        let tokenizer = tokenizer_files(configuration, &options).await?;
        let draft = match &options.draft {
            Some(draft) => Some((draft.clone(), files(draft, &options).await?)),
            None => None,
        };
        let (plugins, configuration) = (self.plugins.clone(), configuration.clone());
        let load = move || {
            let loaded = load::load(&plugins, configuration, &path, tokenizer.as_deref(), &options)?;
            match draft {
                Some((draft, path)) => load::add_draft(loaded, &plugins, draft, &path, &options),
                None => Ok(loaded),
            }
        };
        let (engine, shared) = Engine::start(load).await?;
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

/// The model's folder or file on this machine, fetched if need be.
async fn files(configuration: &ModelConfiguration, options: &LoadOptions) -> Result<PathBuf> {
    match &configuration.id {
        Identifier::Directory(path) | Identifier::Gguf(path) => Ok(path.clone()),
        Identifier::Hub { id, revision } => fetch(id, Some(revision), MODEL_FILES, options).await,
    }
}

/// The folder of a tokenizer that does not come with the model.
async fn tokenizer_files(configuration: &ModelConfiguration, options: &LoadOptions) -> Result<Option<PathBuf>> {
    match &configuration.tokenizer_id {
        None => Ok(None),
        Some(folder) if Path::new(folder).is_dir() => Ok(Some(folder.into())),
        Some(id) => Ok(Some(fetch(id, None, TOKENIZER_FILES, options).await?)),
    }
}

async fn fetch(id: &str, revision: Option<&str>, globs: &[&str], options: &LoadOptions) -> Result<PathBuf> {
    let hub = match &options.hub {
        Some(hub) => hub.clone(),
        None => Hub::new()?,
    };
    let options = options.clone();
    let report = move |p: hub::Progress| options.report(Phase::Download, &p.file, p.bytes, p.total);
    hub.snapshot(id, revision, globs, report).await
}
