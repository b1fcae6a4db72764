//! `cargo bench -p tamarack-tests --bench many_rows`: a product of 512 rows (of 64 on a software adapter) with a matrix of 4
//! bits, in each of the ways in which this machine's first adapter can compute it, by kernel time.
//!
//! Plain tiles, tiles of integers with one plane and with two, and cooperative matrices without making their halves.
//! Criterion prints multiplications and additions a second, two operations each.

use criterion::{Criterion, Throughput};
use std::time::{Duration, Instant};
use tamarack::gpu::{Gpu, adapters};
use tamarack_kernels::{
    Activation, Format, Kernel, Scales, View,
    matmul::{MatMul, Precision, cooperative, tiled_for, tiled_integer},
    step,
};

/// Dispatches of one submission.
const DISPATCHES: u64 = 8;

/// A kernel that is bound to zeros: of what is computed nothing depends on the values.
struct Bound {
    kernel: Kernel,
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

impl Bound {
    fn new(gpu: &Gpu, kernel: Kernel, bytes: u64, rows: u32) -> tamarack::Result<Bound> {
        let pipeline = gpu.compile(&kernel)?;
        let buffers: Vec<_> = kernel.bindings.iter().map(|_| gpu.buffer("bench", bytes)).collect();
        gpu.queue.write_buffer(&buffers[0], 0, bytemuck::cast_slice(&[rows; step::HEADER_WORDS as usize]));
        let bindings = gpu.bind(&kernel.name, &pipeline, &buffers.iter().collect::<Vec<_>>());
        Ok(Bound { kernel, pipeline, bindings })
    }

    /// What so many dispatches take, many in a submission.
    fn time(&self, gpu: &Gpu, rows: u32, count: u64) -> Duration {
        let begin = Instant::now();
        for first in (0..count).step_by(DISPATCHES as usize) {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            let [x, y, z] = self.kernel.groups(rows, 1);
            for _ in first..count.min(first + DISPATCHES) {
                pass.dispatch_workgroups(x, y, z);
            }
            drop(pass);
            gpu.queue.submit([encoder.finish()]);
        }
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
        begin.elapsed()
    }
}

fn main() -> tamarack::Result<()> {
    let is_bench = std::env::args().any(|a| a == "--bench");
    let adapter = adapters().into_iter().next().expect("no adapter: install a software Vulkan, as tests/run does");
    let gpu = Gpu::open(&adapter)?;
    println!("{} {}", gpu.info().name, gpu.info().driver_info);
    let is_software = gpu.info().device_type == wgpu::DeviceType::Cpu;
    let (rows, n, k) = if is_software || !is_bench { (64, 256, 512) } else { (512, 14_336, 4096) };
    let mut c = Criterion::default().sample_size(10).configure_from_args();
    for glu in [None, Some(Activation::Silu)] {
        let format = Format::Affine { bits: 4, group: 32, scales: Scales::Centered };
        let (x, out) = (View::rows(k), View::rows(n));
        let (norm, bias, post, first) = (None, false, Vec::new(), 0);
        let spec = MatMul { rows: step::TOKENS, n, k, format, x, norm, bias, glu, post, first, out };
        let caps = &gpu.caps;
        let mut ways = vec![("plain", tiled_for(&spec, caps, rows))];
        let planes = [("one plane", Precision::Fast), ("two planes", Precision::High)];
        ways.extend(planes.into_iter().filter_map(|(way, p)| Some((way, tiled_integer(&spec, caps, rows, p)?))));
        // What is in halves is to be added up apart where columns are split.
        let halves = cooperative(&spec, caps, rows).and_then(|kernels| kernels.into_iter().next());
        ways.extend(halves.map(|kernel| ("cooperative", kernel)));
        let matrices = if glu.is_some() { 2 } else { 1 };
        let mut group = c.benchmark_group(if glu.is_some() { "gate and up" } else { "down" });
        group.throughput(Throughput::Elements(2 * u64::from(rows) * u64::from(n * matrices) * u64::from(k)));
        // Also for several sums of each output, where columns are split.
        let bytes = 4 * u64::from((n * matrices * k / 8).max(8 * rows * n.max(k)));
        for (way, kernel) in ways {
            let bound = Bound::new(&gpu, kernel, bytes, rows)?;
            bound.time(&gpu, rows, DISPATCHES);
            group.bench_function(way, |b| b.iter_custom(|count| bound.time(&gpu, rows, count)));
        }
        group.finish();
    }
    c.final_summary();
    Ok(())
}
