//! Models as a host app sees them: which one, loading it, and the handle that runs it.

mod adapters;
mod configuration;
mod container;
mod context;
mod device;
mod factory;
mod kind;
mod kv;
mod models;
mod options;
mod parameters;
mod preconfigured;
mod processor;
mod progress;
mod prompt_cache_file;
mod reload;
mod types;

pub use configuration::{Identifier, ModelConfiguration};
pub(crate) use container::Shared;
pub use container::{ModelContainer, ModelInfo};
pub use context::{Model, ModelContext};
pub use device::Device;
pub use factory::{GenericModelFactory, fetch, load_container, load_container_with, placement};
pub use kind::{
    Llm, LlmModelFactory, LlmRegistry, LlmTypeRegistry, ModelKind, Vlm, VlmModelFactory, VlmRegistry, VlmTypeRegistry,
};
pub use kv::KvQuantize;
pub use models::AbstractModelRegistry;
pub use options::LoadOptions;
pub(crate) use parameters::Files;
pub use parameters::{Parameters, Verify};
pub use processor::{LlmUserInputProcessor, ProcessorTypeRegistry, UserInputProcessor};
pub use progress::{Phase, Progress, ProgressStream};
pub use types::ModelTypeRegistry;
