//! From a configuration to a loaded model.

use super::{
    AbstractModelRegistry, Identifier, LoadOptions, ModelConfiguration, ModelContainer, ModelTypeRegistry, Phase,
    ProcessorTypeRegistry,
    kind::{Llm, ModelKind, Vlm},
};
use crate::{
    Result,
    engine::Engine,
    exec::MemoryUse,
    hub::{self, Hub, MODEL_FILES, TOKENIZER_FILES},
    load::{self, Placement, Source},
    plugins::Registry,
};
use std::path::{Path, PathBuf};

/// What is asked for before anything else of a model on the hub: whether it can be served at all.
const CONFIG_FILES: &[&str] = &["config.json"];

/// Loads models of one kind: [`super::LlmModelFactory`] or [`super::VlmModelFactory`].
///
/// ```no_run
/// use tamarack::{LlmModelFactory, LlmRegistry, LlmTypeRegistry, LoadOptions, plugins::Registry};
///
/// # async fn example() -> tamarack::Result<()> {
/// let mut plugins = Registry::linked();
/// plugins.load_dir("/opt/tamarack/plugins".as_ref());
/// let factory = LlmModelFactory::with_registries(LlmTypeRegistry::new(plugins), LlmRegistry::shared());
/// let container = factory.load_container(&LlmRegistry::qwen3_4b_4bit(), LoadOptions::default()).await?;
/// println!("{}", container.device());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GenericModelFactory<K: ModelKind> {
    types: ModelTypeRegistry<K>,
    models: AbstractModelRegistry<K>,
    processors: ProcessorTypeRegistry,
}

impl<K: ModelKind> GenericModelFactory<K> {
    /// The factory of this process, with its shared registries.
    pub fn shared() -> &'static GenericModelFactory<K> {
        K::factory()
    }

    /// A factory with architectures of the program's choice, a [`ModelTypeRegistry`] or the plugins for one, and the
    /// shared registry of models.
    pub fn new(types: impl Into<ModelTypeRegistry<K>>) -> GenericModelFactory<K> {
        Self::with_registries(types, AbstractModelRegistry::shared())
    }

    /// A factory with architectures and models of the program's choice.
    pub fn with_registries(
        types: impl Into<ModelTypeRegistry<K>>,
        models: AbstractModelRegistry<K>,
    ) -> GenericModelFactory<K> {
        GenericModelFactory { types: types.into(), models, processors: ProcessorTypeRegistry::shared() }
    }

    /// With processors of the program's choice.
    pub fn processors(self, processors: ProcessorTypeRegistry) -> GenericModelFactory<K> {
        GenericModelFactory { processors, ..self }
    }

    /// Which architectures it has.
    pub fn type_registry(&self) -> &ModelTypeRegistry<K> {
        &self.types
    }

    /// Which models it knows by name.
    pub fn model_registry(&self) -> &AbstractModelRegistry<K> {
        &self.models
    }

    /// Which processors it has.
    pub fn processor_registry(&self) -> &ProcessorTypeRegistry {
        &self.processors
    }

    /// Loads a model: its files, the graph that a plugin records for them, and the device.
    ///
    /// Models of the hub are fetched first, which needs a tokio runtime; one that no architecture serves is refused
    /// before its weights are fetched. Dropping the future gives a download up; a model that is being put on its device is
    /// freed as soon as it is there.
    ///
    /// # Errors
    /// What is absent, damaged, unsupported or too large, with names and numbers.
    pub async fn load_container(
        &self,
        configuration: &ModelConfiguration,
        options: LoadOptions,
    ) -> Result<ModelContainer> {
        load_from(vec![self.source()], configuration, options).await
    }

    /// What a model will take of its device's memory, when it is loaded with these options: its draft model's is in it. Reads
    /// the headers of its files, which have to be on this machine, and blocks while it does.
    ///
    /// # Errors
    /// As for [`GenericModelFactory::load_container`], as far as can be known before the weights are read.
    pub fn estimate(&self, configuration: &ModelConfiguration, options: &LoadOptions) -> Result<MemoryUse> {
        let hub = hub(options)?;
        let path = configuration.model_directory(&hub)?;
        let draft = options.draft.as_ref().map(|draft| draft.model_directory(&hub)).transpose()?;
        load::estimate(&[self.source()], &path, draft.as_deref(), options)
    }

    fn source(&self) -> Source {
        Source { kind: K::KIND, plugins: self.types.plugins(), processors: self.processors.clone() }
    }
}

/// Loads a model with the shared factory that serves it. Where both do, one whose configuration has a `vision_config`
/// is a vision-language model.
///
/// # Errors
/// As for [`GenericModelFactory::load_container`].
pub async fn load_container(configuration: &ModelConfiguration, options: LoadOptions) -> Result<ModelContainer> {
    let sources = vec![Llm::factory().source(), Vlm::factory().source()];
    load_from(sources, configuration, options).await
}

