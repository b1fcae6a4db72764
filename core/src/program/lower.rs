//! From the recorded vocabulary to the host's: nothing is fused yet.

use super::{
    Binary, Cache, ExpertDown, ExpertUp, Heads, KvHeads, MatMul, Node, NodeId, Norm, Op, Post, Prepare, Program,
};
use tamarack_api::{Dim, Graph, Op as Recorded, WeightId};

/// The program that does exactly what the graph says. The graph has been checked.
pub fn lower(graph: &Graph) -> Program {
    let mut program = Program {
        weights: graph.weights.clone(),
        ropes: graph.ropes.clone(),
        custom: graph.custom.clone(),
        ..Program::default()
    };
    // Where each recorded node's result is: a few become two nodes.
    let mut moved: Vec<NodeId> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut inputs: Vec<NodeId> = node.inputs.iter().map(|i| moved[*i as usize]).collect();
        let mut shape = node.shape.clone();
        let place = graph.place(i as u32);
        let mut before = |op, inputs: &[NodeId], shape: Vec<Dim>| {
            program.nodes.push(Node { op, inputs: inputs.to_vec(), shape, place: place.to_owned() });
            program.nodes.len() - 1
        };
        let op = match &node.op {
            Recorded::Kv { .. } => {
                let [groups, dk, dv] = [1, 2, 3].map(|i| shape[i].constant().unwrap_or(0));
                program.caches.push(Cache { groups, dk, dv });
                shape.truncate(1); // the result is the cache itself, not a tensor
                let plain = |input| Heads { input, steps: Vec::new() };
                let kv = KvHeads { k: plain(0), v: plain(1), cache: program.caches.len() - 1 };
                Op::Prepare(Prepare { q: None, kv: Some(kv) })
            }
            Recorded::Attention { spec } => {
                let cache = match &program.nodes[inputs[1]].op {
                    Op::Prepare(Prepare { kv: Some(kv), .. }) => kv.cache,
                    _ => 0, // a checked graph has a cache here
                };
                Op::Attend { cache, spec: spec.clone() }
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
            Recorded::Add {} => binary(Binary::Add),
            Recorded::Sub {} => binary(Binary::Sub),
            Recorded::Mul {} => binary(Binary::Mul),
            Recorded::Div {} => binary(Binary::Div),
            Recorded::Reshape { .. } => Op::Reshape,
            Recorded::Slice { dim, start, .. } => Op::Slice { dim: *dim, start: *start },
            Recorded::Concat {} => Op::Concat,
            Recorded::Rope { rope } => Op::Rope(*rope),
            Recorded::MoeRoute { weight, bias, spec } => {
                let experts = graph.weight_shape(*weight)[0];
                let logits = Op::MatMul(MatMul::plain(*weight, *bias));
                inputs = vec![before(logits, &inputs, vec![shape[0], experts.into()])];
                Op::Route(spec.clone())
            }
            Recorded::MoeExperts { gate_up, down, gate_up_bias, down_bias, spec } => {
                let (chosen, ff) = (graph.shape(node.inputs[1])[2], graph.weight_shape(*down)[2]);
                let up = Op::ExpertUp(ExpertUp { weight: *gate_up, bias: *gate_up_bias, spec: *spec });
                inputs[0] = before(up, &inputs, vec![shape[0], chosen, ff.into()]);
                Op::ExpertDown(ExpertDown { weight: *down, bias: *down_bias, post: Vec::new() })
            }
            Recorded::Outputs {} => Op::Outputs,
            Recorded::Custom { custom, weights, decomposed } => {
                Op::Custom { custom: *custom as usize, weights: weights.clone(), decomposed: *decomposed }
            }
        };
        program.nodes.push(Node { op, inputs, shape, place: place.to_owned() });
        moved.push(program.nodes.len() - 1);
    }
    program.output = moved[graph.output as usize];
    program
}

fn binary(op: Binary) -> Op {
    Op::Binary { op, post: Vec::new() }
}

fn norm(center: bool, weight: Option<WeightId>, bias: Option<WeightId>, eps: f32) -> Op {
    Op::Norm { norm: Norm { center, weight, bias, eps }, post: Vec::new() }
}
