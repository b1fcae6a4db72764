//! The tower of a vision-language model: a model of its own on the same device, whose rows go where the text model's steps
//! find them. They never leave the device.

use super::{WgpuExecutor, executor::DISPATCHES, phase::Emitter, step::step_words};
use crate::{
    Error, Result,
    exec::{Executor, ImagePatches},
    program::{NodeId, Op, plan::dense},
};
use std::ops::Range;
use tamarack_api::Sym;
use tamarack_kernels::images::MergeEmbeddings;

impl WgpuExecutor {
    /// With a tower that was loaded on the same device.
    ///
    /// # Errors
    /// The tower makes rows of another width than the text model's, or does not end in a result of its own.
    pub fn with_tower(mut self, tower: WgpuExecutor) -> Result<WgpuExecutor> {
        let width = tower.vocabulary();
        self.model.program.check_tower(width)?;
        tower.output_buffer()?;
        self.model.images = self.model.gpu.buffer("images", (tower.capacity().outputs * width * 4) as u64);
        self.model.gpu.take_errors()?;
        self.tower = Some(Box::new(tower));
        Ok(self)
    }

    /// Where a tower's rows are, without gaps.
    fn output_buffer(&self) -> Result<&wgpu::Buffer> {
        let (program, plan) = (&self.model.program, &self.model.plan);
        let place = plan.places[program.output].filter(|p| p.view == dense(&program.dims(program.output)));
        let place = place.ok_or_else(|| {
            Error::Model(format!("{}: a tower has to end in a result of its own", program.nodes[program.output].place))
        })?;
        Ok(&self.model.activations[place.buffer])
    }

    /// Computes an image's rows and copies them to `at` of `images`.
    fn run_tower(&mut self, image: &ImagePatches, images: &wgpu::Buffer, at: usize) -> Result<()> {
        let step = image.step();
        let (kind, splits) = self.begin(&step)?;
        let (model, gpu) = (&self.model, &self.model.gpu);
        if model.program.caches.iter().any(|c| c.windowed) {
            let windows = image.windows_step();
            windows.check(&self.capacity(), usize::MAX)?;
            gpu.queue.write_buffer(&model.windows, 0, bytemuck::cast_slice(&step_words(&windows, splits, 0)));
        }
        for (node, place) in model.program.nodes.iter().zip(&model.plan.places) {
            let values = match &node.op {
                Op::Patches => Some(&image.pixels),
                Op::PatchInput(name) => image.inputs.get(name),
                _ => None,
            };
            if let (Some(values), Some(place)) = (values, place) {
                let values = image.ordered(values);
                gpu.queue.write_buffer(&model.activations[place.buffer], 0, bytemuck::cast_slice(&values));
            }
        }
        for dispatches in self.phases[&kind].chunks(DISPATCHES) {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for d in dispatches {
                d.record(&mut pass, d.rows_of(&step), splits);
            }
            drop(pass);
            gpu.queue.submit([encoder.finish()]);
        }
        let row = self.vocabulary() as u64 * 4;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let bytes = image.tokens as u64 * row;
        encoder.copy_buffer_to_buffer(self.output_buffer()?, 0, images, at as u64 * row, bytes);
        gpu.queue.submit([encoder.finish()]);
        gpu.take_errors()
    }

    pub(super) fn tower_see(&mut self, image: &ImagePatches, at: usize) -> Result<()> {
        let images = self.model.images.clone();
        let tower = self.tower.as_mut().ok_or_else(|| Error::Request("the model takes no images".to_owned()))?;
        tower.run_tower(image, &images, at)
    }

    pub(super) fn read_images(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let (gpu, row) = (&self.model.gpu, self.tower.as_ref().map_or(0, |t| t.vocabulary()) as u64 * 4);
        let bytes = rows.len() as u64 * row;
        let staging = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("rows of images"),
            size: bytes.max(16),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.model.images, rows.start as u64 * row, &staging, 0, bytes);
        let submission = gpu.queue.submit([encoder.finish()]);
        let mut read = gpu.map(&staging, submission)?;
        read.truncate(bytes as usize);
        Ok(bytemuck::pod_collect_to_vec(&read))
    }
}

impl Emitter<'_> {
    /// Rows of images in place of their tokens', or a part of them added.
    pub(super) fn merge_embeddings(&mut self, id: NodeId, added: Option<usize>) -> Result<()> {
        let (model, out) = (self.model, self.place(id)?);
        let x = self.place(model.program.nodes[id].inputs[0])?;
        let row = model.program.image_width().unwrap_or(0) as u32;
        let first = added.unwrap_or(0) as u32 * out.view.width();
        let merge = MergeEmbeddings { row, first, add: added.is_some(), x: x.view, out: out.view };
        let kernel = merge.kernel(&model.gpu.caps);
        self.push(kernel, Sym::Tokens, vec![self.buffer(x), &model.images, self.buffer(out)]);
        Ok(())
    }
}
