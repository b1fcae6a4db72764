//! Where two computations of one model part: for authors of plugins, who have another engine's numbers,
//! and of kernels, who have the oracle's.
//!
//! Results are compared under the names of the modules that they come out of, which a checkpoint's tensor
//! names give away: what is multiplied with `model.layers.0.mlp.down_proj.weight` is the output of
//! `model.layers.0.mlp.down_proj`.

use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, Draw, Executor, PAGE, Pool, Sequence, Step, Token},
    program::{Node, NodeId, Op, Program},
    reference::Reference,
};
use std::collections::{BTreeMap, HashSet};
use tamarack_api::{Dim, Sym, WeightId};

/// Tokens that are compared at most: an executor has room for as many outputs.
pub const MAX_TOKENS: usize = 64;

/// A result that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Whose result.
    pub node: NodeId,
    /// The module it comes out of, `logits`, or `OP after MODULE` for an operation without weights.
    pub name: String,
    /// The line of the plugin that recorded it.
    pub place: String,
}

/// Two results side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What was compared.
    pub point: Point,
    /// The largest difference of two elements; NaN where one of them is.
    pub difference: f32,
    /// The largest expected magnitude.
    pub largest: f32,
    /// Row and column of the largest difference.
    pub at: [usize; 2],
}

impl Comparison {
    /// Whether no element is further off than `tolerance` times the largest expected one.
    pub fn is_within(&self, tolerance: f32) -> bool {
        self.difference <= tolerance * self.largest.max(f32::MIN_POSITIVE)
    }
}

/// The results of `program`, as recorded, that can be compared, in the order in which they are computed.
pub fn points(program: &Program) -> Vec<Point> {
    let mut seen = HashSet::new();
    let mut last = String::new();
    let mut points = Vec::new();
    for (node, Node { op, place, .. }) in program.nodes.iter().enumerate() {
        let is_result = !op.is_view() && !matches!(op, Op::Tokens | Op::Adapters | Op::Prepare(_) | Op::Outputs);
        let module = weight(op).and_then(|w| module(program, w)).filter(|m| seen.insert(m.clone()));
        let name = match module {
            _ if node == program.output => "logits".to_owned(),
            Some(module) => {
                last.clone_from(&module);
                module
            }
            None if is_result && !last.is_empty() => format!("{} after {last}", op.name()),
            None => continue,
        };
        points.push(Point { node, name, place: place.clone() });
    }
    points
}

/// The weight after which an operation's result is named.
fn weight(op: &Op) -> Option<WeightId> {
    match op {
        Op::Embedding { weight, .. } => Some(*weight),
        Op::MatMul(m) => Some(m.weight),
        Op::ExpertUp(up) => Some(up.weight),
        Op::ExpertDown(down) => Some(down.weight),
        Op::Norm { norm, .. } => norm.weight,
        _ => None,
    }
}

/// The module that has a weight: none for one made of several tensors.
fn module(program: &Program, weight: WeightId) -> Option<String> {
    match program.weight_names(weight)[..] {
        [name] => name.strip_suffix(".weight").map(str::to_owned),
        _ => None,
    }
}

/// Compares the oracle's results with `expected`, another engine's: [tokens, ..] by module, and `logits`.
/// What only one side has is left out.
///
/// # Errors
/// The model cannot run, there are no tokens or more than [`MAX_TOKENS`], or a result has another size.
pub fn with_recorded(
    program: &Program,
    checkpoint: &Checkpoint,
    tokens: &[u32],
    expected: &BTreeMap<String, Vec<f32>>,
) -> Result<Vec<Comparison>> {
    let points: Vec<Point> = points(program).into_iter().filter(|p| expected.contains_key(&p.name)).collect();
    let found = oracle(program, checkpoint, tokens, &points)?;
    let compared = points.into_iter().zip(found).map(|(point, found)| {
        let expected = &expected[&point.name];
        if found.len() != expected.len() {
            return Err(Error::Request(format!(
                "{}: this model gives {} numbers for {} tokens, the file has {}: was it made with the same tokens and \
                 the same model?",
                point.name,
                found.len(),
                tokens.len(),
                expected.len()
            )));
        }
        Ok(compare(point, &found, expected, tokens.len()))
    });
    compared.collect()
}

