//! The cache, read and written by the host: keys and values that are kept in files.

use super::executor::Model;
use crate::{Result, exec::PAGE};

impl Model {
    fn page_bytes(&self, cache: usize) -> u64 {
        (PAGE * self.program.caches[cache].words() * 4) as u64
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
        let (cache, words) = (self.program.caches[cache], bytemuck::pod_collect_to_vec::<u8, u32>(&read));
        let mut rows = vec![0.0; pages.len() * PAGE * cache.width()];
        let slots = rows.chunks_exact_mut(cache.width()).zip(words.chunks_exact(cache.words()));
        slots.for_each(|(slot, words)| cache.unpack(words, slot));
        Ok(rows)
    }

    /// Fills these pages.
    pub fn write_cache(&self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let (bytes, sizes) = (self.page_bytes(cache), self.program.caches[cache]);
        let mut words = vec![0; PAGE * sizes.words()];
        for (page, rows) in pages.iter().zip(rows.chunks_exact(PAGE * sizes.width())) {
            let slots = rows.chunks_exact(sizes.width()).zip(words.chunks_exact_mut(sizes.words()));
            slots.for_each(|(slot, words)| sizes.pack(slot, words));
            self.gpu.queue.write_buffer(&self.caches[cache], u64::from(*page) * bytes, bytemuck::cast_slice(&words));
        }
        self.gpu.take_errors()
    }
}
