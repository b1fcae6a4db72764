//! The rules. Each is a few lines; a test runs the program with every rule, and with each left out.

use super::{
    Binary, Conv, ExpertDown, HeadStep, Heads, KvHeads, MatMul, Node, NodeId, Norm, Op, Post, Prepare, Rewriter, Rule,
};
use tamarack_api::{Activation, WeightId};

/// All rules, in the order in which they must run: what is more particular comes first.
pub const RULES: &[Rule] = &[
    Rule { name: "scale into embedding", apply: scale_into_embedding },
    Rule { name: "gate and up into one matmul", apply: gate_and_up },
    Rule { name: "matmuls of one input into one", apply: siblings },
    Rule { name: "norm into matmul", apply: norm_into_matmul },
    Rule { name: "gated product", apply: gated_product },
    Rule { name: "product into the convolution of it", apply: product_into_conv },
    Rule { name: "map into what makes its input", apply: map_into_producer },
    Rule { name: "sum or product into what makes one side", apply: binary_into_producer },
    Rule { name: "steps of keys and values into the cache write", apply: prepare_kv },
    Rule { name: "steps of queries into the cache write", apply: prepare_q },
];

/// A post step takes a whole binding on a device; more than two are not worth it.
const MAX_POST_INPUTS: usize = 2;

/// embed(ids) * c
fn scale_into_embedding(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Map(steps) = r.op(i) else { return None };
    let (&[Post::Scale(c)], x) = (&steps[..], r.inputs(i)[0]) else { return None };
    let &Op::Embedding { weight, scale } = r.op(x) else { return None };
    r.is_used_once(x).then(|| r.replace(i, Op::Embedding { weight, scale: scale * c }, r.inputs(x).to_vec()))
}

/// act(x G^T) * (x U^T)
fn gate_and_up(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let (gate, up, act) = gated(r, i)?;
    let (Op::MatMul(g), Op::MatMul(u)) = (r.op(gate).clone(), r.op(up).clone()) else { return None };
    let x = r.inputs(gate)[0];
    if !g.is_plain() || !u.is_plain() || r.inputs(up)[0] != x || !r.is_used_once(gate) || !r.is_used_once(up) {
        return None;
    }
    if r.dims(gate) != r.dims(up) || r.dims(gate).len() != 1 {
        return None;
    }
    let bias = match (g.bias, u.bias) {
        (None, None) => None,
        (Some(g), Some(u)) => Some(r.concat(&[g, u])),
        _ => return None,
    };
    let weight = r.stack_rows(&[g.weight, u.weight])?;
    r.replace(i, Op::MatMul(MatMul { glu: Some(act), ..MatMul::plain(weight, bias) }), vec![x]);
    Some(())
}

/// The two sides of act(a) * b, in that order.
fn gated(r: &Rewriter<'_>, i: NodeId) -> Option<(NodeId, NodeId, Activation)> {
    let Op::Binary { op: Binary::Mul, post } = r.op(i) else { return None };
    let &[a, b] = r.inputs(i) else { return None };
    let act = |n: NodeId| match r.op(n) {
        Op::Map(steps) if r.is_used_once(n) => match steps[..] {
            [Post::Activation(f)] => Some((r.inputs(n)[0], f)),
            _ => None,
        },
        _ => None,
    };
    if !post.is_empty() || r.dims(a) != r.dims(b) {
        return None;
    }
    act(a).map(|(gate, f)| (gate, b, f)).or_else(|| act(b).map(|(gate, f)| (gate, a, f)))
}

