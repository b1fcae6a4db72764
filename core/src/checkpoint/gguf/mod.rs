//! GGUF, the single-file format of llama.cpp.

mod metadata;

pub use metadata::{Metadata, Value};
