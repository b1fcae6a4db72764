//! Adapters, and the one device that an executor owns.

use super::pipelines::Cache;
use crate::{Error, Result};
use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tamarack_kernels::{Access, Caps, Cooperative, Kernel, matmul::Precision};

pub use wgpu::AdapterInfo;

/// How wgpu calls an allocation that failed.
const OUT_OF_MEMORY: &str = "Out of Memory";

/// Percent of the memory that the system grants a process, where it says: the desktop lives of the rest.
const BUDGET: u8 = 90;

const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// Every adapter that wgpu finds, best first: discrete, integrated, virtual, software.
pub fn adapters() -> Vec<wgpu::Adapter> {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    found(INSTANCE.get_or_init(|| instance(None)))
}

/// The same. Their devices have no more memory than most of what the system grants this process, where it says how much.
pub fn adapters_within_budget() -> Vec<wgpu::Adapter> {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    found(INSTANCE.get_or_init(|| instance(Some(BUDGET))))
}

/// One serves a process for good: NVIDIA's driver finds no adapter, or crashes, in a process that makes and drops many.
fn instance(budget: Option<u8>) -> wgpu::Instance {
    let memory_budget_thresholds = wgpu::MemoryBudgetThresholds { for_resource_creation: budget, ..Default::default() };
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    wgpu::Instance::new(wgpu::InstanceDescriptor { backends: BACKENDS, memory_budget_thresholds, ..descriptor })
}

fn found(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance.enumerate_adapters(BACKENDS));
    found.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    found
}

/// What is up to the user, not to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// To how many bits activations are rounded before they meet quantized weights.
    pub precision: Precision,
    /// Whether a kernel that runs for the first time is tried in several ways, and the fastest kept.
    /// On unless the device is software.
    pub tune: bool,
}

impl Settings {
    /// What is best on most such adapters. Metal has no packed integer products, so that rounding would
    /// cost there and gain nothing.
    fn for_adapter(info: &AdapterInfo) -> Settings {
        let metal = info.backend == wgpu::Backend::Metal;
        let precision = if metal { Precision::Full } else { Precision::default() };
        Settings { precision, tune: info.device_type != wgpu::DeviceType::Cpu }
    }
}

/// Buffers of more than 8 MiB, most weights, get memory of their own, and others share blocks of 8 MiB: larger ones stay half
/// empty, and weights in them are read more slowly, see docs/performance.md.
const MEMORY: wgpu::MemoryHints = wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: 8 << 20..8 << 20 };

/// An opened device and its queue. Clones are handles of the same one.
#[derive(Clone)]
pub struct Gpu {
    /// The device.
    pub device: wgpu::Device,
    /// Its only queue.
    pub queue: wgpu::Queue,
    /// What kernels may rely on.
    pub caps: Caps,
    /// What is up to the user.
    pub settings: Settings,
    pub(super) pipelines: Option<Arc<Mutex<Cache>>>,
    info: AdapterInfo,
    errors: Arc<Mutex<Vec<String>>>,
    /// Why the device was lost.
    lost: Arc<OnceLock<String>>,
}

