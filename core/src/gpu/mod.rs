//! The wgpu executor: Vulkan, Metal and DX12.

mod bandwidth;
mod cache;
mod convert;
mod device;
mod executor;
mod experts;
mod load;
mod memory;
mod phase;
mod pipelines;
mod profile;
mod quantize;
mod rare;
mod room;
mod rounding;
mod staging;
mod step;
mod tower;
mod tune;
mod upload;
mod weights;

pub use device::{AdapterInfo, Gpu, Settings, adapters, adapters_within_budget};
pub use executor::WgpuExecutor;
pub use profile::DispatchTime;
pub use tamarack_kernels::matmul::Precision;
