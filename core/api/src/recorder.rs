//! The graph that a thread is recording, and everything that went wrong on the way.

use crate::{
    API, Architecture, Config, Dim, Error, Graph, Index, Node, NodeId, Op, Result, Sym, WeightExpr, WeightId,
    WeightNode,
    index::{Names, Numbers, hash},
    infer,
    tensor::{Step, Tensor},
    vision::{TowerStep, VisionLanguage},
    weights::Weights,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    mem::discriminant,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
};

/// The handle of what failed. Everything made of it fails too, silently: the first error is told.
pub(crate) const POISON: u32 = u32::MAX;

/// Errors after which recording stops: more of them tell nobody more.
const MAX_ERRORS: usize = 64;
/// Errors that a message lists.
const SHOWN: usize = 5;
/// What a user can do about tensors that are absent or misshapen.
const REMEDY: &str = ": do config.json and the weights belong together, and are all files there?";
/// Calls after which recording stops. The largest mixtures of experts take a million.
const MAX_CALLS: usize = 1 << 22;
/// Operations in a graph.
pub(crate) const MAX_NODES: usize = 1 << 18;

/// What a recording that has gone too far unwinds with: an author's loop over an absurd number of layers
/// has no other way out.
struct Stopped;

/// A rank-0 shape for poisoned handles.
pub(crate) type Shape = Vec<Dim>;

#[derive(Default)]
pub(crate) struct Recorder {
    pub graph: Graph,
    names: Names,
    /// The weight that each tensor has become, by its number.
    used: Vec<Option<WeightId>>,
    /// Whether a tensor that is asked for and absent is taken to be there.
    open: bool,
    /// Those that were.
    pub made_up: Index,
    /// Whether image embeddings are put among those of tokens.
    pub images: bool,
    pub ignored: Vec<String>,
    errors: Vec<String>,
    is_misfit: bool,
    calls: usize,
    places: HashMap<String, u32>,
    weights: Numbers,
}

thread_local!(static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) });

/// Works on the recorder of this thread.
pub(crate) fn with<R>(f: impl FnOnce(&mut Recorder) -> R) -> R {
    let (result, goes_on) = RECORDER.with_borrow_mut(|r| match r {
        Some(recorder) => (f(recorder), recorder.goes_on()),
        // An author's mistake, caught at the boundary and reported with this message.
        None => panic!(
            "tensors and weights exist only while Architecture::text or VisionLanguage::tower runs, on its own thread"
        ),
    });
    if goes_on { result } else { resume_unwind(Box::new(Stopped)) }
}

impl Recorder {
    pub fn new(names: impl Into<Names>) -> Recorder {
        let names = names.into();
        let graph = Graph { api: API, ..Graph::default() };
        Recorder { graph, used: vec![None; names.len()], names, ..Recorder::default() }
    }

    /// For a model that may see.
    pub fn with_images(self) -> Recorder {
        Recorder { images: true, ..self }
    }

    /// Counts a call, and says whether there may be another one.
    fn goes_on(&mut self) -> bool {
        self.calls += 1;
        self.calls < MAX_CALLS && self.graph.nodes.len() <= MAX_NODES && self.errors.len() < MAX_ERRORS
    }

    /// Notes an error of the author's line `at`.
    pub fn fail(&mut self, at: &Location<'_>, message: String) {
        self.errors.push(format!("{}:{}: {message}", at.file(), at.line()));
    }

    /// Notes an error of the files.
    pub fn misfit(&mut self, message: String) {
        self.is_misfit = true;
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
        let node = WeightNode { expr, shape };
        match self.weights.find(hash_of(&node), |id| self.graph.weights[id as usize] == node) {
            Ok(id) => id,
            Err(free) => {
                let id = self.add(node);
                self.weights.insert(free, id);
                id
            }
        }
    }

    fn add(&mut self, node: WeightNode) -> WeightId {
        self.graph.weights.push(node);
        self.graph.weights.len() as WeightId - 1
    }

    /// The shape of a tensor of the checkpoint.
    pub fn shape_of(&self, name: &str) -> Option<&[usize]> {
        let made_up = || self.made_up.get(name).map(Vec::as_slice);
        self.names.find(name).map(|n| self.names.shape(n)).or_else(made_up)
    }

    /// A tensor of the checkpoint, of exactly this shape.
    pub fn tensor(&mut self, name: String, shape: &[usize]) -> WeightId {
        let number = self.names.find(&name);
        match number.map(|n| self.names.shape(n)).or_else(|| self.made_up.get(&name).map(Vec::as_slice)) {
            Some(found) if found == shape => {}
            None if self.open => drop(self.made_up.insert(name.clone(), shape.to_vec())),
            Some(found) => {
                let message = format!("{name}: expected {shape:?} by config.json, file has {found:?}");
                self.misfit(message);
                return POISON;
            }
            None => {
                self.misfit(format!("{name}: expected {shape:?} by config.json, absent from the file"));
                return POISON;
            }
        }
        let Some(number) = number else { return self.weight(WeightExpr::Tensor(name), shape.to_vec()) };
        self.used[number].unwrap_or_else(|| {
            let id = self.add(WeightNode { expr: WeightExpr::Tensor(String::new()), shape: shape.to_vec() });
            self.used[number] = Some(id);
            id
        })
    }

