//! Weights by checkpoint name, and the leaves that are made of them.

use crate::{
    Op, WeightExpr,
    recorder::{POISON, with},
    tensor::{Tensor, push},
};
use std::{fmt::Display, panic::Location};

/// A place in the checkpoint's tree of names.
#[derive(Clone, Debug)]
pub struct Weights {
    prefix: String,
}

/// A weight, or an expression over weights that the host folds at load. No data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight(pub(crate) u32);

/// x W^T + b
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Linear {
    /// [n, k]
    pub weight: Weight,
    /// `[n]`
    pub bias: Option<Weight>,
}

/// Root-mean-square norm, arXiv:1910.07467.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RmsNorm {
    /// `[dim]`; absent: 1.
    pub weight: Option<Weight>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Layer norm, arXiv:1607.06450.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LayerNorm {
    /// `[dim]`; absent: 1.
    pub weight: Option<Weight>,
    /// `[dim]`
    pub bias: Option<Weight>,
    /// Added to the variance.
    pub eps: f32,
}

/// A causal convolution of each channel on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv1d {
    /// [channels, kernel]
    pub weight: Weight,
    /// `[channels]`
    pub bias: Option<Weight>,
}

/// What makes keys and values of a latent, head by head, arXiv:2405.04434.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LatentHeads {
    /// [heads, nope, rank]
    pub key: Weight,
    /// [heads, v, rank]
    pub value: Weight,
}

/// The parameters of the activation xIELU, arXiv:2411.13010, of one element each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xielu {
    /// Before its softplus.
    pub alpha_p: Weight,
    /// Before its softplus.
    pub alpha_n: Weight,
    /// The slope at 0.
    pub beta: Weight,
    /// Slightly below 0.
    pub eps: Weight,
}

/// A table of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Embedding {
    /// [n, dim]
    pub weight: Weight,
}

impl Weights {
    pub(crate) fn root() -> Weights {
        Weights { prefix: String::new() }
    }

    /// The subtree under `path`, a name or a number.
    pub fn at(&self, path: impl Display) -> Weights {
        Weights { prefix: format!("{}{path}.", self.prefix) }
    }

    /// Whether the checkpoint holds this tensor.
    pub fn has(&self, name: &str) -> bool {
        let name = self.name(name);
        with(|r| r.shape_of(&name).is_some())
    }

