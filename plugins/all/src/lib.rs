//! Every plugin of this repository. A crate that is only listed in a manifest is dropped by the
//! linker with its registrations; the `use` keeps it.

#![allow(unused_imports)] // the linker uses them

pub use tamarack_gemma as _;
pub use tamarack_gemma3 as _;
pub use tamarack_llama as _;
pub use tamarack_qwen2 as _;
pub use tamarack_qwen3 as _;

/// How many plugins are linked. A program that uses this crate for its registrations alone mentions
/// it, so that the crate itself is kept.
pub const LINKED: usize = 5;