    /// The graph, whose tensors have had no names so far: a library sends numbers instead.
    pub fn into_graph(mut self) -> Graph {
        for (number, id) in self.used.iter().enumerate() {
            if let Some(id) = id {
                self.graph.weights[*id as usize].expr = WeightExpr::Tensor(self.names.name(number).to_owned());
            }
        }
        self.graph
    }

    /// The numbers in the index of tensors that are unused.
    pub fn unused_numbers(&self) -> Vec<u32> {
        self.graph.unused.keys().filter_map(|name| self.names.find(name)).map(|n| n as u32).collect()
    }

    /// Tensors in the index.
    pub fn tensors(&self) -> usize {
        self.names.len()
    }

    /// The number in the index of each weight that is a tensor.
    pub fn numbers(&self) -> Vec<Option<u32>> {
        let mut numbers = vec![None; self.graph.weights.len()];
        for (number, id) in self.used.iter().enumerate() {
            id.iter().for_each(|id| numbers[*id as usize] = Some(number as u32));
        }
        numbers
    }

    fn place(&mut self, at: &Location<'_>) -> u32 {
        let places = &mut self.graph.places;
        *self.places.entry(format!("{}:{}", at.file(), at.line())).or_insert_with_key(|place| {
            places.push(place.clone());
            places.len() as u32 - 1
        })
    }

    fn finish(mut self, output: NodeId, is_tower: bool) -> Result<Recorder> {
        self.graph.output = output;
        if self.errors.is_empty() {
            self.graph.unused = self.unused();
            self.note_output(is_tower);
        }
        if self.errors.is_empty() { Ok(self) } else { Err(self.error()) }
    }

    /// Everything that went wrong, as one error.
    fn error(mut self) -> Error {
        if self.errors.is_empty() {
            let (calls, nodes) = (self.calls, self.graph.nodes.len());
            self.errors.push(format!(
                "recording does not end: {calls} calls have made {nodes} operations, room is for {MAX_CALLS} and \
                 {MAX_NODES}: is a size in config.json absurd?"
            ));
        }
        let n = self.errors.len();
        let remedy = if self.is_misfit { REMEDY } else { "" };
        if n == 1 {
            return Error(format!("{}{remedy}", self.errors[0]));
        }
        let shown: String = self.errors.iter().take(SHOWN).map(|e| format!("\n  {e}")).collect();
        let more = if n > SHOWN { format!("\n  and {} more", n - SHOWN) } else { String::new() };
        let least = if n < MAX_ERRORS { "" } else { "at least " };
        Error(format!("{least}{n} errors{remedy}{shown}{more}"))
    }

    fn unused(&self) -> Index {
        let ignored = |name: &str| self.ignored.iter().any(|glob| matches(glob, name));
        let is_unused = |n: &usize| self.used[*n].is_none() && !ignored(self.names.name(*n));
        let unused = (0..self.names.len()).filter(is_unused);
        unused.map(|n| (self.names.name(n).to_owned(), self.names.shape(n).to_vec())).collect()
    }

    /// Refuses tensors that are unused.
    fn all_used(self) -> Result<Graph> {
        let all = self.names.len();
        let graph = self.into_graph();
        graph.refuse_unused(all).map(|()| graph)
    }