/// x A^T, x B^T, ..
fn siblings(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::MatMul(first) = r.op(i) else { return None };
    let (x, has_bias) = (*r.inputs(i).first()?, first.bias.is_some());
    let fits = |r: &Rewriter<'_>, n: NodeId| match r.op(n) {
        Op::MatMul(m) => m.is_plain() && m.bias.is_some() == has_bias && r.inputs(n)[0] == x,
        _ => false,
    };
    let users: Vec<NodeId> = r.users(x).iter().copied().filter(|u| *u < r.program.nodes.len()).collect();
    let all: Vec<NodeId> = users.into_iter().filter(|u| fits(r, *u)).collect();
    if all.len() < 2 || all[0] != i {
        return None;
    }
    let parts: Vec<MatMul> =
        all.iter().filter_map(|n| if let Op::MatMul(m) = r.op(*n) { Some(m.clone()) } else { None }).collect();
    let weight = r.stack_rows(&parts.iter().map(|p| p.weight).collect::<Vec<WeightId>>())?;
    let biases: Vec<WeightId> = parts.iter().filter_map(|p| p.bias).collect();
    let bias = has_bias.then(|| r.concat(&biases));
    let mut shape = r.program.nodes[i].shape.clone();
    let dim = shape.len() - 1;
    shape[dim] = r.program.weight_shape(weight)[0].into();
    let place = r.program.nodes[i].place.clone();
    let whole = r.add(Node { op: Op::MatMul(MatMul::plain(weight, bias)), inputs: vec![x], shape, place });
    let mut start = 0;
    for n in all {
        let len = r.dims(n).last().copied()?;
        r.replace(n, Op::Slice { dim, start }, vec![whole]);
        start += len;
    }
    Some(())
}

/// norm(x) W^T, where everything that uses the norm is such a product: the norm is then computed in
/// each of them, and nothing is stored in between.
fn norm_into_matmul(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Norm { norm, post } = r.op(i).clone() else { return None };
    let takes = |u: &NodeId| match r.program.nodes.get(*u).map(|n| (&n.op, &n.inputs)) {
        Some((Op::MatMul(m), inputs)) => m.norm.is_none() && inputs[0] == i && !inputs[1..].contains(&i),
        _ => false,
    };
    let flat = norm.weight.is_none_or(|w| r.program.weight_shape(w).len() == 1) && r.dims(i).len() == 1;
    if norm.center || norm.bias.is_some() || !post.is_empty() || !flat || !r.users(i).iter().all(takes) {
        return None;
    }
    let x = r.inputs(i)[0];
    for u in r.users(i).to_vec() {
        let Op::MatMul(m) = r.op(u).clone() else { return None };
        let mut inputs = r.inputs(u).to_vec();
        inputs[0] = x;
        r.replace(u, Op::MatMul(MatMul { norm: Some(norm.clone()), ..m }), inputs);
    }
    Some(())
}

/// act(a) * b of anything
fn gated_product(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let (a, b, act) = gated(r, i)?;
    r.replace(i, Op::Binary { op: Binary::Glu(act), post: Vec::new() }, vec![a, b]);
    Some(())
}

/// conv(a * b)
fn product_into_conv(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Conv(conv) = r.op(i).clone() else { return None };
    let x = r.inputs(i)[0];
    let (Op::Binary { op: Binary::Mul, post }, &[a, b]) = (r.op(x), r.inputs(x)) else { return None };
    if conv.gated || !post.is_empty() || !r.is_used_once(x) || r.dims(a) != r.dims(b) {
        return None;
    }
    r.replace(i, Op::Conv(Conv { gated: true, ..conv }), vec![a, b]);
    Some(())
}

/// f(op(x)), where nothing else uses op(x)
fn map_into_producer(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Map(steps) = r.op(i).clone() else { return None };
    let x = r.inputs(i)[0];
    if r.program.post_inputs(i).len() + r.post_inputs(x) > MAX_POST_INPUTS || !r.is_used_once(x) {
        return None;
    }
    let more = r.inputs(i)[1..].to_vec();
    absorb(r, i, x, &steps, more)
}

/// op(x) + y and op(x) * y, where nothing else uses op(x)
fn binary_into_producer(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Binary { op, post } = r.op(i).clone() else { return None };
    let step = match op {
        Binary::Add => Post::Add,
        Binary::Mul => Post::Mul,
        _ => return None,
    };
    let (a, b) = (r.inputs(i)[0], r.inputs(i)[1]);
    let rest = r.inputs(i)[2..].to_vec();
    // The side that is computed last takes the other one in.
    for (x, y) in [(a, b), (b, a)] {
        let room = r.post_inputs(x) + 1 + rest.len() <= MAX_POST_INPUTS;
        if x != y && r.is_used_once(x) && room && r.dims(x) == r.dims(y) && !r.depends_on(y, x) {
            let steps = [&[step], &post[..]].concat();
            let more = [&[y], &rest[..]].concat();
            if absorb(r, i, x, &steps, more).is_some() {
                return Some(());
            }
        }
    }
    None
}

