//! Sums over a row's own elements: means, and products of small matrices.

use crate::common::Lanes;
use crate::template::{Bindings, consts, render};
use crate::{Caps, Extent, Kernel, View, post};

/// The mean of each head of each row.
///
/// Bindings: step, x, out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mean {
    /// Input.
    pub x: View,
    /// Output: as many elements as `x` has heads.
    pub out: View,
}

impl Mean {
    /// One workgroup for each row and head.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let View { heads, dim, .. } = self.x;
        let threads = (dim / 4).next_power_of_two().clamp(32, 256.min(caps.workgroup_size));
        let mut bindings = Bindings::step();
        bindings.read("x", "f32");
        bindings.write("out", "f32");
        let mut values = Lanes { threads, lanes: threads, element: "f32" }.values(caps);
        values.extend([
            ("BINDINGS", bindings.declarations()),
            ("X_AT", post::element(&self.x, "row", "column")),
            ("OUT_AT", post::element(&self.out, "row", "group.y")),
            ("DIM", dim.to_string()),
        ]);
        let source = render(include_str!("../wgsl/mean.wgsl"), &values);
        bindings.kernel(
            format!("mean {heads}x{dim}"),
            source,
            [Extent::Rows(1), Extent::Const(heads), Extent::Const(1)],
        )
    }
}

/// Row by row a product of two small matrices, whose rows are the heads of the views.
///
/// Bindings: step, a, b, out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RowMatMul {
    /// [rows, m, k]
    pub a: View,
    /// [rows, k, n]
    pub b: View,
    /// [rows, m, n]
    pub out: View,
}

impl RowMatMul {
    /// One thread for each element of the result.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let (m, k, n) = (self.a.heads, self.a.dim, self.b.dim);
        let threads = 128.min(caps.workgroup_size);
        let mut bindings = Bindings::step();
        bindings.read("a", "f32");
        bindings.read("b", "f32");
        bindings.write("out", "f32");
        let values = [
            ("BINDINGS", bindings.declarations()),
            ("SIZES", consts(&[("THREADS", threads), ("M", m), ("K", k), ("N", n)])),
            ("A_AT", post::element(&self.a, "row", "i / N * K + j")),
            ("B_AT", post::element(&self.b, "row", "j * N + i % N")),
            ("OUT_AT", post::element(&self.out, "row", "i")),
        ];
        let source = render(include_str!("../wgsl/row_matmul.wgsl"), &values);
        let grid = [Extent::Const((m * n).div_ceil(threads)), Extent::Rows(1), Extent::Const(1)];
        bindings.kernel(format!("row matmul {m}x{k}x{n}"), source, grid)
    }
}
