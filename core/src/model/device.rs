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
    /// upper and lower case alike.
    Named(String),
}

/// `auto`, `cpu`, `reference`, an index or a part of a name.
impl FromStr for Device {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Device, Infallible> {
        Ok(match text.to_lowercase().as_str() {
            "" | "auto" => Device::Auto,
            "cpu" => Device::Cpu,
            "reference" => Device::Reference,
            _ => Device::Named(text.to_owned()),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
            Device::Reference => "reference",
            Device::Named(name) => name,
        })
    }
}