/// Loads a model of either kind with plugins of the program's choice.
///
/// # Errors
/// As for [`GenericModelFactory::load_container`].
pub async fn load_container_with(
    plugins: &Registry,
    configuration: &ModelConfiguration,
    options: LoadOptions,
) -> Result<ModelContainer> {
    let llm = GenericModelFactory::<Llm>::new(plugins.clone());
    let vlm = GenericModelFactory::<Vlm>::new(plugins.clone());
    load_from(vec![llm.source(), vlm.source()], configuration, options).await
}

/// Which layers of a model run where, if it is loaded with these options on [`crate::Device::Mixed`]: measured, as loading does.
/// `None` where one device has all by name. Its files have to be on this machine; it blocks.
///
/// # Errors
/// As for [`GenericModelFactory::estimate`].
pub fn placement(
    plugins: &Registry,
    configuration: &ModelConfiguration,
    options: &LoadOptions,
) -> Result<Option<Placement>> {
    let path = configuration.model_directory(&hub(options)?)?;
    let llm = GenericModelFactory::<Llm>::new(plugins.clone());
    let vlm = GenericModelFactory::<Vlm>::new(plugins.clone());
    load::placement(&[llm.source(), vlm.source()], &path, options)
}

async fn load_from(
    sources: Vec<Source>,
    configuration: &ModelConfiguration,
    options: LoadOptions,
) -> Result<ModelContainer> {
    let path = files(&sources, configuration, &options).await?;
    let tokenizer = tokenizer_files(configuration, &options).await?;
    let draft = match &options.draft {
        Some(draft) => Some((draft.clone(), files(&sources, draft, &options).await?)),
        None => None,
    };
    let configuration = configuration.clone();
    let load = move || {
        let loaded = load::load(&sources, configuration, &path, tokenizer.as_deref(), &options)?;
        match draft {
            Some((draft, path)) => load::add_draft(loaded, &sources, draft, &path, &options),
            None => Ok(loaded),
        }
    };
    let (engine, shared) = Engine::start(load).await?;
    Ok(ModelContainer::new(engine, shared))
}

/// The model's folder or file on this machine, fetched if need be. Of one that no plugin serves nothing is fetched but its
/// configuration.
///
/// # Errors
/// What serves it is not there, or the files cannot be fetched.
pub async fn fetch(plugins: &Registry, configuration: &ModelConfiguration, options: &LoadOptions) -> Result<PathBuf> {
    let llm = GenericModelFactory::<Llm>::new(plugins.clone());
    let vlm = GenericModelFactory::<Vlm>::new(plugins.clone());
    files(&[llm.source(), vlm.source()], configuration, options).await
}

async fn files(sources: &[Source], configuration: &ModelConfiguration, options: &LoadOptions) -> Result<PathBuf> {
    match &configuration.id {
        Identifier::Directory(path) | Identifier::Gguf(path) => Ok(path.clone()),
        Identifier::Hub { id, revision } => {
            let hub = hub(options)?;
            check(sources, &hub, id, revision).await?;
            hub.snapshot(id, Some(revision), MODEL_FILES, report(options)).await
        }
    }
}

/// Refuses a model of the hub that nothing serves, by its config.json or by the beginning of its GGUF file. What else goes
/// wrong here, the next request says better.
async fn check(sources: &[Source], hub: &Hub, id: &str, revision: &str) -> Result<()> {
    if hub.cached(id, Some(revision), MODEL_FILES).is_ok() {
        return Ok(());
    }
    if id.ends_with(".gguf") {
        let model_type = hub.gguf_model_type(id, revision).await?;
        return model_type.map_or(Ok(()), |model_type| load::check_type(sources, &model_type, Path::new(id)));
    }
    match hub.snapshot(id, Some(revision), CONFIG_FILES, |_| ()).await {
        Ok(folder) => load::check(sources, &folder),
        Err(_) => Ok(()),
    }
}

/// The folder of a tokenizer that does not come with the model.
async fn tokenizer_files(configuration: &ModelConfiguration, options: &LoadOptions) -> Result<Option<PathBuf>> {
    match &configuration.tokenizer_id {
        None => Ok(None),
        Some(folder) if Path::new(folder).is_dir() => Ok(Some(folder.into())),
        Some(id) => Ok(Some(hub(options)?.snapshot(id, None, TOKENIZER_FILES, report(options)).await?)),
    }
}

fn hub(options: &LoadOptions) -> Result<Hub> {
    options.hub.clone().map_or_else(Hub::new, Ok)
}

fn report(options: &LoadOptions) -> impl Fn(hub::Progress) + Send + Sync + 'static {
    let options = options.clone();
    move |p| options.report(Phase::Download, &p.file, p.bytes, p.total)
}
