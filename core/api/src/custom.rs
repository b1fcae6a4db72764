//! Operations that only one architecture needs: the plugin brings the kernel, in WGSL, and says what the
//! host must know to run it. A custom op works row by row, so that the host may batch and cut rows as it likes.

use crate::{Graph, Op, Tensor, Weight, recorder::with, tensor::push};
use serde::{Deserialize, Serialize};

/// A custom op's place in [`Graph::custom`].
pub type CustomId = u32;

/// Bytes of WGSL.
const MAX_WGSL: usize = 1 << 16;
/// Constants of an op.
const MAX_CONSTANTS: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 64;
/// Storage buffers that every WebGPU device binds to one shader.
const MAX_BINDINGS: usize = 8;
/// Workgroups that a row may take.
const MAX_GROUPS: u32 = 1 << 12;
/// Values of a weight, which lies in device memory as f32.
const MAX_WEIGHT: usize = 1 << 24;

/// A custom op as it is recorded. See [`custom`] for what its WGSL has to look like.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomOp {
    /// For errors, profiles and [`crate::Architecture::plain`].
    pub name: String,
    /// WGSL whose entry point is `main`. The host puts the constants before it.
    pub wgsl: String,
    /// What the WGSL finds declared: `const NAME: u32` or `const NAME: f32`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constants: Vec<(String, Constant)>,
    /// How many inputs it takes, [rows, ..] each.
    pub inputs: usize,
    /// How many weights it takes.
    pub weights: usize,
    /// The result is [rows, ..dims].
    pub dims: Vec<usize>,
    /// Workgroups along x for each row; y is the row.
    pub groups: u32,
}

/// A number that WGSL is given under a name.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Constant {
    /// `u32`
    U32(u32),
    /// `f32`
    F32(f32),
}

impl From<usize> for Constant {
    fn from(n: usize) -> Constant {
        Constant::U32(u32::try_from(n).unwrap_or(u32::MAX))
    }
}

impl From<u32> for Constant {
    fn from(n: u32) -> Constant {
        Constant::U32(n)
    }
}

impl From<f32> for Constant {
    fn from(x: f32) -> Constant {
        Constant::F32(x)
    }
}

/// A custom op being described: see [`custom`].
#[derive(Clone, Debug)]
#[must_use = "a custom op does nothing until its `forward`"]
pub struct Custom {
    op: CustomOp,
    weights: Vec<Weight>,
}

/// An operation that the vocabulary lacks, in WGSL.
///
/// The WGSL has one entry point, `main`, of at most 256 invocations a workgroup. Workgroup `(x, y)` computes its
/// share of row `y` of the result. Bindings are those of group 0, in this order: the inputs and then the weights, each
/// `var<storage, read> NAME: array<f32>`, and the result, `var<storage, read_write> NAME: array<f32>`. A row lies
/// without gaps: element `i` of row `y` is at `y * width + i`. There is nothing else to bind. The host checks all of
/// that when the model is loaded, and compiles with every runtime check.
///
/// ```
/// # use tamarack_api::*;
/// /// x / (1 + |x|)
/// fn softsign(x: Tensor, dim: usize) -> Tensor {
///     const WGSL: &str = "
///         @group(0) @binding(0) var<storage, read> x: array<f32>;
///         @group(0) @binding(1) var<storage, read_write> y: array<f32>;
///
///         @compute @workgroup_size(64)
///         fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
///             for (var i = thread; i < DIM; i += 64u) {
///                 let v = x[group.y * DIM + i];
///                 y[group.y * DIM + i] = v / (1.0 + abs(v));
///             }
///         }";
///     custom("softsign", WGSL).constant("DIM", dim).forward(&[x], &[dim])
/// }
/// ```
///
/// On a processor the host runs [`Custom::instead`], or else [`crate::Architecture::plain`]; an op that has neither
/// runs on GPUs alone.
pub fn custom(name: &str, wgsl: &str) -> Custom {
    let (name, wgsl) = (name.to_owned(), wgsl.to_owned());
    let op = CustomOp { name, wgsl, constants: Vec::new(), inputs: 0, weights: 0, dims: Vec::new(), groups: 1 };
    Custom { op, weights: Vec::new() }
}

