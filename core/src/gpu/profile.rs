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
    /// Multiplications and additions with them.
    pub flops: u64,
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
        let stamps = Stamps::of(&self.model.gpu)?;
        self.timed(step, stamps)
    }

    fn timed(&mut self, step: &Step, stamps: Stamps) -> Result<Vec<DispatchTime>> {
        if !self.pending.is_empty() {
            return Err(Error::Request("a step is still to be collected: it would run into the profile".to_owned()));
        }
        let (kind, splits) = self.begin(step)?;
        let gpu = &self.model.gpu;
        let parts: Vec<Part<'_>> =
            self.phases[&kind].chunks(DISPATCHES).map(|part| stamps.submit(gpu, part, splits, step)).collect();
        let mut times = Vec::new();
        for part in parts {
            times.extend(stamps.read(gpu, part, step)?);
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

    fn read(self, gpu: &Gpu, part: Part<'_>, step: &Step) -> Result<Vec<DispatchTime>> {
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.map(&part.staging, part.submission)?);
        let tick = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let time = |(i, d): (usize, &Dispatch)| {
            let [begin, end] = self.queries(i).map(|q| ticks[q]);
            // Clocks may differ between passes.
            let seconds = end.saturating_sub(begin) as f64 * tick;
            let flops = 2 * d.weights.values * u64::from(d.rows_of(step));
            DispatchTime { kernel: d.kernel.name.clone(), seconds, weight_bytes: d.weights.bytes, flops }
        };
        Ok(part.dispatches.iter().enumerate().map(time).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        exec::{Capacity, Draw, Executor, Pool, Sequence, Token},
        gpu::adapters,
        program::{MatMul, Node, Op, Program},
    };
    use serde_json::json;
    use tamarack_api::{Dim, Sym, WeightExpr, WeightNode};
    use tamarack_kernels::Format;

    /// A table that is its own head.
    fn executor() -> WgpuExecutor {
        let shape = vec![64, 32];
        let rows = |sym| Dim::from(sym);
        let node =
            |op, inputs: &[usize], shape: Vec<Dim>| Node { op, inputs: inputs.to_vec(), shape, place: String::new() };
        let width = Dim::from(32);
        let nodes = vec![
            node(Op::Tokens, &[], vec![rows(Sym::Tokens)]),
            node(Op::Embedding { weight: 0, scale: 1.0 }, &[0], vec![rows(Sym::Tokens), width]),
            node(Op::Outputs, &[1], vec![rows(Sym::Outputs), width]),
            node(Op::MatMul(MatMul::plain(0, None)), &[2], vec![rows(Sym::Outputs), Dim::from(64)]),
        ];
        let weights = vec![WeightNode { expr: WeightExpr::Tensor("table".to_owned()), shape: shape.clone() }];
        let program = Program { nodes, weights, output: 3, ..Program::default() };
        let checkpoint = Checkpoint::synthetic(json!({}), [("table".to_owned(), shape)], Format::F16).unwrap();
        let gpu = Gpu::open(&adapters()[0]).unwrap();
        let capacity = Capacity { rows: 4, outputs: 4, pages: 4, slots: 1 };
        WgpuExecutor::load(gpu, program, &checkpoint, capacity).unwrap()
    }

    #[test]
    fn every_dispatch_has_its_time() {
        let mut executor = executor();
        let mut step = Step::default();
        let (mut sequence, mut pool) = (Sequence::new(0, 0), Pool::new(4));
        let tokens = [1, 2, 3].map(Token::Id);
        assert!(step.push(&mut sequence, &mut pool, &tokens, |_| Some(Draw::default())));
        executor.submit(&step).unwrap();
        let e = executor.profile(&step).unwrap_err().to_string();
        assert!(e.starts_with("a step is still to be collected"), "{e}");
        executor.collect().unwrap();

        let names = executor.dispatches(3, 3, 3).unwrap();
        for stamps in [Stamps::of(&executor.model.gpu).unwrap(), Stamps::Around] {
            let times = executor.timed(&step, stamps).unwrap();
            assert_eq!(times.iter().map(|t| &t.kernel).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
            assert!(times.iter().all(|t| t.seconds >= 0.0) && times.iter().any(|t| t.seconds > 0.0), "{times:?}");
            let products: Vec<[u64; 2]> =
                times.iter().map(|t| [t.weight_bytes, t.flops]).filter(|w| w[0] > 0).collect();
            assert_eq!(products, [[64 * 32 * 2, 2 * 64 * 32 * 3]], "{times:?}");
        }
    }
}
