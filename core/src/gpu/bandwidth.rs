//! How fast a device reads its memory: the ceiling of all decoding.

use super::Gpu;
use crate::{Error, Result};
use std::time::Instant;
use tamarack_kernels::bandwidth::{block, read};

/// Read at a time: far more than any cache holds.
const BYTES: u64 = 1 << 30;
/// Seconds that one measurement is to take at least, so that waiting for it does not count.
const SECONDS: f64 = 0.05;
/// The best of so many counts: whatever else happens only takes time.
const MEASUREMENTS: usize = 5;

impl Gpu {
    /// Bytes a second at which a kernel that does nothing else reads 1 GiB, or as much as a binding
    /// holds.
    pub fn read_bandwidth(&self) -> Result<f64> {
        let block = block(&self.caps);
        let bytes = BYTES.min(self.caps.binding_size) / block * block;
        let kernel = read(bytes, &self.caps);
        let pipeline = self.compile(&kernel)?;
        let buffers = [16, bytes, 16].map(|bytes| self.buffer(&kernel.name, bytes));
        let bindings = self.bind(&kernel.name, &pipeline, &buffers.each_ref());
        let [x, y, z] = kernel.groups(1, 1);
        let seconds = |times: usize| -> Result<f64> {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bindings, &[]);
            (0..times).for_each(|_| pass.dispatch_workgroups(x, y, z));
            drop(pass);
            let commands = encoder.finish();
            let start = Instant::now();
            self.queue.submit([commands]);
            self.wait()?;
            Ok(start.elapsed().as_secs_f64())
        };
        // The first dispatch also clears the buffers; clocks rise during the others.
        seconds(1)?;
        let times = (SECONDS / seconds(1)?).clamp(1.0, 1000.0) as usize;
        let all = (0..MEASUREMENTS).map(|_| seconds(times)).collect::<Result<Vec<f64>>>()?;
        self.take_errors()?;
        let best = all.into_iter().fold(f64::INFINITY, f64::min);
        Ok(bytes as f64 * times as f64 / best)
    }

    /// Waits until everything submitted is done.
    pub(super) fn wait(&self) -> Result<()> {
        let done = self.device.poll(wgpu::PollType::wait_indefinitely());
        done.map(|_| ()).map_err(|e| Error::Device(format!("{}: waiting failed: {e}", self.info().name)))
    }
}
