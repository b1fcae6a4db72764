//! What the nodes of a program do.

use super::CacheId;
use tamarack_api::{Activation, ExpertSpec, RopeId, RouteSpec, WeightId};

/// What a node does. Where an op has `post` steps, each `Add` and `Mul` takes the next input after
/// the op's own.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// The token ids. -> `[tokens]`
    Tokens,
    /// Which adapter each row has, 0 is none. -> `[tokens]`
    Adapters,
    /// Rows of a table, times a factor. `[rows]` -> [rows, dim]; the ids are tokens, adapters, or computed.
    Embedding {
        /// [n, dim]
        weight: WeightId,
        /// On every element.
        scale: f32,
    },
    /// [.., k] -> [.., n]
    MatMul(MatMul),
    /// Over the last dimension.
    Norm {
        /// How.
        norm: Norm,
        /// And then.
        post: Vec<Post>,
    },
    /// Element by element, beginning with the input itself.
    Map(Vec<Post>),
    /// Element by element times a vector as long as the last dimension.
    MulWeight {
        /// The vector.
        weight: WeightId,
        /// And then.
        post: Vec<Post>,
    },
    /// xIELU; the vector has its four parameters, see [`tamarack_api::Op::Xielu`].
    Xielu(WeightId),
    /// The mean of the last dimension, which becomes 1.
    Mean,
    /// [rows, m, k] and [rows, k, n] -> [rows, m, n]
    RowMatMul,
    /// Element by element of two inputs; a dimension of 1 repeats.
    Binary {
        /// Which.
        op: Binary,
        /// And then.
        post: Vec<Post>,
    },
    /// The same elements under another shape.
    Reshape,
    /// A range of a constant dimension.
    Slice {
        /// Which dimension.
        dim: usize,
        /// Its first index.
        start: usize,
    },
    /// Parts side by side along the last dimension.
    Concat,
    /// Rotary embedding of [rows, heads, dim].
    Rope(RopeId),
    /// What comes between the projections and the scores: queries, keys and values take their steps,
    /// and keys and values go to the cache. The result is the queries, if there are any.
    Prepare(Prepare),
    /// Queries [tokens, heads, dk], and the node that wrote the cache -> [tokens, heads, dv]
    Attend {
        /// Whose keys and values.
        cache: CacheId,
        /// How.
        spec: tamarack_api::AttentionSpec,
    },
    /// A router's logits [rows, experts] -> [rows, 2, top_k]: the chosen experts' numbers, and their weights.
    Route(RouteSpec),
    /// The first half of what each chosen expert makes of a row. [rows, dim], and a route -> [rows, top_k, ff]
    ExpertUp(ExpertUp),
    /// The second half, weighted and summed. [rows, top_k, ff], and a route -> [rows, dim]
    ExpertDown(ExpertDown),
    /// [tokens, heads, k] -> [tokens, heads, n], every head by a matrix of its own.
    HeadLinear(HeadLinear),
    /// A causal convolution of each channel over the rows of its sequence, which go to a cache.
    Conv(Conv),
    /// The rows whose logits are wanted. [tokens, ..] -> [outputs, ..]
    Outputs,
    /// The pixels of a tower's step. -> [tokens, width]
    Patches,
    /// Numbers that come with the patches of a tower's step, by name. -> [tokens, width]
    PatchInput(String),
    /// Rows that another device has made, of a part of a model: see [`Program::split`](super::Program::split). -> [tokens, width]
    Carried,
    /// Rows that stand for rows of images become those, their first columns. [tokens, dim] -> [tokens, dim]
    MergeEmbeddings,
    /// To rows that stand for rows of images, the columns of those from this many times `dim` on are added.
    AddEmbeddings(usize),
    /// An op of the plugin's own.
    Custom {
        /// Index into [`Program::custom`](super::Program::custom).
        custom: usize,
        /// What it takes beside its inputs.
        weights: Vec<WeightId>,
        /// Whether the last input is the same result, made of other operations.
        decomposed: bool,
    },
}

