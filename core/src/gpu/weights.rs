//! Weights in device memory.

use super::Gpu;
use crate::{Error, Result, weights::Matrix};
use rayon::prelude::*;
use std::ops::Range;
use tamarack_kernels::Format;

/// Bytes that are packed and handed over at a time: host memory stays far below the model's size.
const CHUNK: usize = 8 << 20;
/// Bytes handed over before waiting until the device has taken them.
const IN_FLIGHT: usize = 64 << 20;

/// Bytes that a matrix takes on a device.
pub(super) fn matrix_bytes(matrix: &Matrix) -> u64 {
    let cols = matrix.cols();
    let bytes = |format: Format| (format.row_words(cols) + format.row_scale_words(cols)) as u64 * 4;
    matrix.formats().into_iter().map(|(format, rows)| rows.len() as u64 * bytes(format)).sum()
}

/// A matrix, cut where its format changes or a binding would grow too large.
pub(super) struct DeviceMatrix {
    pub segments: Vec<Segment>,
    pub cols: u32,
}

/// Adjacent rows in one format.
pub(super) struct Segment {
    pub format: Format,
    /// First row; with halves, of each half.
    pub first: u32,
    /// Rows; with halves, of each half.
    pub rows: u32,
    pub quants: wgpu::Buffer,
    pub scales: Option<wgpu::Buffer>,
}

impl DeviceMatrix {
    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }
}

impl Segment {
    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.quants.size() + self.scales.as_ref().map_or(0, wgpu::Buffer::size)
    }
}

/// Copies weights to a device.
pub(super) struct Uploader<'a> {
    gpu: &'a Gpu,
    in_flight: usize,
    /// Bytes copied.
    pub bytes: u64,
    /// Is told how many that are.
    report: &'a dyn Fn(u64),
}

impl<'a> Uploader<'a> {
    pub fn new(gpu: &'a Gpu, report: &'a dyn Fn(u64)) -> Uploader<'a> {
        Uploader { gpu, in_flight: 0, bytes: 0, report }
    }

    /// Copies a matrix. With `halves`, row `i` and row `rows / 2 + i` (a gate and what it gates) lie
    /// in the same segment: all first halves, then all second ones.
    pub fn matrix(&mut self, name: &str, matrix: &Matrix, halves: bool) -> Result<DeviceMatrix> {
        let cols = matrix.cols();
        let parts = if halves { 2 } else { 1 };
        let mut segments = Vec::new();
        for (format, run) in matrix.formats() {
            let run = run.start / parts..run.end / parts;
            let row_bytes = format.row_words(cols).max(format.row_scale_words(cols)) * 4 * parts;
            let most = (self.gpu.caps.binding_size / row_bytes.max(1) as u64) as usize;
            if most == 0 || !cols.is_multiple_of(format.block()) {
                return Err(Error::Model(format!("{name}: rows of {cols} in {format} do not fit a binding")));
            }
            let count = run.len().div_ceil(most).max(1);
            let size = run.len().div_ceil(count);
            for first in run.clone().step_by(size.max(1)) {
                let rows = first..(first + size).min(run.end);
                segments.push(self.segment(name, matrix, format, rows, halves.then_some(matrix.rows() / 2))?);
            }
        }
        Ok(DeviceMatrix { segments, cols: cols as u32 })
    }

    fn segment(
        &mut self,
        name: &str,
        matrix: &Matrix,
        format: Format,
        rows: Range<usize>,
        half: Option<usize>,
    ) -> Result<Segment> {
        let cols = matrix.cols();
        let (words, scale_words) = (format.row_words(cols), format.row_scale_words(cols));
        let total = rows.len() * if half.is_some() { 2 } else { 1 };
        let quants = self.gpu.buffer(name, (total * words * 4) as u64);
        let scales = (scale_words > 0).then(|| self.gpu.buffer(name, (total * scale_words * 4) as u64));
        let shifted = half.map(|h| rows.start + h..rows.end + h);
        let mut done = 0;
        for rows in [Some(rows.clone()), shifted].into_iter().flatten() {
            let step = (CHUNK / ((words + scale_words) * 4).max(1)).max(1);
            for start in rows.clone().step_by(step) {
                let part = start..(start + step).min(rows.end);
                for (n, q, s) in pack(matrix, part)? {
                    self.write(&quants, done * words, &q);
                    if let Some(scales) = &scales {
                        self.write(scales, done * scale_words, &s);
                    }
                    done += n;
                }
            }
        }
        Ok(Segment { format, first: rows.start as u32, rows: rows.len() as u32, quants, scales })
    }

    /// Copies a vector.
    pub fn vector(&mut self, name: &str, values: &[f32]) -> wgpu::Buffer {
        let buffer = self.gpu.buffer(name, values.len() as u64 * 4);
        self.write(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    }

    fn write(&mut self, buffer: &wgpu::Buffer, word: usize, words: &[u32]) {
        self.gpu.queue.write_buffer(buffer, word as u64 * 4, bytemuck::cast_slice(words));
        self.bytes += words.len() as u64 * 4;
        (self.report)(self.bytes);
        self.in_flight += words.len() * 4;
        if self.in_flight > IN_FLIGHT {
            self.flush();
        }
    }

    /// Waits until the device has taken everything; staging memory is free again.
    pub fn flush(&mut self) {
        self.gpu.queue.submit([]);
        let _ = self.gpu.device.poll(wgpu::PollType::wait_indefinitely());
        self.in_flight = 0;
    }
}

/// Packed rows: how many, their quants and their scales.
type Packed = (usize, Vec<u32>, Vec<u32>);

/// Packs rows on all cores, in order.
fn pack(matrix: &Matrix, rows: Range<usize>) -> Result<Vec<Packed>> {
    let each = rows.len().div_ceil(rayon::current_num_threads()).max(1);
    let parts: Vec<Range<usize>> = rows.clone().step_by(each).map(|s| s..(s + each).min(rows.end)).collect();
    parts
        .into_par_iter()
        .map(|part| {
            let (mut quants, mut scales) = (Vec::new(), Vec::new());
            let n = part.len();
            matrix.pack(part, &mut quants, &mut scales)?;
            Ok((n, quants, scales))
        })
        .collect()
}
