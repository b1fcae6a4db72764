//! From the recorded vocabulary to the host's, almost one node for one: nothing is fused yet.

use super::{
    Binary, Cache, CacheId, Conv, ExpertDown, ExpertUp, HeadLinear, Heads, KvHeads, MatMul, Node, NodeId, Norm, Op,
    Post, Prepare, Program,
};
use tamarack_api::{AttentionSpec, Dim, Graph, Op as Recorded, Sym, WeightExpr, WeightId, WeightNode};

/// The program that does exactly what the graph says. The graph has been checked.
pub fn lower(graph: &Graph) -> Program {
    let (weights, ropes, custom) = (graph.weights.clone(), graph.ropes.clone(), graph.custom.clone());
    let mut lowering = Lowering { program: Program { weights, ropes, custom, ..Program::default() }, at: Vec::new() };
    for (i, node) in graph.nodes.iter().enumerate() {
        lowering.node(node, graph.place(i as u32));
    }
    let (rows, patches) = (graph.shape(graph.output).first(), Some(Sym::Patches));
    let tower = rows.filter(|r| r.sym() == patches).map(|r| r.fraction().1);
    Program { output: lowering.at[graph.output as usize], tower, ..lowering.program }
}

/// A tower's patches are the rows of its step, and what they are merged to its outputs.
fn as_rows(dim: Dim) -> Dim {
    match (dim.sym(), dim.fraction()) {
        (Some(Sym::Patches), (1, 1)) => Sym::Tokens.into(),
        (Some(Sym::Patches), _) => Sym::Outputs.into(),
        _ => dim,
    }
}

struct Lowering {
    program: Program,
    /// Where each recorded node's result is: a recorded operation may be several of the program's.
    at: Vec<NodeId>,
}

impl Lowering {
    fn push(&mut self, op: Op, inputs: Vec<NodeId>, shape: Vec<Dim>, place: &str) -> NodeId {
        self.program.nodes.push(Node { op, inputs, shape, place: place.to_owned() });
        self.program.nodes.len() - 1
    }

    fn cache(&mut self, cache: Cache) -> CacheId {
        self.program.caches.push(cache);
        self.program.caches.len() - 1
    }

