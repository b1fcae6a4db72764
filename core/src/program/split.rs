//! A program in two parts: what comes first runs on one device, the rest on another.
//!
//! A cut lies between layers, where little is handed on: in most models the residual stream alone.

use super::{CacheId, Node, NodeId, Op, Program};
use crate::{Error, Result};
use std::{collections::BTreeSet, ops::Range};
use tamarack_api::{Dim, Sym};

/// Both parts of a program.
#[derive(Clone, Debug)]
pub struct Split {
    /// Ends in the rows that it hands on, [tokens, width].
    pub front: Program,
    /// Begins with them: [`Op::Carried`].
    pub back: Program,
    /// Which caches of the whole the front has; the back has the others, in the same order.
    pub front_caches: Vec<CacheId>,
    /// Those of the back.
    pub back_caches: Vec<CacheId>,
}

impl Program {
    /// Where it can be cut before each of its layers, from the first on. A layer is what writes a cache of its own; layers
    /// that cannot be told apart, as those that share a cache, count as one.
    pub fn cuts(&self) -> Vec<NodeId> {
        let caches = self.cache_nodes();
        let mut begins: Vec<NodeId> = caches.iter().map(|nodes| nodes.start).collect();
        begins.sort_unstable();
        let mut last = 0;
        let mut cuts: Vec<NodeId> = Vec::new();
        for begin in begins {
            let width = |at: &NodeId| Some((self.crossing_width(*at, &caches)?, std::cmp::Reverse(*at)));
            let best = (last + 1..=begin).filter(|at| width(at).is_some()).min_by_key(width);
            cuts.extend(best);
            last = begin;
        }
        cuts
    }

    /// What comes before `at`, and the rest.
    ///
    /// # Errors
    /// The two would share more than rows.
    pub fn split(&self, at: NodeId) -> Result<Split> {
        let caches = self.cache_nodes();
        let carried =
            self.carried(at, &caches).ok_or_else(|| Error::Request(format!("a model cannot be cut at node {at}")))?;
        let [(front, front_caches), (back, back_caches)] =
            [self.front(at, &carried), self.back(at, &carried)].map(|program| program.with_own_caches());
        Ok(Split { front, back, front_caches, back_caches })
    }

    /// Where a part of a program takes what the part before it made.
    pub fn carried_node(&self) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.op == Op::Carried)
    }

    /// Elements in a row of that.
    pub fn carried_width(&self) -> usize {
        self.carried_node().map_or(0, |id| self.width(id))
    }

    /// Results of nodes before `at` that nodes from there on take. `None` where not only rows of tokens cross.
    fn carried(&self, at: NodeId, caches: &[Range<NodeId>]) -> Option<Vec<NodeId>> {
        let taken: BTreeSet<NodeId> = self.nodes.get(at..)?.iter().flat_map(|n| &n.inputs).copied().collect();
        let crossing: Vec<NodeId> = taken.into_iter().filter(|id| *id < at && !self.is_known(*id)).collect();
        let is_rows = |id: &NodeId| {
            self.nodes[*id].shape.first().and_then(|d| d.sym()) == Some(Sym::Tokens)
                && !matches!(self.nodes[*id].op, Op::Prepare(_))
        };
        let is_apart = |nodes: &Range<NodeId>| nodes.end <= at || at <= nodes.start;
        let sees = |n: &Node| matches!(n.op, Op::MergeEmbeddings | Op::AddEmbeddings(_));
        let fits = !crossing.is_empty()
            && self.output >= at
            && crossing.iter().all(is_rows)
            && caches.iter().all(is_apart)
            && !self.nodes[at..].iter().any(sees);
        fits.then_some(crossing)
    }

    /// Elements in a row of what crosses.
    fn crossing_width(&self, at: NodeId, caches: &[Range<NodeId>]) -> Option<usize> {
        Some(self.carried(at, caches)?.into_iter().map(|id| self.width(id)).sum())
    }

    /// Whether every device knows it from the step.
    fn is_known(&self, id: NodeId) -> bool {
        matches!(self.nodes[id].op, Op::Tokens | Op::Adapters)
    }

    /// From the first node to the last that has to do with each cache.
    fn cache_nodes(&self) -> Vec<Range<NodeId>> {
        let mut ranges: Vec<Option<Range<NodeId>>> = vec![None; self.caches.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            if let Some(cache) = node.op.cache() {
                let start = ranges[cache].as_ref().map_or(id, |range| range.start);
                ranges[cache] = Some(start..id + 1);
            }
        }
        ranges.into_iter().flatten().collect()
    }

    fn front(&self, at: NodeId, carried: &[NodeId]) -> Program {
        let mut front = Program { nodes: self.nodes[..at].to_vec(), ..self.clone() };
        let parts: Vec<NodeId> = carried
            .iter()
            .map(|id| match self.nodes[*id].shape.len() {
                2 => *id,
                _ => front.push(Op::Reshape, vec![*id], self.width(*id), &self.nodes[*id].place),
            })
            .collect();
        let width = carried.iter().map(|id| self.width(*id)).sum();
        front.output = match parts[..] {
            [one] => one,
            _ => front.push(Op::Concat, parts, width, ""),
        };
        front
    }

    fn back(&self, at: NodeId, carried: &[NodeId]) -> Program {
        let mut back = Program { nodes: Vec::new(), ..self.clone() };
        let mut moved = vec![NodeId::MAX; self.nodes.len()];
        for (id, node) in self.nodes[..at].iter().enumerate().filter(|(id, _)| self.is_known(*id)) {
            moved[id] = back.nodes.len();
            back.nodes.push(node.clone());
        }
        let width = carried.iter().map(|id| self.width(*id)).sum();
        let all = back.push(Op::Carried, Vec::new(), width, "");
        let mut start = 0;
        for id in carried {
            let (node, width) = (&self.nodes[*id], self.width(*id));
            let mut part = all;
            if carried.len() > 1 {
                part = back.push(Op::Slice { dim: 1, start }, vec![part], width, &node.place);
            }
            if node.shape.len() != 2 {
                part = back.push(Op::Reshape, vec![part], width, &node.place);
                back.nodes[part].shape.clone_from(&node.shape);
            }
            moved[*id] = part;
            start += width;
        }
        for (id, node) in self.nodes.iter().enumerate().skip(at) {
            moved[id] = back.nodes.len();
            let inputs = node.inputs.iter().map(|i| moved[*i]).collect();
            back.nodes.push(Node { inputs, ..node.clone() });
        }
        back.output = moved[self.output];
        back
    }

    /// Adds a node with rows of tokens.
    fn push(&mut self, op: Op, inputs: Vec<NodeId>, width: usize, place: &str) -> NodeId {
        let shape = vec![Dim::from(Sym::Tokens), width.into()];
        self.nodes.push(Node { op, inputs, shape, place: place.to_owned() });
        self.nodes.len() - 1
    }

    /// Without the caches that it does not use; those that it does, by their former numbers.
    fn with_own_caches(mut self) -> (Program, Vec<CacheId>) {
        let used: BTreeSet<CacheId> = self.nodes.iter().filter_map(|n| n.op.cache()).collect();
        let used: Vec<CacheId> = used.into_iter().collect();
        for node in &mut self.nodes {
            if let Some(cache) = node.op.cache_mut() {
                *cache = used.partition_point(|c| *c < *cache);
            }
        }
        self.caches = used.iter().map(|c| self.caches[*c]).collect();
        (self, used)
    }
}