impl Gpu {
    /// Opens an adapter with all that kernels can make use of.
    pub fn open(adapter: &wgpu::Adapter) -> Result<Gpu> {
        let info = adapter.get_info();
        let useful = wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let features = adapter.features() & useful;
        let limits = adapter.limits();
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("tamarack"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: MEMORY,
            experimental_features: experiments(features),
            ..Default::default()
        });
        let (device, queue) =
            pollster::block_on(request).map_err(|e| Error::Device(format!("{}: cannot be opened: {e}", info.name)))?;
        let subgroups =
            features.contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size));
        let caps = Caps {
            subgroups,
            f16: features.contains(wgpu::Features::SHADER_F16),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            workgroup_size: limits.max_compute_invocations_per_workgroup,
            binding_size: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            cooperative: cooperative(adapter, features),
        };
        let (errors, lost) = (Arc::new(Mutex::new(Vec::new())), Arc::new(OnceLock::new()));
        let (sink, why) = (errors.clone(), lost.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| note(&sink, e.to_string())));
        device.set_device_lost_callback(move |reason, message| {
            let _ = why.set(if message.is_empty() { format!("{reason:?}") } else { message });
        });
        let settings = Settings::for_adapter(&info);
        let pipelines = Cache::open(&device, &info).map(|cache| Arc::new(Mutex::new(cache)));
        Ok(Gpu { device, queue, caps, settings, pipelines, info, errors, lost })
    }

    /// With other settings.
    pub fn with(self, settings: Settings) -> Gpu {
        Gpu { settings, ..self }
    }

    /// With activations rounded to so many bits; `None` is what suits the device. [`Precision::Full`] is f32
    /// throughout: it goes without cooperative matrices, whose activations are f16.
    pub fn at(mut self, precision: Option<Precision>) -> Gpu {
        self.settings.precision = precision.unwrap_or(self.settings.precision);
        self.caps.cooperative = self.caps.cooperative.filter(|_| precision != Some(Precision::Full));
        self
    }

    /// That the device was lost, and why.
    pub fn lost(&self) -> Option<Error> {
        let why = self.lost.get()?;
        Some(Error::DeviceLost(format!("{}: the device was lost: {why}", self.info.name)))
    }

    /// What the device reported since the last call, as one error.
    pub fn take_errors(&self) -> Result<()> {
        let first = self.errors.lock().unwrap_or_else(|e| e.into_inner()).drain(..).next();
        match first {
            None => self.lost().map_or(Ok(()), Err),
            Some(e) if e == OUT_OF_MEMORY => Err(Error::Memory(format!("{}: out of memory", self.info.name))),
            Some(e) => Err(self.error(&e)),
        }
    }

    /// Name, type, backend and driver.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Compiles one of our own kernels.
    pub fn compile(&self, kernel: &Kernel) -> Result<wgpu::ComputePipeline> {
        self.pipeline(kernel, |descriptor| self.trusted_module(descriptor), false)
    }

    /// Compiles a kernel that is not ours: with bounds checks on every access, bounded loops, and cleared
    /// workgroup memory.
    pub fn compile_checked(&self, kernel: &Kernel) -> Result<wgpu::ComputePipeline> {
        self.pipeline(kernel, |descriptor| self.device.create_shader_module(descriptor), true)
    }

    fn pipeline(
        &self,
        kernel: &Kernel,
        module: impl FnOnce(wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule,
        zero_initialize_workgroup_memory: bool,
    ) -> Result<wgpu::ComputePipeline> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl(kernel.source.as_str().into());
        let module = module(wgpu::ShaderModuleDescriptor { label: Some(&kernel.name), source });
        let entries: Vec<_> = kernel.bindings.iter().enumerate().map(|(i, access)| layout_entry(i, *access)).collect();
        let bindings = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&kernel.name),
            entries: &entries,
        });
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&kernel.name),
            bind_group_layouts: &[Some(&bindings)],
            ..Default::default()
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory,
                ..Default::default()
            },
            cache: self.pipelines.as_ref().map(|c| c.lock().unwrap_or_else(|e| e.into_inner()).cache.clone()).as_ref(),
        });
        match pollster::block_on(scope.pop()) {
            None => Ok(pipeline),
            Some(e) => Err(self.error(&format!("kernel {}: {e}", kernel.name))),
        }
    }

    // SAFETY of the call: these kernels are ours and index only inside the buffers that the host
    // sizes for them; the oracle tests run them over odd shapes. Checks would cost on every load.
    #[allow(unsafe_code)]
    fn trusted_module(&self, descriptor: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
        unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    /// A storage buffer of `bytes` bytes, rounded up to whole 16-byte vectors.
    pub fn buffer(&self, label: &str, bytes: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.next_multiple_of(16).max(16),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }

    /// One buffer per binding of `kernel`, in order.
    pub fn bind(&self, label: &str, pipeline: &wgpu::ComputePipeline, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let entries: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(label),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    /// Copies the start of `buffer` back, after everything submitted so far.
    pub fn read(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, bytes);
        let submission = self.queue.submit([encoder.finish()]);
        self.map(&staging, submission)
    }

    /// Waits for a submission and copies out all of a read-back buffer.
    pub fn map(&self, staging: &wgpu::Buffer, submission: wgpu::SubmissionIndex) -> Result<Vec<u8>> {
        let failed = |e: &dyn Display| self.error(&format!("reading back failed: {e}"));
        let (send, receive) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |r| {
            let _ = send.send(r);
        });
        // What cannot be mapped is known at once; the submission may not have been one then.
        let refused = receive.try_recv();
        if refused.is_err() {
            let timeout = Some(Duration::from_secs(300));
            self.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout })?;
        }
        let mapped = refused.or_else(|_| receive.recv_timeout(Duration::from_secs(1))).map_err(|e| failed(&e))?;
        mapped.map_err(|e| failed(&e))?;
        let out = staging.get_mapped_range(..).map_err(|e| failed(&e))?.to_vec();
        staging.unmap();
        Ok(out)
    }

    /// Waits for what was submitted, or looks how far it is.
    pub(super) fn poll(&self, how: wgpu::PollType) -> Result<()> {
        self.polled(how).map_err(|e| self.error(&format!("waiting failed: {e}")))
    }

    /// wgpu panics where it finds the device lost.
    fn polled(&self, how: wgpu::PollType) -> Result<(), String> {
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(how))) {
            Ok(done) => done.map(|_| ()).map_err(|e| e.to_string()),
            Err(_) => Err("the driver failed".to_owned()),
        }
    }

    /// Why something failed: because the device was lost, if it was.
    fn error(&self, message: &str) -> Error {
        if self.lost.get().is_none() {
            // wgpu says so when it is asked.
            let _ = self.polled(wgpu::PollType::Poll);
        }
        self.lost().unwrap_or_else(|| Error::Device(format!("{}: {message}", self.info.name)))
    }
}

