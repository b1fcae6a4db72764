//! Mixtures of experts, arXiv:1701.06538: a router chooses a few experts for each row, and what they
//! make of it is summed by the router's weights.

use crate::{
    Activation, Dim, Graph, Linear, Op, WeightId,
    recorder::{POISON, with},
    tensor::{Tensor, push},
    weights::{Weight, Weights},
};
use serde::{Deserialize, Serialize};
use std::panic::Location;

/// Experts of one mixture at most: kernels keep the scores of a row together.
const MAX_EXPERTS: usize = 1024;
/// Experts of one row at most.
const MAX_CHOSEN: usize = 64;

/// How a router's logits become scores.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// Each for itself, arXiv:2412.19437.
    Sigmoid,
    /// The logits choose; the weights are a softmax over the chosen.
    SoftmaxAfterTopK,
    /// The logits choose, one after the other. The weight of each is its share of a softmax over the experts
    /// that are left and whose logits `s` come within `(max - s) / max(|s|, max) <= 2 * jitter` of the largest,
    /// arXiv:2409.12136. The weights do not sum to 1.
    SparseMixer {
        /// See above.
        jitter: f32,
    },
}

/// Experts in groups of equal size, of which only the best are chosen from, arXiv:2405.04434.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// How many there are; divides the number of experts.
    pub count: usize,
    /// How many are chosen from.
    pub keep: usize,
    /// What a group is worth.
    pub score: GroupScore,
    /// What becomes of the scores of the others.
    pub others: Others,
}

/// What a group of experts is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupScore {
    /// Its best expert.
    Max,
    /// The sum of its two best.
    Top2Sum,
}

/// What becomes of the scores of experts outside the groups that are chosen from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// 0, which wins against a negative score.
    Zero,
    /// Minus infinity: never chosen.
    NegInf,
}

/// How a router chooses. Of equal scores the one of the lower number wins.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Experts for each row.
    pub top_k: usize,
    /// How logits become scores.
    pub scoring: Scoring,
    /// Whether the weights of the chosen are divided by their sum.
    #[serde(default)]
    pub normalize: bool,
    /// Added to that sum.
    #[serde(default)]
    pub eps: f32,
    /// Factor on each weight, in the end.
    pub scale: f32,
    /// Added to the scores for the choice alone `[experts]`, arXiv:2408.15664.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_bias: Option<WeightId>,
    /// Groups that the choice is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups>,
}

impl RouteSpec {
    /// The `top_k` best by `scoring`; their scores as they are.
    pub fn new(top_k: usize, scoring: Scoring) -> RouteSpec {
        RouteSpec { top_k, scoring, normalize: false, eps: 0.0, scale: 1.0, choice_bias: None, groups: None }
    }

    /// With weights that sum to 1, if `normalize`.
    pub fn normalize(self, normalize: bool) -> RouteSpec {
        RouteSpec { normalize, ..self }
    }
}

/// What an expert does between its two products.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// f(gate) * up
    Act(Activation),
    /// gpt-oss: gate * sigmoid(alpha * gate) * (up + 1), with gate at most `limit` and up within it.
    OaiSwiglu {
        /// See above.
        alpha: f32,
        /// See above.
        limit: f32,
    },
}

/// How experts compute.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertSpec {
    /// Between the two products.
    pub gate: Gate,
    /// Rows of gate and up alternate; otherwise all gates come first, then all ups.
    #[serde(default)]
    pub interleaved: bool,
}

impl From<Activation> for ExpertSpec {
    fn from(f: Activation) -> ExpertSpec {
        ExpertSpec { gate: Gate::Act(f), interleaved: false }
    }
}

/// The experts chosen for each row, and their weights: [rows, 2, top_k], first the experts' numbers, then
/// the weights. A router of another kind may be made of other operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route(pub Tensor);

/// The weights of all experts of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Experts {
    /// [experts, 2 * ff, dim]
    pub gate_up: Weight,
    /// [experts, dim, ff]
    pub down: Weight,
    /// [experts, 2 * ff]
    pub gate_up_bias: Option<Weight>,
    /// [experts, dim]
    pub down_bias: Option<Weight>,
}

