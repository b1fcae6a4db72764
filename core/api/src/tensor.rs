//! Handles into the graph being recorded.

use crate::{
    Activation, AttentionSpec, CacheSpec, Dim, LatentHeads, Op, RopeSpec, Weight,
    recorder::{POISON, Shape, with},
    rope::UNSOUND,
};
use std::panic::Location;

/// A value of the model being recorded: a handle with a symbolic shape and no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tensor(pub(crate) u32);

/// A cache of keys and values. Layers that pass the same handle share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kv(u32);

/// What one step brings: rows of any number of sequences.
pub struct Step {
    tokens: Tensor,
}

impl Step {
    #[track_caller]
    pub(crate) fn begin() -> Step {
        Step { tokens: push(Op::Tokens {}, &[]) }
    }

    /// The token ids. `[tokens]`
    pub fn tokens(&self) -> Tensor {
        self.tokens
    }

    /// Puts image embeddings where the tokens of images are: call it exactly where `transformers` does, after a scale of the
    /// embedding, say. Records nothing for a model without images. [tokens, dim] -> [tokens, dim]
    #[track_caller]
    pub fn merge_embeddings(&self, x: Tensor) -> Tensor {
        if with(|r| r.images) { push(Op::MergeEmbeddings {}, &[x]) } else { x }
    }

    /// Adds to the tokens of images a further part of what the tower makes of them: its columns from `part * dim` on.
    /// [`Step::merge_embeddings`] takes part 0. Records nothing for a model without images.
    /// [tokens, dim] -> [tokens, dim]. Since api 1.3.
    #[track_caller]
    pub fn add_embeddings(&self, x: Tensor, part: usize) -> Tensor {
        if with(|r| r.images) { push(Op::AddEmbeddings { part }, &[x]) } else { x }
    }

    /// The rows that go on to the head: those whose logits are wanted. [tokens, ..] -> [outputs, ..]
    #[track_caller]
    pub fn outputs(&self, x: Tensor) -> Tensor {
        push(Op::Outputs {}, &[x])
    }
}

#[track_caller]
pub(crate) fn push(op: Op, inputs: &[Tensor]) -> Tensor {
    let at = Location::caller();
    let inputs: Vec<u32> = inputs.iter().map(|t| t.0).collect();
    Tensor(with(|r| r.push(at, op, &inputs)))
}

impl Tensor {
    /// Records an op of one input.
    #[track_caller]
    fn then(self, op: Op) -> Tensor {
        push(op, &[self])
    }

    fn shape(self) -> Shape {
        with(|r| r.graph.shape(self.0).to_vec())
    }

    /// A constant dimension; negative ones count from the end. 0 for a poisoned tensor.
    #[track_caller]
    pub fn dim(self, i: isize) -> usize {
        let shape = self.shape();
        let i = if i < 0 { i + shape.len() as isize } else { i };
        match shape.get(i as usize).map(|d| d.constant()) {
            Some(Some(n)) => n,
            _ if self.0 == POISON => 0,
            _ => {
                let at = Location::caller();
                with(|r| r.fail(at, format!("dim: {shape:?} has no constant dimension {i}")));
                0
            }
        }
    }

    /// x * sigmoid(x)
    #[track_caller]
    pub fn silu(self) -> Tensor {
        self.activation(Activation::Silu)
    }

    /// gelu by the error function
    #[track_caller]
    pub fn gelu(self) -> Tensor {
        self.activation(Activation::Gelu)
    }

    /// x * sigmoid(1.702 x)
    #[track_caller]
    pub fn quick_gelu(self) -> Tensor {
        self.activation(Activation::QuickGelu)
    }

    /// gelu by the tanh approximation
    #[track_caller]
    pub fn gelu_tanh(self) -> Tensor {
        self.activation(Activation::GeluTanh)
    }

    /// 1 / (1 + exp(-x))
    #[track_caller]
    pub fn sigmoid(self) -> Tensor {
        self.activation(Activation::Sigmoid)
    }

