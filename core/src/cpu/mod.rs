//! The executor for machines without a GPU: the same programs on the processor's cores, as fast as these are.
//!
//! Weights that are integers stay so. Activations are rounded to 16 bits on their way into such products, and each
//! instruction multiplies pairs of them; everything else is f32, and the cache f16, as on a GPU.

// Loops over small arrays that stand side by side read as the arithmetic that they are.
#![allow(clippy::needless_range_loop)]

mod attend;
mod cache;
mod elements;
mod executor;
mod full;
mod lanes;
mod layers;
mod matrix;
mod multiply;
mod product;
mod rounding;
mod storage;
mod threads;
mod tile;
mod values;

pub use executor::{CpuExecutor, CpuSettings};
pub use lanes::{INSTRUCTIONS, Instructions};
pub use threads::{default_threads, read_bandwidth};
