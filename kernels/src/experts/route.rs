//! From logits to a route, from a route to sorted choices, and from what experts made of them to sums.

use super::{TILE, route_functions};
use crate::template::{Bindings, consts, float, render};
use crate::{Caps, Extent, Kernel, Post, View, post};

/// How logits become scores.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Each for itself.
    Sigmoid,
    /// Softmax over the chosen.
    SoftmaxAfterTopK,
    /// The share among those that come within `(max - s) / max(|s|, max) <= near` of the largest, of those that
    /// are left.
    SparseMixer {
        /// See above.
        near: f32,
    },
}

/// Groups of adjacent experts that the choice is limited to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Groups {
    /// How many, a divisor of the number of experts.
    pub count: u32,
    /// How many are chosen from.
    pub keep: u32,
    /// Whether a group is worth its two best experts, or its best.
    pub two: bool,
    /// Whether the scores of the others become 0; otherwise they are never chosen.
    pub zero: bool,
}

/// The experts that rows of logits choose.
///
/// Bindings: step, logits, the choice's bias (f32, one for each expert) if there is one, out.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Rows of logits, one for each expert.
    pub logits: View,
    /// Experts for each row.
    pub top_k: u32,
    /// See [`Scoring`].
    pub scoring: Scoring,
    /// What is added to the sum by which the weights are divided, if they are.
    pub normalize: Option<f32>,
    /// Factor on each weight.
    pub scale: f32,
    /// Whether a bias takes part in the choice.
    pub bias: bool,
    /// Groups that it is limited to.
    pub groups: Option<Groups>,
    /// Rows of two times `top_k`.
    pub out: View,
}

impl Route {
    /// One workgroup a row.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let experts = self.logits.width();
        let threads = experts.max(self.top_k).next_power_of_two().clamp(32, 256).min(caps.workgroup_size);
        let groups = self.groups.unwrap_or(Groups { count: 1, keep: 1, two: false, zero: false });
        let mut bindings = Bindings::step();
        bindings.read("logits", "f32");
        if self.bias {
            bindings.read("bias", "f32");
        }
        bindings.write("out", "f32");
        let members = experts / groups.count.max(1);
        let near = if let Scoring::SparseMixer { near } = self.scoring { near } else { 0.0 };
        let sizes = [
            ("EXPERTS", experts),
            ("TOP_K", self.top_k),
            ("THREADS", threads),
            ("GROUPS", groups.count),
            ("MEMBERS", members),
            ("KEEP", groups.keep),
        ];
        let flag = |on: bool| u32::from(on).to_string();
        let values = [
            ("SIZES", consts(&sizes)),
            ("BINDINGS", bindings.declarations()),
            ("LOGITS_AT", post::element(&self.logits, "row", "e")),
            ("SOFTMAX", flag(self.scoring == Scoring::Softmax)),
            ("SIGMOID", flag(self.scoring == Scoring::Sigmoid)),
            ("MIXER", flag(matches!(self.scoring, Scoring::SparseMixer { .. }))),
            ("AFTER", flag(self.scoring == Scoring::SoftmaxAfterTopK)),
            ("NEAR", float(near)),
            ("BIAS", if self.bias { " + bias[e]" } else { "" }.to_string()),
            ("GROUPED", flag(self.groups.is_some())),
            ("WORTH", if groups.two && members > 1 { "first + second" } else { "first" }.to_string()),
            ("OTHERS", if groups.zero { "0.0" } else { "NEG_INF" }.to_string()),
            ("NORMALIZE", flag(self.normalize.is_some())),
            ("EPS", float(self.normalize.unwrap_or(0.0))),
            ("SCALE", float(self.scale)),
            ("OUT", format!("{}u + row * {}u", self.out.offset, self.out.row)),
        ];
        let source = render(include_str!("../../wgsl/experts/route.wgsl"), &values);
        let name = format!("route {} of {experts}", self.top_k);
        bindings.kernel(name, source, [Extent::Rows(1), Extent::Const(1), Extent::Const(1)])
    }
}

/// The choices of all rows, sorted by expert and cut into tiles of [`TILE`].
///
/// Bindings: step, the route, tiles ([`Sort::tiles_words`] words), sorted (a word a choice).
#[derive(Clone, PartialEq, Debug)]
pub struct Sort {
    /// The header word of the step buffer that holds the number of rows.
    pub rows: u32,
    /// Experts of each row.
    pub top_k: u32,
    /// Experts of the layer.
    pub experts: u32,
    /// Where the route lies.
    pub route: View,
}

impl Sort {
    /// One workgroup.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let mut bindings = Bindings::step();
        let route = route_functions(&mut bindings, &self.route);
        bindings.write("tiles", "vec4<u32>");
        bindings.write("sorted", "u32");
        let threads = 1024.min(1 << caps.workgroup_size.max(1).ilog2());
        let sizes = [("EXPERTS", self.experts), ("TOP_K", self.top_k), ("THREADS", threads), ("TILE", TILE)];
        let values = [
            ("SIZES", consts(&sizes)),
            ("BINDINGS", bindings.declarations()),
            ("ROUTE", route),
            ("ROWS", format!("{}u", self.rows)),
        ];
        let source = render(include_str!("../../wgsl/experts/sort.wgsl"), &values);
        bindings.kernel(format!("sort by {} experts", self.experts), source, [Extent::Const(1); 3])
    }

    /// Words that the tiles of a step of so many rows take.
    pub fn tiles_words(&self, rows: u32) -> u32 {
        4 * (1 + (rows * self.top_k).div_ceil(TILE) + self.experts)
    }
}

/// The weighted sums of what experts made of each choice, [rows, top_k, width] without gaps.
///
/// Bindings: step, that, the route, what `post` takes, out.
#[derive(Clone, PartialEq, Debug)]
pub struct Combine {
    /// Experts of each row.
    pub top_k: u32,
    /// Experts of the layer.
    pub experts: u32,
    /// Where the route lies.
    pub route: View,
    /// What happens to each sum.
    pub post: Vec<Post>,
    /// Output.
    pub out: View,
}

impl Combine {
    /// One thread per element.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let (width, threads) = (self.out.width(), 256.min(caps.workgroup_size));
        let mut bindings = Bindings::step();
        bindings.read("each", "f32");
        let route = route_functions(&mut bindings, &self.route);
        post::bind(&self.post, &mut bindings);
        bindings.write("out", "f32");
        let sizes = [("EXPERTS", self.experts), ("TOP_K", self.top_k), ("WIDTH", width), ("THREADS", threads)];
        let values = [
            ("SIZES", consts(&sizes)),
            ("BINDINGS", bindings.declarations()),
            ("ROUTE", route),
            ("FUNCTIONS", post::FUNCTIONS.to_string()),
            ("POST", post::lines(&self.post, "row", "column")),
            ("OUT", post::element(&self.out, "row", "column")),
        ];
        let source = render(include_str!("../../wgsl/experts/combine.wgsl"), &values);
        let grid = [Extent::Const(width.div_ceil(threads)), Extent::Rows(1), Extent::Const(1)];
        bindings.kernel(format!("combine {} {width}", self.top_k), source, grid)
    }
}
