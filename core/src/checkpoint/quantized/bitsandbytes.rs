//! bitsandbytes: 4 bits by a table (NF4, FP4), arXiv:2305.14314, and LLM.int8(), arXiv:2208.07339.

use safetensors::Dtype as Stored;
use serde_json::Value;
use tamarack_kernels::Values;

use super::foreign::Module;
use super::{Codes, Grid, Nested, Number, Offset, Order, Part, Quantized};
use crate::checkpoint::tensor::Tensor;

/// `weight` of any type, two codes a byte, the higher half first, row after row; `weight.absmax` f32, one for
/// each block, or u8 and quantized in its turn; `weight.quant_map` f32 [16]; `weight.quant_state...` JSON.
pub(super) fn four_bits(mut module: Module) -> Result<Tensor, String> {
    let weight = module.take(".weight").ok_or("expected a weight")?;
    let state = [".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4"];
    let state = state.iter().find_map(|kind| module.take(kind));
    let state = state.ok_or("expected a `weight.quant_state.bitsandbytes__nf4` or `__fp4`, found none")?;
    let state: Value = serde_json::from_slice(&state.bytes).map_err(|e| format!("quant_state is not JSON: {e}"))?;
    let number = |key: &str| state.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let shape = state.get("shape").and_then(Value::as_array);
    let shape: Option<Vec<usize>> = shape.and_then(|s| s.iter().map(|d| usize::try_from(d.as_u64()?).ok()).collect());
    let (Some(block), Some([rows, cols])) = (number("blocksize").filter(|n| *n > 0), shape.as_deref()) else {
        return Err("expected a blocksize and a shape [O, I] in quant_state".into());
    };
    let (rows, cols) = (*rows, *cols);
    let map = floats(&module.need(".weight.quant_map", &[Stored::F32])?);
    let values = [Values::Nf4, Values::BnbFp4].into_iter().find(|values| {
        map.len() == 16 && map.iter().enumerate().all(|(i, v)| (v - values.value(i as u8)).abs() <= 1e-7)
    });
    let values = values.ok_or("its quant_map is neither that of NF4 nor of FP4: use the float original")?;
    let absmax = module.need(".weight.absmax", &[Stored::F32, Stored::U8])?;
    // Blocks run over the end of rows where these are no whole number of them: such a matrix is decoded to floats.
    let flat = (!cols.is_multiple_of(block)).then_some(cols);
    let size = rows.checked_mul(cols).ok_or("is larger than memory")?;
    let counts = if flat.is_some() { (1, size.div_ceil(block)) } else { (rows, cols / block) };
    let grid = match absmax.dtype {
        Stored::U8 => {
            let map = floats(&module.need(".weight.nested_quant_map", &[Stored::F32])?);
            let scales = floats(&module.need(".weight.nested_absmax", &[Stored::F32])?);
            let count = number("nested_blocksize").ok_or("expected a nested_blocksize in quant_state")?;
            let offset = state.get("nested_offset").and_then(Value::as_f64).unwrap_or(0.0) as f32;
            let nested = Some(Nested { map, scales: (scales, count), offset });
            Grid { nested, ..Grid::new(absmax.bytes, Number::E8m0, (1, block), counts) }
        }
        _ => Grid::new(absmax.bytes, Number::F32, (1, block), counts),
    };
    let grid = Grid { flat, ..grid };
    let codes = Codes { bytes: weight.bytes, order: Order::HighFirst, bits: 4, rows, cols, flip: 0 };
    Quantized::new("bitsandbytes", codes, Some(values), grid, Offset::None, block)
        .named(&format!("{}.weight", module.path), vec![rows, cols])
}

/// `weight` i8 [O, I], `SCB` f32 [O], the largest of each row: value = q * SCB / 127.
pub(super) fn eight_bits(mut module: Module) -> Result<Tensor, String> {
    let weight = module.need(".weight", &[Stored::I8])?;
    let scales = module.need(".SCB", &[Stored::F32])?;
    if let Some(layout) = module.take(".weight_format")
        && layout.bytes.iter().any(|b| *b != 0)
    {
        return Err("expected weight_format 0, rows, of LLM.int8(): use the float original".into());
    }
    let &[rows, cols] = &weight.shape[..] else { return Err("expected a matrix".into()) };
    let codes = Codes { bytes: weight.bytes, order: Order::Rows(cols), bits: 8, rows, cols, flip: 0x80 };
    let grid = Grid::new(scales.bytes, Number::F32, (1, cols), (rows, 1));
    let quantized = Quantized::new("bitsandbytes", codes, None, grid, Offset::Centre(128.0), cols);
    Quantized { factors: vec![1.0 / 127.0], ..quantized }.named(&format!("{}.weight", module.path), vec![rows, cols])
}

fn floats(part: &Part) -> Vec<f32> {
    Number::F32.all(&part.bytes)
}
