//! The host's own form of a recorded graph: the vocabulary plus fused operations that no plugin can
//! send. Executors run this; [`rewrite`] makes it short.

pub mod custom;
mod lower;
mod ops;
pub(crate) mod plan;
mod rewrite;
mod rules;
mod split;
mod tidy;

pub use lower::lower;
pub use ops::{Conv, HeadLinear};
pub use rewrite::{Rewriter, Rule, rewrite};
pub use rules::RULES;
pub use split::Split;

use crate::{Error, Result};
use std::{collections::BTreeSet, ops::Range};
use tamarack_api::{
    Activation, CustomOp, Dim, ExpertSpec, Pairing, RopeId, RopeSpec, RouteSpec, Sym, WeightExpr, WeightId, WeightNode,
};
use tamarack_kernels::CacheFormat;

/// A node's place in [`Program::nodes`].
pub type NodeId = usize;
/// A cache's place in [`Program::caches`].
pub type CacheId = usize;

/// A model, ready to be planned for a device.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Program {
    /// Operations; each takes only earlier ones.
    pub nodes: Vec<Node>,
    /// Weights; each expression takes only earlier ones.
    pub weights: Vec<WeightNode>,
    /// Rotary embeddings.
    pub ropes: Vec<RopeSpec>,
    /// Key and value caches.
    pub caches: Vec<Cache>,
    /// Ops of the plugin's own.
    pub custom: Vec<CustomOp>,
    /// Those in plain arithmetic, if the plugin is at hand.
    pub plain: Option<custom::PlainOps>,
    /// The logits [outputs, vocabulary], or the embeddings of a tower.
    pub output: NodeId,
    /// Of a tower: patches that become one row. Its patches are a step's tokens, and what it merges them to its outputs.
    pub tower: Option<usize>,
    /// Of a tower: tokens of the text model that see each other, at most.
    pub span: usize,
}

/// One operation.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it takes.
    pub inputs: Vec<NodeId>,
    /// The shape of the result: [rows, ..] with constant rest.
    pub shape: Vec<Dim>,
    /// Where the plugin's author wrote it.
    pub place: String,
}

