//! Weights that are quantized on their way to where they stay.

use super::staging::Staging;
use super::upload::{To, upload_rows};
use crate::{Result, checkpoint::Quantize, weights::Matrix};
use std::collections::HashMap;
use std::ops::Range;
use tamarack_kernels::quantize;

/// The kernels that quantize, compiled once each.
#[derive(Default)]
pub(super) struct Quantizer {
    /// By their source, in which the number of rows is not.
    compiled: HashMap<String, wgpu::ComputePipeline>,
}

/// What quantizing some rows takes and meets.
pub(super) struct Run {
    /// Bytes that it keeps until it is done.
    pub bytes: usize,
    /// A bound of the values, as [`super::weights::magnitude`] gives it.
    pub largest: f32,
}

impl Quantizer {
    /// Quantizes `rows` of `dense` into the buffers of quants and scales, from row `done` on.
    pub fn run(
        &mut self,
        staging: &Staging<'_>,
        how: Quantize,
        dense: &Matrix,
        rows: Range<usize>,
        (quants, scales): (&wgpu::Buffer, &wgpu::Buffer),
        done: usize,
    ) -> Result<Run> {
        let (gpu, Quantize { bits, group }) = (staging.gpu, how);
        let (cols, mut total, mut largest) = (dense.cols(), 0, 0.0f32);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for (from, run) in dense.formats() {
            let part = run.start.max(rows.start)..run.end.min(rows.end);
            if part.is_empty() {
                continue;
            }
            let (first, count) = (done + part.start - rows.start, part.len());
            let spec = quantize::Quantize { from, cols: cols as u32, bits, group };
            let kernel = quantize::quantize(&spec, count as u32);
            if !self.compiled.contains_key(&kernel.source) {
                self.compiled.insert(kernel.source.clone(), gpu.compile(&kernel)?);
            }
            let pipeline = &self.compiled[&kernel.source];
            let words = count * from.row_words(cols);
            let source = gpu.buffer(&kernel.name, words as u64 * 4);
            let to = To { buffer: &source, words: from.row_words(cols), first: 0 };
            largest = largest.max(upload_rows(staging, (dense, from), part, to, None)?);
            let place = gpu.buffer(&kernel.name, 8);
            gpu.queue.write_buffer(&place, 0, bytemuck::cast_slice(&[count as u32, first as u32]));
            let group = gpu.bind(&kernel.name, pipeline, &[&place, &source, quants, scales]);
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = kernel.groups(count as u32, 1);
            pass.dispatch_workgroups(x, y, z);
            total += words * 4;
        }
        staging.submit();
        gpu.queue.submit([encoder.finish()]);
        Ok(Run { bytes: total, largest })
    }
}
