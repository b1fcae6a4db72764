//! What a plugin sends is believed in nothing: references are checked, and every shape is inferred again.

use crate::{Dim, Error, Graph, Node, Op, Result, Sym, WeightExpr, infer, recorder::MAX_NODES};

const MAX_ELEMENTS: usize = 1 << 40;

impl Graph {
    /// Checks every reference and infers every shape.
    pub fn check(&mut self) -> Result<()> {
        if self.nodes.len() > MAX_NODES || self.weights.len() > MAX_NODES {
            return Err(Error(format!("{} nodes are more than {MAX_NODES}", self.nodes.len())));
        }
        for i in 0..self.weights.len() {
            self.check_weight(i).map_err(|e| Error(format!("weight {i}: {e}")))?;
        }
        if let Some(i) = self.ropes.iter().position(|r| !r.is_sound()) {
            return Err(Error(format!("rope {i} {}", crate::rope::UNSOUND)));
        }
        if let Some((op, e)) = self.custom.iter().find_map(|op| Some((op, op.unsound()?))) {
            return Err(Error(format!("the custom op `{}`: {e}", op.short_name())));
        }
        for i in 0..self.nodes.len() {
            let shape = self.check_node(i);
            let node = &self.nodes[i];
            self.nodes[i].shape =
                shape.map_err(|e| Error(format!("{}: {}: {e}", self.place(i as u32), node.op.name())))?;
        }
        self.check_rows()?;
        match self.shape(self.output) {
            [_, d] if d.constant().is_some() => Ok(()),
            found => Err(Error(format!(
                "the output is not logits [rows, vocabulary], nor embeddings [rows, dim]: {found:?}"
            ))),
        }
    }

    /// A tower has patches, and what it merges so many of to one; a text model has none.
    fn check_rows(&self) -> Result<()> {
        let rows = |shape: &[Dim]| shape.first().map(|d| (d.sym(), d.fraction()));
        let merged = rows(self.shape(self.output));
        let is_tower = merged.is_some_and(|(sym, (num, _))| sym == Some(Sym::Patches) && num == 1);
        let fits = |shape: &[Dim]| match rows(shape) {
            Some((Some(Sym::Patches), fraction)) => is_tower && (fraction == (1, 1) || rows(shape) == merged),
            _ => !is_tower,
        };
        match self.nodes.iter().position(|n| !fits(&n.shape)) {
            None => Ok(()),
            Some(i) => {
                let (place, op, shape) = (self.place(i as u32), self.nodes[i].op.name(), &self.nodes[i].shape);
                let of = if is_tower { "a tower" } else { "a text model" };
                Err(Error(format!("{place}: {op}: {of} cannot have {shape:?}: it has rows of another kind")))
            }
        }
    }

    fn check_weight(&self, i: usize) -> Result<(), String> {
        let node = &self.weights[i];
        if let Some(p) = node.expr.parts().iter().find(|p| **p as usize >= i) {
            return Err(format!("takes weight {p}, which does not come before it"));
        }
        let count = node.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if node.shape.len() > 5 || count.is_none_or(|n| n > MAX_ELEMENTS) {
            return Err(format!("the shape {:?} is absurd", node.shape));
        }
        match &node.expr {
            WeightExpr::AddScalar(_, c) | WeightExpr::MulScalar(_, c) if !c.is_finite() => Err("not finite".into()),
            expr if infer::weight_shape_fits(self, expr, &node.shape) => Ok(()),
            expr => Err(format!("{expr:?} cannot have shape {:?}", node.shape)),
        }
    }

    fn check_node(&self, i: usize) -> Result<Vec<Dim>, String> {
        let Node { op, inputs, .. } = &self.nodes[i];
        if let Some(j) = inputs.iter().find(|j| **j as usize >= i) {
            return Err(format!("takes node {j}, which does not come before it"));
        }
        if let Some(w) = op.weights().find(|w| *w as usize >= self.weights.len()) {
            return Err(format!("takes weight {w}, of {}", self.weights.len()));
        }
        for (place, j) in inputs.iter().enumerate() {
            let is_cache = matches!(self.nodes[*j as usize].op, Op::Kv { .. });
            if is_cache != (matches!(op, Op::Attention { .. }) && place == 1) {
                return Err("a cache goes to attention, and nothing else does".into());
            }
        }
        let shapes: Vec<&[Dim]> = inputs.iter().map(|j| self.shape(*j)).collect();
        let shape = infer::infer(self, op, &shapes)?;
        let constants = shape.iter().skip(1).map(|d| d.constant());
        let width = constants.clone().try_fold(1usize, |n, d| n.checked_mul(d?));
        match (shape.first().and_then(|d| d.sym()), width) {
            (Some(_), Some(1..=0x7fff_ffff)) => Ok(shape),
            _ => Err(format!("the result {shape:?} is not [rows, ..] with constant rest")),
        }
    }
}