    fn node(&mut self, node: &tamarack_api::Node, place: &str) {
        let mut inputs: Vec<NodeId> = node.inputs.iter().map(|i| self.at[*i as usize]).collect();
        let mut shape: Vec<Dim> = node.shape.iter().map(|d| as_rows(*d)).collect();
        let op = match &node.op {
            Recorded::Kv { .. } => {
                let [groups, dk, dv] = [1, 2, 3].map(|i| shape[i].constant().unwrap_or(0));
                shape.truncate(1); // the result is the cache itself, not a tensor
                let cache = self.cache(Cache { groups, dk, dv, ..Cache::default() });
                write(cache, Some(1))
            }
            Recorded::Attention { spec } => {
                let cache = match &self.program.nodes[inputs[1]].op {
                    Op::Prepare(Prepare { kv: Some(kv), .. }) => kv.cache,
                    _ => 0, // a checked graph has a cache here
                };
                Op::Attend { cache, spec: spec.clone() }
            }
            Recorded::LatentAttention { key, value, spec } => {
                let out = self.latent_attention(*key, *value, spec, &inputs, place);
                self.at.push(out);
                return;
            }
            Recorded::CausalConv1d { weight, bias } => {
                // Pairs of channels are what a cache holds.
                let dk = shape[1].constant().unwrap_or(0).next_multiple_of(2);
                let cache = self.cache(Cache { groups: 1, dk, ..Cache::default() });
                Op::Conv(Conv { weight: *weight, bias: *bias, cache, gated: false, post: Vec::new() })
            }
            Recorded::Xielu { alpha_p, alpha_n, beta, eps } => {
                let expr = WeightExpr::Concat(vec![*alpha_p, *alpha_n, *beta, *eps]);
                self.program.weights.push(WeightNode { expr, shape: vec![4] });
                Op::Xielu(self.program.weights.len() as WeightId - 1)
            }
            Recorded::Tokens {} => Op::Tokens,
            Recorded::Embedding { weight } => Op::Embedding { weight: *weight, scale: 1.0 },
            Recorded::Linear { weight, bias } => Op::MatMul(MatMul::plain(*weight, *bias)),
            Recorded::RmsNorm { weight, eps } => norm(false, *weight, None, *eps),
            Recorded::LayerNorm { weight, bias, eps } => norm(true, *weight, *bias, *eps),
            Recorded::Activation { function } => Op::Map(vec![Post::Activation(*function)]),
            Recorded::Clamp { min, max } => {
                Op::Map(vec![Post::Clamp(min.unwrap_or(f32::MIN), max.unwrap_or(f32::MAX))])
            }
            Recorded::MulScalar { by } => Op::Map(vec![Post::Scale(*by)]),
            Recorded::AddScalar { by } => Op::Map(vec![Post::AddScalar(*by)]),
            Recorded::MulWeight { weight } => Op::MulWeight { weight: *weight, post: Vec::new() },
            Recorded::Sqrt {} => Op::Map(vec![Post::Sqrt]),
            Recorded::Mean {} => Op::Mean,
            Recorded::Matmul {} => Op::RowMatMul,
            Recorded::Add {} => binary(Binary::Add),
            Recorded::Sub {} => binary(Binary::Sub),
            Recorded::Mul {} => binary(Binary::Mul),
            Recorded::Div {} => binary(Binary::Div),
            Recorded::Reshape { .. } => {
                let from = self.program.nodes[inputs[0]].shape.clone();
                if from.first() != shape.first() {
                    // Rows that are merged have to be adjacent: of what is no view they are.
                    inputs = vec![self.push(Op::Map(Vec::new()), inputs, from, place)];
                }
                Op::Reshape
            }
            Recorded::Slice { dim, start, .. } => Op::Slice { dim: *dim, start: *start },
            Recorded::Concat {} => Op::Concat,
            Recorded::Rope { rope } => Op::Rope(*rope),
            Recorded::MoeRoute { weight, bias, spec } => {
                let experts = self.program.weight_shape(*weight)[0];
                let logits = Op::MatMul(MatMul::plain(*weight, *bias));
                inputs = vec![self.push(logits, inputs, vec![shape[0], experts.into()], place)];
                Op::Route(spec.clone())
            }
            Recorded::MoeExperts { gate_up, down, gate_up_bias, down_bias, spec } => {
                let (chosen, ff) = (self.program.dims(inputs[1])[1], self.program.weight_shape(*down)[2]);
                let up = Op::ExpertUp(ExpertUp { weight: *gate_up, bias: *gate_up_bias, spec: *spec });
                inputs[0] = self.push(up, inputs.clone(), vec![shape[0], chosen.into(), ff.into()], place);
                Op::ExpertDown(ExpertDown { weight: *down, bias: *down_bias, post: Vec::new() })
            }
            Recorded::Outputs {} => Op::Outputs,
            Recorded::Patches { .. } => Op::Patches,
            Recorded::PatchIds {} => Op::Tokens,
            Recorded::PatchInput { name, .. } => Op::PatchInput(name.clone()),
            Recorded::MergeEmbeddings {} => Op::MergeEmbeddings,
            Recorded::AddEmbeddings { part } => Op::AddEmbeddings(*part),
            Recorded::SegmentAttention { scale, windowed } => {
                let [k, v] = [1, 2].map(|i| self.program.dims(inputs[i]));
                let cache = Cache { groups: k[0], dk: k[1], dv: v[1], windowed: *windowed, ..Cache::default() };
                let cache = self.passing_cache(cache, &inputs);
                let written = self.push(write(cache, Some(1)), inputs[1..].to_vec(), vec![shape[0]], place);
                inputs = vec![inputs[0], written];
                let spec = AttentionSpec { scale: *scale, window: None, softcap: None, sinks: None };
                Op::Attend { cache, spec }
            }
            Recorded::Custom { custom, weights, decomposed } => {
                Op::Custom { custom: *custom as usize, weights: weights.clone(), decomposed: *decomposed }
            }
        };
        let out = self.push(op, inputs, shape, place);
        self.at.push(out);
    }

