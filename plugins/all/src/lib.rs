//! Every plugin of this repository. A crate that is only listed in a manifest is dropped by the
//! linker with its registrations; the `use` keeps it.

#![allow(unused_imports)] // the linker uses them

pub use tamarack_apertus as _;
pub use tamarack_cohere as _;
pub use tamarack_ernie4_5 as _;
pub use tamarack_exaone4 as _;
pub use tamarack_gemma as _;
pub use tamarack_gemma3 as _;
pub use tamarack_gemma3n as _;
pub use tamarack_glm4 as _;
pub use tamarack_glm4_moe as _;
pub use tamarack_gpt_oss as _;
pub use tamarack_granite as _;
pub use tamarack_helium as _;
pub use tamarack_hunyuan_v1_dense as _;
pub use tamarack_internlm2 as _;
pub use tamarack_lfm2 as _;
pub use tamarack_llama as _;
pub use tamarack_minicpm as _;
pub use tamarack_mixtral as _;
pub use tamarack_olmo2 as _;
pub use tamarack_olmoe as _;
pub use tamarack_phi as _;
pub use tamarack_phi3 as _;
pub use tamarack_phimoe as _;
pub use tamarack_qwen2 as _;
pub use tamarack_qwen2_moe as _;
pub use tamarack_qwen3 as _;
pub use tamarack_qwen3_moe as _;
pub use tamarack_seed_oss as _;
pub use tamarack_smollm3 as _;
pub use tamarack_starcoder2 as _;

/// How many plugins are linked. A program that uses this crate for its registrations alone mentions
/// it, so that the crate itself is kept.
pub const LINKED: usize = 30;
