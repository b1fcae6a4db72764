//! Applying rules to a program.

use super::{Node, NodeId, Op, Program};
use std::collections::HashSet;
use tamarack_api::{WeightExpr, WeightId, WeightNode};
use tamarack_kernels::Format;

/// One way to make a program shorter. `apply` looks at one node and, if the rule fits there, changes
/// the program and says so.
pub struct Rule {
    /// For tests and tables.
    pub name: &'static str,
    /// Whether it fitted.
    pub apply: fn(&mut Rewriter<'_>, NodeId) -> Option<()>,
}

/// A program being rewritten. Nodes that a rule adds stand at the end, whatever their order: the
/// program is put in order again between rules.
pub struct Rewriter<'a> {
    pub(super) program: Program,
    pub(super) users: Vec<Vec<NodeId>>,
    format: &'a dyn Fn(&Program, WeightId) -> Option<Format>,
}

/// Applies `rules` in their order. `format` tells the form in which a weight will lie in device
/// memory, if it lies there as one matrix. Returns how often each rule fitted.
pub fn rewrite(
    program: Program,
    rules: &[Rule],
    format: &dyn Fn(&Program, WeightId) -> Option<Format>,
) -> (Program, Vec<(&'static str, usize)>) {
    let mut r = Rewriter { program, users: Vec::new(), format };
    r.tidy();
    let mut log = Vec::new();
    for rule in rules {
        let mut times = 0;
        let mut i = 0;
        // Nodes that the rule adds are looked at too.
        while i < r.program.nodes.len() {
            // The same place may fit again: chains grow step by step.
            while !r.users[i].is_empty() && (rule.apply)(&mut r, i).is_some() {
                times += 1;
            }
            i += 1;
        }
        r.tidy();
        log.push((rule.name, times));
    }
    (r.program, log)
}

impl Rewriter<'_> {
    /// What a node does.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.program.nodes[id].op
    }

    /// What a node takes.
    pub fn inputs(&self, id: NodeId) -> &[NodeId] {
        &self.program.nodes[id].inputs
    }

    /// The nodes that take `id`; the program's output counts as one more.
    pub fn users(&self, id: NodeId) -> &[NodeId] {
        &self.users[id]
    }

    /// The only user of `id`, if there is only one.
    pub fn is_used_once(&self, id: NodeId) -> bool {
        self.users[id].len() == 1
    }

    /// Whether `id` can only be computed after `before`.
    pub fn depends_on(&self, id: NodeId, before: NodeId) -> bool {
        let (mut open, mut seen) = (vec![id], HashSet::new());
        while let Some(i) = open.pop() {
            if i == before {
                return true;
            }
            if seen.insert(i) {
                open.extend(self.inputs(i));
            }
        }
        false
    }

    /// The shape of a node's result.
    pub fn dims(&self, id: NodeId) -> Vec<usize> {
        self.program.dims(id)
    }

    /// Gives a node another meaning; its shape stays.
    pub fn replace(&mut self, id: NodeId, op: Op, inputs: Vec<NodeId>) {
        self.unlink(id);
        self.program.nodes[id].op = op;
        self.program.nodes[id].inputs = inputs;
        self.link(id);
    }

    /// Adds a node.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.program.nodes.push(node);
        self.users.push(Vec::new());
        let id = self.program.nodes.len() - 1;
        self.link(id);
        id
    }

    /// How many inputs a node's post steps take.
    pub fn post_inputs(&self, id: NodeId) -> usize {
        self.program.post_inputs(id).len()
    }

    /// The weight of these parts one below the other, or `None` if they lie in memory in different forms.
    pub fn stack_rows(&mut self, parts: &[WeightId]) -> Option<WeightId> {
        let format = (self.format)(&self.program, parts[0])?;
        let same = parts.iter().all(|p| (self.format)(&self.program, *p) == Some(format));
        same.then(|| self.concat(parts))
    }

    /// The concatenation of vectors.
    pub fn concat(&mut self, parts: &[WeightId]) -> WeightId {
        let mut shape = self.program.weight_shape(parts[0]).to_vec();
        shape[0] = parts.iter().map(|p| self.program.weight_shape(*p)[0]).sum();
        self.program.weights.push(WeightNode { expr: WeightExpr::Concat(parts.to_vec()), shape });
        self.program.weights.len() as WeightId - 1
    }

    fn link(&mut self, id: NodeId) {
        for i in self.program.nodes[id].inputs.clone() {
            if !self.users[i].contains(&id) {
                self.users[i].push(id);
            }
        }
    }

    /// Takes `id` off the users of its inputs; what nobody uses any more lets go of its own inputs.
    fn unlink(&mut self, id: NodeId) {
        for i in self.program.nodes[id].inputs.clone() {
            self.users[i].retain(|u| *u != id);
            if self.users[i].is_empty() {
                self.unlink(i);
            }
        }
    }

    /// Puts nodes in an order in which each takes only earlier ones, and leaves out the unused.
    pub(super) fn tidy(&mut self) {
        super::tidy::tidy(&mut self.program);
        self.users = vec![Vec::new(); self.program.nodes.len()];
        for id in 0..self.program.nodes.len() {
            self.link(id);
        }
        self.users[self.program.output].push(OUTPUT);
    }
}

/// Stands for the program's result among users.
const OUTPUT: NodeId = NodeId::MAX;
