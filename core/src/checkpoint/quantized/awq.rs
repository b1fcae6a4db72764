//! AWQ, as AutoAWQ's `gemm` writes it: `qweight` i32 [I, O/8], `qzeros` i32 [groups, O/8], `scales` f16
//! [groups, O]; value = scale * (q - zero). arXiv:2306.00978.

use safetensors::Dtype as Stored;

use super::foreign::Module;
use super::{Codes, Grid, Number, Offset, Order, Quantized, Zeros};
use crate::checkpoint::tensor::Tensor;

/// Joins the parts of a module.
pub(super) fn join(mut module: Module) -> Result<Tensor, String> {
    let remedy = "save the model as version gemm, or use the float original";
    let version = module.config.text("version").unwrap_or("gemm").to_lowercase();
    if version != "gemm" {
        return Err(format!("AWQ version `{version}` is not supported; {remedy}"));
    }
    let weight = module.need(".qweight", &[Stored::I32, Stored::U32])?;
    let scales = module.need(".scales", &[Stored::F16, Stored::BF16, Stored::F32])?;
    let zeros = module.take(".qzeros");
    let (&[cols, words], &[groups, rows]) = (&weight.shape[..], &scales.shape[..]) else {
        return Err("expected matrices of AWQ, found other dimensions".into());
    };
    if words.checked_mul(8) != Some(rows) || groups == 0 || !cols.is_multiple_of(groups) {
        let (q, s) = (&weight.shape, &scales.shape);
        return Err(format!("qweight {q:?} and scales {s:?} are not of AWQ's version gemm in 4 bits; {remedy}"));
    }
    let group = cols / groups;
    let codes = |bytes, cols| Codes { bytes, order: Order::Awq, bits: 4, rows, cols, flip: 0 };
    let offset = match zeros {
        Some(zeros) => {
            Offset::Zeros(Zeros { codes: codes(zeros.bytes, groups), by_group: false, run: 1, plus: 0, mask: 15 })
        }
        None => Offset::Centre(8.0),
    };
    let number = Number::of(scales.dtype).ok_or("expected float scales")?;
    let scales = Grid::by_group(scales.bytes, number, group, rows, groups);
    Quantized::new("awq", codes(weight.bytes, cols), None, scales, offset, group)
        .named(&format!("{}.weight", module.path), vec![rows, cols])
}