/// Appends steps to `x`, which then stands for `i`.
fn absorb(r: &mut Rewriter<'_>, i: NodeId, x: NodeId, steps: &[Post], more: Vec<NodeId>) -> Option<()> {
    let (mut op, mut inputs) = (r.op(x).clone(), r.inputs(x).to_vec());
    match &mut op {
        Op::MatMul(MatMul { post, .. })
        | Op::ExpertDown(ExpertDown { post, .. })
        | Op::Norm { post, .. }
        | Op::Binary { post, .. }
        | Op::MulWeight { post, .. }
        | Op::Conv(Conv { post, .. })
        | Op::Map(post) => post.extend(steps),
        _ => return None,
    }
    inputs.extend(more);
    r.replace(i, op, inputs);
    Some(())
}

/// Norm, rope and scale of keys (and values) happen on the way into the cache.
fn prepare_kv(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Prepare(Prepare { q: None, kv: Some(kv) }) = r.op(i).clone() else { return None };
    let mut inputs = Vec::new();
    let mut peeled = |heads: Heads| {
        let (from, mut steps) = peel(r, r.inputs(i)[heads.input]);
        let found = !steps.is_empty();
        steps.extend(heads.steps);
        inputs.push(from);
        (Heads { input: inputs.len() - 1, steps }, found)
    };
    let (k, v) = (peeled(kv.k), kv.v.map(peeled));
    if !k.1 && !v.as_ref().is_some_and(|v| v.1) {
        return None;
    }
    let kv = KvHeads { k: k.0, v: v.map(|v| v.0), cache: kv.cache };
    r.replace(i, Op::Prepare(Prepare { q: None, kv: Some(kv) }), inputs);
    Some(())
}

/// Queries go through their steps together with the keys; where another layer wrote the cache, alone.
fn prepare_q(r: &mut Rewriter<'_>, i: NodeId) -> Option<()> {
    let Op::Attend { cache, spec } = r.op(i).clone() else { return None };
    let (q, writer) = (r.inputs(i)[0], r.inputs(i)[1]);
    if q == writer || matches!(r.op(q), Op::Prepare(_)) {
        return None;
    }
    let shape = r.program.nodes[q].shape.clone();
    let (from, steps) = peel(r, q);
    let place = r.program.nodes[i].place.clone();
    let Op::Prepare(Prepare { q: None, kv: Some(kv) }) = r.op(writer).clone() else { return None };
    // An earlier layer's cache has other users, or queries of its own.
    if r.is_used_once(writer) && !r.depends_on(from, writer) {
        let mut inputs = r.inputs(writer).to_vec();
        inputs.push(from);
        let op = Op::Prepare(Prepare { q: Some(Heads { input: inputs.len() - 1, steps }), kv: Some(kv) });
        let both = r.add(Node { op, inputs, shape, place });
        r.replace(i, Op::Attend { cache, spec }, vec![both, both]);
        return Some(());
    }
    if steps.is_empty() {
        return None;
    }
    let op = Op::Prepare(Prepare { q: Some(Heads { input: 0, steps }), kv: None });
    let alone = r.add(Node { op, inputs: vec![from], shape, place });
    r.replace(i, Op::Attend { cache, spec }, vec![alone, writer]);
    Some(())
}

/// Walks up from [rows, heads, dim] over steps that work head by head and that nothing else uses.
fn peel(r: &Rewriter<'_>, mut at: NodeId) -> (NodeId, Vec<HeadStep>) {
    let mut steps = Vec::new();
    while r.is_used_once(at) {
        let step = match r.op(at) {
            Op::Rope(rope) => HeadStep::Rope(*rope),
            Op::Norm { norm, post } if is_head_norm(r, norm, post, at) => HeadStep::Norm(norm.clone()),
            Op::Map(steps) => match steps[..] {
                [Post::Scale(c)] => HeadStep::Scale(c),
                _ => break,
            },
            _ => break,
        };
        steps.push(step);
        at = r.inputs(at)[0];
    }
    steps.reverse();
    (at, steps)
}

fn is_head_norm(r: &Rewriter<'_>, norm: &Norm, post: &[Post], at: NodeId) -> bool {
    let one_weight = norm.weight.is_none_or(|w| r.program.weight_shape(w).len() == 1);
    !norm.center && norm.bias.is_none() && post.is_empty() && one_weight && r.dims(at).len() == 2
}
