//! WGSL kernels, and the table that says which variant serves which op, format, shape and device.
//!
//! This crate turns a description of one fused operation into WGSL text with every size that is
//! known at load written in as a constant. It knows no model, no graph and no device handle: the
//! host compiles the text, binds buffers in the order that [`Kernel::bindings`] lists, and
//! dispatches [`Kernel::groups`] workgroups.

pub mod attend;
pub mod bandwidth;
mod cache;
mod common;
pub mod conv;
pub mod elementwise;
pub mod embedding;
pub mod experts;
mod format;
pub mod halves;
pub mod heads;
mod kernel;
pub mod matmul;
pub mod norm;
pub mod post;
pub mod prepare;
pub mod quantize;
pub mod rounded;
pub mod sample;
pub mod small;
mod spec;
pub mod step;
pub mod template;
mod values;
mod weights;

pub use cache::CacheFormat;
pub use format::{Format, Scales};
pub use kernel::{Access, Caps, Cooperative, Extent, Kernel};
pub use spec::{Activation, Post, View};
pub use values::Values;
