//! The recorded form: what crosses the plugin boundary, as JSON.

use crate::{CustomId, CustomOp, Dim, Error, ExpertSpec, Index, Result, RopeSpec, RouteSpec};
use serde::{Deserialize, Serialize};

/// The version of the vocabulary: a new op or field raises the second number.
pub const API: (u32, u32) = (1, 5);

/// A node's place in [`Graph::nodes`].
pub type NodeId = u32;
/// A weight's place in [`Graph::weights`].
pub type WeightId = u32;
/// A rope's place in [`Graph::ropes`].
pub type RopeId = u32;

/// An activation function, under PyTorch's names; a configuration may also use `transformers`' ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x * sigmoid(x)
    #[serde(alias = "swish")]
    Silu,
    /// x * Phi(x), by the error function
    #[serde(alias = "gelu_python")]
    Gelu,
    /// gelu's approximation by tanh
    #[serde(
        alias = "gelu_pytorch_tanh",
        alias = "gelu_new",
        alias = "gelu_fast",
        alias = "gelu_python_tanh",
        alias = "gelu_accurate"
    )]
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// tanh(x)
    Tanh,
    /// x * sigmoid(1.702 x), arXiv:1606.08415. Since api 1.2.
    QuickGelu,
}

/// How scores become probabilities, and what each row sees. A row never sees later rows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionSpec {
    /// Factor on each score.
    pub scale: f32,
    /// A key is seen iff the query's position less its own is smaller than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Scores become `c * tanh(score / c)`, after the scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softcap: Option<f32>,
    /// One more logit per head `[heads]`, which takes probability and gives no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sinks: Option<WeightId>,
}

impl AttentionSpec {
    /// Scores divided by the root of the head's size, arXiv:1706.03762.
    pub fn causal(head_dim: usize) -> AttentionSpec {
        AttentionSpec { scale: (head_dim as f32).powf(-0.5), window: None, softcap: None, sinks: None }
    }

    /// With a sliding window of so many positions, the row itself counted.
    pub fn window(self, window: Option<usize>) -> AttentionSpec {
        AttentionSpec { window, ..self }
    }
}

/// What a cache need not keep.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// Rows this far behind the newest are never looked at again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
}

