//! Low-rank adapters: LoRA (arXiv:2106.09685) and DoRA (arXiv:2402.09353), as MLX and PEFT store them.
//!
//! An adapted product is y = m ⊙ (W x + s B A x) + b, with m = 1 for LoRA. Several adapters are stacked along their ranks,
//! and a mask that is chosen by each row's adapter leaves of A x what is its own, so that rows of one step may each have
//! another adapter, or none.

mod apply;
mod config;
mod files;
mod fuse;
mod modules;

pub(crate) use apply::apply;
pub(crate) use fuse::fused;

use crate::{Error, Result, program::Program};
use std::{collections::BTreeMap, ops::Range};
use tamarack_api::{WeightExpr, WeightId};

/// An adapter as its files have it.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    /// What generations call it.
    pub name: String,
    /// By the path of the module that is adapted, such as `model.layers.0.self_attn.q_proj`.
    pub modules: BTreeMap<String, LowRank>,
}

/// What an adapter adds to one product.
#[derive(Clone, Debug)]
pub(crate) struct LowRank {
    /// [rank, inputs]
    pub a: Vec<f32>,
    /// [outputs, rank]
    pub b: Vec<f32>,
    pub rank: usize,
    pub scale: f32,
    /// DoRA's length of each row of the adapted weight, `[outputs]`.
    pub magnitude: Option<Vec<f32>>,
}

impl LowRank {
    pub fn inputs(&self) -> usize {
        self.a.len() / self.rank.max(1)
    }

    pub fn outputs(&self) -> usize {
        self.b.len() / self.rank.max(1)
    }

    /// Makes row `i` of the weight that of the adapted one, but for its length. Returns the factor that gives it that.
    pub fn adapt(&self, i: usize, row: &mut [f32]) -> f32 {
        for (r, b) in self.b[i * self.rank..][..self.rank].iter().enumerate() {
            let a = &self.a[r * row.len()..][..row.len()];
            row.iter_mut().zip(a).for_each(|(w, a)| *w += self.scale * b * a);
        }
        let length = || row.iter().map(|w| w * w).sum::<f32>().sqrt();
        self.magnitude.as_ref().map_or(1.0, |m| m[i] / length())
    }
}

/// Which of `adapters` is meant; 0 is none.
pub(crate) fn number(adapters: &[Adapter], name: Option<&str>) -> Result<u32> {
    let Some(name) = name else { return Ok(0) };
    let found = adapters.iter().position(|a| a.name == name);
    found.map(|at| at as u32 + 1).ok_or_else(|| {
        let known: Vec<&str> = adapters.iter().map(|a| &*a.name).collect();
        let known =
            if known.is_empty() { "none is loaded".to_owned() } else { format!("there are {}", known.join(", ")) };
        Error::Request(format!("no adapter `{name}`: {known}"))
    })
}

/// The tensor whose rows a weight is made of, if it is one, and which.
fn rows_of(program: &Program, weight: WeightId) -> Option<(String, Range<usize>)> {
    let node = &program.weights[weight as usize];
    match &node.expr {
        WeightExpr::Tensor(name) => Some((name.clone(), 0..node.shape[0])),
        WeightExpr::Slice { of, dim: 0, start } => {
            let (name, rows) = rows_of(program, *of)?;
            Some((name, rows.start + start..rows.start + start + node.shape[0]))
        }
        _ => None,
    }
}