/// Chooses experts for each row by the logits `router(x)`. x [rows, dim], a weight [experts, dim]
#[track_caller]
pub fn moe_route(x: Tensor, router: &Linear, spec: &RouteSpec) -> Route {
    let (weight, bias) = (router.weight.id(), router.bias.map(Weight::id));
    Route(push(Op::MoeRoute { weight, bias, spec: spec.clone() }, &[x]))
}

/// The weighted sum of what each row's experts make of it. [rows, dim] -> [rows, dim]
#[track_caller]
pub fn moe_experts(x: Tensor, route: Route, experts: &Experts, spec: impl Into<ExpertSpec>) -> Tensor {
    let op = Op::MoeExperts {
        gate_up: experts.gate_up.id(),
        down: experts.down.id(),
        gate_up_bias: experts.gate_up_bias.map(Weight::id),
        down_bias: experts.down_bias.map(Weight::id),
        spec: spec.into(),
    };
    push(op, &[x, route.0])
}

impl Weights {
    /// The `n` experts of a layer, [ff, dim] each, in whichever of these ways the checkpoint has them; `names` are
    /// what it calls gate, up and down:
    ///
    /// - `experts.E.NAME.weight`, one by one;
    /// - `switch_mlp`, stacked as MLX and GGUF have them: [`Weights::stacked_experts`];
    /// - `experts.gate_up_proj` [n, 2 * ff, dim] and `experts.down_proj` [n, dim, ff], stacked and packed.
    #[track_caller]
    pub fn experts(&self, n: usize, [ff, dim]: [usize; 2], names: [&str; 3]) -> Experts {
        let (packed, switched) = (self.at("experts"), self.at("switch_mlp"));
        if n == 0 || n > MAX_EXPERTS {
            let at = Location::caller();
            with(|r| r.fail(at, format!("experts: expected 1 to {MAX_EXPERTS}, found {n}")));
            return Experts { gate_up: POISONED, down: POISONED, gate_up_bias: None, down_bias: None };
        }
        if switched.has("gate_proj.weight") {
            return switched.stacked_experts(n, [ff, dim]);
        }
        if packed.has("gate_up_proj") {
            return Experts {
                gate_up: packed.tensor("gate_up_proj", &[n, 2 * ff, dim]),
                down: packed.tensor("down_proj", &[n, dim, ff]),
                gate_up_bias: packed.optional("gate_up_proj_bias", &[n, 2 * ff]),
                down_bias: packed.optional("down_proj_bias", &[n, dim]),
            };
        }
        let weight = |e: usize, name: &str, shape: &[usize]| packed.at(e).at(name).tensor("weight", shape);
        let rows: Vec<Weight> = (0..n).flat_map(|e| [0, 1].map(|i| weight(e, names[i], &[ff, dim]))).collect();
        let down: Vec<Weight> = (0..n).map(|e| weight(e, names[2], &[dim, ff])).collect();
        let gate_up = Weight::concat(&rows).reshape(&[n, 2 * ff, dim]);
        Experts { gate_up, down: Weight::stack(&down), gate_up_bias: None, down_bias: None }
    }

    /// `n` experts, [ff, dim] each, of which gates, ups and downs are stacked in a tensor each:
    /// `{gate,up,down}_proj.weight` [n, .., ..], and `.bias` [n, ..] where the checkpoint has one.
    #[track_caller]
    pub fn stacked_experts(&self, n: usize, [ff, dim]: [usize; 2]) -> Experts {
        let stacked = |name, shape: [usize; 3]| self.at(name).tensor("weight", &shape);
        let bias = |name, width| self.at(name).optional("bias", &[n, width]);
        let pair = |gate: Weight, up: Weight| {
            let parts: Vec<Weight> = (0..n).flat_map(|e| [gate.slice(0, e, 1), up.slice(0, e, 1)]).collect();
            Weight::concat(&parts)
        };
        let gate_up = pair(stacked("gate_proj", [n, ff, dim]), stacked("up_proj", [n, ff, dim]));
        let biases = bias("gate_proj", ff).zip(bias("up_proj", ff)).map(|(gate, up)| pair(gate, up));
        Experts {
            gate_up: gate_up.reshape(&[n, 2 * ff, dim]),
            down: stacked("down_proj", [n, dim, ff]),
            gate_up_bias: biases.map(|b| b.reshape(&[n, 2, ff])),
            down_bias: bias("down_proj", dim),
        }
    }
}

