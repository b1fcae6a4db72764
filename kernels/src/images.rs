//! Rows of images among those of tokens.

use crate::common::step_functions;
use crate::template::{Bindings, consts, render};
use crate::{Caps, Extent, Kernel, View, post, step};

/// Each row of x, or, where it stands for one, the row of an image.
///
/// Bindings: step, x, the rows of images (f32 [rows, dim]), out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MergeEmbeddings {
    /// Input.
    pub x: View,
    /// Output.
    pub out: View,
}

impl MergeEmbeddings {
    /// One thread per element.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let width = self.out.width();
        let threads = 256.min(caps.workgroup_size);
        let mut bindings = Bindings::step();
        bindings.read("x", "f32");
        bindings.read("images", "f32");
        bindings.write("out", "f32");
        let sizes =
            [("THREADS", threads), ("WIDTH", width), ("ROW_IMAGE", step::ROW_IMAGE), ("NO_IMAGE", step::NO_IMAGE)];
        let values = [
            ("BINDINGS", bindings.declarations()),
            ("STEP", consts(&sizes) + &step_functions()),
            ("X_AT", post::element(&self.x, "row", "column")),
            ("OUT_AT", post::element(&self.out, "row", "column")),
        ];
        let source = render(include_str!("../wgsl/merge_embeddings.wgsl"), &values);
        let grid = [Extent::Const(width.div_ceil(threads)), Extent::Rows(1), Extent::Const(1)];
        bindings.kernel(format!("merge embeddings {width}"), source, grid)
    }
}
