//! Bytes with scales: fp8 in blocks (DeepSeek), channels or whole (compressed-tensors, ModelOpt),
//! mxfp8, int8, and gpt-oss's mxfp4. "inv" in `weight_scale_inv` is a name only: all are multiplied.

use safetensors::Dtype as Stored;
use tamarack_kernels::Values;

use super::compressed::bytes_of_zeros;
use super::foreign::Module;
use super::{Codes, Grid, Number, Offset, Order, Part, Quantized};
use crate::checkpoint::tensor::Tensor;

const SCALES: [Stored; 5] = [Stored::F32, Stored::F16, Stored::BF16, Stored::F8_E8M0, Stored::U8];

/// `weight` F8_E4M3 [.., O, I], `weight_scale_inv` or `weight_scale`: one number, one for each row, for each
/// block of rows and columns, or for each group of a row.
pub(super) fn floats(mut module: Module) -> Result<Tensor, String> {
    let weight = module.need(".weight", &[Stored::F8_E4M3])?;
    let name = if module.has(".weight_scale_inv") { ".weight_scale_inv" } else { ".weight_scale" };
    let scales = module.need(name, &SCALES)?;
    bytes(module, weight, scales, "fp8", Some(Values::E4m3))
}

/// `weight` i8 [O, I], `weight_scale` one number, one for each row or for each group of a row; `weight_zero_point` i8 like the scales,
/// which is subtracted.
pub(super) fn integers(mut module: Module) -> Result<Tensor, String> {
    let weight = module.need(".weight", &[Stored::I8])?;
    let scales = module.need(".weight_scale", &SCALES[..3])?;
    bytes(module, weight, scales, "int8", None)
}

fn bytes(
    mut module: Module,
    weight: Part,
    scales: Part,
    method: &'static str,
    values: Option<Values>,
) -> Result<Tensor, String> {
    let Some((&cols, lead)) = weight.shape.split_last() else { return Err("expected a matrix".into()) };
    let rows = lead.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or("is larger than memory")?;
    let last = lead.last().copied().unwrap_or(1);
    let (counts, block) = blocks(&module, &scales.shape, rows, last, cols).ok_or_else(|| {
        let (w, s) = (&weight.shape, &scales.shape);
        format!("scales {s:?} do not fit blocks of the weight {w:?}; config.json's weight_block_size says their size")
    })?;
    let number = Number::of(scales.dtype).ok_or("expected scales that are numbers")?;
    let (flip, offset) = match (values, module.take(".weight_zero_point")) {
        (Some(_), _) => (0, Offset::None),
        (None, None) => (0x80, Offset::Centre(128.0)),
        (None, Some(zeros)) if zeros.dtype == Stored::I8 => {
            (0x80, Offset::Zeros(bytes_of_zeros(zeros, counts, block.0, 0)))
        }
        (None, Some(zeros)) => return Err(format!("expected a weight_zero_point of type I8, found {}", zeros.dtype)),
    };
    let codes = Codes { bytes: weight.bytes, order: Order::Rows(cols), bits: 8, rows, cols, flip };
    let grid = Grid::new(scales.bytes, number, block, counts);
    Quantized::new(method, codes, values, grid, offset, block.1)
        .named(&format!("{}.weight", module.path), weight.shape.clone())
}

/// How many blocks of rows and of columns there are, and their size.
fn blocks(
    module: &Module,
    scales: &[usize],
    rows: usize,
    last: usize,
    cols: usize,
) -> Option<((usize, usize), (usize, usize))> {
    let counts = match scales.split_last() {
        None => (1, 1),
        Some((&n, [])) => (n, 1),
        Some((&n, lead)) => (lead.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?, n),
    };
    let group = module.config.weights("group_size").map(|group| (0, group));
    let said = module.config.block().or(group);
    let size = |count: usize, of: usize, said: Option<usize>| match count {
        0 => None,
        1 => Some(of),
        n if n == of => Some(1),
        // A power of two is sure: blocks twice that would be fewer, and others of no such size.
        n => said
            .filter(|size| *size > 0 && of.div_ceil(*size) == n)
            .or_else(|| (of.is_multiple_of(n) && (of / n).is_power_of_two()).then_some(of / n)),
    };
    let experts = rows / last.max(1);
    let row = match experts {
        0 | 1 => size(counts.0, rows, said.map(|s| s.0))?,
        // Each expert has its own blocks of rows: whole ones, or they would straddle two.
        n => size(counts.0 / n, last, said.map(|s| s.0)).filter(|size| last.is_multiple_of(*size))?,
    };
    Some((counts, (row, size(counts.1, cols, said.map(|s| s.1))?)))
}

/// gpt-oss: `X_blocks` u8 [E, O, groups, 16], the lower half of a byte first, `X_scales` u8 [E, O, groups].
pub(super) fn gpt_oss(mut module: Module) -> Result<Tensor, String> {
    let weight = module.need("_blocks", &[Stored::U8])?;
    let scales = module.need("_scales", &[Stored::U8])?;
    let (Some((&16, lead)), Some((&groups, outer))) = (weight.shape.split_last(), scales.shape.split_last()) else {
        return Err(format!("expected blocks of 16 bytes, found {:?}", weight.shape));
    };
    let (rows, cols) = (outer.iter().try_fold(1usize, |n, d| n.checked_mul(*d)), groups.checked_mul(32));
    let (Some(rows), Some(cols), true) = (rows, cols, lead == scales.shape) else {
        return Err(format!("blocks {:?} and scales {:?} do not fit", weight.shape, scales.shape));
    };
    let shape = outer.iter().copied().chain([cols]).collect();
    let order = Order::Rows(cols / 2);
    let codes = Codes { bytes: weight.bytes, order, bits: 4, rows, cols, flip: 0 };
    let grid = Grid::new(scales.bytes, Number::E8m0, (1, 32), (rows, groups));
    Quantized::new("mxfp4", codes, Some(Values::E2m1), grid, Offset::None, 32).named(module.path, shape)
}
