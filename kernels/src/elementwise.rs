//! Copies and element-by-element arithmetic.

use crate::common::step_functions;
use crate::template::{Bindings, consts, float, render};
use crate::{Activation, Caps, Extent, Kernel, Post, View, post};

/// One value per element of `out`. Slices, concatenations and head splits are views of inputs and of
/// `out`: a concatenation is several dispatches into one buffer.
///
/// Bindings: step, the inputs, what `post` takes, out.
#[derive(Clone, PartialEq, Debug)]
pub struct Elementwise {
    /// What is computed.
    pub op: Op,
    /// As many as `op` takes: as wide as `out`, or of `dim` 1, which is one value for each head
    /// of `out`, or for the whole row if `heads` is 1.
    pub inputs: Vec<View>,
    /// Row `r` of `out` comes from the token row of the step's output record `r`, not from row `r`:
    /// picks the rows whose logits are wanted.
    pub gather: bool,
    /// What happens before the store; its inputs are not gathered.
    pub post: Vec<Post>,
    /// Output.
    pub out: View,
}

/// What an [`Elementwise`] computes of its inputs `a` and `b`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Op {
    /// a
    Copy,
    /// f(a)
    Unary(Activation),
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// f(a) * b
    Glu(Activation),
    /// xIELU of a; the second input's buffer begins with alpha_p, alpha_n, beta and eps (arXiv:2411.13010), and its
    /// view is not looked at.
    Xielu,
    /// min(max(a, min), max); bounds may be infinite.
    Clamp {
        /// The least result.
        min: f32,
        /// The greatest result.
        max: f32,
    },
}

impl Op {
    /// How many inputs it takes.
    pub fn inputs(self) -> usize {
        match self {
            Op::Copy | Op::Unary(_) | Op::Clamp { .. } => 1,
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Glu(_) | Op::Xielu => 2,
        }
    }

    fn expression(self) -> String {
        match self {
            Op::Copy => "v0".to_string(),
            Op::Unary(f) => post::activation(f, "v0"),
            Op::Add => "v0 + v1".to_string(),
            Op::Sub => "v0 - v1".to_string(),
            Op::Mul => "v0 * v1".to_string(),
            Op::Div => "v0 / v1".to_string(),
            Op::Glu(f) => format!("{} * v1", post::activation(f, "v0")),
            Op::Xielu => "xielu(v0, vec4<f32>(input1[0], input1[1], input1[2], input1[3]))".to_string(),
            Op::Clamp { min, max } => format!("clamp(v0, {}, {})", float(min.max(f32::MIN)), float(max.min(f32::MAX))),
        }
    }
}

impl Elementwise {
    /// One thread per element.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let width = self.out.width();
        let threads = 256.min(caps.workgroup_size);
        let mut bindings = Bindings::step();
        let mut reads = String::new();
        for (i, view) in self.inputs.iter().enumerate() {
            bindings.read(&format!("input{i}"), "f32");
            if i == 1 && self.op == Op::Xielu {
                continue;
            }
            reads += &format!("let v{i} = input{i}[{}];\n", input(view, &self.out));
        }
        post::bind(&self.post, &mut bindings);
        bindings.write("out", "f32");
        let origin = if self.gather { "output_word(row, OUTPUT_ROW)" } else { "row" };
        let values = [
            ("BINDINGS", bindings.declarations()),
            ("STEP", consts(&[("THREADS", threads)]) + &step_functions()),
            ("FUNCTIONS", post::FUNCTIONS.to_string()),
            ("ORIGIN", origin.to_string()),
            ("INPUTS", reads),
            ("VALUE", self.op.expression()),
            ("POST", post::lines(&self.post, "row", "column")),
            ("OUT_AT", post::element(&self.out, "row", "column")),
            ("WIDTH", width.to_string()),
        ];
        let name = format!("{:?} {width}", self.op).to_lowercase();
        let source = render(include_str!("../wgsl/elementwise.wgsl"), &values);
        bindings.kernel(name, source, [Extent::Const(width.div_ceil(threads)), Extent::Rows(1), Extent::Const(1)])
    }
}

/// Where the input element for `column` of `out` lies.
fn input(view: &View, out: &View) -> String {
    let View { offset, row, head, .. } = view;
    match (view.dim == 1 && view.width() != out.width(), view.heads) {
        (true, 1) => format!("{offset}u + origin * {row}u"),
        (true, _) => format!("{offset}u + origin * {row}u + column / {}u * {head}u", out.dim),
        (false, _) => post::element(view, "origin", "column"),
    }
}