/// A weight that stands for an error.
const POISONED: Weight = Weight(POISON);

/// The shape of [`Op::MoeRoute`]'s result.
pub(crate) fn route_shape(
    g: &Graph,
    weight: WeightId,
    bias: Option<WeightId>,
    spec: &RouteSpec,
    x: &[Dim],
) -> Result<Vec<Dim>, String> {
    let shape = g.weight_shape(weight);
    let ([rows, dim], &[n, k]) = (x, shape) else {
        return Err(format!("wants [rows, dim] and a weight [experts, dim], found {x:?} and {shape:?}"));
    };
    if dim.constant() != Some(k) {
        return Err(format!("weight {shape:?} wants [rows, {k}], found {x:?}"));
    }
    for b in [bias, spec.choice_bias].into_iter().flatten().map(|b| g.weight_shape(b)) {
        if b != [n] {
            return Err(format!("wants biases [{n}], found {b:?}"));
        }
    }
    spec.check(n)?;
    Ok(vec![*rows, 2.into(), spec.top_k.into()])
}

/// The shape of [`Op::MoeExperts`]'s result; biases come as `[gate_up, down]`.
pub(crate) fn experts_shape(
    g: &Graph,
    [gate_up, down]: [WeightId; 2],
    [gate_up_bias, down_bias]: [Option<WeightId>; 2],
    spec: &ExpertSpec,
    [x, route]: [&[Dim]; 2],
) -> Result<Vec<Dim>, String> {
    let (up, down) = (g.weight_shape(gate_up), g.weight_shape(down));
    let (&[n, rows, dim], &[m, out, ff]) = (up, down) else {
        return Err(format!("wants weights [experts, 2 * ff, dim] and [experts, dim, ff], found {up:?} and {down:?}"));
    };
    if n != m || n > MAX_EXPERTS || Some(rows) != ff.checked_mul(2) || out != dim {
        return Err(format!("weights {up:?} and {down:?} are not of the same experts, {MAX_EXPERTS} at most"));
    }
    let fits = |b: &[usize], all: [&[usize]; 2]| all.contains(&b);
    let gate_up_fits = gate_up_bias.is_none_or(|b| fits(g.weight_shape(b), [&[n, rows], &[n, 2, ff]]));
    if !gate_up_fits || down_bias.is_some_and(|b| g.weight_shape(b) != [n, dim]) {
        return Err(format!("biases do not fit weights {up:?} and {down:?}"));
    }
    if let Gate::OaiSwiglu { alpha, limit } = spec.gate
        && !(alpha.is_finite() && limit.is_finite())
    {
        return Err(format!("alpha {alpha} or limit {limit} is not finite"));
    }
    let chosen = |k: &Dim| k.constant().is_some_and(|k| (1..=MAX_CHOSEN).contains(&k));
    match (x, route) {
        ([rows, d], [same, two, k]) if d.constant() == Some(dim) && rows == same && *two == 2.into() && chosen(k) => {
            Ok(vec![*rows, *d])
        }
        _ => Err(format!("wants [rows, {dim}] and a route [rows, 2, top_k], found {x:?} and {route:?}")),
    }
}

impl RouteSpec {
    /// Whether `n` experts can be chosen from so.
    fn check(&self, n: usize) -> Result<(), String> {
        let Groups { count, keep, .. } =
            self.groups.unwrap_or(Groups { count: 1, keep: 1, score: GroupScore::Max, others: Others::Zero });
        let grouped = count > 0 && n.is_multiple_of(count) && (1..=count).contains(&keep);
        let candidates = if grouped { n / count * keep } else { 0 };
        let jitter = if let Scoring::SparseMixer { jitter } = self.scoring { jitter } else { 0.0 };
        if n > MAX_EXPERTS || !(1..=candidates.min(MAX_CHOSEN)).contains(&self.top_k) {
            let most = MAX_EXPERTS;
            return Err(format!("{} of {n} experts cannot be chosen by {:?}: {most} at most", self.top_k, self.groups));
        }
        if [self.eps, self.scale, jitter].iter().all(|v| v.is_finite()) {
            Ok(())
        } else {
            Err(format!("eps {}, scale {} or {:?} is not finite", self.eps, self.scale, self.scoring))
        }
    }
}
