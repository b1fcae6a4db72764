//! Language and vision-language models on any GPU that wgpu reaches, every architecture a plugin.

pub mod checkpoint;
pub mod error;
pub mod gpu;
pub mod plugins;
pub mod reference;

pub use error::{Error, Result};
