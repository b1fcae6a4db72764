//! Running one kernel on every adapter found, as tests see it.

use tamarack::{
    Device,
    gpu::{Gpu, Precision, adapters},
};
use tamarack_kernels::{Access, Caps, Kernel, View};

/// Every adapter of this machine, opened. A test over none of them would pass by doing nothing.
pub fn gpus() -> Vec<Gpu> {
    let gpus: Vec<Gpu> = adapters().iter().map(|a| Gpu::open(a).expect("adapter opens")).collect();
    assert!(!gpus.is_empty(), "no adapter found: install a software Vulkan (mesa-vulkan-drivers), as tests/run does");
    gpus
}

/// What a logit of a tiny model, of which the spread is 1.7, may be off by where keys and values are kept in f16.
pub const OFF: f32 = 0.02;

/// Every adapter as programs find it, and what a logit of a tiny model may be off by there. One that has cooperative
/// matrices also in full precision, which goes without them.
///
/// Where only keys and values are f16, a layer rounds twice to 11 bits. Tiles of cooperative matrices also take the inputs of its
/// four products (queries, keys and values; the output of attention; gate and up; down) in f16: six roundings, each
/// of the same relative size, so that a logit may be off by three times as much where all of them add up.
pub fn precisions() -> Vec<(String, Gpu, f32)> {
    // A driver does not open as many devices as there are models to compare.
    static FOUND: std::sync::OnceLock<Vec<(String, Gpu, f32)>> = std::sync::OnceLock::new();
    let each = |gpu: Gpu| {
        let name = gpu.info().name.clone();
        match gpu.caps.cooperative {
            None => vec![(name, gpu, OFF)],
            Some(_) => {
                let full = (format!("{name} in full precision"), gpu.clone().at(Some(Precision::Full)), OFF);
                vec![full, (name, gpu, 3.0 * OFF)]
            }
        }
    };
    FOUND.get_or_init(|| gpus().into_iter().flat_map(each).collect()).clone()
}

/// Everything that runs models here: the oracle, the processor, and every adapter.
pub fn devices() -> Vec<Device> {
    let found = (0..adapters().len()).map(|i| Device::Named(i.to_string()));
    let all: Vec<Device> = [Device::Reference, Device::Cpu].into_iter().chain(found).collect();
    assert!(all.len() > 2, "no adapter found: install a software Vulkan (mesa-vulkan-drivers), as tests/run does");
    all
}

/// Runs `kernel` once over `rows` rows. `buffers` are its bindings' words; those that it writes come
/// back changed.
pub fn run(gpu: &Gpu, kernel: &Kernel, rows: u32, splits: u32, buffers: &mut [Vec<u32>]) {
    assert_eq!(kernel.bindings.len(), buffers.len(), "{}", kernel.name);
    let pipeline = gpu.compile(kernel).unwrap_or_else(|e| panic!("{e}\n{}", kernel.source));
    let device: Vec<wgpu::Buffer> = buffers
        .iter()
        .map(|words| {
            let buffer = gpu.buffer("test", words.len() as u64 * 4);
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
            buffer
        })
        .collect();
    let group = gpu.bind(&kernel.name, &pipeline, &device.iter().collect::<Vec<_>>());
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        let [x, y, z] = kernel.groups(rows, splits);
        pass.dispatch_workgroups(x, y, z);
    }
    gpu.queue.submit([encoder.finish()]);
    for (i, words) in buffers.iter_mut().enumerate() {
        if kernel.bindings[i] == Access::ReadWrite {
            let bytes = gpu.read(&device[i], words.len() as u64 * 4).expect("read back");
            *words = bytemuck::pod_collect_to_vec(&bytes);
        }
    }
}

/// Seeded random floats in [-1, 1).
pub fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            // xorshift64*, Vigna 2016.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// Where element `i` of a dense [rows, heads, dim] activation lies in `view`.
pub fn at(view: &View, i: usize) -> usize {
    let [heads, dim] = [view.heads, view.dim].map(|n| n as usize);
    let (r, h, j) = (i / (heads * dim), i / dim % heads, i % dim);
    view.offset as usize + r * view.row as usize + h * view.head as usize + j
}

/// A buffer in which the dense activation `x` lies as `view` says; NaN elsewhere.
pub fn spread(view: &View, x: &[f32]) -> Vec<f32> {
    let end = x.len().checked_sub(1).map_or(0, |last| at(view, last) + 1);
    let mut buffer = vec![f32::NAN; end];
    x.iter().enumerate().for_each(|(i, v)| buffer[at(view, i)] = *v);
    buffer
}

/// The dense activation of `rows` rows that lies in `buffer` as `view` says.
pub fn gather(view: &View, buffer: &[f32], rows: u32) -> Vec<f32> {
    (0..(rows * view.width()) as usize).map(|i| buffer[at(view, i)]).collect()
}

/// The words of floats.
pub fn words(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// The floats of words.
pub fn floats(x: &[u32]) -> Vec<f32> {
    x.iter().map(|w| f32::from_bits(*w)).collect()
}

/// Whether no element is further off than `tolerance`; where one is, what and by how much.
pub fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: got {} numbers, want {}", got.len(), want.len()));
    }
    let off = |i: usize| if got[i].is_finite() { (got[i] - want[i]).abs() } else { f32::INFINITY };
    match (0..got.len()).max_by(|a, b| off(*a).total_cmp(&off(*b))) {
        Some(i) if off(i) > tolerance || off(i).is_nan() => {
            let (got, want, off) = (got[i], want[i], off(i));
            Err(format!("{what}: at {i} got {got}, want {want}: off by {off}, allowed {tolerance}"))
        }
        _ => Ok(()),
    }
}

/// Fails unless [`close`].
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    close(what, got, want, tolerance).unwrap_or_else(|e| panic!("{e}"));
}

/// Runs `test` on every adapter, as it is and as if it had no subgroup operations.
pub fn both_ways(test: impl Fn(&Gpu, &Caps)) {
    static GPUS: std::sync::OnceLock<Vec<Gpu>> = std::sync::OnceLock::new();
    for gpu in GPUS.get_or_init(gpus) {
        test(gpu, &gpu.caps);
        if gpu.caps.subgroups.is_some() {
            test(gpu, &Caps { subgroups: None, ..gpu.caps });
        }
    }
}
