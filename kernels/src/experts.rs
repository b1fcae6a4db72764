//! Mixtures of experts. A route is [rows, 2, top_k] of f32: the numbers of each row's experts, and their
//! weights. A choice is one expert of one row: number `row * top_k + slot`.
//!
//! Few rows multiply by the matrices of their experts one by one, by [`Experts::vector`]. Many are sorted
//! ([`Sort`]), so that each expert's matrix is read once for all the rows that chose it, by
//! [`Experts::tiled`]; what experts made of each choice is then summed ([`Combine`]).

mod route;
mod tiled;
mod vector;

pub use route::{Combine, Groups, Route, Scoring, Sort};

use crate::template::{Bindings, float, render};
use crate::weights::{Weights, columns};
use crate::{Activation, Format, Post, View, post};

/// Rows of a tile of [`Experts::tiled`].
pub const TILE: u32 = 64;

/// What each expert `e` of a row makes of it: `y[c, first + i] = gate(x · W_e[i] + b_e[i])` for `i` in `0..n`,
/// for each choice `c`; or, summed, `y[r, first + i] = post(Σ weight_c (x_c · W_e[i] + b_e[i]))`.
#[derive(Clone, PartialEq, Debug)]
pub struct Experts {
    /// The header word of the step buffer that holds the number of rows.
    pub rows: u32,
    /// Experts of each row.
    pub top_k: u32,
    /// Where the route lies.
    pub route: View,
    /// Experts of the layer.
    pub experts: u32,
    /// The first expert whose matrix is bound here.
    pub first_expert: u32,
    /// How many matrices are bound.
    pub held: u32,
    /// Outputs of each expert in this dispatch; with a gate its matrix has as many rows twice.
    pub n: u32,
    /// Columns, a multiple of [`Format::block`].
    pub k: u32,
    /// How the matrices are stored, one below the other.
    pub format: Format,
    /// Rows of `k`, or of [top_k, k], one for each choice. Without gaps between the choices.
    pub x: View,
    /// Whether there is a bias, f32: of all experts, with all rows of their matrices.
    pub bias: bool,
    /// Between the halves of the rows.
    pub gate: Option<Gate>,
    /// Whether every row of the first half is followed by its row of the second half.
    pub interleaved: bool,
    /// Whether choices are summed.
    pub sum: bool,
    /// What then happens to each sum.
    pub post: Vec<Post>,
    /// Column of the first output.
    pub first: u32,
    /// Where the whole output goes: [rows, width], or [rows, top_k, width] where choices are not summed.
    pub out: View,
}

/// What becomes of the two halves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Gate {
    /// f(gate) * up
    Act(Activation),
    /// gate * sigmoid(alpha * gate) * (up + 1), with gate at most `limit` and up within it.
    OaiSwiglu {
        /// See above.
        alpha: f32,
        /// See above.
        limit: f32,
    },
}

impl Gate {
    fn line(self) -> String {
        match self {
            Gate::Act(f) => format!("v = {} * up;\n", post::activation(f, "v")),
            Gate::OaiSwiglu { alpha, limit } => {
                let (alpha, most, least) = (float(alpha), float(limit.abs()), float(-limit.abs()));
                format!(
                    "v = min(v, {});\nv = v * sigmoid({alpha} * v) * (clamp(up, {least}, {most}) + 1.0);\n",
                    float(limit)
                )
            }
        }
    }
}

impl Experts {
    fn matrices(&self) -> u32 {
        if self.gate.is_some() { 2 } else { 1 }
    }

    /// Outputs of a choice, over all dispatches.
    fn width(&self) -> u32 {
        if self.sum { self.out.width() } else { self.out.width() / self.top_k }
    }

    /// `experts matvec affine4 g32 8x1536x2048`, followed by what is fused.
    fn name(&self, kind: &str) -> String {
        let marks =
            [(self.bias, " bias"), (self.gate.is_some(), " glu"), (self.sum, " sum"), (!self.post.is_empty(), " post")];
        let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        format!("experts {kind} {} {}x{}x{}{marks}", self.format, self.held, self.n * self.matrices(), self.k)
    }

    /// The bindings step, x, quants, scales (where the format has them); the functions `x` and those of `weights`.
    fn inputs(&self, weights: &Weights) -> (Bindings, String) {
        let mut bindings = Bindings::step();
        let row = if self.x.width() == self.k { self.x.row } else { self.k };
        let functions = columns(&mut bindings, "x", self.x.offset, row, self.k);
        weights.bind(&mut bindings);
        (bindings, functions + &weights.source())
    }

    /// The bindings bias, what `post` takes, out; the functions `weight_row`, `finish` and `add_dot`. `expert` is
    /// the number of the expert of choice `c`.
    fn outputs(&self, bindings: &mut Bindings, expert: &str) -> String {
        let mut lines = String::new();
        let (width, matrices) = (self.width(), self.matrices());
        if self.bias {
            bindings.read("bias", "f32");
            let place = |g: u32| match self.interleaved {
                true => format!("{matrices}u * column + {g}u"),
                false => format!("{}u + column", g * width),
            };
            let all = width * matrices;
            lines += &match (self.sum, self.gate) {
                (true, _) => format!(
                    "for (var slot = 0u; slot < TOP_K; slot++) {{\nlet e = expert_of(row, slot);\nif (e < {}u) {{\n\
                     v += weight_of(row, slot) * bias[e * {all}u + {}];\n}}\n}}\n",
                    self.experts,
                    place(0)
                ),
                (_, None) => format!("v += bias[{expert} * {all}u + {}];\n", place(0)),
                _ => format!(
                    "let biases = {expert} * {all}u;\nv += bias[biases + {}];\nup += bias[biases + {}];\n",
                    place(0),
                    place(1)
                ),
            };
        }
        lines += &self.gate.map(Gate::line).unwrap_or_default();
        if self.sum {
            post::bind(&self.post, bindings);
            lines += &post::lines(&self.post, "row", "column");
        }
        bindings.write("out", "f32");
        let weight_row = match (self.gate, self.interleaved) {
            (None, _) => "i".to_string(),
            (_, true) => "2u * i + g".to_string(),
            (_, false) => format!("g * {}u + i", self.n),
        };
        let column = if self.sum { "column".to_string() } else { format!("c % TOP_K * {width}u + column") };
        let values = [
            ("WEIGHT_ROW", weight_row),
            ("FIRST", self.first.to_string()),
            ("ROW_OF", if self.sum { "c" } else { "c / TOP_K" }.to_string()),
            ("LINES", lines),
            ("OUT", post::element(&self.out, "row", &column)),
        ];
        let sizes = format!("const EXPERT_ROWS: u32 = {}u;\n", self.n * matrices);
        sizes + post::FUNCTIONS + &render(include_str!("../wgsl/experts/finish.wgsl"), &values)
    }
}

/// The functions `expert_of` and `weight_of`, over a binding `route`.
fn route_functions(bindings: &mut Bindings, route: &View) -> String {
    bindings.read("route", "f32");
    let at = format!("{}u + row * {}u", route.offset, route.row);
    render(include_str!("../wgsl/experts/route_read.wgsl"), &[("ROUTE_AT", at)])
}
