//! The wgpu executor: Vulkan, Metal and DX12.

mod device;

pub use device::{AdapterInfo, Gpu, adapters};
