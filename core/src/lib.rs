//! Language and vision-language models on any GPU that wgpu reaches, or on the processor, every architecture a plugin.

mod adapter;
pub mod checkpoint;
pub mod compare;
pub mod conformance;
pub mod cpu;
mod engine;
pub mod error;
pub mod exec;
pub mod generate;
pub mod gpu;
pub mod hub;
pub mod image;
pub mod input;
mod load;
pub mod mixed;
pub mod model;
pub mod plugins;
pub mod program;
pub mod reference;
pub mod session;
pub mod text;
mod web;
pub mod weights;

pub use error::{Error, Result};
pub use generate::{
    GenerateCompletionInfo, GenerateParameters, Generation, GenerationComponents, GenerationStream, PromptCache,
    StopReason,
};
pub use image::{Image, Video};
pub use input::{LmInput, UserInput};
pub use load::{LayerTimes, Placement, Target, Unused};
pub use model::{
    Device, LlmModelFactory, LlmRegistry, LlmTypeRegistry, LoadOptions, ModelConfiguration, ModelContainer,
    ModelContext, Phase, ProcessorTypeRegistry, Progress, ProgressStream, UserInputProcessor, VlmModelFactory,
    VlmRegistry, VlmTypeRegistry, load_container, load_container_with,
};
pub use session::{ChatSession, SessionStream, Tool};
