//! What happens to single elements, and to rows of them.

use super::lanes::{Kernel, Lanes};
use crate::{program::Post, reference::ops};
use tamarack_api::{Activation, Gate};

/// `e^x` to 2 units of the last place: x is taken apart into a power of two and what is left of it, of which a
/// polynomial is taken (Cephes, `expf`). All of it is arithmetic that compilers turn into vectors.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Of small ones the difference below would keep few digits.
    let square = x * x;
    let small = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    let large = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.15 { small } else { large }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// With (1 + tanh(u)) / 2 as 1 / (1 + exp(-2 u)), in which nothing cancels.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x / (1.0 + exp(-2.0 * 0.797_884_6 * (x + 0.044715 * x * x * x)))
}

/// An activation function of each element.
pub(super) struct Activate<'a>(pub Activation, pub &'a mut [f32]);

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Activate(f, y) = self;
        match f {
            Activation::Silu => y.iter_mut().for_each(|v| *v = silu(*v)),
            Activation::GeluTanh => y.iter_mut().for_each(|v| *v = gelu_tanh(*v)),
            Activation::Sigmoid => y.iter_mut().for_each(|v| *v = 1.0 / (1.0 + exp(-*v))),
            Activation::Tanh => y.iter_mut().for_each(|v| *v = tanh(*v)),
            Activation::QuickGelu => y.iter_mut().for_each(|v| *v /= 1.0 + exp(-1.702 * *v)),
            Activation::Gelu | Activation::Relu => y.iter_mut().for_each(|v| *v = ops::activation(f, *v)),
        }
    }
}

/// The root mean square of a row, its inverse.
pub(super) struct RmsNorm<'a> {
    pub x: &'a mut [f32],
    pub eps: f32,
    pub weight: Option<&'a [f32]>,
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let mean = ops::dot(self.x, self.x) / self.x.len() as f32;
        let by = 1.0 / (mean + self.eps).sqrt();
        match self.weight {
            Some(weight) => self.x.iter_mut().zip(weight).for_each(|(x, w)| *x *= by * w),
            None => self.x.iter_mut().for_each(|x| *x *= by),
        }
    }
}

/// Steps over a row; `other` gives the same row of each sum's and product's input.
pub(super) fn post<'a>(
    instructions: super::Instructions,
    y: &mut [f32],
    steps: &[Post],
    mut other: impl FnMut(usize) -> std::borrow::Cow<'a, [f32]>,
) {
    let mut inputs = 0;
    for step in steps {
        match *step {
            Post::Activation(f) => instructions.run(Activate(f, y)),
            Post::Scale(c) => y.iter_mut().for_each(|v| *v *= c),
            Post::AddScalar(c) => y.iter_mut().for_each(|v| *v += c),
            Post::Clamp(min, max) => y.iter_mut().for_each(|v| *v = v.max(min).min(max)),
            Post::Sqrt => y.iter_mut().for_each(|v| *v = v.sqrt()),
            Post::Add => y.iter_mut().zip(&*other(inputs)).for_each(|(v, x)| *v += x),
            Post::Mul => y.iter_mut().zip(&*other(inputs)).for_each(|(v, x)| *v *= x),
        }
        inputs += usize::from(step.takes_input());
    }
}

/// `gate` becomes what `gate` and `up` make together.
pub(super) fn gated(instructions: super::Instructions, f: Gate, gate: &mut [f32], up: &[f32]) {
    match f {
        Gate::Act(f) => {
            instructions.run(Activate(f, gate));
            gate.iter_mut().zip(up).for_each(|(g, u)| *g *= u);
        }
        Gate::OaiSwiglu { .. } => {
            gate.iter_mut().zip(up).for_each(|(g, u)| *g = crate::reference::moe::gate(f, *g, *u));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Instructions, *};

    #[test]
    fn activations_are_those_of_the_oracle() {
        use Activation::*;
        let x: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.025).collect();
        for instructions in Instructions::found() {
            for f in [Silu, Gelu, GeluTanh, Relu, Sigmoid, Tanh, QuickGelu] {
                let mut y = x.clone();
                instructions.run(Activate(f, &mut y));
                for (x, y) in x.iter().zip(y) {
                    let want = ops::activation(f, *x);
                    let off = (y - want).abs();
                    assert!(off <= 1e-6 * want.abs().max(0.1), "{f:?} of {x} with {instructions}: {y}, not {want}");
                }
            }
        }
    }
}
