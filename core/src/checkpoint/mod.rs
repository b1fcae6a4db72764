//! Model files: whatever their format, they end as tensors under their HuggingFace names.

pub mod gguf;
