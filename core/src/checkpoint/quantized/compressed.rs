//! compressed-tensors, as llm-compressor writes it: `weight_packed` with `weight_scale`, and ModelOpt's NVFP4.
//! What is not packed is in `scaled_bytes`.

use safetensors::Dtype as Stored;
use tamarack_kernels::Values;

use super::foreign::Module;
use super::{Codes, Grid, Number, Offset, Order, Part, Quantized, Zeros, gptq};
use crate::checkpoint::tensor::Tensor;

/// Joins the parts of a module: words are whole numbers, bytes are FP4.
pub(super) fn join(mut module: Module) -> Result<Tensor, String> {
    let packed = module.need(".weight_packed", &[Stored::I32, Stored::U32, Stored::U8])?;
    if packed.dtype != Stored::U8 {
        return integers(module, packed);
    }
    let scales = module.need(".weight_scale", &[Stored::U8, Stored::F8_E4M3, Stored::F8_E8M0])?;
    let global = module.take(".weight_global_scale");
    if scales.dtype != Stored::F8_E4M3 {
        return fp4(module, packed, scales, Number::E8m0, vec![1.0]);
    }
    let global = global.ok_or("expected a `weight_global_scale` beside scales of 8 bits, found none")?;
    let factors = numbers(&global)?.into_iter().map(|v| 1.0 / v).collect();
    fp4(module, packed, scales, Number::E4m3, factors)
}

/// ModelOpt's NVFP4: `weight` u8, `weight_scale` e4m3, `weight_scale_2` f32, which is multiplied.
pub(super) fn modelopt(mut module: Module) -> Result<Tensor, String> {
    let packed = module.need(".weight", &[Stored::U8])?;
    let scales = module.need(".weight_scale", &[Stored::F8_E4M3])?;
    let global = module.need(".weight_scale_2", &[Stored::F32, Stored::F16, Stored::BF16])?;
    let factors = numbers(&global)?;
    fp4(module, packed, scales, Number::E4m3, factors)
}

fn numbers(part: &Part) -> Result<Vec<f32>, String> {
    let number = Number::of(part.dtype).ok_or("expected a float global scale")?;
    Ok(number.all(&part.bytes))
}

/// Two codes of E2M1 a byte, the lower half first.
fn fp4(module: Module, packed: Part, scales: Part, number: Number, factors: Vec<f32>) -> Result<Tensor, String> {
    let (Some((&bytes, lead)), Some((&groups, outer))) = (packed.shape.split_last(), scales.shape.split_last()) else {
        return Err("expected a matrix".into());
    };
    let (rows, cols) = (lead.iter().try_fold(1usize, |n, d| n.checked_mul(*d)), bytes.checked_mul(2));
    let (Some(rows), Some(cols), true) = (rows, cols, lead == outer && groups > 0) else {
        return Err(format!("weight {:?} and scales {:?} do not fit", packed.shape, scales.shape));
    };
    let (method, group) = if number == Number::E4m3 { ("nvfp4", 16) } else { ("mxfp4", 32) };
    let codes = Codes { bytes: packed.bytes, order: Order::Rows(bytes), bits: 4, rows, cols, flip: 0 };
    let grid = Grid::new(scales.bytes, number, (1, group), (rows, groups));
    let shape = lead.iter().copied().chain([cols]).collect();
    let quantized = Quantized::new(method, codes, Some(Values::E2m1), grid, Offset::None, group);
    Quantized { factors, ..quantized }.named(&format!("{}.weight", module.path), shape)
}

