//! Language and vision-language models on any GPU that wgpu reaches, every architecture a plugin.

pub mod checkpoint;
pub mod error;
pub mod exec;
pub mod gpu;
pub mod hub;
pub mod plugins;
pub mod program;
pub mod reference;
pub mod text;
pub mod weights;

pub use error::{Error, Result};