/// Looks for the first result that an executor, made by `load`, computes otherwise than the oracle. Halves the
/// model each time, so everything after that result has to be wrong as well. Returns what was compared, in
/// the model's order; empty if the logits agree.
///
/// # Errors
/// The model cannot run, or there are no tokens or more than [`MAX_TOKENS`].
pub fn with_executor(
    program: &Program,
    checkpoint: &Checkpoint,
    tokens: &[u32],
    tolerance: f32,
    load: &dyn Fn(Program) -> Result<Box<dyn Executor>>,
) -> Result<Vec<Comparison>> {
    let points = points(program);
    let expected = oracle(program, checkpoint, tokens, &points)?;
    let look = |i: usize| -> Result<Comparison> {
        let found = result(program, points[i].node, tokens, load)?;
        Ok(compare(points[i].clone(), &found, &expected[i], tokens.len()))
    };
    let mut looked = BTreeMap::new();
    let (mut right, mut wrong) = (0, points.len());
    while right < wrong {
        // The logits first: where they agree, nothing is the matter.
        let i = if looked.is_empty() { points.len() - 1 } else { (right + wrong) / 2 };
        let comparison = look(i)?;
        let agrees = comparison.is_within(tolerance);
        if looked.is_empty() && agrees {
            return Ok(Vec::new());
        }
        looked.insert(i, comparison);
        if agrees { right = i + 1 } else { wrong = i }
    }
    Ok(looked.into_values().collect())
}

/// What the oracle computes at `points`, [tokens, ..] each.
fn oracle(program: &Program, checkpoint: &Checkpoint, tokens: &[u32], points: &[Point]) -> Result<Vec<Vec<f32>>> {
    let step = step(tokens)?;
    let wanted: HashSet<NodeId> = points.iter().map(|p| p.node).collect();
    let mut values = Reference::load(program.clone(), checkpoint, capacity(tokens.len()))?
        .trace(&step, |node| wanted.contains(&node))?;
    Ok(points.iter().map(|p| values[p.node].take().unwrap_or_default()).collect())
}

/// What an executor computes for one node, [tokens, ..].
fn result(
    program: &Program,
    node: NodeId,
    tokens: &[u32],
    load: &dyn Fn(Program) -> Result<Box<dyn Executor>>,
) -> Result<Vec<f32>> {
    let mut executor = load(showing(program, node))?;
    executor.submit(&step(tokens)?)?;
    let width = program.width(node);
    Ok(executor.collect()?.logits.into_iter().flat_map(|mut row| row.split_off(row.len() - width)).collect())
}

/// The same program with a node's result behind the logits, which stay because they size the vocabulary.
fn showing(program: &Program, node: NodeId) -> Program {
    let mut program = program.clone();
    let (output, width) = (program.output, program.width(node));
    if node == output {
        return program;
    }
    let mut shown = node;
    let push = |program: &mut Program, op, inputs, shape: Vec<Dim>| {
        let place = program.nodes[node].place.clone();
        program.nodes.push(Node { op, inputs, shape, place });
        program.nodes.len() - 1
    };
    let outputs = Dim::from(Sym::Outputs);
    if program.rows(node) == Sym::Tokens {
        let shape = [&[outputs], &program.nodes[node].shape[1..]].concat();
        shown = push(&mut program, Op::Outputs, vec![node], shape);
    }
    shown = push(&mut program, Op::Reshape, vec![shown], vec![outputs, width.into()]);
    let all = program.width(output) + width;
    program.output = push(&mut program, Op::Concat, vec![output, shown], vec![outputs, all.into()]);
    program
}

fn compare(point: Point, found: &[f32], expected: &[f32], rows: usize) -> Comparison {
    let columns = (expected.len() / rows).max(1);
    let mut comparison = Comparison { point, difference: 0.0, largest: 0.0, at: [0, 0] };
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        comparison.largest = comparison.largest.max(expected.abs());
        let difference = (found - expected).abs();
        // A NaN is as wrong as it gets, and the first one is where to look.
        if difference > comparison.difference || difference.is_nan() && !comparison.difference.is_nan() {
            (comparison.difference, comparison.at) = (difference, [i / columns, i % columns]);
        }
    }
    comparison
}

/// All tokens in one step, each with its logits.
fn step(tokens: &[u32]) -> Result<Step> {
    if tokens.is_empty() || tokens.len() > MAX_TOKENS {
        return Err(Error::Request(format!("expected 1 to {MAX_TOKENS} tokens to compare, found {}", tokens.len())));
    }
    let ids: Vec<Token> = tokens.iter().map(|t| Token::Id(*t)).collect();
    let (mut step, mut pool) = (Step::default(), Pool::new(capacity(tokens.len()).pages));
    let mut sequence = Sequence::new(0, tokens.len());
    step.push(&mut sequence, &mut pool, &ids, |_| Some(Draw { logits: true, ..Draw::default() }));
    Ok(step)
}

/// What [`with_executor`] needs of an executor for so many tokens.
pub fn capacity(tokens: usize) -> Capacity {
    Capacity { rows: tokens, outputs: tokens, pages: tokens.div_ceil(PAGE).max(1), slots: 1 }
}