// SAFETY of the call: wgpu has not settled the interface of cooperative matrices; its version is pinned,
// and kernels that use them are tested against the oracle on adapters that have them.
#[allow(unsafe_code)]
fn experiments(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    match features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        true => unsafe { wgpu::ExperimentalFeatures::enabled() },
        false => wgpu::ExperimentalFeatures::disabled(),
    }
}

/// The largest square matrices of f16 with sums in f32, where it is known how large a subgroup is.
fn cooperative(adapter: &wgpu::Adapter, features: wgpu::Features) -> Option<Cooperative> {
    let needed =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    let info = adapter.get_info();
    let subgroup = match info.backend {
        // A SIMD group of every GPU that has such matrices; wgpu reports a range.
        wgpu::Backend::Metal => 32,
        _ if info.subgroup_min_size == info.subgroup_max_size => info.subgroup_max_size,
        _ => return None,
    };
    let properties = features.contains(needed).then(|| adapter.cooperative_matrix_properties())?;
    let (f16, f32) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let fits = |p: &&wgpu::CooperativeMatrixProperties| {
        p.m_size == p.n_size && p.n_size == p.k_size && p.ab_type == f16 && p.cr_type == f32
    };
    let side = properties.iter().filter(fits).map(|p| p.m_size).filter(|side| [8, 16].contains(side)).max()?;
    Some(Cooperative { side, subgroup })
}

fn note(errors: &Mutex<Vec<String>>, message: String) {
    errors.lock().unwrap_or_else(|e| e.into_inner()).push(message);
}

fn layout_entry(binding: usize, access: Access) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: access == Access::Read },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}