impl Custom {
    /// Declares a constant, of the type `u32` or `f32`.
    pub fn constant(mut self, name: &str, value: impl Into<Constant>) -> Custom {
        self.op.constants.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a weight, which the WGSL finds as f32 whatever the file holds.
    pub fn weight(mut self, weight: Weight) -> Custom {
        self.weights.push(weight);
        self
    }

    /// Workgroups along x for each row, in place of 1.
    pub fn groups(mut self, groups: u32) -> Custom {
        self.op.groups = groups;
        self
    }

    /// Records it. Inputs are [rows, ..]; the result is [rows, ..dims].
    #[track_caller]
    pub fn forward(self, inputs: &[Tensor], dims: &[usize]) -> Tensor {
        self.record(inputs, dims, None)
    }

    /// Records it, and the same made of the vocabulary's ops, which the host runs where it has no GPU.
    #[track_caller]
    pub fn instead(self, inputs: &[Tensor], dims: &[usize], same: Tensor) -> Tensor {
        self.record(inputs, dims, Some(same))
    }

    #[track_caller]
    fn record(self, inputs: &[Tensor], dims: &[usize], same: Option<Tensor>) -> Tensor {
        let weights: Vec<u32> = self.weights.iter().map(|w| w.id()).collect();
        let op = CustomOp { inputs: inputs.len(), weights: weights.len(), dims: dims.to_vec(), ..self.op };
        let custom = with(|r| {
            let all = &mut r.graph.custom;
            all.iter().position(|o| *o == op).unwrap_or_else(|| {
                all.push(op);
                all.len() - 1
            })
        });
        let inputs: Vec<Tensor> = inputs.iter().copied().chain(same).collect();
        push(Op::Custom { custom: custom as CustomId, weights, decomposed: same.is_some() }, &inputs)
    }
}

impl CustomOp {
    /// Its name, cut to what a name may have.
    pub(crate) fn short_name(&self) -> String {
        self.name.chars().take(MAX_NAME).collect()
    }

    /// Why a host cannot take it, if it cannot. What its WGSL says is for the host to see.
    pub(crate) fn unsound(&self) -> Option<String> {
        let width = self.dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let bindings = self.inputs.saturating_add(self.weights).saturating_add(1);
        let wrong = |(name, value): &&(String, Constant)| {
            let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let finite = !matches!(value, Constant::F32(x) if !x.is_finite());
            !letters || !finite || !name.starts_with(|c: char| c.is_ascii_alphabetic())
        };
        if self.wgsl.len() > MAX_WGSL {
            return Some(format!("{} bytes of WGSL, room is for {MAX_WGSL}", self.wgsl.len()));
        }
        if self.constants.len() > MAX_CONSTANTS {
            return Some(format!("{} constants, room is for {MAX_CONSTANTS}", self.constants.len()));
        }
        let mut names = self.constants.iter().map(|(name, _)| name).chain([&self.name]);
        if let Some(name) = names.find(|name| name.len() > MAX_NAME) {
            return Some(format!("a name of {} bytes, room is for {MAX_NAME}", name.len()));
        }
        if self.inputs == 0 || bindings > MAX_BINDINGS {
            let (inputs, weights) = (self.inputs, self.weights);
            return Some(format!(
                "{inputs} inputs and {weights} weights: wants at least one input, and {} in all at most",
                MAX_BINDINGS - 1
            ));
        }
        if !(1..=MAX_GROUPS).contains(&self.groups) {
            return Some(format!("{} workgroups for each row, wants 1 to {MAX_GROUPS}", self.groups));
        }
        if self.dims.is_empty() || self.dims.len() > 3 || !matches!(width, Some(1..=0x7fff_ffff)) {
            return Some(format!("a result of [rows, ..{:?}]", self.dims));
        }
        self.constants.iter().find(wrong).map(|(name, value)| format!("a constant `{name}` of {value:?}"))
    }
}

/// The shape of a custom op's result.
pub(crate) fn infer(
    g: &Graph,
    custom: CustomId,
    weights: &[u32],
    decomposed: bool,
    inputs: &[&[crate::Dim]],
) -> Result<Vec<crate::Dim>, String> {
    let op = g.custom.get(custom as usize).ok_or(format!("no custom op {custom}, of {}", g.custom.len()))?;
    let named = |e: String| format!("`{}`: {e}", op.short_name());
    if let Some(e) = op.unsound() {
        return Err(named(e));
    }
    let wanted = (op.inputs + usize::from(decomposed), op.weights);
    if (inputs.len(), weights.len()) != wanted {
        let found = (inputs.len(), weights.len());
        return Err(named(format!("wants inputs and weights {wanted:?}, found {found:?}")));
    }
    let rows = inputs[0].first().filter(|d| d.sym().is_some());
    let rows = rows.ok_or_else(|| named(format!("wants [rows, ..], found {:?}", inputs[0])))?;
    if inputs.iter().any(|x| x.len() < 2 || x[0] != *rows) {
        return Err(named(format!("wants inputs [rows, ..] of the same rows, found {inputs:?}")));
    }
    if let Some(w) = weights.iter().map(|w| g.weight_shape(*w)).find(|w| w.iter().product::<usize>() > MAX_WEIGHT) {
        return Err(named(format!("a weight {w:?} is larger than {MAX_WEIGHT} values")));
    }
    let shape: Vec<crate::Dim> = std::iter::once(*rows).chain(op.dims.iter().map(|d| (*d).into())).collect();
    match inputs.last().filter(|_| decomposed) {
        Some(same) if *same != shape => Err(named(format!("its result {shape:?} is {same:?} when decomposed"))),
        _ => Ok(shape),
    }
}
