//! What a name of a device means on this machine.

use crate::{
    Error, Result,
    gpu::{adapters, adapters_within_budget},
    model::Device,
};

/// What a [`Device`] turns out to be on this machine.
pub enum Target {
    /// An adapter.
    Gpu(wgpu::Adapter),
    /// An adapter, and the processor's cores for the layers that it has no room for.
    Mixed(wgpu::Adapter),
    /// The processor's cores.
    Cpu,
    /// The oracle.
    Reference,
}

impl Device {
    /// What is meant.
    ///
    /// # Errors
    /// No adapter has such an index or name.
    pub fn target(&self) -> Result<Target> {
        match self {
            Device::Cpu => Ok(Target::Cpu),
            Device::Reference => Ok(Target::Reference),
            Device::Auto => Ok(adapters().into_iter().find(is_gpu).map_or(Target::Cpu, Target::Gpu)),
            Device::Named(name) => named(adapters(), name).map(Target::Gpu),
            Device::Mixed(name) => named(adapters_within_budget(), name).map(Target::Mixed),
        }
    }
}

/// Whether it is no software.
fn is_gpu(adapter: &wgpu::Adapter) -> bool {
    adapter.get_info().device_type != wgpu::DeviceType::Cpu
}

/// The adapter of this index, or the first whose name contains this; the best GPU is `gpu`.
fn named(adapters: Vec<wgpu::Adapter>, name: &str) -> Result<wgpu::Adapter> {
    let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    let name = name.to_lowercase();
    let at = match name.as_str() {
        "gpu" => adapters.iter().position(is_gpu),
        _ => position(&names, &name),
    };
    let adapter = at.and_then(|at| adapters.into_iter().nth(at));
    adapter.ok_or_else(|| Error::Device(unknown(&name, &names)))
}

/// An index, or part of a name.
fn position(names: &[String], wanted: &str) -> Option<usize> {
    let index = wanted.parse().ok().filter(|i| *i < names.len());
    index.or_else(|| names.iter().position(|name| name.to_lowercase().contains(wanted)))
}

fn unknown(wanted: &str, names: &[String]) -> String {
    let numbered = names.iter().enumerate().map(|(i, name)| format!("{i}: {name}"));
    let all: Vec<String> = numbered.chain(["auto", "gpu", "cpu", "gpu,cpu", "reference"].map(str::to_owned)).collect();
    format!("no device `{wanted}`: there are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_index_and_by_name() {
        let names = ["NVIDIA H100".to_owned(), "llvmpipe (LLVM 19)".to_owned()];
        for (wanted, expected) in
            [("0", Some(0)), ("1", Some(1)), ("h100", Some(0)), ("llvm", Some(1)), ("19", Some(1)), ("amd", None)]
        {
            assert_eq!(position(&names, wanted), expected, "{wanted}");
        }
        let expected =
            "no device `amd`: there are 0: NVIDIA H100, 1: llvmpipe (LLVM 19), auto, gpu, cpu, gpu,cpu, reference";
        assert_eq!(unknown("amd", &names), expected);
    }
}
