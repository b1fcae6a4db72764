//! Language models and vision-language models: the same machinery, told apart by a type.

use super::{AbstractModelRegistry, GenericModelFactory, ModelTypeRegistry, ProcessorTypeRegistry, preconfigured};
use crate::plugins::Registry;
use std::{
    fmt,
    sync::{Arc, LazyLock, RwLock},
};
use tamarack_api::Kind;

/// Marks what is about language models.
#[derive(Clone, Copy, Debug)]
pub enum Llm {}

/// Marks what is about vision-language models.
#[derive(Clone, Copy, Debug)]
pub enum Vlm {}

/// A kind of model that has factories and registries of its own: [`Llm`] or [`Vlm`].
pub trait ModelKind: fmt::Debug + Send + Sync + Sized + 'static {
    /// How plugins declare it.
    const KIND: Kind;
    /// For messages.
    const NAME: &str;
    /// The process's own registry of configurations.
    fn models() -> &'static AbstractModelRegistry<Self>;
    /// The process's own factory.
    fn factory() -> &'static GenericModelFactory<Self>;
}

/// Loads language models.
pub type LlmModelFactory = GenericModelFactory<Llm>;
/// Loads vision-language models.
pub type VlmModelFactory = GenericModelFactory<Vlm>;
/// Which architecture serves which `model_type` of a language model.
pub type LlmTypeRegistry = ModelTypeRegistry<Llm>;
/// Which architecture serves which `model_type` of a vision-language model.
pub type VlmTypeRegistry = ModelTypeRegistry<Vlm>;
/// Language models that are known by name.
///
/// Its constants of mlx-swift-lm are functions here. What was `ModelRegistry` there is this, or [`VlmRegistry`].
pub type LlmRegistry = AbstractModelRegistry<Llm>;
/// Vision-language models that are known by name.
pub type VlmRegistry = AbstractModelRegistry<Vlm>;

static LLM_MODELS: LazyLock<LlmRegistry> = LazyLock::new(|| AbstractModelRegistry::of(preconfigured::LLM));
static VLM_MODELS: LazyLock<VlmRegistry> = LazyLock::new(|| AbstractModelRegistry::of(preconfigured::VLM));
static LLM_FACTORY: LazyLock<LlmModelFactory> = LazyLock::new(|| GenericModelFactory::new(LlmTypeRegistry::shared()));
static VLM_FACTORY: LazyLock<VlmModelFactory> = LazyLock::new(|| GenericModelFactory::new(VlmTypeRegistry::shared()));
static PROCESSORS: LazyLock<ProcessorTypeRegistry> = LazyLock::new(ProcessorTypeRegistry::default);
static PLUGINS: LazyLock<Arc<RwLock<Registry>>> = LazyLock::new(|| Arc::new(RwLock::new(Registry::from_env())));

/// The plugins of this process, of every kind: directories are read once.
pub(super) fn plugins() -> Arc<RwLock<Registry>> {
    PLUGINS.clone()
}

/// The processors of this process.
pub(super) fn processors() -> ProcessorTypeRegistry {
    PROCESSORS.clone()
}

impl ModelKind for Llm {
    const KIND: Kind = Kind::Llm;
    const NAME: &str = "language model";
    fn models() -> &'static LlmRegistry {
        &LLM_MODELS
    }
    fn factory() -> &'static LlmModelFactory {
        &LLM_FACTORY
    }
}

impl ModelKind for Vlm {
    const KIND: Kind = Kind::Vlm;
    const NAME: &str = "vision-language model";
    fn models() -> &'static VlmRegistry {
        &VLM_MODELS
    }
    fn factory() -> &'static VlmModelFactory {
        &VLM_FACTORY
    }
}