    /// The first of these names that the checkpoint holds; the first of all if it holds none.
    pub fn first_of<'a>(&self, names: &[&'a str]) -> &'a str {
        names.iter().find(|n| self.has(n)).or(names.first()).copied().unwrap_or("")
    }

    /// The first of these subtrees that holds a tensor of this name; the first of all if none does.
    pub fn at_first(&self, paths: &[&str], name: &str) -> Weights {
        self.at(paths.iter().find(|path| self.at(path).has(name)).or(paths.first()).copied().unwrap_or(""))
    }

    /// Tensors that this architecture knowingly leaves out; `*` stands for any text.
    pub fn ignore(&self, glob: &str) {
        let glob = self.name(glob);
        with(|r| r.ignored.push(glob));
    }

    /// A tensor of exactly this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Weight {
        let name = self.name(name);
        Weight(with(|r| r.tensor(name, shape)))
    }

    /// `name.weight` [n, k], and `name.bias` `[n]` where the checkpoint has one.
    pub fn linear(&self, name: &str, shape: [usize; 2]) -> Linear {
        let w = self.at(name);
        Linear { weight: w.tensor("weight", &shape), bias: w.optional("bias", &shape[..1]) }
    }

    /// `name.weight` `[dim]`.
    pub fn rms_norm(&self, name: &str, dim: usize, eps: f32) -> RmsNorm {
        RmsNorm { weight: Some(self.at(name).tensor("weight", &[dim])), eps }
    }

    /// `name.weight` `[dim]`, and `name.bias` `[dim]` where the checkpoint has one.
    pub fn layer_norm(&self, name: &str, dim: usize, eps: f32) -> LayerNorm {
        let w = self.at(name);
        LayerNorm { weight: Some(w.tensor("weight", &[dim])), bias: w.optional("bias", &[dim]), eps }
    }

    /// A convolution whose steps are as long as its patches, as a product with patches: `name.weight` [dim, channels,
    /// ..patch], or [dim, ..patch, channels] as MLX writes it, and `name.bias` `[dim]` where the checkpoint has one.
    /// `patch` is [height, width], or [frames, height, width].
    pub fn patch_embedding(&self, name: &str, dim: usize, channels: usize, patch: &[usize]) -> Linear {
        let w = self.at(name);
        let torch = [&[dim, channels], patch].concat();
        let mlx = [&[dim], patch, &[channels]].concat();
        let n = patch.len();
        let weight = match torch != mlx && w.is_shaped("weight", &mlx) {
            true => {
                let axes: Vec<usize> = std::iter::once(n).chain(0..n).collect();
                w.tensor("weight", &mlx).rearrange(&mlx[1..], &axes)
            }
            false => w.tensor("weight", &torch).rearrange(&torch[1..], &(0..=n).collect::<Vec<_>>()),
        };
        Linear { weight, bias: w.optional("bias", &[dim]) }
    }

    /// `name.weight` [channels, 1, kernel], or [channels, kernel, 1] as MLX writes it, or [channels, kernel] as GGUF does,
    /// and `name.bias` `[channels]` where the checkpoint has one.
    pub fn conv1d(&self, name: &str, channels: usize, kernel: usize) -> Conv1d {
        let w = self.at(name);
        let (mlx, gguf) = ([channels, kernel, 1], [channels, kernel]);
        let weight = match () {
            () if w.is_shaped("weight", &mlx) => w.tensor("weight", &mlx).transpose(),
            () if w.is_shaped("weight", &gguf) => w.tensor("weight", &gguf),
            () => w.tensor("weight", &[channels, 1, kernel]),
        };
        Conv1d { weight: weight.reshape(&[channels, kernel]), bias: w.optional("bias", &[channels]) }
    }

    /// `kv_b_proj.weight` [heads * (nope + v), rank], whose rows are each head's keys and then its values; or MLX's
    /// `embed_q.weight` [heads, rank, nope] and `unembed_out.weight` [heads, v, rank].
    pub fn latent_heads(&self, heads: usize, [nope, v]: [usize; 2], rank: usize) -> LatentHeads {
        if self.has("embed_q.weight") {
            let key = self.tensor("embed_q.weight", &[heads, rank, nope]).transpose();
            return LatentHeads { key, value: self.tensor("unembed_out.weight", &[heads, v, rank]) };
        }
        let both = self.tensor("kv_b_proj.weight", &[heads * (nope + v), rank]).reshape(&[heads, nope + v, rank]);
        LatentHeads { key: both.slice(1, 0, nope), value: both.slice(1, nope, v) }
    }

    /// `name.alpha_p`, `name.alpha_n`, `name.beta` and `name.eps`, which have no dimension or one of 1.
    pub fn xielu(&self, name: &str) -> Xielu {
        let w = self.at(name);
        let scalar = |name| w.tensor(name, if w.is_shaped(name, &[1]) { &[1] } else { &[] });
        Xielu { alpha_p: scalar("alpha_p"), alpha_n: scalar("alpha_n"), beta: scalar("beta"), eps: scalar("eps") }
    }

    /// `name.weight` [n, dim].
    pub fn embedding(&self, name: &str, shape: [usize; 2]) -> Embedding {
        Embedding { weight: self.at(name).tensor("weight", &shape) }
    }

    /// The output head: `name.weight`, or the embedding table where the configuration ties them and
    /// the checkpoint holds no head of its own (one that it holds wins, as in `transformers`). `name.bias` counts either way.
    pub fn head(&self, name: &str, embedding: &Embedding, tied: bool, shape: [usize; 2]) -> Linear {
        let w = self.at(name);
        match tied && !w.has("weight") {
            true => Linear { bias: w.optional("bias", &shape[..1]), ..embedding.as_linear() },
            false => self.linear(name, shape),
        }
    }

    fn is_shaped(&self, name: &str, shape: &[usize]) -> bool {
        let name = self.name(name);
        with(|r| r.shape_of(&name) == Some(shape))
    }

    pub(crate) fn optional(&self, name: &str, shape: &[usize]) -> Option<Weight> {
        self.has(name).then(|| self.tensor(name, shape))
    }

    fn name(&self, name: &str) -> String {
        [&self.prefix, name].concat()
    }
}

