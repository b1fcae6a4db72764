//! The program's words in those of the kernels.

use crate::program::Post;
use tamarack_api::{Activation, Sym};
use tamarack_kernels::{self as kernels, View, step};

pub(super) fn activation(f: Activation) -> kernels::Activation {
    match f {
        Activation::Silu => kernels::Activation::Silu,
        Activation::Gelu => kernels::Activation::Gelu,
        Activation::GeluTanh => kernels::Activation::GeluTanh,
        Activation::Relu => kernels::Activation::Relu,
        Activation::Sigmoid => kernels::Activation::Sigmoid,
        Activation::Tanh => kernels::Activation::Tanh,
        Activation::QuickGelu => kernels::Activation::QuickGelu,
    }
}

/// Steps, with the places of what their sums and products take.
pub(super) fn post(steps: &[Post], mut inputs: impl Iterator<Item = View>) -> Vec<kernels::Post> {
    let mut next = || inputs.next().unwrap_or(View::rows(1));
    steps
        .iter()
        .map(|step| match *step {
            Post::Activation(f) => kernels::Post::Activation(activation(f)),
            Post::Scale(c) => kernels::Post::Scale(c),
            Post::AddScalar(c) => kernels::Post::AddScalar(c),
            Post::Clamp(min, max) => kernels::Post::Clamp(min, max),
            Post::Sqrt => kernels::Post::Sqrt,
            Post::Add => kernels::Post::Add(next()),
            Post::Mul => kernels::Post::Mul(next()),
        })
        .collect()
}

/// The header word that holds how many rows a symbol stands for.
pub(super) fn header(sym: Sym) -> u32 {
    match sym {
        Sym::Tokens => step::TOKENS,
        // A tower's program counts tokens and outputs: see [`crate::program::Program::tower`].
        Sym::Outputs | Sym::Patches => step::OUTPUTS,
    }
}