/// One operation. Shapes: `[rows, ..]` with rows symbolic and the rest constant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// The token ids of this step. -> `[tokens]`
    Tokens {},
    /// Rows of a table [n, dim]; ids beyond it take row 0. `[rows]` -> [rows, dim]. Ids that are computed are whole numbers
    /// up to 2^24, since api 1.3.
    Embedding {
        /// [n, dim]
        weight: WeightId,
    },
    /// x W^T + b. [.., k] -> [.., n]
    Linear {
        /// [n, k]
        weight: WeightId,
        /// `[n]`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<WeightId>,
    },
    /// Over the last dimension, arXiv:1910.07467. The weight is `[dim]`, or [heads, dim] for [rows, heads, dim].
    RmsNorm {
        /// Absent: 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<WeightId>,
        /// Added to the mean square.
        eps: f32,
    },
    /// Over the last dimension, arXiv:1607.06450. The weight as for [`Op::RmsNorm`].
    LayerNorm {
        /// Absent: 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<WeightId>,
        /// `[dim]`. Absent: 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<WeightId>,
        /// Added to the variance.
        eps: f32,
    },
    /// Element by element.
    Activation {
        /// Which.
        function: Activation,
    },
    /// Element by element into [min, max].
    Clamp {
        /// Absent: unbounded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<f32>,
        /// Absent: unbounded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<f32>,
    },
    /// Element by element; a dimension of 1 repeats.
    Add {},
    /// Likewise.
    Sub {},
    /// Likewise.
    Mul {},
    /// Likewise.
    Div {},
    /// x * by
    MulScalar {
        /// The factor.
        by: f32,
    },
    /// x + by
    AddScalar {
        /// The summand.
        by: f32,
    },
    /// x * weight, which is `[dim]`, as long as the last dimension.
    MulWeight {
        /// The factors.
        weight: WeightId,
    },
    /// The square root, element by element.
    Sqrt {},
    /// The mean of the last dimension, which becomes 1.
    Mean {},
    /// Row by row a product of two small matrices. [rows, m, k] and [rows, k, n] -> [rows, m, n]
    Matmul {},
    /// The activation xIELU, arXiv:2411.13010, whose parameters are weights of one element:
    /// a = softplus(alpha_p), b = beta + softplus(alpha_n); a x^2 + beta x above 0, and
    /// b (expm1(min(x, eps)) - x) + beta x below.
    Xielu {
        /// Before its softplus.
        alpha_p: WeightId,
        /// Before its softplus.
        alpha_n: WeightId,
        /// The slope at 0.
        beta: WeightId,
        /// Slightly below 0.
        eps: WeightId,
    },
    /// The same elements under another shape.
    Reshape {
        /// As many elements.
        shape: Vec<Dim>,
    },
    /// A range of a constant dimension.
    Slice {
        /// Which dimension, not the first.
        dim: usize,
        /// Its first index.
        start: usize,
        /// How many.
        len: usize,
    },
    /// Parts side by side along the last dimension.
    Concat {},
    /// Rotary embedding of [rows, heads, dim], arXiv:2104.09864.
    Rope {
        /// Which rope.
        rope: RopeId,
    },
    /// Appends keys [tokens, groups, dk] and values [tokens, groups, dv] to a cache of their own.
    Kv {
        /// What the cache need not keep.
        #[serde(default)]
        cache: CacheSpec,
    },
    /// Queries [tokens, heads, dk] and a [`Op::Kv`] -> [tokens, heads, dv]; groups divide heads.
    Attention {
        /// How.
        spec: AttentionSpec,
    },
    /// Chooses experts for each row by the logits x W^T + b. [rows, dim] -> [rows, 2, top_k]: their numbers, and
    /// their weights. Since api 1.1.
    MoeRoute {
        /// [experts, dim]
        weight: WeightId,
        /// `[experts]`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<WeightId>,
        /// How.
        spec: RouteSpec,
    },
    /// The weighted sum of what its experts make of each row. [rows, dim] and a route [rows, 2, top_k] ->
    /// [rows, dim]. A number that is no expert's adds nothing. Since api 1.1.
    MoeExperts {
        /// [experts, 2 * ff, dim]
        gate_up: WeightId,
        /// [experts, dim, ff]
        down: WeightId,
        /// [experts, 2 * ff] or [experts, 2, ff]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate_up_bias: Option<WeightId>,
        /// [experts, dim]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down_bias: Option<WeightId>,
        /// How.
        spec: ExpertSpec,
    },
    /// Latent attention, arXiv:2405.04434, of queries [tokens, heads, nope] and [tokens, heads, rope] over latents
    /// [tokens, rank] and rotated keys [tokens, rope] that all heads share -> [tokens, heads, v]. Only latents and
    /// rotated keys are cached: head h has the keys `key[h] latent` beside the rotated one, and the values
    /// `value[h] latent`.
    LatentAttention {
        /// [heads, nope, rank]
        key: WeightId,
        /// [heads, v, rank]
        value: WeightId,
        /// How.
        spec: AttentionSpec,
    },
    /// Each channel's weighted sum of its last values in the sequence, the row's own last: zeros come before the
    /// first. [tokens, channels] -> [tokens, channels]
    CausalConv1d {
        /// [channels, kernel]
        weight: WeightId,
        /// `[channels]`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<WeightId>,
    },
    /// The rows whose logits are wanted. [tokens, ..] -> [outputs, ..]
    Outputs {},
    /// The pixels of this step's patches. -> [patches, width]. Since api 1.2.
    Patches {
        /// Channels * frames * height * width of a patch.
        width: usize,
    },
    /// The number that the processor gives each patch. -> `[patches]`. Since api 1.2.
    PatchIds {},
    /// Numbers that the processor gives each patch. -> [patches, width]. Since api 1.3.
    PatchInput {
        /// What the processor calls them.
        name: String,
        /// How many for each patch.
        width: usize,
    },
    /// Rows of image tokens become those that the tower has computed. [tokens, dim] -> [tokens, dim]. Since api 1.2.
    MergeEmbeddings {},
    /// To rows of image tokens a further part of what the tower has computed is added. [tokens, dim] -> [tokens, dim]. Since
    /// api 1.3.
    AddEmbeddings {
        /// Columns from `part * dim` on.
        part: usize,
    },
    /// Queries [patches, heads, dk], keys [patches, groups, dk] and values [patches, groups, dv] -> [patches, heads, dv]: a
    /// patch sees all patches of its segment. Since api 1.2.
    SegmentAttention {
        /// Factor on each score.
        scale: f32,
        /// Whether it sees those of its window instead. Since api 1.3.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        windowed: bool,
    },
    /// An op of the plugin's own. [rows, ..] of each input -> [rows, ..dims]. Since api 1.1.
    Custom {
        /// Which.
        custom: CustomId,
        /// What it takes beside its inputs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        weights: Vec<WeightId>,
        /// Whether one more input is the same result, made of the vocabulary's ops.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        decomposed: bool,
    },
}