impl Weight {
    #[track_caller]
    fn derive(self, f: impl FnOnce(&[usize]) -> Result<(WeightExpr, Vec<usize>), String>) -> Weight {
        let at = Location::caller();
        Weight(with(|r| match f(r.graph.weight_shape(self.0)) {
            _ if self.0 == POISON => POISON,
            Ok((expr, shape)) => r.weight(expr, shape),
            Err(e) => {
                r.fail(at, e);
                POISON
            }
        }))
    }

    /// `len` indices of a dimension, from `start` on.
    #[track_caller]
    pub fn slice(self, dim: usize, start: usize, len: usize) -> Weight {
        self.derive(|shape| match shape.get(dim) {
            Some(n) if start.checked_add(len).is_some_and(|end| end <= *n) => {
                let mut to = shape.to_vec();
                to[dim] = len;
                Ok((WeightExpr::Slice { of: self.0, dim, start }, to))
            }
            _ => Err(format!("slice: {len} from {start} of dimension {dim} is not inside {shape:?}")),
        })
    }

    /// The same elements; the last dimension stays.
    #[track_caller]
    pub fn reshape(self, to: &[usize]) -> Weight {
        self.derive(|shape| {
            let count = |shape: &[usize]| shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let same = count(shape).is_some() && count(shape) == count(to) && shape.last() == to.last();
            same.then(|| (WeightExpr::Reshape(self.0), to.to_vec()))
                .ok_or(format!("reshape: {shape:?} to {to:?} does not keep the elements and the last dimension"))
        })
    }

    /// The last two dimensions exchanged.
    #[track_caller]
    pub fn transpose(self) -> Weight {
        self.derive(|shape| match shape {
            [outer @ .., a, b] => Ok((WeightExpr::Transpose(self.0), [outer, &[*b, *a]].concat())),
            _ => Err(format!("transpose: {shape:?} has no two dimensions")),
        })
    }

    /// Each index of the first dimension as one row, whose elements, seen as `dims`, come in the order of `axes`.
    #[track_caller]
    pub fn rearrange(self, dims: &[usize], axes: &[usize]) -> Weight {
        self.derive(|shape| {
            let count = |shape: &[usize]| shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let mut sorted = axes.to_vec();
            sorted.sort_unstable();
            match (shape, count(dims)) {
                ([rows, rest @ ..], Some(n)) if count(rest) == Some(n) && sorted.iter().copied().eq(0..dims.len()) => {
                    Ok((WeightExpr::Rearrange { of: self.0, dims: dims.into(), axes: axes.into() }, vec![*rows, n]))
                }
                _ => Err(format!("rearrange: rows of {shape:?} are not {dims:?}, or {axes:?} does not order them")),
            }
        })
    }

    /// Parts along the first dimension.
    #[track_caller]
    pub fn concat(parts: &[Weight]) -> Weight {
        Weight::join(parts, |shapes, ids| {
            let rows = shapes.iter().map(|s| s.first().copied().unwrap_or(0)).sum();
            let rest = shapes[0].get(1..).unwrap_or(&[]);
            let fits = shapes.iter().all(|s| s.get(1..) == Some(rest));
            fits.then(|| (WeightExpr::Concat(ids), [&[rows], rest].concat()))
        })
    }