/// The sizes of one layer's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    /// Key and value heads.
    pub groups: usize,
    /// Elements of a key.
    pub dk: usize,
    /// Elements of a value.
    pub dv: usize,
    /// Whether a value is the beginning of its key, and not stored: a latent's.
    pub latent: bool,
    /// How keys and values lie there.
    pub format: CacheFormat,
    /// Whether, in a tower, its sequences are windows and not segments.
    pub windowed: bool,
}

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
    /// Rows that another device has made, of a part of a model: see [`Program::split`]. -> [tokens, width]
    Carried,
    /// Rows that stand for rows of images become those, their first columns. [tokens, dim] -> [tokens, dim]
    MergeEmbeddings,
    /// To rows that stand for rows of images, the columns of those from this many times `dim` on are added.
    AddEmbeddings(usize),
    /// An op of the plugin's own.
    Custom {
        /// Index into [`Program::custom`].
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

impl Program {
    /// The symbol that a node's rows count.
    pub fn rows(&self, id: NodeId) -> Sym {
        self.nodes[id].shape.first().and_then(|d| d.sym()).unwrap_or(Sym::Tokens)
    }

    /// Elements that each cache keeps of a token: of its keys, and of its values.
    pub fn cache_widths(&self) -> Vec<[usize; 2]> {
        self.caches.iter().map(|c| [c.groups * c.dk, c.width() - c.groups * c.dk]).collect()
    }

    /// How wide rows of images have to be, if it takes any.
    pub fn image_width(&self) -> Option<usize> {
        let width = |(id, node): (NodeId, &Node)| match node.op {
            Op::MergeEmbeddings => Some(self.width(id)),
            Op::AddEmbeddings(part) => Some(self.width(id).saturating_mul(part.saturating_add(1))),
            _ => None,
        };
        self.nodes.iter().enumerate().filter_map(width).max()
    }

    /// Elements in a row of a node's result.
    pub fn width(&self, id: NodeId) -> usize {
        self.nodes[id].shape.iter().skip(1).map(|d| d.constant().unwrap_or(1)).product()
    }

    /// The constant dimensions of a node's result.
    pub fn dims(&self, id: NodeId) -> Vec<usize> {
        self.nodes[id].shape.iter().skip(1).map(|d| d.constant().unwrap_or(1)).collect()
    }

    /// A weight's shape.
    pub fn weight_shape(&self, id: WeightId) -> &[usize] {
        &self.weights[id as usize].shape
    }

    /// The names of the checkpoint's tensors in a weight, for errors and profiles.
    pub fn weight_names(&self, id: WeightId) -> Vec<&str> {
        match &self.weights[id as usize].expr {
            WeightExpr::Tensor(name) => vec![name],
            expr => expr.parts().iter().flat_map(|p| self.weight_names(*p)).collect(),
        }
    }

    /// The names of the checkpoint's tensors that nodes use.
    pub fn used_names(&self) -> BTreeSet<String> {
        let (matrices, vectors) = self.used_weights();
        matrices.union(&vectors).flat_map(|id| self.weight_names(*id)).map(str::to_owned).collect()
    }

    /// Every weight that nodes use: as matrices (products and tables), and as vectors.
    pub fn used_weights(&self) -> (BTreeSet<WeightId>, BTreeSet<WeightId>) {
        let (mut matrices, mut vectors) = (BTreeSet::new(), BTreeSet::new());
        for node in &self.nodes {
            match &node.op {
                Op::Embedding { weight, .. } => matrices.extend([*weight]),
                Op::MatMul(m) => {
                    matrices.extend([m.weight]);
                    vectors.extend(m.bias.into_iter().chain(m.norm.iter().flat_map(Norm::weights)));
                }
                Op::Norm { norm, .. } => vectors.extend(norm.weights()),
                Op::Attend { spec, .. } => vectors.extend(spec.sinks),
                Op::HeadLinear(h) => matrices.extend([h.weight]),
                Op::Conv(c) => vectors.extend([c.weight].into_iter().chain(c.bias)),
                Op::MulWeight { weight, .. } | Op::Xielu(weight) => vectors.extend([*weight]),
                Op::Custom { weights, .. } => vectors.extend(weights),
                Op::Prepare(p) => vectors.extend(p.norms().flat_map(Norm::weights)),
                Op::Route(spec) => vectors.extend(spec.choice_bias),
                Op::ExpertUp(ExpertUp { weight, bias, .. }) | Op::ExpertDown(ExpertDown { weight, bias, .. }) => {
                    matrices.extend([*weight]);
                    vectors.extend(*bias);
                }
                _ => {}
            }
        }
        (matrices, vectors)
    }

    /// Refuses a tower whose rows, of so many elements, it has no place for.
    pub(crate) fn check_tower(&self, width: usize) -> Result<()> {
        match self.image_width() {
            Some(own) if own == width => Ok(()),
            Some(own) => Err(Error::Model(format!("the tower makes rows of {width}, the text model takes {own}"))),
            None => Err(Error::Model("the text model has no place for images".to_owned())),
        }
    }

    /// The ropes of a node's head steps and whether each pairs halves.
    pub fn rope(&self, id: RopeId) -> (&RopeSpec, bool) {
        let rope = &self.ropes[id as usize];
        (rope, rope.pairing == Pairing::Half)
    }

    /// Where a node's post steps find their inputs.
    pub fn post_inputs(&self, id: NodeId) -> Range<usize> {
        let inputs = self.nodes[id].inputs.len();
        let first = match &self.nodes[id].op {
            Op::Binary { .. } | Op::RowMatMul | Op::ExpertUp(_) | Op::ExpertDown(_) => 2,
            Op::Conv(c) => c.inputs(),
            _ => 1,
        };
        first..inputs
    }
}
