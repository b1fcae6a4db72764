//! A matrix times one row, a few rows, or many.

mod cooperative;
mod integer;
mod row;
mod tiled;
mod tiled_integer;
mod vector;

pub use cooperative::{
    CooperativeTile, cooperative, cooperative_next, cooperative_next_with, cooperative_with, partial_words,
};
pub use integer::{IntegerTuning, Precision, integer, integer_with};
pub use row::{Row, RowTuning};
pub use tiled::{Tile, tiled, tiled_for, tiled_with};
pub use tiled_integer::{tiled_integer, tiled_integer_with};
pub use vector::{Tuning, vector, vector_with};
pub(crate) use vector::{reduction, usable_subgroups};

use crate::template::{Bindings, consts, render};
use crate::weights::{Weights, columns};
use crate::{Activation, Caps, Format, Kernel, Post, View, post};

/// `y[r, first + i] = post(glu(norm(x[r]) · W[i] + bias))` for `i` in `0..n`.
///
/// Bindings: 0 the step, x, quants, scales (an affine format), norm weight (f32 `[k]`), bias, one for
/// each `Post::Add` and `Post::Mul` in order, out. Inputs never share a buffer with `out`. Buffers
/// are bound whole and are whole 16-byte vectors.
#[derive(Clone, PartialEq, Debug)]
pub struct MatMul {
    /// The header word of the step buffer that holds the number of rows: [`crate::step::TOKENS`] or
    /// [`crate::step::OUTPUTS`].
    pub rows: u32,
    /// Outputs of this dispatch. The weight has `n` rows; with `glu` 2n, first all gates, then all ups.
    pub n: u32,
    /// Columns of the weight, a multiple of [`Format::block`].
    pub k: u32,
    /// How the weight is stored.
    pub format: Format,
    /// Dense rows of `k`.
    pub x: View,
    /// Norm of x on the way in.
    pub norm: Option<Norm>,
    /// Whether there is a bias: f32, as long as the whole output (`out.width()`), indexed from
    /// `first`; with `glu` the gates' biases and then, as many, the ups'.
    pub bias: bool,
    /// `f(gate) * up`.
    pub glu: Option<Activation>,
    /// What then happens to each output.
    pub post: Vec<Post>,
    /// Column of the first output: a weight that is split by rows over several buffers takes several
    /// dispatches into one output.
    pub first: u32,
    /// Where the whole output goes.
    pub out: View,
}

/// `x * weight / sqrt(mean(x^2) + eps)`, arXiv:1910.07467.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    /// Added to the mean.
    pub eps: f32,
    /// Whether there is a weight.
    pub weight: bool,
}

/// A kernel, and in words how it shares out its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// For logs.
    pub tuning: String,
    /// One of several that compute the same.
    pub kernel: Kernel,
}

/// For steps of up to `rows` rows, 1 to 8: in integers where the weights are quantized and `precision`
/// allows it, else in floats.
pub fn few_rows(spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> Kernel {
    integer(spec, caps, rows, precision).unwrap_or_else(|| vector(spec, caps, rows))
}

/// For steps of more rows, by the same rule. The host runs a norm apart: `spec.norm` is none.
pub fn many_rows(spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> Kernel {
    tiled_integer(spec, caps, rows, precision).unwrap_or_else(|| tiled_for(spec, caps, rows))
}

/// [`few_rows`] in several ways, for a search over what a device does best; the default is the first.
pub fn candidates(spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> Vec<Candidate> {
    let integers = IntegerTuning::candidates(spec, caps, rows).into_iter().filter_map(|t| {
        let kernel = integer_with(spec, caps, rows, precision, t)?;
        Some(Candidate { tuning: format!("{t:?}"), kernel })
    });
    let integers: Vec<_> = integers.collect();
    if !integers.is_empty() {
        return integers;
    }
    let floats = Tuning::candidates(spec, caps, rows);
    floats
        .into_iter()
        .map(|t| Candidate { tuning: format!("{t:?}"), kernel: vector_with(spec, caps, rows, t) })
        .collect()
}

/// [`many_rows`] in both ways, if there are two: which of them wins depends on how fast a device is at integers.
pub fn many_candidates(spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> Vec<Candidate> {
    let integers = tiled_integer(spec, caps, rows, precision);
    let floats = integers.is_some().then(|| tiled_for(spec, caps, rows));
    let named = |kernel: Kernel| Candidate { tuning: kernel.name.clone(), kernel };
    integers.into_iter().chain(floats).map(named).collect()
}

impl MatMul {
    /// Rows of the weight for each output.
    fn matrices(&self) -> u32 {
        if self.glu.is_some() { 2 } else { 1 }
    }

    /// `matvec affine4 g32 6144x4096`, followed by what is fused.
    fn name(&self, kind: &str) -> String {
        let marks = [
            (self.norm.is_some(), " norm"),
            (self.bias, " bias"),
            (self.glu.is_some(), " glu"),
            (!self.post.is_empty(), " post"),
        ];
        let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        format!("{kind} {} {}x{}{marks}", self.format, self.n * self.matrices(), self.k)
    }

    /// The bindings, and the functions `x`, `gain`, those of `weights`, `finish` and `add_dot`.
    fn parts(&self, weights: &Weights) -> (Bindings, String) {
        let mut bindings = Bindings::step();
        let mut functions = columns(&mut bindings, "x", self.x.offset, self.x.row, self.k);
        weights.bind(&mut bindings);
        functions += &weights.source();
        if self.norm.is_some_and(|norm| norm.weight) {
            functions += &columns(&mut bindings, "gain", 0, 0, self.k);
        }
        if self.bias {
            bindings.read("bias", "f32");
        }
        post::bind(&self.post, &mut bindings);
        bindings.write("out", "f32");
        functions += post::FUNCTIONS;
        (bindings, functions + &self.common())
    }

    fn common(&self) -> String {
        let mut lines = String::new();
        if self.bias {
            lines += "v += bias[column];\n";
        }
        if let Some(f) = self.glu {
            let bias = if self.bias { format!(" + bias[{}u + column]", self.out.width()) } else { String::new() };
            lines += &format!("v = {} * (b{bias});\n", post::activation(f, "v"));
        }
        lines += &post::lines(&self.post, "row", "column");
        let values =
            [("FIRST", self.first.to_string()), ("LINES", lines), ("OUT", post::element(&self.out, "row", "column"))];
        render(include_str!("../wgsl/matmul_common.wgsl"), &values)
    }
}

/// The values that both templates take.
fn values(spec: &MatMul, bindings: &Bindings, functions: String, sizes: &[(&str, u32)]) -> Vec<(&'static str, String)> {
    vec![
        ("SIZES", consts(sizes)),
        ("BINDINGS", bindings.declarations()),
        ("FUNCTIONS", functions),
        ("ROWS", format!("{}u", spec.rows)),
        ("MATRICES", spec.matrices().to_string()),
    ]
}
