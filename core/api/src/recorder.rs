//! The graph that a thread is recording, and everything that went wrong on the way.

use crate::{
    API, Architecture, Config, Dim, Error, Graph, Node, NodeId, Op, Result, Sym, WeightExpr, WeightId, WeightNode,
    infer, tensor::Step, weights::Weights,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::Location,
};

/// The names and shapes of a checkpoint's tensors.
pub type Index = BTreeMap<String, Vec<usize>>;

/// The handle of what failed. Everything made of it fails too, silently: the first error is told.
pub(crate) const POISON: u32 = u32::MAX;

/// A rank-0 shape for poisoned handles.
pub(crate) type Shape = Vec<Dim>;

#[derive(Default)]
pub(crate) struct Recorder {
    pub graph: Graph,
    pub index: Index,
    pub used: BTreeSet<String>,
    pub ignored: Vec<String>,
    errors: Vec<String>,
    places: HashMap<String, u32>,
    weights: HashMap<String, WeightId>,
}

thread_local!(static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) });

/// Works on the recorder of this thread.
pub(crate) fn with<R>(f: impl FnOnce(&mut Recorder) -> R) -> R {
    RECORDER.with_borrow_mut(|r| match r {
        Some(recorder) => f(recorder),
        // An author's mistake, caught at the boundary and reported with this message.
        None => panic!("tensors and weights exist only while Architecture::text runs, on its own thread"),
    })
}

impl Recorder {
    /// Notes an error of the author's line `at`.
    pub fn fail(&mut self, at: &Location<'_>, message: String) {
        self.errors.push(format!("{}:{}: {message}", at.file(), at.line()));
    }

    /// Notes an error of the files.
    pub fn misfit(&mut self, message: String) {
        if !self.errors.contains(&message) {
            self.errors.push(message);
        }
    }

    /// Records an operation.
    pub fn push(&mut self, at: &Location<'_>, op: Op, inputs: &[NodeId]) -> NodeId {
        if inputs.contains(&POISON) || op.weights().any(|w| w == POISON) {
            return POISON;
        }
        let shapes: Vec<&[Dim]> = inputs.iter().map(|i| self.graph.shape(*i)).collect();
        match infer::infer(&self.graph, &op, &shapes) {
            Ok(shape) => {
                let at = self.place(at);
                self.graph.nodes.push(Node { op, inputs: inputs.to_vec(), at, shape });
                self.graph.nodes.len() as NodeId - 1
            }
            Err(e) => {
                self.fail(at, format!("{}: {e}", op.name()));
                POISON
            }
        }
    }

    /// Records a weight; the same expression is the same weight.
    pub fn weight(&mut self, expr: WeightExpr, shape: Vec<usize>) -> WeightId {
        if expr.parts().contains(&POISON) {
            return POISON;
        }
        let weights = &mut self.graph.weights;
        *self.weights.entry(format!("{expr:?} {shape:?}")).or_insert_with(|| {
            weights.push(WeightNode { expr, shape });
            weights.len() as WeightId - 1
        })
    }

    fn place(&mut self, at: &Location<'_>) -> u32 {
        let places = &mut self.graph.places;
        *self.places.entry(format!("{}:{}", at.file(), at.line())).or_insert_with_key(|place| {
            places.push(place.clone());
            places.len() as u32 - 1
        })
    }

    fn finish(mut self, output: NodeId) -> Result<Graph> {
        self.graph.output = output;
        if self.errors.is_empty() {
            self.note_unused();
            self.note_output();
        }
        match self.errors.as_slice() {
            [] => Ok(self.graph),
            [only] => Err(Error(only.clone())),
            [first, rest @ ..] => {
                let shown: String = rest.iter().take(4).map(|e| format!("\n{e}")).collect();
                let more = rest.len().saturating_sub(4);
                let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
                Err(Error(format!("{first}{shown}{more}")))
            }
        }
    }

    fn note_unused(&mut self) {
        let ignored = |name: &str| self.ignored.iter().any(|glob| matches(glob, name));
        let unused: Vec<&String> = self.index.keys().filter(|k| !self.used.contains(*k) && !ignored(k)).collect();
        if let [first, ..] = unused[..] {
            let (n, shape) = (unused.len(), &self.index[first]);
            let message = format!(
                "the checkpoint holds {n} tensors that the architecture does not use, the first is {first} {shape:?}: \
                 the model may be of another kind, or the plugin must `ignore` them"
            );
            self.errors.push(message);
        }
    }

    fn note_output(&mut self) {
        let shape = self.graph.shape(self.graph.output);
        if !matches!(shape, [rows, vocab] if *rows == Sym::Outputs.into() && vocab.constant().is_some()) {
            self.errors.push(format!("the text model must return logits [outputs, vocabulary], it returns {shape:?}"));
        }
    }
}

/// Whether `name` matches `glob`, in which `*` stands for any text.
fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| matches(tail, &rest[i..]))
        }),
    }
}

/// Records one architecture for one configuration and the tensors of one checkpoint.
pub fn record(architecture: &dyn Architecture, config: &Config, index: Index) -> Result<Graph> {
    let recorder = Recorder { index, graph: Graph { api: API, ..Graph::default() }, ..Recorder::default() };
    RECORDER.set(Some(recorder));
    // A panic leaves the recorder behind; the next recording replaces it.
    let output = architecture.text(config, &Weights::root(), &Step::begin());
    let recorder = RECORDER.take().unwrap_or_default();
    match output {
        Ok(tensor) => recorder.finish(tensor.0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs() {
        assert!(matches("*.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(matches("mtp.*.x", "mtp.0.y.x") && matches("a", "a") && matches("*", ""));
        assert!(!matches("*.inv_freq", "inv_freq") && !matches("a*b", "ac") && !matches("a", "ab"));
    }
}