    /// tanh(x)
    #[track_caller]
    pub fn tanh(self) -> Tensor {
        self.activation(Activation::Tanh)
    }

    /// cap * tanh(x / cap): never further from 0 than `cap`
    #[track_caller]
    pub fn softcap(self, cap: f32) -> Tensor {
        (self / cap).tanh() * cap
    }

    /// max(x, 0)
    #[track_caller]
    pub fn relu(self) -> Tensor {
        self.activation(Activation::Relu)
    }

    /// The square root of every element.
    #[track_caller]
    pub fn sqrt(self) -> Tensor {
        self.then(Op::Sqrt {})
    }

    /// The mean of the last dimension. [.., n] -> [.., 1]
    #[track_caller]
    pub fn mean(self) -> Tensor {
        self.then(Op::Mean {})
    }

    /// Row by row a product of two small matrices. [rows, m, k] and [rows, k, n] -> [rows, m, n]
    #[track_caller]
    pub fn matmul(self, other: Tensor) -> Tensor {
        push(Op::Matmul {}, &[self, other])
    }

    /// An activation that the configuration names.
    #[track_caller]
    pub fn activation(self, function: Activation) -> Tensor {
        self.then(Op::Activation { function })
    }

    /// Every element into [min, max].
    #[track_caller]
    pub fn clamp(self, min: Option<f32>, max: Option<f32>) -> Tensor {
        self.then(Op::Clamp { min, max })
    }

    /// The same elements under another shape. The first dimension stays symbolic.
    #[track_caller]
    pub fn reshape(self, shape: &[Dim]) -> Tensor {
        self.then(Op::Reshape { shape: shape.to_vec() })
    }

    /// `n` adjacent rows as one, for patches that are merged. [rows, dim] -> [rows / n, n * dim]
    #[track_caller]
    pub fn merge_rows(self, n: usize) -> Tensor {
        let shape = self.shape();
        match shape[..] {
            [rows, dim] if n > 0 && rows.sym().is_some() && dim.constant().is_some() => {
                let (num, den) = rows.fraction();
                let rows = rows.sym().map_or(rows, |sym| Dim::scaled(sym, num as u32, (den * n) as u32));
                self.reshape(&[rows, (dim.constant().unwrap_or(0) * n).into()])
            }
            _ if self.0 == POISON => self,
            _ => {
                let at = Location::caller();
                with(|r| r.fail(at, format!("merge_rows: wants [rows, dim] and some rows, found {shape:?} and {n}")));
                Tensor(POISON)
            }
        }
    }

    /// [.., n] -> [.., n / head_dim, head_dim]
    #[track_caller]
    pub fn split_heads(self, head_dim: usize) -> Tensor {
        let mut shape = self.shape();
        let n = shape.pop().and_then(|d| d.constant()).unwrap_or(0);
        if self.0 != POISON && (head_dim == 0 || !n.is_multiple_of(head_dim)) {
            let at = Location::caller();
            with(|r| r.fail(at, format!("split_heads: {n} is not a multiple of {head_dim}")));
            return Tensor(POISON);
        }
        shape.extend([Dim::from(n / head_dim.max(1)), head_dim.into()]);
        self.reshape(&shape)
    }

    /// [.., heads, dim] -> [.., heads * dim]
    #[track_caller]
    pub fn merge_heads(self) -> Tensor {
        let mut shape = self.shape();
        let (dim, heads) = (shape.pop().and_then(|d| d.constant()), shape.pop().and_then(|d| d.constant()));
        shape.push((heads.unwrap_or(0) * dim.unwrap_or(0)).into());
        self.reshape(&shape)
    }

    /// `len` indices of a dimension, from `start` on. Not of the first dimension.
    #[track_caller]
    pub fn slice(self, dim: usize, start: usize, len: usize) -> Tensor {
        self.then(Op::Slice { dim, start, len })
    }

    /// Cuts the last dimension into pieces of these sizes.
    #[track_caller]
    pub fn split<const N: usize>(self, sizes: [usize; N]) -> [Tensor; N] {
        let at = Location::caller();
        let dim = self.shape().len().saturating_sub(1);
        let mut start = 0;
        sizes.map(|len| {
            let piece = with(|r| r.push(at, Op::Slice { dim, start, len }, &[self.0]));
            start = len.saturating_add(start);
            Tensor(piece)
        })
    }

