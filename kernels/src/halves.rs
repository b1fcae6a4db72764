//! Rows as half floats, for products of cooperative matrices.

use crate::common::Lanes;
use crate::matmul::Norm;
use crate::template::{Bindings, consts, float, render};
use crate::weights::columns;
use crate::{Caps, Extent, Kernel, View};

/// Columns of a row of halves are a multiple of this; those beyond the input's are zero.
pub const PADDING: u32 = 64;

/// `halves[r] = norm(x[r]) / worths[r]`, with `worths[r]` the power of two that brings the largest
/// element of the row to between 1024 and 2048: an f16 holds neither what some models have (gemma's
/// activations pass 65504) nor small numbers exactly, and so relative to the largest element of a row
/// nothing is lost but the bits below 2^-11 of each element, or 2^-35.
///
/// Bindings: step, x, the norm's weight if there is one, halves (pairs of f16,
/// [rows, [`padded`]`(k)`]), worths (f32 \[rows\]).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Halves {
    /// Dense rows of `k`.
    pub x: View,
    /// Elements of a row.
    pub k: u32,
    /// What happens to them first.
    pub norm: Option<Norm>,
}

/// Elements of a row of halves.
pub fn padded(k: u32) -> u32 {
    k.next_multiple_of(PADDING)
}

impl Halves {
    /// One workgroup for each row.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let mut bindings = Bindings::step();
        let functions = columns(&mut bindings, "x", self.x.offset, self.x.row, self.k);
        let name = format!("halves {}{}", self.k, if self.norm.is_some() { " norm" } else { "" });
        made(caps, name, bindings, functions, self.k, self.norm, true)
    }
}

/// The kernel that makes halves of what the function `x(row, c)` gives as columns `4c .. 4c+4`; it may be asked
/// for the last ones several times. The bindings get the norm's weight, halves, and worths unless `worths` says that
/// they are there.
pub(crate) fn made(
    caps: &Caps,
    name: String,
    mut bindings: Bindings,
    mut functions: String,
    k: u32,
    norm: Option<Norm>,
    worths: bool,
) -> Kernel {
    let quads = padded(k) / 4;
    let threads = (quads / 4).next_power_of_two().clamp(32, 1024.min(caps.workgroup_size));
    let weighted = norm.is_some_and(|norm| norm.weight);
    if weighted {
        functions += &columns(&mut bindings, "gain", 0, 0, k);
    }
    bindings.write("halves", "vec2<u32>");
    if worths {
        bindings.write("worths", "f32");
    }
    let sizes = [("K", k), ("QUADS", k.div_ceil(4)), ("PADDED_QUADS", quads)];
    let gain = if weighted { " * gain(0u, min(c{{i}}, QUADS - 1u))" } else { "" };
    let mut values = Lanes { threads, lanes: threads, element: "f32" }.values(caps);
    values.extend([
        ("BINDINGS", bindings.declarations()),
        ("SIZES", consts(&sizes)),
        ("FUNCTIONS", functions),
        ("NORM", u32::from(norm.is_some()).to_string()),
        ("EPS", float(norm.map_or(0.0, |norm| norm.eps))),
        ("GAIN", gain.to_string()),
        ("PER_THREAD", quads.div_ceil(threads).to_string()),
    ]);
    let source = render(include_str!("../wgsl/halves.wgsl"), &values);
    bindings.kernel(name, source, [Extent::Rows(1), Extent::Const(1), Extent::Const(1)])
}