impl Op {
    /// The op's name in the encoding.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Tokens {} => "tokens",
            Op::Embedding { .. } => "embedding",
            Op::Linear { .. } => "linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Activation { .. } => "activation",
            Op::Clamp { .. } => "clamp",
            Op::Add {} => "add",
            Op::Sub {} => "sub",
            Op::Mul {} => "mul",
            Op::Div {} => "div",
            Op::MulScalar { .. } => "mul_scalar",
            Op::AddScalar { .. } => "add_scalar",
            Op::MulWeight { .. } => "mul_weight",
            Op::Sqrt {} => "sqrt",
            Op::Mean {} => "mean",
            Op::Matmul {} => "matmul",
            Op::Xielu { .. } => "xielu",
            Op::Reshape { .. } => "reshape",
            Op::Slice { .. } => "slice",
            Op::Concat {} => "concat",
            Op::Rope { .. } => "rope",
            Op::Kv { .. } => "kv",
            Op::Attention { .. } => "attention",
            Op::MoeRoute { .. } => "moe_route",
            Op::MoeExperts { .. } => "moe_experts",
            Op::LatentAttention { .. } => "latent_attention",
            Op::CausalConv1d { .. } => "causal_conv1d",
            Op::Outputs {} => "outputs",
            Op::Patches { .. } => "patches",
            Op::PatchIds {} => "patch_ids",
            Op::PatchInput { .. } => "patch_input",
            Op::MergeEmbeddings {} => "merge_embeddings",
            Op::AddEmbeddings { .. } => "add_embeddings",
            Op::SegmentAttention { .. } => "segment_attention",
            Op::Custom { .. } => "custom",
        }
    }

    /// The weights that this op reads.
    pub fn weights(&self) -> impl Iterator<Item = WeightId> {
        let all = match self {
            Op::Embedding { weight } | Op::MulWeight { weight } => [Some(*weight), None, None, None],
            Op::Linear { weight, bias } | Op::CausalConv1d { weight, bias } => [Some(*weight), *bias, None, None],
            Op::RmsNorm { weight, .. } => [*weight, None, None, None],
            Op::LayerNorm { weight, bias, .. } => [*weight, *bias, None, None],
            Op::Attention { spec } => [spec.sinks, None, None, None],
            Op::LatentAttention { key, value, spec } => [Some(*key), Some(*value), spec.sinks, None],
            Op::Xielu { alpha_p, alpha_n, beta, eps } => [alpha_p, alpha_n, beta, eps].map(|w| Some(*w)),
            Op::MoeRoute { weight, bias, spec } => [Some(*weight), *bias, spec.choice_bias, None],
            Op::MoeExperts { gate_up, down, gate_up_bias, down_bias, .. } => {
                [Some(*gate_up), Some(*down), *gate_up_bias, *down_bias]
            }
            _ => [None; 4],
        };
        let list: &[WeightId] = if let Op::Custom { weights, .. } = self { weights } else { &[] };
        all.into_iter().flatten().chain(list.iter().copied())
    }
}