/// `weight_packed` i32 [O, words], codes that count from -2^(b-1) as ours from 0; `weight_shape` says I;
/// `weight_scale` [O, groups] or one number; `weight_zero_point` i32 [words of the outputs, groups] or i8 like the scales.
fn integers(mut module: Module, packed: Part) -> Result<Tensor, String> {
    let scales = module.need(".weight_scale", &[Stored::F16, Stored::BF16, Stored::F32])?;
    let logical = module.need(".weight_shape", &[Stored::I64, Stored::I32])?;
    let zeros = module.take(".weight_zero_point");
    let size = if logical.dtype == Stored::I64 { 8 } else { 4 };
    let dims: Vec<usize> = logical.bytes.chunks_exact(size).map(little_endian).collect();
    let (&[rows, cols], &[_, words]) = (&dims[..], &packed.shape[..]) else {
        return Err(format!("expected matrices, found {:?} of {dims:?}", packed.shape));
    };
    let (scale_rows, groups) = match scales.shape[..] {
        [] | [1] => (1, 1),
        [scale_rows] => (scale_rows, 1),
        [scale_rows, groups] => (scale_rows, groups),
        _ => return Err(format!("expected scales of a matrix, found {:?}", scales.shape)),
    };
    if scale_rows != rows && scale_rows != 1 {
        return Err(format!("expected scales for 1 or {rows} rows, found {:?}", scales.shape));
    }
    let run = rows / scale_rows.max(1);
    let fits = |b: &u8| cols.checked_mul(usize::from(*b)).map(|b| b.div_ceil(32)) == Some(words);
    let said = module.config.weights("num_bits").and_then(|b| u8::try_from(b).ok()).filter(fits);
    let bits = said.or((1..=8).find(fits)).ok_or_else(|| format!("{cols} columns do not fit {words} words"))?;
    if ![2, 3, 4, 5, 6, 8].contains(&bits) {
        return Err(format!("expected 2, 3, 4, 5, 6 or 8 bits, found {bits}: use the float original"));
    }
    let group = match module.config.weights("group_size") {
        Some(group) if group > 0 && cols.div_ceil(group) == groups => group,
        _ => cols.div_ceil(groups.max(1)),
    };
    let centre = 1u16 << (bits - 1);
    let offset = match zeros {
        None => Offset::Centre(f32::from(centre)),
        Some(part) if part.dtype == Stored::I8 => {
            Offset::Zeros(bytes_of_zeros(part, (scale_rows, groups), run, centre.wrapping_sub(128)))
        }
        Some(part) => {
            let codes = Codes { bytes: part.bytes, order: Order::Words, bits, rows: groups, cols: rows, flip: 0 };
            Offset::Zeros(Zeros { codes, by_group: true, run: 1, plus: 0, mask: u16::MAX })
        }
    };
    let order = module.take(".weight_g_idx").map(|part| gptq::indices(&part)).transpose()?;
    let order = order.filter(|order| order.iter().enumerate().any(|(i, g)| *g as usize != i / group));
    if order.as_ref().is_some_and(|order| order.len() != cols) {
        return Err(format!("expected {cols} entries of weight_g_idx"));
    }
    let number = Number::of(scales.dtype).ok_or("expected float scales")?;
    let stride = words.checked_mul(4).ok_or("is larger than memory")?;
    let codes = Codes { bytes: packed.bytes, order: Order::Rows(stride), bits, rows, cols, flip: 0 };
    let grid = Grid::new(scales.bytes, number, (run, group), (scale_rows, groups));
    let quantized = Quantized::new("compressed-tensors", codes, None, grid, offset, group);
    Quantized { order, ..quantized }.named(&format!("{}.weight", module.path), vec![rows, cols])
}

/// Zero points of one byte each, laid out as the scales are: [rows, groups], each for a `run` of rows. `plus` takes them to where
/// codes count from.
pub(super) fn bytes_of_zeros(part: Part, (rows, groups): (usize, usize), run: usize, plus: u16) -> Zeros {
    let codes = Codes { bytes: part.bytes, order: Order::Rows(groups), bits: 8, rows, cols: groups, flip: 0x80 };
    Zeros { codes, by_group: false, run, plus, mask: u16::MAX }
}

fn little_endian(bytes: &[u8]) -> usize {
    let value = bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    usize::try_from(value).unwrap_or(usize::MAX)
}