/// See [`Op::ExpertUp`]: y = gate(x W_e^T + b_e) for each chosen expert `e`.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpertUp {
    /// [experts, 2 * ff, dim]
    pub weight: WeightId,
    /// As many as the weight has rows.
    pub bias: Option<WeightId>,
    /// What becomes of the two halves, and how they lie.
    pub spec: ExpertSpec,
}

/// See [`Op::ExpertDown`]: y = post(the sum of w_e * (x_e W_e^T + b_e) over the chosen experts).
#[derive(Clone, PartialEq, Debug)]
pub struct ExpertDown {
    /// [experts, dim, ff]
    pub weight: WeightId,
    /// [experts, dim]
    pub bias: Option<WeightId>,
    /// And then.
    pub post: Vec<Post>,
}

/// A matrix product with what is fused into it: y = post(glu(norm(x) W^T + b)).
#[derive(Clone, PartialEq, Debug)]
pub struct MatMul {
    /// [n, k]
    pub weight: WeightId,
    /// `[n]`
    pub bias: Option<WeightId>,
    /// RMS norm of the input.
    pub norm: Option<Norm>,
    /// The weight's first half is the gate, the second half what it gates: y = act(gate) * up.
    pub glu: Option<Activation>,
    /// And then.
    pub post: Vec<Post>,
}

/// A norm over the last dimension.
#[derive(Clone, PartialEq, Debug)]
pub struct Norm {
    /// Whether the mean is taken off first (layer norm).
    pub center: bool,
    /// `[dim]` or [heads, dim]
    pub weight: Option<WeightId>,
    /// `[dim]`
    pub bias: Option<WeightId>,
    /// Added to the mean square.
    pub eps: f32,
}

/// A step of a chain over single elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Post {
    /// v = f(v)
    Activation(Activation),
    /// v = v * c
    Scale(f32),
    /// v = v + c
    AddScalar(f32),
    /// v into [min, max]
    Clamp(f32, f32),
    /// v = sqrt(v)
    Sqrt,
    /// v = v + input
    Add,
    /// v = v * input
    Mul,
}

/// An operation on two elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Binary {
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
}

/// See [`Op::Prepare`]. Inputs are [tokens, heads, dim].
#[derive(Clone, PartialEq, Debug)]
pub struct Prepare {
    /// Queries.
    pub q: Option<Heads>,
    /// Keys and values, and where they go.
    pub kv: Option<KvHeads>,
}

/// Keys and values of one cache.
#[derive(Clone, PartialEq, Debug)]
pub struct KvHeads {
    /// Keys.
    pub k: Heads,
    /// Values; none where the cache is latent.
    pub v: Option<Heads>,
    /// Where they go.
    pub cache: CacheId,
}

/// One of a node's inputs, and what each of its heads goes through.
#[derive(Clone, PartialEq, Debug)]
pub struct Heads {
    /// Index into the node's inputs.
    pub input: usize,
    /// In order.
    pub steps: Vec<HeadStep>,
}

/// A step over one head.
#[derive(Clone, PartialEq, Debug)]
pub enum HeadStep {
    /// Root-mean-square norm.
    Norm(Norm),
    /// Rotary embedding.
    Rope(RopeId),
    /// Times a factor.
    Scale(f32),
}

/// y\[h\] = W\[h\] x\[h\], or W\[h\]^T x\[h\]. Latent attention has its keys' half moved to the queries and its
/// values' half to the result, so that nothing is computed for a cached row again (arXiv:2405.04434, section 2.1.2).
#[derive(Clone, PartialEq, Debug)]
pub struct HeadLinear {
    /// [heads, n, k], transposed [heads, k, n].
    pub weight: WeightId,
    /// Whether it is W^T.
    pub transposed: bool,
}