/// One recorded operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it takes: earlier nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<NodeId>,
    /// Index into [`Graph::places`]: where the author wrote it.
    pub at: u32,
    /// The shape of the result. Not encoded: each side infers it with the same function.
    #[serde(skip)]
    pub shape: Vec<Dim>,
}

/// A weight: a tensor of the checkpoint, or an expression over weights that the host folds at load.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WeightExpr {
    /// The tensor of this full name.
    Tensor(String),
    /// A range of one dimension.
    Slice {
        /// Of this weight.
        of: WeightId,
        /// Along this dimension.
        dim: usize,
        /// Its first index.
        start: usize,
    },
    /// Parts of one shape under a new first dimension.
    Stack(Vec<WeightId>),
    /// Parts along the first dimension.
    Concat(Vec<WeightId>),
    /// The same elements; the last dimension stays.
    Reshape(WeightId),
    /// The last two dimensions exchanged.
    Transpose(WeightId),
    /// Each index of the first dimension as one row, whose elements, seen as `dims`, come in the order of `axes`. Since
    /// api 1.2.
    Rearrange {
        /// Of this weight.
        of: WeightId,
        /// What a row is seen as.
        dims: Vec<usize>,
        /// A permutation of `dims`, slowest first.
        axes: Vec<usize>,
    },
    /// Every element plus a number.
    AddScalar(WeightId, f32),
    /// Every element times a number.
    MulScalar(WeightId, f32),
}

impl WeightExpr {
    /// The weights that this expression is made of.
    pub fn parts(&self) -> &[WeightId] {
        match self {
            WeightExpr::Tensor(_) => &[],
            WeightExpr::Stack(parts) | WeightExpr::Concat(parts) => parts,
            WeightExpr::Slice { of, .. }
            | WeightExpr::Rearrange { of, .. }
            | WeightExpr::Reshape(of)
            | WeightExpr::Transpose(of)
            | WeightExpr::AddScalar(of, _)
            | WeightExpr::MulScalar(of, _) => std::slice::from_ref(of),
        }
    }
}

/// A weight and its shape, all constants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightNode {
    /// What it is.
    pub expr: WeightExpr,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// What one architecture recorded for one checkpoint.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Graph {
    /// The vocabulary's version that the plugin was built with.
    pub api: (u32, u32),
    /// Operations; each takes only earlier ones.
    pub nodes: Vec<Node>,
    /// Weights; each expression takes only earlier ones.
    pub weights: Vec<WeightNode>,
    /// Rotary embeddings.
    pub ropes: Vec<RopeSpec>,
    /// Ops of the plugin's own. Since api 1.1.
    pub custom: Vec<CustomOp>,
    /// Source lines, for errors and profiles.
    pub places: Vec<String>,
    /// The node whose rows are the logits, or of a tower the embeddings.
    pub output: NodeId,
    /// Tensors of the checkpoint that the architecture neither uses nor ignores. Since api 1.5; earlier plugins refuse a
    /// checkpoint with any.
    pub unused: Index,
}

impl Graph {
    /// Refuses tensors that are unused, of a checkpoint that has `all`.
    ///
    /// # Errors
    /// How many there are, and the first.
    pub fn refuse_unused(&self, all: usize) -> Result<()> {
        let Some((first, shape)) = self.unused.first_key_value() else { return Ok(()) };
        let n = self.unused.len();
        Err(Error(format!(
            "the architecture does not use {n} of the checkpoint's {all} tensors, the first is {first} {shape:?}: the model \
             may be of another kind, or the plugin must `ignore` them"
        )))
    }

    /// The inferred shape of a node; empty for a number that is no node.
    pub fn shape(&self, id: NodeId) -> &[Dim] {
        self.nodes.get(id as usize).map_or(&[], |n| &n.shape)
    }

    /// The shape of a weight; empty for a number that is none.
    pub fn weight_shape(&self, id: WeightId) -> &[usize] {
        self.weights.get(id as usize).map_or(&[], |w| &w.shape)
    }

    /// The source line that recorded a node.
    pub fn place(&self, id: NodeId) -> &str {
        let at = self.nodes.get(id as usize).map_or(u32::MAX, |n| n.at);
        self.places.get(at as usize).map_or("?", |p| p)
    }
}
