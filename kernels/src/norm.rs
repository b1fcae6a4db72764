//! Norms over the last dimension.

use crate::common::Lanes;
use crate::template::{Bindings, float, render};
use crate::{Caps, Extent, Kernel, Post, View, post};

/// RMS norm or layer norm of each head of each row.
///
/// Bindings: step, x, the weight if there is one, the bias if there is one, what `post` takes, out.
#[derive(Clone, PartialEq, Debug)]
pub struct Norm {
    /// Input.
    pub x: View,
    /// Which norm.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f32,
    /// Elements of the weight, f32: 0 for none, `x.dim` for one that all heads share, or
    /// `x.heads * x.dim`.
    pub weight: u32,
    /// Whether a bias of `x.dim` f32 is added.
    pub bias: bool,
    /// What happens before the store.
    pub post: Vec<Post>,
    /// Output, as wide as `x`.
    pub out: View,
}

/// Which norm a [`Norm`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + eps)
    Rms,
    /// (x - mean(x)) / sqrt(var(x) + eps)
    Layer,
}

impl Norm {
    /// One workgroup for each row and head.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let (dim, heads) = (self.x.dim, self.x.heads);
        // Wide rows are rare and alone at decode: many threads, so that few loads wait in each.
        let threads = (dim / 4).next_power_of_two().clamp(32, 512.min(caps.workgroup_size));
        let mut bindings = Bindings::step();
        bindings.read("x", "f32");
        let (mut weight, mut bias) = (String::new(), String::new());
        if self.weight > 0 {
            bindings.read("weight", "f32");
            weight = format!("v *= weight[column % {}u];", self.weight);
        }
        if self.bias {
            bindings.read("bias", "f32");
            bias = format!("v += bias[column % {dim}u];");
        }
        post::bind(&self.post, &mut bindings);
        bindings.write("out", "f32");
        let mut values = Lanes { threads, lanes: threads, element: "f32" }.values(caps);
        values.extend([
            ("BINDINGS", bindings.declarations()),
            ("FUNCTIONS", post::FUNCTIONS.to_string()),
            ("X_AT", post::element(&self.x, "row", "column{{i}}")),
            ("OUT_AT", post::element(&self.out, "row", "column")),
            ("LAYER", u32::from(self.kind == NormKind::Layer).to_string()),
            ("EPS", float(self.eps)),
            ("WEIGHT", weight),
            ("BIAS", bias),
            ("POST", post::lines(&self.post, "row", "column")),
            ("DIM", dim.to_string()),
            ("PER_THREAD", dim.div_ceil(threads).to_string()),
        ]);
        let name = format!("{:?} norm {heads}x{dim}", self.kind).to_lowercase();
        let source = render(include_str!("../wgsl/norm.wgsl"), &values);
        bindings.kernel(name, source, [Extent::Rows(1), Extent::Const(heads), Extent::Const(1)])
    }
}
