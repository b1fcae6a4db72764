//! Rows of images among those of tokens.

use crate::common::step_functions;
use crate::template::{Bindings, consts, render};
use crate::{Caps, Extent, Kernel, View, post, step};

/// Each row of x, and, where it stands for one, the row of an image in its place or added to it.
///
/// Bindings: step, x, the rows of images (f32 [rows, `row`]), out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MergeEmbeddings {
    /// Elements in a row of an image.
    pub row: u32,
    /// The first of them that is taken.
    pub first: u32,
    /// Whether they are added.
    pub add: bool,
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
        let x = post::element(&self.x, "row", "column");
        let values = [
            ("ROW", format!("{}u", self.row)),
            ("FIRST", format!("{}u", self.first)),
            ("BESIDE", if self.add { format!("x[{x}] + ") } else { String::new() }),
            ("BINDINGS", bindings.declarations()),
            ("STEP", consts(&sizes) + &step_functions()),
            ("X_AT", x),
            ("OUT_AT", post::element(&self.out, "row", "column")),
        ];
        let source = render(include_str!("../wgsl/merge_embeddings.wgsl"), &values);
        let grid = [Extent::Const(width.div_ceil(threads)), Extent::Rows(1), Extent::Const(1)];
        bindings.kernel(format!("{} embeddings {width}", if self.add { "add" } else { "merge" }), source, grid)
    }
}
