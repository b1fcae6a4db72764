//! Which device runs a model.

use std::{convert::Infallible, fmt, str::FromStr};

/// Which device runs a model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Device {
    /// The best adapter: discrete before integrated before virtual before software. Without any, the
    /// reference executor.
    #[default]
    Auto,
    /// Plain f32 arithmetic on the processor: exact and slow.
    Reference,
    /// The adapter of this index in [`crate::gpu::adapters`], or the first whose name contains this,
    /// upper and lower case alike.
    Named(String),
}

/// `auto`, `reference`, an index or a part of a name.
impl FromStr for Device {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Device, Infallible> {
        Ok(match text.to_lowercase().as_str() {
            "" | "auto" => Device::Auto,
            "reference" => Device::Reference,
            _ => Device::Named(text.to_owned()),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Auto => "auto",
            Device::Reference => "reference",
            Device::Named(name) => name,
        })
    }
}