    /// Rotary embedding of [rows, heads, dim] by each row's position.
    #[track_caller]
    pub fn rope(self, rope: &RopeSpec) -> Tensor {
        if !rope.is_sound() {
            let at = Location::caller();
            with(|r| r.fail(at, format!("rope: {UNSOUND}")));
            return Tensor(POISON);
        }
        let rope = with(|r| {
            let ropes = &mut r.graph.ropes;
            ropes.iter().position(|s| s == rope).unwrap_or_else(|| {
                ropes.push(rope.clone());
                ropes.len() - 1
            })
        });
        self.then(Op::Rope { rope: rope as u32 })
    }
}

/// Parts side by side along the last dimension.
#[track_caller]
pub fn concat(parts: &[Tensor]) -> Tensor {
    push(Op::Concat {}, parts)
}

/// Keys [tokens, groups, dk] and values [tokens, groups, dv] go to a cache of their own.
#[track_caller]
pub fn kv(k: Tensor, v: Tensor, cache: CacheSpec) -> Kv {
    Kv(push(Op::Kv { cache }, &[k, v]).0)
}

/// Each query row looks at what its sequence's cache holds up to itself.
/// q [tokens, heads, dk] -> [tokens, heads, dv]; each of the cache's groups serves heads / groups heads.
#[track_caller]
pub fn attention(q: Tensor, kv: &Kv, spec: &AttentionSpec) -> Tensor {
    push(Op::Attention { spec: spec.clone() }, &[q, Tensor(kv.0)])
}

/// Each patch looks at all patches of its segment, which the processor says: an image, a frame.
/// q [patches, heads, dk], k [patches, groups, dk], v [patches, groups, dv] -> [patches, heads, dv]; groups divide heads.
#[track_caller]
pub fn segment_attention([q, k, v]: [Tensor; 3], scale: f32) -> Tensor {
    push(Op::SegmentAttention { scale, windowed: false }, &[q, k, v])
}

/// As [`segment_attention`], with windows in place of segments: see [`crate::Medium::windows`]. Since api 1.3.
#[track_caller]
pub fn window_attention([q, k, v]: [Tensor; 3], scale: f32) -> Tensor {
    push(Op::SegmentAttention { scale, windowed: true }, &[q, k, v])
}

/// Latent attention, arXiv:2405.04434: all heads share one latent [tokens, rank] and one rotated key [tokens, rope] a
/// token, and nothing else is cached. Queries are [tokens, heads, nope] and, rotated, [tokens, heads, rope];
/// -> [tokens, heads, v].
#[track_caller]
pub fn latent_attention(
    [q_nope, q_rope]: [Tensor; 2],
    [latent, k_rope]: [Tensor; 2],
    heads: &LatentHeads,
    spec: &AttentionSpec,
) -> Tensor {
    let op = Op::LatentAttention { key: heads.key.id(), value: heads.value.id(), spec: spec.clone() };
    push(op, &[q_nope, q_rope, latent, k_rope])
}

/// Each element times the weight's at its place in the last dimension.
impl std::ops::Mul<Weight> for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn mul(self, by: Weight) -> Tensor {
        self.then(Op::MulWeight { weight: by.id() })
    }
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident $op:ident, $scalar:expr;)*) => { $(
        impl std::ops::$trait for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                push(Op::$op {}, &[self, other])
            }
        }
        impl std::ops::$trait<f32> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, by: f32) -> Tensor {
                self.then($scalar(by))
            }
        }
    )* };
}
arithmetic! {
    Add add Add, |by: f32| Op::AddScalar { by };
    Sub sub Sub, |by: f32| Op::AddScalar { by: -by };
    Mul mul Mul, |by: f32| Op::MulScalar { by };
    Div div Div, |by: f32| Op::MulScalar { by: 1.0 / by };
}