/// A causal convolution. With two inputs their product is convolved, and cached.
#[derive(Clone, PartialEq, Debug)]
pub struct Conv {
    /// [channels, kernel]
    pub weight: WeightId,
    /// `[channels]`
    pub bias: Option<WeightId>,
    /// Where the rows go: as keys of one head, without values.
    pub cache: usize,
    /// Whether there is a second input.
    pub gated: bool,
    /// And then.
    pub post: Vec<Post>,
}

impl MatMul {
    /// x W^T + b
    pub fn plain(weight: WeightId, bias: Option<WeightId>) -> MatMul {
        MatMul { weight, bias, norm: None, glu: None, post: Vec::new() }
    }

    /// Whether nothing is fused into it.
    pub fn is_plain(&self) -> bool {
        self.norm.is_none() && self.glu.is_none() && self.post.is_empty()
    }
}

impl Norm {
    /// Weight and bias, where there are.
    pub fn weights(&self) -> impl Iterator<Item = WeightId> {
        self.weight.into_iter().chain(self.bias)
    }
}

impl Prepare {
    /// Queries, keys and values, those that there are.
    pub fn heads(&self) -> impl Iterator<Item = &Heads> {
        self.q.iter().chain(self.kv.iter().flat_map(|kv| std::iter::once(&kv.k).chain(&kv.v)))
    }

    /// The norms of all heads, in the same order.
    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        self.heads().flat_map(|h| &h.steps).filter_map(|s| if let HeadStep::Norm(n) = s { Some(n) } else { None })
    }
}

impl Post {
    /// Whether it takes an input of its own.
    pub fn takes_input(self) -> bool {
        matches!(self, Post::Add | Post::Mul)
    }
}

impl Op {
    /// A short name for tables and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Tokens => "tokens",
            Op::Adapters => "adapters",
            Op::Embedding { .. } => "embedding",
            Op::MatMul(m) if m.glu.is_some() => "glu matmul",
            Op::MatMul(_) => "matmul",
            Op::Norm { norm, .. } if norm.center => "layer_norm",
            Op::Norm { .. } => "rms_norm",
            Op::Map(_) => "map",
            Op::MulWeight { .. } => "mul_weight",
            Op::Xielu(_) => "xielu",
            Op::Mean => "mean",
            Op::RowMatMul => "row_matmul",
            Op::Binary { .. } => "binary",
            Op::Reshape => "reshape",
            Op::Slice { .. } => "slice",
            Op::Concat => "concat",
            Op::Rope(_) => "rope",
            Op::Prepare(_) => "prepare",
            Op::Attend { .. } => "attend",
            Op::Route(_) => "route",
            Op::ExpertUp(_) => "experts up",
            Op::ExpertDown(_) => "experts down",
            Op::HeadLinear(_) => "head_linear",
            Op::Conv(_) => "causal_conv1d",
            Op::Outputs => "outputs",
            Op::Patches => "patches",
            Op::PatchInput(_) => "patch_input",
            Op::Carried => "carried",
            Op::MergeEmbeddings => "merge_embeddings",
            Op::AddEmbeddings(_) => "add_embeddings",
            Op::Custom { .. } => "custom",
        }
    }

    /// The cache that it writes or reads.
    pub fn cache(&self) -> Option<CacheId> {
        match self {
            Op::Prepare(p) => p.kv.as_ref().map(|kv| kv.cache),
            Op::Attend { cache, .. } => Some(*cache),
            Op::Conv(conv) => Some(conv.cache),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(crate) fn cache_mut(&mut self) -> Option<&mut CacheId> {
        match self {
            Op::Prepare(p) => p.kv.as_mut().map(|kv| &mut kv.cache),
            Op::Attend { cache, .. } => Some(cache),
            Op::Conv(conv) => Some(&mut conv.cache),
            _ => None,
        }
    }

    /// Whether the result is only another way to look at the input.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Reshape | Op::Slice { .. })
    }
}

impl Conv {
    /// Inputs before those of the post steps.
    pub fn inputs(&self) -> usize {
        if self.gated { 2 } else { 1 }
    }
}