    /// Parts of one shape under a new first dimension.
    #[track_caller]
    pub fn stack(parts: &[Weight]) -> Weight {
        Weight::join(parts, |shapes, ids| {
            let fits = shapes.iter().all(|s| s == &shapes[0]);
            fits.then(|| (WeightExpr::Stack(ids), [&[shapes.len()], shapes[0]].concat()))
        })
    }

    #[track_caller]
    fn join(parts: &[Weight], f: impl FnOnce(&[&[usize]], Vec<u32>) -> Option<(WeightExpr, Vec<usize>)>) -> Weight {
        let at = Location::caller();
        let ids: Vec<u32> = parts.iter().map(|w| w.0).collect();
        if ids.contains(&POISON) {
            return Weight(POISON);
        }
        Weight(with(|r| {
            let shapes: Vec<&[usize]> = ids.iter().map(|w| r.graph.weight_shape(*w)).collect();
            let joined = if shapes.is_empty() { None } else { f(&shapes, ids) };
            match joined.ok_or_else(|| format!("parts {shapes:?} do not fit together")) {
                Ok((expr, shape)) => r.weight(expr, shape),
                Err(e) => {
                    r.fail(at, e);
                    POISON
                }
            }
        }))
    }

    /// For [`crate::AttentionSpec::sinks`] and [`crate::RouteSpec::choice_bias`].
    pub fn id(self) -> crate::WeightId {
        self.0
    }
}

impl std::ops::Add<f32> for Weight {
    type Output = Weight;
    #[track_caller]
    fn add(self, by: f32) -> Weight {
        self.derive(|shape| Ok((WeightExpr::AddScalar(self.0, by), shape.to_vec())))
    }
}

impl std::ops::Mul<f32> for Weight {
    type Output = Weight;
    #[track_caller]
    fn mul(self, by: f32) -> Weight {
        self.derive(|shape| Ok((WeightExpr::MulScalar(self.0, by), shape.to_vec())))
    }
}

impl Linear {
    /// [.., k] -> [.., n]
    #[track_caller]
    pub fn forward(&self, x: Tensor) -> Tensor {
        push(Op::Linear { weight: self.weight.0, bias: self.bias.map(|b| b.0) }, &[x])
    }
}

impl RmsNorm {
    /// Gemma stores the weight less one.
    #[track_caller]
    pub fn plus_one(self) -> RmsNorm {
        RmsNorm { weight: self.weight.map(|w| w + 1.0), ..self }
    }

    /// Over the last dimension.
    #[track_caller]
    pub fn forward(&self, x: Tensor) -> Tensor {
        push(Op::RmsNorm { weight: self.weight.map(|w| w.0), eps: self.eps }, &[x])
    }
}

impl LayerNorm {
    /// Over the last dimension.
    #[track_caller]
    pub fn forward(&self, x: Tensor) -> Tensor {
        push(Op::LayerNorm { weight: self.weight.map(|w| w.0), bias: self.bias.map(|b| b.0), eps: self.eps }, &[x])
    }
}

impl Conv1d {
    /// Over the rows of each sequence; never across sequences. [tokens, channels] -> [tokens, channels]
    #[track_caller]
    pub fn forward(&self, x: Tensor) -> Tensor {
        push(Op::CausalConv1d { weight: self.weight.0, bias: self.bias.map(|b| b.0) }, &[x])
    }
}

impl Xielu {
    /// Element by element.
    #[track_caller]
    pub fn forward(&self, x: Tensor) -> Tensor {
        let [alpha_p, alpha_n, beta, eps] = [self.alpha_p.0, self.alpha_n.0, self.beta.0, self.eps.0];
        push(Op::Xielu { alpha_p, alpha_n, beta, eps }, &[x])
    }
}

impl Embedding {
    /// `[rows]` -> [rows, dim]
    #[track_caller]
    pub fn forward(&self, ids: Tensor) -> Tensor {
        push(Op::Embedding { weight: self.weight.0 }, &[ids])
    }

    /// The same table as an output head.
    pub fn as_linear(&self) -> Linear {
        Linear { weight: self.weight, bias: None }
    }
}