    fn note_output(&mut self, is_tower: bool) {
        let shape = self.graph.shape(self.graph.output);
        if is_tower {
            if !matches!(shape, [rows, dim] if rows.sym() == Some(Sym::Patches) && dim.constant().is_some()) {
                self.errors.push(format!("the tower must return embeddings [patches / n, dim], it returns {shape:?}"));
            }
            return;
        }
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

/// What equal weights have in common.
fn hash_of(WeightNode { expr, shape }: &WeightNode) -> u64 {
    let own = match expr {
        WeightExpr::Tensor(name) => hash(name),
        WeightExpr::Slice { dim, start, .. } => hash((dim, start)),
        WeightExpr::AddScalar(_, by) | WeightExpr::MulScalar(_, by) => by.to_bits().into(),
        WeightExpr::Rearrange { dims, axes, .. } => hash((dims, axes)),
        WeightExpr::Stack(_) | WeightExpr::Concat(_) | WeightExpr::Reshape(_) | WeightExpr::Transpose(_) => 0,
    };
    hash((discriminant(expr), expr.parts(), shape, own))
}

/// Records one architecture for one configuration and the tensors of one checkpoint.
pub fn record(architecture: &dyn Architecture, config: &Config, index: Index) -> Result<Graph> {
    text(architecture, config, Recorder::new(index))?.all_used()
}

/// Records the text model of a vision-language model: where [`Step::merge_embeddings`] is called, images come in.
pub fn record_with_images(architecture: &dyn Architecture, config: &Config, index: Index) -> Result<Graph> {
    text(architecture, config, Recorder::new(index).with_images())?.all_used()
}

/// Records the tower of a vision-language model.
pub fn record_tower(model: &dyn VisionLanguage, config: &Config, index: Index) -> Result<Graph> {
    tower(model, config, Recorder::new(index))?.all_used()
}

/// The tensors that an architecture uses for a configuration, without what is optional: what a checkpoint made up
/// for it has to hold.
pub fn tensors(architecture: &dyn Architecture, config: &Config) -> Result<Index> {
    text(architecture, config, Recorder { open: true, ..Recorder::new(Names::default()) }).map(|r| r.made_up)
}

/// Records a text model.
pub(crate) fn text(architecture: &dyn Architecture, config: &Config, recorder: Recorder) -> Result<Recorder> {
    run(|| architecture.text(config, &Weights::root(), &Step::begin()), false, recorder)
}

/// Records a tower.
pub(crate) fn tower(model: &dyn VisionLanguage, config: &Config, recorder: Recorder) -> Result<Recorder> {
    run(|| model.tower(config, &Weights::root(), &TowerStep::new()), true, recorder)
}

fn run(model: impl FnOnce() -> Result<Tensor>, is_tower: bool, recorder: Recorder) -> Result<Recorder> {
    RECORDER.set(Some(recorder));
    // A panic leaves the recorder behind; the next recording replaces it.
    let output = catch_unwind(AssertUnwindSafe(model));
    let recorder = RECORDER.take().unwrap_or_default();
    match output {
        Ok(Ok(tensor)) => recorder.finish(tensor.0, is_tower),
        Ok(Err(e)) => Err(e),
        Err(stopped) if stopped.is::<Stopped>() => Err(recorder.error()),
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Declaration, RopeSpec, Tensor};

    /// What to do with the token ids.
    type Text = fn(&Weights, Tensor) -> Tensor;

    /// Records its function.
    struct Doing(Text);

    impl Architecture for Doing {
        fn declaration(&self) -> Declaration {
            Declaration::llm("doing", &["doing"])
        }
        fn text(&self, _: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
            Ok((self.0)(w, step.tokens()))
        }
    }

    fn error(text: Text) -> String {
        record(&Doing(text), &Config::from(serde_json::Value::Null), Index::new()).unwrap_err().0
    }

    #[test]
    fn loops_over_absurd_sizes_end() {
        let absent = error(|w, x| (0..usize::MAX).fold(x, |x, i| w.at(i).linear("q", [2, 3]).forward(x)));
        let first = "at least 64 errors: do config.json and the weights belong together, and are all files there?\n  \
                     0.q.weight: expected [2, 3] by config.json, absent from the file\n";
        assert!(absent.starts_with(first) && absent.ends_with("\n  and 59 more"), "{absent}");
        let endless = error(|_, x| (0..usize::MAX).fold(x, |x, _| x * 2.0));
        assert!(endless.contains("have made 262145 operations, room is for 4194304 and 262144: is a"), "{endless}");
        let idle = error(|w, x| (0..usize::MAX).fold(x, |x, _| if w.has("y") { x * 2.0 } else { x }));
        assert!(idle.starts_with("recording does not end: 4194304 calls have made 1 operations"), "{idle}");
    }

    #[test]
    fn absurd_sizes_are_refused_where_they_are_used() {
        let wrong: [(&str, Text); 4] = [
            ("rope: has frequencies that", |_, x| x.rope(&RopeSpec::new(1 << 40, 1e4))),
            ("rope: has frequencies that", |_, x| x.rope(&RopeSpec::new(8, f64::NAN))),
            ("slice: 18446744073709551615..", |_, x| x.split([usize::MAX, usize::MAX])[1]),
            ("split_heads: 0 is not a multiple of 0", |_, x| x.split_heads(0)),
        ];
        for (message, text) in wrong {
            let e = error(text);
            assert!(e.contains("recorder.rs:") && e.contains(message), "{e}");
        }
    }

    #[test]
    fn globs() {
        assert!(matches("*.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"));
        assert!(matches("mtp.*.x", "mtp.0.y.x") && matches("a", "a") && matches("*", ""));
        assert!(!matches("*.inv_freq", "inv_freq") && !matches("a*b", "ac") && !matches("a", "ab"));
    }
}
