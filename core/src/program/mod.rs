//! The host's own form of a recorded graph: the vocabulary plus fused operations that no plugin can
//! send. Executors run this; [`rewrite`] makes it short.

mod cache;
pub mod custom;
mod lower;
mod ops;
pub(crate) mod plan;
mod rewrite;
mod rules;
mod split;
mod tidy;

pub use cache::Cache;
pub use lower::lower;
pub use ops::{
    Binary, Conv, ExpertDown, ExpertUp, HeadLinear, HeadStep, Heads, KvHeads, MatMul, Norm, Op, Post, Prepare,
};
pub use rewrite::{Rewriter, Rule, rewrite};
pub use rules::RULES;
pub use split::Split;

use crate::{Error, Result};
use std::{collections::BTreeSet, ops::Range};
use tamarack_api::{CustomOp, Dim, Pairing, RopeId, RopeSpec, Sym, WeightExpr, WeightId, WeightNode};

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
