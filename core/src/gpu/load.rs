//! From a checkpoint to a program's weights on a device.

use super::{
    Gpu,
    weights::{DeviceMatrix, Layout, Parts, Uploader, layout},
};
use crate::{
    Result,
    checkpoint::Checkpoint,
    program::Program,
    weights::{Matrix, fold},
};
use std::collections::HashMap;
use tamarack_api::WeightId;

/// How matrices lie on the device.
pub(super) fn layouts(matrices: &HashMap<WeightId, DeviceMatrix>) -> HashMap<WeightId, Layout> {
    matrices.iter().map(|(id, matrix)| (*id, matrix.layout())).collect()
}

/// How all matrices of a program will lie there.
pub(super) fn layouts_ahead(
    gpu: &Gpu,
    program: &Program,
    checkpoint: &Checkpoint,
) -> Result<HashMap<WeightId, Layout>> {
    let of = |id| {
        let (matrix, parts) = device_form(program, id, checkpoint)?;
        Ok((id, layout(gpu, &name(program, id), &matrix, parts)?))
    };
    program.used_weights().0.into_iter().map(of).collect()
}

/// A matrix as the device gets it.
fn device_form(program: &Program, id: WeightId, checkpoint: &Checkpoint) -> Result<(Matrix, Parts)> {
    let (matrix, parts) = (fold(&program.weights, id, checkpoint)?, Parts::of(program, id));
    // Gate and up share segments, which takes one format for both.
    let matrix = if parts.share() && matrix.format_of_all().is_none() { matrix.decoded() } else { matrix };
    Ok((matrix, parts))
}

/// Matrices, vectors, and how many bytes were copied.
type Uploaded = (HashMap<WeightId, DeviceMatrix>, HashMap<WeightId, wgpu::Buffer>, u64);

/// Copies those weights that are `wanted` to the device.
pub(super) fn upload(
    gpu: &Gpu,
    program: &Program,
    checkpoint: &Checkpoint,
    wanted: &dyn Fn(WeightId) -> bool,
    report: &dyn Fn(u64),
) -> Result<Uploaded> {
    let (matrix_ids, vector_ids) = program.used_weights();
    let mut uploader = Uploader::new(gpu, report);
    let (mut matrices, mut vectors) = (HashMap::new(), HashMap::new());
    for id in matrix_ids.into_iter().filter(|id| wanted(*id)) {
        let (matrix, parts) = device_form(program, id, checkpoint)?;
        matrices.insert(id, uploader.matrix(&name(program, id), &matrix, parts)?);
    }
    for id in vector_ids.into_iter().filter(|id| wanted(*id)) {
        let values = fold(&program.weights, id, checkpoint)?.values();
        vectors.insert(id, uploader.vector(&name(program, id), &values));
    }
    uploader.flush();
    gpu.take_errors()?;
    Ok((matrices, vectors, uploader.bytes))
}

/// A weight's name in errors: its tensors, or the first of many.
fn name(program: &Program, id: WeightId) -> String {
    match program.weight_names(id)[..] {
        [first, .., last] => format!("{first}+..+{last}"),
        ref names => names.join("+"),
    }
}
