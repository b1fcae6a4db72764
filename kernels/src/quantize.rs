//! Quantizing a matrix on the device.

use crate::template::{Bindings, consts, render};
use crate::{Extent, Format, Kernel, Scales};

/// Invocations of a workgroup, each of which takes one group of columns.
const THREADS: u32 = 64;

/// Rows of floats to `Affine` of `bits` and `group`, scales in f16, as MLX does it.
///
/// Bindings: 0 two words, how many rows there are and which row of the output the first becomes; the
/// rows; quants; scales.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quantize {
    /// How the rows are stored: a dense format.
    pub from: Format,
    /// Columns, a multiple of `group`.
    pub cols: u32,
    /// 4 or 8.
    pub bits: u8,
    /// 32, 64 or 128.
    pub group: u16,
}

impl Quantize {
    /// What the rows become.
    pub fn to(&self) -> Format {
        Format::Affine { bits: self.bits, group: self.group, scales: Scales::F16 }
    }
}

/// The kernel for up to `rows` rows.
pub fn quantize(spec: &Quantize, rows: u32) -> Kernel {
    let mut bindings = Bindings::step();
    bindings.read("source", "u32");
    bindings.write("quants", "u32");
    bindings.write("scales", "u32");
    let groups = spec.cols / u32::from(spec.group);
    let sizes = [
        ("COLS", spec.cols),
        ("GROUP", spec.group.into()),
        ("GROUPS", groups),
        ("BITS", spec.bits.into()),
        ("PER_WORD", 32 / u32::from(spec.bits)),
        ("THREADS", THREADS),
    ];
    let element = match spec.from {
        Format::F16 => "unpack2x16float(source[i / 2u])[i % 2u]",
        Format::Bf16 => "bitcast<f32>((source[i / 2u] >> (16u * (i % 2u))) << 16u)",
        _ => "bitcast<f32>(source[i])",
    };
    let values = [
        ("SIZES", consts(&sizes)),
        ("BINDINGS", bindings.declarations()),
        ("ELEMENT", element.to_string()),
        ("MOST", ((1u32 << spec.bits) - 1).to_string()),
    ];
    let source = render(include_str!("../wgsl/quantize.wgsl"), &values);
    let workgroups = (rows * groups).div_ceil(THREADS);
    let across = workgroups.clamp(1, 32_768);
    let name = format!("quantize {} to {} {rows}x{}", spec.from, spec.to(), spec.cols);
    let grid = [Extent::Const(across), Extent::Const(workgroups.div_ceil(across)), Extent::Const(1)];
    bindings.kernel(name, source, grid)
}
