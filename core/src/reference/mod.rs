//! The oracle: plain f32 arithmetic, written to be obviously right. Every kernel and every rewrite
//! rule is tested against it, and it runs models where there is no GPU.

mod cache;
mod executor;
pub(crate) mod fused;
pub mod moe;
pub mod ops;

pub use executor::Reference;
