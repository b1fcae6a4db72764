//! Which device runs a model.

use std::{convert::Infallible, fmt, str::FromStr};

/// Which device runs a model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// The best GPU: discrete before integrated before virtual. Without any the processor, and never an adapter that
    /// is software.
    #[default]
    Auto,
    /// The processor's cores, see [`crate::cpu`].
    Cpu,
    /// Plain f32 arithmetic on the processor: exact and slow, what others are compared with.
    Reference,
    /// The adapter of this index in [`crate::gpu::adapters`], or the first whose name contains this,
    /// upper and lower case alike; `gpu` is the best that is no software.
    Named(String),
    /// As many of the model's last layers as the adapter of this name has room for run there, the others on the processor;
    /// or as many as [`crate::LoadOptions::gpu_layers`] says. [`crate::model::placement`] tells how many.
    Mixed(String),
}

/// `auto`, `cpu`, `reference`, an index or a part of a name; and either of the last two with `,cpu` behind it.
impl FromStr for Device {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Device, Infallible> {
        Ok(match text.to_lowercase().as_str() {
            "" | "auto" => Device::Auto,
            "cpu" => Device::Cpu,
            "reference" => Device::Reference,
            lower => match lower.strip_suffix(",cpu") {
                Some(gpu) => Device::Mixed(gpu.trim().to_owned()),
                None => Device::Named(text.to_owned()),
            },
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Reference => f.write_str("reference"),
            Device::Named(name) => f.write_str(name),
            Device::Mixed(name) => write!(f, "{name},cpu"),
        }
    }
}
