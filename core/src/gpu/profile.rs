//! Where a step's time goes: the device's own clock around every dispatch.

use super::{
    Gpu,
    executor::{DISPATCHES, Dispatch, WgpuExecutor},
};
use crate::{Error, Result, exec::Step};
use wgpu::Features;

/// What one dispatch took.
#[derive(Clone, PartialEq, Debug)]
pub struct DispatchTime {
    /// Its kernel's name.
    pub kernel: String,
    /// From the end of the dispatch before it to its own.
    pub seconds: f64,
    /// Bytes of weights that it reads; 0 for what is no product.
    pub weight_bytes: u64,
}

/// Where timestamps can be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stamps {
    /// Between the dispatches of a pass.
    Inside,
    /// At the beginning and end of passes; each dispatch has its own.
    Around,
}

/// Dispatches under way, and where their timestamps will be.
struct Part<'a> {
    dispatches: &'a [Dispatch],
    staging: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
}

impl WgpuExecutor {
    /// Runs a step, discards its results and returns what each of its dispatches took, in order.
    ///
    /// # Errors
    /// The step does not fit, another one has not been collected, or the device cannot write
    /// timestamps.
    pub fn profile(&mut self, step: &Step) -> Result<Vec<DispatchTime>> {
        if !self.pending.is_empty() {
            return Err(Error::Request("a step is still to be collected: it would run into the profile".to_owned()));
        }
        let stamps = Stamps::of(&self.model.gpu)?;
        let (kind, splits) = self.begin(step)?;
        let gpu = &self.model.gpu;
        let parts: Vec<Part<'_>> =
            self.phases[&kind].chunks(DISPATCHES).map(|part| stamps.submit(gpu, part, splits, step)).collect();
        let mut times = Vec::new();
        for part in parts {
            times.extend(stamps.read(gpu, part)?);
        }
        gpu.take_errors()?;
        Ok(times)
    }
}

impl Stamps {
    fn of(gpu: &Gpu) -> Result<Stamps> {
        let features = gpu.device.features();
        if features.contains(Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            Ok(Stamps::Inside)
        } else if features.contains(Features::TIMESTAMP_QUERY) {
            Ok(Stamps::Around)
        } else {
            let name = &gpu.info().name;
            Err(Error::Device(format!("{name}: cannot be profiled: it has no timestamp queries")))
        }
    }

    /// The queries at which dispatch `i` begins and ends.
    fn queries(self, i: usize) -> [usize; 2] {
        match self {
            Stamps::Inside => [i, i + 1],
            Stamps::Around => [2 * i, 2 * i + 1],
        }
    }

    fn submit<'a>(self, gpu: &Gpu, dispatches: &'a [Dispatch], splits: u32, step: &Step) -> Part<'a> {
        let count = self.queries(dispatches.len() - 1)[1] as u32 + 1;
        let (ty, label) = (wgpu::QueryType::Timestamp, Some("profile"));
        let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label, ty, count });
        let buffer = |usage| {
            let size = u64::from(count * wgpu::QUERY_SIZE);
            gpu.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
        };
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        match self {
            Stamps::Inside => {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.write_timestamp(&set, 0);
                for (i, d) in dispatches.iter().enumerate() {
                    d.record(&mut pass, d.rows_of(step), splits);
                    pass.write_timestamp(&set, i as u32 + 1);
                }
            }
            Stamps::Around => {
                for (i, d) in dispatches.iter().enumerate() {
                    let [begin, end] = self.queries(i).map(|q| Some(q as u32));
                    let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                        query_set: &set,
                        beginning_of_pass_write_index: begin,
                        end_of_pass_write_index: end,
                    });
                    let pass = wgpu::ComputePassDescriptor { label, timestamp_writes };
                    d.record(&mut encoder.begin_compute_pass(&pass), d.rows_of(step), splits);
                }
            }
        }
        encoder.resolve_query_set(&set, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, resolved.size());
        Part { dispatches, staging, submission: gpu.queue.submit([encoder.finish()]) }
    }

    fn read(self, gpu: &Gpu, part: Part<'_>) -> Result<Vec<DispatchTime>> {
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.map(&part.staging, part.submission)?);
        let tick = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let time = |(i, d): (usize, &Dispatch)| {
            let [begin, end] = self.queries(i).map(|q| ticks[q]);
            // Clocks may differ between passes.
            let seconds = end.saturating_sub(begin) as f64 * tick;
            DispatchTime { kernel: d.kernel.name.clone(), seconds, weight_bytes: d.weight_bytes }
        };
        Ok(part.dispatches.iter().enumerate().map(time).collect())
    }
}
