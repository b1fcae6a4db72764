//! The cache, read and written by the host: keys and values that are kept in files.

use super::executor::Model;
use crate::{Result, exec::PAGE};
use std::ops::Range;

impl Model {
    /// Which bytes of a cache a page has.
    fn bytes_of(&self, cache: usize, page: u32) -> Range<u64> {
        let slot = |i: usize| self.program.caches[cache].place(page as usize * PAGE + i).0;
        slot(0).start as u64 * 4..slot(PAGE - 1).end as u64 * 4
    }

    /// What these pages hold.
    pub fn read_cache(&self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        let bytes: Vec<Range<u64>> = pages.iter().map(|page| self.bytes_of(cache, *page)).collect();
        let all: u64 = bytes.iter().map(|b| b.end - b.start).sum();
        let staging = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("pages"),
            size: all.max(16),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut to = 0;
        for from in bytes {
            let size = from.end - from.start;
            encoder.copy_buffer_to_buffer(&self.caches[cache], from.start, &staging, to, size);
            to += size;
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        let mut read = self.gpu.map(&staging, submission)?;
        read.truncate(all as usize);
        self.gpu.take_errors()?;
        let (sizes, words) = (self.program.caches[cache], bytemuck::pod_collect_to_vec::<u8, u32>(&read));
        let (mut words, mut rows) = (&words[..], vec![0.0; pages.len() * PAGE * sizes.width()]);
        for (page, rows) in pages.iter().zip(rows.chunks_exact_mut(PAGE * sizes.width())) {
            let form = sizes.place(*page as usize * PAGE).1;
            let (own, rest) = words.split_at(PAGE * form.words());
            let slots = rows.chunks_exact_mut(sizes.width()).zip(own.chunks_exact(form.words()));
            slots.for_each(|(slot, words)| form.unpack(words, slot));
            words = rest;
        }
        Ok(rows)
    }

    /// Fills these pages.
    pub fn write_cache(&self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let sizes = self.program.caches[cache];
        for (page, rows) in pages.iter().zip(rows.chunks_exact(PAGE * sizes.width())) {
            let form = sizes.place(*page as usize * PAGE).1;
            let mut words = vec![0; PAGE * form.words()];
            let slots = rows.chunks_exact(sizes.width()).zip(words.chunks_exact_mut(form.words()));
            slots.for_each(|(slot, words)| form.pack(slot, words));
            let at = self.bytes_of(cache, *page).start;
            self.gpu.queue.write_buffer(&self.caches[cache], at, bytemuck::cast_slice(&words));
        }
        self.gpu.take_errors()
    }
}
