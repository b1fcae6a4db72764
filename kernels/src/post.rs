//! What happens to a value between its sum and its store, as lines of WGSL that every kernel shares.

use crate::template::{Bindings, float};
use crate::{Activation, Post, View};

/// The WGSL functions that [`activation`] and [`lines`] call. A kernel that uses either holds it once.
pub const FUNCTIONS: &str = include_str!("../wgsl/activation.wgsl");

/// The WGSL expression of an activation function of the f32 expression `v`.
pub fn activation(f: Activation, v: &str) -> String {
    let name = match f {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Relu => return format!("max({v}, 0.0)"),
        Activation::Sigmoid => "sigmoid",
        Activation::Tanh => "bounded_tanh",
        Activation::QuickGelu => "quick_gelu",
    };
    format!("{name}({v})")
}

/// Adds one binding for each input that `posts` take, in order.
pub fn bind(posts: &[Post], bindings: &mut Bindings) {
    for (i, post) in posts.iter().enumerate() {
        if matches!(post, Post::Add(_) | Post::Mul(_)) {
            bindings.read(&format!("post{i}"), "f32");
        }
    }
}

/// The statements that apply `posts` to `var v: f32`, the value at `row` and `column` (WGSL
/// expressions of u32).
pub fn lines(posts: &[Post], row: &str, column: &str) -> String {
    lines_of(posts, |i, view| format!("post{i}[{}]", element(view, row, column)))
}

/// The same, where `input` says what the input of a step is.
pub(crate) fn lines_of(posts: &[Post], input: impl Fn(usize, &View) -> String) -> String {
    let line = |(i, post): (usize, &Post)| match post {
        Post::Activation(f) => format!("v = {};\n", activation(*f, "v")),
        Post::Scale(c) => format!("v *= {};\n", float(*c)),
        Post::AddScalar(c) => format!("v += {};\n", float(*c)),
        Post::Clamp(low, high) => format!("v = clamp(v, {}, {});\n", float(*low), float(*high)),
        Post::Softcap(c) => format!("v = {c} * bounded_tanh(v / {c});\n", c = float(*c)),
        Post::Sqrt => "v = sqrt(v);\n".to_string(),
        Post::Add(view) => format!("v += {};\n", input(i, view)),
        Post::Mul(view) => format!("v *= {};\n", input(i, view)),
    };
    posts.iter().enumerate().map(line).collect()
}

/// The WGSL expression of where element `column` of `row` lies; `column` counts through the heads.
pub fn element(view: &View, row: &str, column: &str) -> String {
    let View { offset, row: stride, head, dim, .. } = view;
    match view.is_dense() {
        true => format!("{offset}u + ({row}) * {stride}u + ({column})"),
        false => format!("{offset}u + ({row}) * {stride}u + ({column}) / {dim}u * {head}u + ({column}) % {dim}u"),
    }
}