    /// A cache for keys and values that are needed for one attention only: that of an earlier one, if what is written
    /// now can only be computed after it was read.
    fn passing_cache(&mut self, cache: Cache, inputs: &[NodeId]) -> CacheId {
        let nodes = &self.program.nodes;
        let mut before = vec![false; nodes.len()];
        inputs[1..].iter().for_each(|i| before[*i] = true);
        for id in (0..nodes.len()).rev() {
            if before[id] {
                nodes[id].inputs.iter().for_each(|i| before[*i] = true);
            }
        }
        let is_read = |id: CacheId| {
            let mut readers =
                (0..nodes.len()).filter(|n| matches!(nodes[*n].op, Op::Attend { cache, .. } if cache == id));
            readers.all(|n| before[n])
        };
        let free = self.program.caches.iter().enumerate().find(|(id, c)| **c == cache && is_read(*id));
        match free {
            Some((id, _)) => id,
            None => self.cache(cache),
        }
    }

    /// In its absorbed form: all heads attend to one cached row of latent and rotated key, with queries that the
    /// keys' weights have been applied to; the values' weights come after.
    fn latent_attention(
        &mut self,
        key: WeightId,
        value: WeightId,
        spec: &AttentionSpec,
        inputs: &[NodeId],
        place: &str,
    ) -> NodeId {
        let (tokens, heads) = (Dim::from(Sym::Tokens), self.program.dims(inputs[0])[0]);
        let (rank, rope) = (self.program.width(inputs[2]), self.program.width(inputs[3]));
        let shape = |heads: usize, dim: usize| vec![tokens, heads.into(), dim.into()];
        let cache = self.cache(Cache { groups: 1, dk: rank + rope, dv: rank, latent: true, ..Cache::default() });

        let row = self.push(Op::Concat, vec![inputs[2], inputs[3]], vec![tokens, (rank + rope).into()], place);
        let row = self.push(Op::Reshape, vec![row], shape(1, rank + rope), place);
        let written = self.push(write(cache, None), vec![row], vec![tokens], place);

        // What a file stores transposed is taken as it lies there: quantized weights cannot be turned.
        let (weight, transposed) = match self.program.weights[key as usize].expr {
            WeightExpr::Transpose(of) => (of, false),
            _ => (key, true),
        };
        let to_latent = Op::HeadLinear(HeadLinear { weight, transposed });
        let queries = self.push(to_latent, vec![inputs[0]], shape(heads, rank), place);
        let queries = self.push(Op::Concat, vec![queries, inputs[1]], shape(heads, rank + rope), place);

        let seen =
            self.push(Op::Attend { cache, spec: spec.clone() }, vec![queries, written], shape(heads, rank), place);
        let v = self.program.weight_shape(value)[1];
        let values = Op::HeadLinear(HeadLinear { weight: value, transposed: false });
        self.push(values, vec![seen], shape(heads, v), place)
    }
}

/// Keys are the first input.
fn write(cache: CacheId, values: Option<usize>) -> Op {
    let plain = |input| Heads { input, steps: Vec::new() };
    Op::Prepare(Prepare { q: None, kv: Some(KvHeads { k: plain(0), v: values.map(plain), cache }) })
}

fn binary(op: Binary) -> Op {
    Op::Binary { op, post: Vec::new() }
}

fn norm(center: bool, weight: Option<WeightId>, bias: Option<WeightId>, eps: f32) -> Op {
    Op::Norm { norm: Norm { center, weight, bias, eps }, post: Vec::new() }
}
