//! The cache, read and written by the host: keys and values that are kept in files.

use super::executor::Model;
use crate::{Result, exec::PAGE};
use half::f16;

impl Model {
    /// Bytes of a page: f16, keys before values.
    fn page_bytes(&self, cache: usize) -> u64 {
        let [keys, values] = self.program.cache_widths()[cache];
        (PAGE * (keys + values) * size_of::<f16>()) as u64
    }

    /// What these pages hold.
    pub fn read_cache(&self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        let bytes = self.page_bytes(cache);
        let staging = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("pages"),
            size: (bytes * pages.len() as u64).max(16),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for (i, page) in pages.iter().enumerate() {
            let (from, to) = (u64::from(*page) * bytes, i as u64 * bytes);
            encoder.copy_buffer_to_buffer(&self.caches[cache], from, &staging, to, bytes);
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        let mut read = self.gpu.map(&staging, submission)?;
        read.truncate(bytes as usize * pages.len());
        self.gpu.take_errors()?;
        Ok(bytemuck::pod_collect_to_vec::<u8, f16>(&read).into_iter().map(f16::to_f32).collect())
    }

    /// Fills these pages.
    pub fn write_cache(&self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let bytes = self.page_bytes(cache);
        for (page, rows) in pages.iter().zip(rows.chunks_exact(bytes as usize / size_of::<f16>())) {
            let halves: Vec<f16> = rows.iter().copied().map(f16::from_f32).collect();
            self.gpu.queue.write_buffer(&self.caches[cache], u64::from(*page) * bytes, bytemuck::cast_slice(&halves));
        }
        self.gpu.take_errors()
    }
}
