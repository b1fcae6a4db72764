//! GPTQ: `qweight` i32 [words of the inputs, O], `qzeros` i32 [groups, words of the outputs], `scales`
//! [groups, O], `g_idx` i32 [I]; value = scale * (q - zero). arXiv:2210.17323, layout as AutoGPTQ and
//! GPTQModel write it.

use safetensors::Dtype as Stored;

use super::foreign::{Config, Module};
use super::{Codes, Grid, Number, Offset, Order, Quantized, Zeros};
use crate::checkpoint::tensor::Tensor;

/// Joins the parts of a module.
pub(super) fn join(mut module: Module) -> Result<Tensor, String> {
    let plus = stored_less(module.config)?;
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
        run: 1,
        plus,
        mask: (1 << bits) - 1,
    };
    let offset = match is_symmetric(module.config, &zeros) {
        true => Offset::Centre(f32::from(1u16 << (bits - 1))),
        false => Offset::Zeros(zeros),
    };
    let number = Number::of(scales.dtype).ok_or("expected float scales")?;
    let scales = Grid::by_group(scales.bytes, number, group, rows, groups);
    let quantized = Quantized::new("gptq", codes, None, scales, offset, group);
    Quantized { order, ..quantized }.named(&format!("{}.weight", module.path), vec![rows, cols])
}

/// By how much zeros are larger than what is stored. The first version of the format stores one less, 0 as the largest. The second one
/// does not, nor do two of AutoRound's packings: GPTQ_FORMAT_NO_ZP in auto_round/inference/backend.py, whose convert_model.py
/// says what the others stand for.
fn stored_less(config: Config) -> Result<u16, String> {
    if config.is_auto_round() {
        let packing = config.text("packing_format").unwrap_or("auto").to_lowercase();
        return match packing.as_str() {
            "auto_round" | "auto_round:gptqmodel" => Ok(0),
            "auto" | "auto_round:gptq" | "auto_round:auto_gptq" | "auto_gptq" | "gptq" => Ok(1),
            _ => Err(format!(
                "AutoRound's packing `{packing}` is not supported for qweight; save the model in format auto_round or auto_gptq"
            )),
        };
    }
    let layout = config.text("checkpoint_format").or(config.text("format")).unwrap_or("gptq").to_lowercase();
    match layout.as_str() {
        "gptq" | "auto_round:auto_gptq" => Ok(1),
        "gptq_v2" => Ok(0),
        _ => {
            let remedy = "save the model in format gptq or gptq_v2, or use the float original";
            Err(format!("GPTQ format `{layout}` is not supported; {remedy}"))
        }
    }
}

/// Whether the zeros are the middle of the codes because the configuration says `sym`, whichever format it names. Some files store the middle
/// under the name of the first format; kernels that go by `sym` read no zeros and are right for them, those that add one are not
/// (<https://github.com/vllm-project/vllm/issues/38966>). A file whose zeros are neither is read as it is: the first group shows it.
fn is_symmetric(config: Config, zeros: &Zeros) -> bool {
    let (codes, middle) = (&zeros.codes, 1u8 << (zeros.codes.bits - 1));
    let all = |zero: u8| (0..codes.cols).all(|output| codes.get(0, output) == zero);
    config.flag("sym") == Some(true) && codes.fit() && codes.rows > 0 && (all(middle) || all(middle - 1))
}

/// The group of each column.
pub(super) fn indices(part: &super::Part) -> Result<Vec<u32>, String> {
    if ![Stored::I32, Stored::U32].contains(&part.dtype) {
        return Err(format!("expected g_idx as i32, found {}", part.dtype));
    }
    Ok(part.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
