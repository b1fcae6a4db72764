//! Products of each head with a matrix of its own.

use crate::template::{Bindings, consts, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Format, Kernel, View, post};

/// `out[r, h] = W[h] x[r, h]`, or with the transposed matrices `W[h]^T x[r, h]`. Rows of the matrix are `heads * n`, or
/// transposed `heads * k` of which each has `n` columns: quantized groups run along rows in both.
///
/// Bindings: step, quants, scales (an affine format), x, out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct HeadLinear {
    /// The header word of the step buffer that holds the number of rows.
    pub rows: u32,
    /// How the matrices are stored.
    pub format: Format,
    /// Whether they are multiplied by from the other side.
    pub transposed: bool,
    /// [rows, heads, k]
    pub x: View,
    /// [rows, heads, n]
    pub out: View,
}

impl HeadLinear {
    /// A workgroup for each head and `tile` rows, which share what it reads of the matrix. A thread has an element of
    /// the result, or transposed four adjacent ones.
    pub fn kernel(&self, caps: &Caps, tile: u32) -> Kernel {
        let (heads, k, n) = (self.x.heads, self.x.dim, self.out.dim);
        let columns = if self.transposed { n } else { k };
        let weights = Weights::new(self.format, columns, 16);
        let outputs = if self.transposed { n.div_ceil(4) } else { n };
        let threads = 64.min(caps.workgroup_size);
        let fours = k.div_ceil(4);
        // What does not fit into a quarter of the memory that every device has is read from where it is.
        let tile = tile.min((4096 / (fours * 16)).max(1));
        let mut bindings = Bindings::step();
        weights.bind(&mut bindings);
        bindings.read("x", "f32");
        bindings.write("out", "f32");
        let sizes = [("THREADS", threads), ("INPUTS", k), ("FOURS", fours), ("X_TILE", tile * fours), ("N", n)];
        let values = [
            ("SIZES", consts(&sizes) + &consts(&[("TILE_ROWS", tile), ("OUTPUTS_EACH", outputs)])),
            ("BINDINGS", bindings.declarations()),
            ("FUNCTIONS", weights.source()),
            ("ROWS", format!("{}u", self.rows)),
            ("X_AT", post::element(&self.x, "row", "head * INPUTS + j")),
            ("OUT_AT", post::element(&self.out, "row", "head * N + column")),
            ("TILE", tile.to_string()),
            ("PLAIN", u32::from(!self.transposed).to_string()),
            ("TRANSPOSED", u32::from(self.transposed).to_string()),
        ];
        let source = render(include_str!("../wgsl/head_linear.wgsl"), &values);
        let turned = if self.transposed { "^T" } else { "" };
        let name = format!("head linear {}{turned} {heads}x{n}x{k}", self.format);
        bindings.kernel(
            name,
            source,
            [Extent::Const(outputs.div_ceil(threads)), Extent::Rows(tile), Extent::Const(heads)],
        )
    }
}
