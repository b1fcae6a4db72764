//! GPTQ: `qweight` i32 [words of the inputs, O], `qzeros` i32 [groups, words of the outputs], `scales`
//! [groups, O], `g_idx` i32 [I]; value = scale * (q - zero). arXiv:2210.17323, layout as AutoGPTQ and
//! GPTQModel write it.

use safetensors::Dtype as Stored;

use super::foreign::Module;
use super::{Codes, Grid, Number, Offset, Order, Quantized, Zeros};
use crate::checkpoint::tensor::Tensor;

/// Joins the parts of a module.
pub(super) fn join(mut module: Module) -> Result<Tensor, String> {
    let layout = module.config.text("checkpoint_format").or(module.config.text("format")).unwrap_or("gptq");
    if !["gptq", "gptq_v2", "auto_round:auto_gptq"].contains(&layout) {
        let remedy = "save the model in format gptq or gptq_v2, or use the float original";
        return Err(format!("GPTQ format `{layout}` is not supported; {remedy}"));
    }
    let weight = module.need(".qweight", &[Stored::I32, Stored::U32])?;
    let scales = module.need(".scales", &[Stored::F16, Stored::BF16, Stored::F32])?;
    let zeros = module.need(".qzeros", &[Stored::I32, Stored::U32])?;
    let (&[words, rows], &[groups, _], &[_, zero_words]) = (&weight.shape[..], &scales.shape[..], &zeros.shape[..])
    else {
        return Err("expected matrices of GPTQ, found other dimensions".into());
    };
    // 32 outputs' zeros are as many words as a code has bits.
    let (count, outputs) = (zero_words.saturating_mul(32), rows.max(1));
    let bits = module.config.number("bits").filter(|b| rows.saturating_mul(*b).div_ceil(32) == zero_words);
    let bits = bits.unwrap_or(count / outputs);
    if ![2, 3, 4, 8].contains(&bits) {
        return Err(format!("expected 2, 3, 4 or 8 bits of GPTQ, found {bits}: use the float original"));
    }
    let cols = words.saturating_mul(32) / bits;
    let group = match module.config.number("group_size") {
        Some(group) if group > 0 && cols.div_ceil(group) == groups => group,
        _ => cols.div_ceil(groups.max(1)),
    };
    let order = module.take(".g_idx").map(|part| indices(&part)).transpose()?;
    if order.as_ref().is_some_and(|order| order.len() != cols) {
        return Err(format!("expected {cols} entries of g_idx"));
    }
    // Most files say that columns are in order.
    let order = order.filter(|order| order.iter().enumerate().any(|(i, g)| *g as usize != i / group));
    if order.is_some() {
        tracing::warn!("{}: columns are in the order of desc_act: the matrix takes the room of 16 bits", module.path);
    }
    let bits = bits as u8;
    let codes = Codes { bytes: weight.bytes, order: Order::Words, bits, rows, cols, flip: 0 };
    let zeros = Zeros {
        codes: Codes {
            bytes: zeros.bytes,
            order: Order::Rows(zero_words.saturating_mul(4)),
            bits,
            rows: groups,
            cols: rows,
            flip: 0,
        },
        by_group: true,
        // The first version stores one less, 0 as the largest.
        plus: if layout == "gptq_v2" { 0 } else { 1 },
        mask: (1 << bits) - 1,
    };
    let number = Number::of(scales.dtype).ok_or("expected float scales")?;
    let scales = Grid::by_group(scales.bytes, number, group, rows, groups);
    let quantized = Quantized::new("gptq", codes, None, scales, Offset::Zeros(zeros), group);
    Quantized { order, ..quantized }.named(&format!("{}.weight", module.path), vec![rows, cols])
}

/// The group of each column.
pub(super) fn indices(part: &super::Part) -> Result<Vec<u32>, String> {
    if ![Stored::I32, Stored::U32].contains(&part.dtype) {
        return Err(format!("expected g_idx as i32, found {}", part.dtype));
    }
    Ok(part.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
