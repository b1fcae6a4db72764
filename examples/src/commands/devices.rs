//! `tamarack devices`: what a model can run on.

use super::output;
use crate::table::{Side, Table, bytes};
use clap::Args;
use serde::Serialize;
use tamarack::{
    cpu::{Instructions, default_threads},
    gpu::adapters,
};
use wgpu::{DeviceType, Features};

/// Lists the devices that a model can run on.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack devices
  tamarack chat --device 1 \"Hello\"        the device with index 1
  tamarack chat --device radeon \"Hello\"   a device by part of its name
  tamarack chat --device cpu \"Hello\"      the processor, whatever GPU there is

The device marked with * is taken where --device is not given.")]
pub struct Devices {
    /// Print a JSON array instead of a table
    #[arg(long)]
    json: bool,
}

/// A device as `--json` shows it.
#[derive(Serialize)]
struct Device {
    /// What `--device` takes.
    id: String,
    name: String,
    /// `discrete`, `integrated`, `virtual`, `other`, `software` or `processor`.
    kind: &'static str,
    backend: Option<String>,
    driver: Option<String>,
    limits: Option<Limits>,
    /// Whether it is taken where `--device` is not given.
    default: bool,
}

#[derive(Serialize)]
struct Limits {
    /// Bytes of one storage binding.
    binding_size: u64,
    /// Bytes of workgroup memory.
    workgroup_memory: u32,
    /// Invocations of one workgroup.
    workgroup_size: u32,
    /// The smallest and largest subgroup, where there are subgroup operations.
    subgroups: Option<[u32; 2]>,
    f16: bool,
}

impl Devices {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let mut devices: Vec<Device> = adapters().iter().enumerate().map(|(i, a)| device(i, a)).collect();
        // Adapters are sorted, best first; software is never taken unless it is asked for.
        let gpu = devices.first_mut().filter(|device| device.kind != "software");
        let default = gpu.map(|gpu| gpu.default = true).is_none();
        devices.push(cpu(default)?);
        devices.push(on_processor("reference", "plain f32 on the processor".to_owned(), "software", false));
        if self.json { output::json(&devices) } else { output::text(&table(&devices)) }
    }
}

/// The processor, with what is in use of it.
fn cpu(default: bool) -> anyhow::Result<Device> {
    let (instructions, threads) = (Instructions::chosen()?, default_threads());
    Ok(on_processor("cpu", format!("the processor: {instructions}; {threads} threads"), "processor", default))
}

fn on_processor(id: &str, name: String, kind: &'static str, default: bool) -> Device {
    Device { id: id.to_owned(), name, kind, backend: None, driver: None, limits: None, default }
}

fn device(index: usize, adapter: &wgpu::Adapter) -> Device {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let subgroups = [info.subgroup_min_size, info.subgroup_max_size];
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    Device {
        id: index.to_string(),
        name: info.name,
        kind: kind(info.device_type),
        backend: Some(info.backend.to_string()),
        driver: Some(driver),
        limits: Some(Limits {
            binding_size: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            workgroup_size: limits.max_compute_invocations_per_workgroup,
            subgroups: features.contains(Features::SUBGROUP).then_some(subgroups),
            f16: features.contains(Features::SHADER_F16),
        }),
        default: false,
    }
}

fn kind(device_type: DeviceType) -> &'static str {
    match device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "other",
    }
}

fn table(devices: &[Device]) -> String {
    let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
    let mut table = Table::new([
        left(""),
        left("DEVICE"),
        left("NAME"),
        left("KIND"),
        left("BACKEND"),
        right("BINDING"),
        right("WORKGROUP"),
        left("SUBGROUPS"),
        left("F16"),
        left("DRIVER"),
    ]);
    for device in devices {
        let limit = |show: fn(&Limits) -> String| device.limits.as_ref().map_or("-".to_owned(), show);
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            if device.default { "*" } else { "" }.to_owned(),
            device.id.clone(),
            device.name.clone(),
            device.kind.to_owned(),
            text(&device.backend),
            limit(|l| bytes(l.binding_size)),
            limit(|l| format!("{}, {}", l.workgroup_size, bytes(l.workgroup_memory.into()))),
            limit(|l| l.subgroups.map_or("no".to_owned(), |[min, max]| format!("{min} to {max}"))),
            limit(|l| if l.f16 { "yes" } else { "no" }.to_owned()),
            text(&device.driver),
        ]);
    }
    table.to_string()
}
