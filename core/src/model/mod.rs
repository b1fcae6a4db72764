//! Models as a host app sees them: which one, loading it, and the handle that runs it.

mod configuration;
mod container;
mod context;
mod device;
mod factory;
mod options;
mod prompt_cache_file;

pub use configuration::{Identifier, ModelConfiguration};
pub(crate) use container::Shared;
pub use container::{ModelContainer, ModelInfo};
pub use context::{Model, ModelContext};
pub use device::Device;
pub use factory::{LlmModelFactory, load_container};
pub use options::{LoadOptions, Phase, Progress};
