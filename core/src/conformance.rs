//! Whether a plugin keeps to the contract: what it records for a configuration is sound, means the same however rows
//! are cut into steps and mixed with those of others, and gives the same numbers on every device.

use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings},
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    gpu::{Gpu, WgpuExecutor, adapters},
    plugins::Found,
    program::{Program, RULES, lower, rewrite},
    reference::Reference,
    weights::fold,
};
use serde::Serialize;
use serde_json::Value;
use std::{path::Path, time::Instant};
use tamarack_api::{Graph, Index};
use tamarack_kernels::Format;

/// Parameters of a model that is made up: more would take minutes.
const MAX_PARAMETERS: usize = 64 << 20;
/// Tokens of a prompt that is made up.
const PROMPT: usize = 24;
/// Allowed differences, as shares of the largest logit: of the oracle with itself and with a golden, and of a device, which
/// keeps keys and values in f16.
const ITSELF: f32 = 1e-4;
const GOLDEN: f32 = 1e-3;
const DEVICE: f32 = 1.5e-2;

/// A model to check a plugin with.
pub struct Case {
    /// For people.
    pub name: String,
    checkpoint: Checkpoint,
    golden: Option<Golden>,
}

/// What another engine computed: see `tests/goldens/README.md`.
struct Golden {
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was found; for a failure, with what to do.
    pub message: String,
}

impl Check {
    /// What went well, or what is wrong.
    pub fn new(name: &str, outcome: Result<String, String>) -> Check {
        let (passed, message) = match outcome {
            Ok(message) => (true, message),
            Err(message) => (false, message),
        };
        Check { name: name.to_owned(), passed, message }
    }
}

impl Case {
    /// A model directory; where it holds a `golden.safetensors`, logits are compared with those.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(path: &Path) -> Result<Case> {
        let golden = path.join("golden.safetensors");
        let golden = if golden.is_file() { Some(Golden::read(&golden)?) } else { None };
        Ok(Case { name: path.display().to_string(), checkpoint: Checkpoint::open(path)?, golden })
    }

    /// A configuration, with random weights under the names that the plugin asks for.
    ///
    /// # Errors
    /// The plugin refuses the configuration, or the model would be large.
    pub fn made_up(name: &str, plugin: &Found, config: &Value) -> Result<Case> {
        let index = plugin.tensors(config)?;
        let parameters: usize = index.values().map(|shape| shape.iter().product::<usize>()).sum();
        if parameters > MAX_PARAMETERS {
            let most = MAX_PARAMETERS >> 20;
            return Err(Error::Request(format!(
                "{name}: {} million parameters are too many to make up, at most {most}: write smaller sizes into it",
                parameters >> 20
            )));
        }
        let checkpoint = Checkpoint::synthetic(config.clone(), index, Format::F32)?;
        Ok(Case { name: name.to_owned(), checkpoint, golden: None })
    }

    /// Its `config.json`.
    pub fn config(&self) -> &Value {
        self.checkpoint.config()
    }

    fn index(&self) -> Index {
        self.checkpoint.tensors().map(|(name, t)| (name.to_owned(), t.shape().to_vec())).collect()
    }
}

impl Golden {
    fn read(path: &Path) -> Result<Golden> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let wrong = |e: safetensors::SafeTensorError| Error::file(path, e.to_string());
        let file = safetensors::SafeTensors::deserialize(&bytes).map_err(wrong)?;
        let words = |name| -> Result<Vec<u32>> {
            let tensor = file.tensor(name).map_err(|e| Error::file(path, format!("{name}: {e}")))?;
            Ok(tensor.data().as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect())
        };
        let logits = words("logits")?.into_iter().map(f32::from_bits).collect();
        Ok(Golden { tokens: words("input_ids")?, logits })
    }
}

/// Checks what a plugin records for a case, on the oracle and on every adapter.
pub fn check(plugin: &Found, case: &Case) -> Vec<Check> {
    let start = Instant::now();
    let graph = match plugin.record("text", case.config(), case.index()) {
        Ok(graph) => graph,
        Err(e) => return vec![Check::new("records", Err(e.to_string()))],
    };
    let millis = start.elapsed().as_millis();
    let bytes = graph.encode().map_or(0, |b| b.len());
    let (nodes, weights) = (graph.nodes.len(), graph.weights.len());
    let found = format!("{nodes} operations, {weights} weights, {bytes} bytes, in {millis} ms");
    let mut checks = vec![Check::new("records", Ok(found)), Check::new("is repeatable", repeats(plugin, case, &graph))];
    checks.extend(refuses_misfits(plugin, case));
    let recorded = Program { plain: Some(plugin.plain_ops()), ..lower(&graph) };
    match runs(&recorded, case) {
        Ok(more) => checks.extend(more),
        Err(e) => checks.push(Check::new("runs", Err(e.to_string()))),
    }
    checks
}

/// Whether the same input gives the same graph: an iteration over a hash map does not.
fn repeats(plugin: &Found, case: &Case, graph: &Graph) -> Result<String, String> {
    let again = plugin.record("text", case.config(), case.index()).map_err(|e| e.to_string())?;
    let same = graph.nodes.iter().zip(&again.nodes).position(|(a, b)| a != b);
    match same {
        None if again == *graph => Ok("the same graph each time".into()),
        None => Err("a second recording differs: the order of its weights does, for one".into()),
        Some(i) => {
            Err(format!("a second recording differs from {} on: is a hash map's order in it?", graph.place(i as u32)))
        }
    }
}

/// Whether a tensor of another size is noticed.
fn refuses_misfits(plugin: &Found, case: &Case) -> Option<Check> {
    let mut index = case.index();
    let (name, shape) = index.iter_mut().next()?;
    *shape.last_mut()? += 1;
    let name = name.clone();
    let outcome = match plugin.record("text", case.config(), index) {
        Err(e) if e.to_string().contains(&name) => Ok(format!("a misshapen {name} is named")),
        Err(e) => Err(format!("a misshapen {name} is reported as: {e}")),
        Ok(_) => Err(format!("a misshapen {name} is not noticed: take its sizes from config.json, not from the file")),
    };
    Some(Check::new("refuses misfits", outcome))
}

fn runs(recorded: &Program, case: &Case) -> Result<Vec<Check>> {
    let format = |p: &Program, weight| fold(&p.weights, weight, &case.checkpoint).ok()?.format_of_all();
    let (short, _) = rewrite(recorded.clone(), RULES, &format);
    let vocabulary = recorded.width(recorded.output) as u32;
    let made_up = || (0..PROMPT as u32).map(|i| (i * 7 + 3) % vocabulary).collect();
    let tokens: Vec<u32> = case.golden.as_ref().map_or_else(made_up, |g| g.tokens.clone());
    let capacity = Capacity { rows: 64, outputs: 64, pages: 3 * tokens.len().div_ceil(16).max(1), slots: 3 };

    let oracle = Reference::load(recorded.clone(), &case.checkpoint, capacity);
    let expected = match oracle {
        Ok(mut oracle) => Some(feed(&mut oracle, &tokens, tokens.len())?),
        Err(_) if recorded.custom.iter().len() > 0 => None,
        Err(e) => return Err(e),
    };
    let mut checks = Vec::new();
    match &expected {
        Some(expected) => {
            let mut executor = Reference::load(short.clone(), &case.checkpoint, capacity)?;
            checks.extend(on(&mut executor, "the oracle", expected, &tokens, case, [ITSELF, GOLDEN])?);
        }
        None => {
            let why = "a custom op has no plain form, so no processor runs the model and nothing checks its WGSL: \
                       implement `Architecture::plain`";
            checks.push(Check::new("runs without a GPU", Err(why.to_owned())));
        }
    }
    if let Some(expected) = &expected {
        let mut executor = CpuExecutor::load(CpuSettings::new()?, short.clone(), &case.checkpoint, capacity)?;
        checks.extend(on(&mut executor, "the processor", expected, &tokens, case, [DEVICE, DEVICE])?);
    }
    for adapter in adapters() {
        let name = adapter.get_info().name;
        let mut executor = WgpuExecutor::load(Gpu::open(&adapter)?, short.clone(), &case.checkpoint, capacity)?;
        let expected = match &expected {
            Some(expected) => expected.clone(),
            None => feed(&mut executor, &tokens, tokens.len())?,
        };
        checks.extend(on(&mut executor, &name, &expected, &tokens, case, [DEVICE, DEVICE])?);
    }
    Ok(checks)
}

/// Everything that is looked at on one device.
fn on(
    executor: &mut dyn Executor,
    device: &str,
    expected: &[f32],
    tokens: &[u32],
    case: &Case,
    [itself, golden]: [f32; 2],
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let whole = feed(executor, tokens, tokens.len())?;
    let name = |what: &str| format!("{what} on {device}");
    checks.push(Check::new(&name("computes what was recorded"), close(&whole, expected, itself)));
    for (chunk, what) in [(7, "pieces give the same"), (1, "token by token gives the same")] {
        let found = feed(executor, tokens, chunk)?;
        checks.push(Check::new(&name(what), close(&found, expected, itself)));
    }
    checks.push(Check::new(&name("a batch gives the same"), batch(executor, tokens, itself)?));
    if let Some(g) = &case.golden {
        checks.push(Check::new(&name("equals the golden"), close(&whole, &g.logits, golden)));
    }
    Ok(checks)
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) -> Result<String, String> {
    if found.len() != expected.len() {
        return Err(format!("{} logits, expected {}", found.len(), expected.len()));
    }
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let off = |i: &usize| if found[*i].is_finite() { (found[*i] - expected[*i]).abs() } else { f32::INFINITY };
    let at = (0..found.len()).max_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0);
    let (most, allowed) = (off(&at), tolerance * largest);
    match most <= allowed {
        true => Ok(format!("off by {most:.1e} at most, allowed {allowed:.1e}")),
        false => Err(format!(
            "logit {at} of {} is {}, expected {}: off by {most:.1e}, allowed {allowed:.1e}; `tamarack debug compare` \
             finds the first module that differs",
            found.len(),
            found[at],
            expected[at]
        )),
    }
}

/// The logits after every token, in steps of `chunk`.
fn feed(executor: &mut dyn Executor, tokens: &[u32], chunk: usize) -> Result<Vec<f32>> {
    Ok(along(executor, &[tokens], chunk)?.remove(0))
}

/// Three sequences in the same steps, each as if it were alone.
fn batch(executor: &mut dyn Executor, tokens: &[u32], tolerance: f32) -> Result<Result<String, String>> {
    let parts = [tokens, &tokens[tokens.len() / 3..], &tokens[..tokens.len() / 2]].map(|t| &t[..t.len().min(20)]);
    let together = along(executor, &parts, 5)?;
    for (i, (part, found)) in parts.iter().zip(&together).enumerate() {
        let alone = along(executor, &[part], 20)?.remove(0);
        if let Err(e) = close(found, &alone, tolerance) {
            return Ok(Err(format!("sequence {i} of {}: {e}", parts.len())));
        }
    }
    Ok(Ok(format!("{} sequences of different lengths", parts.len())))
}

/// The logits after every token of several sequences, `chunk` of each in a step.
fn along(executor: &mut dyn Executor, texts: &[&[u32]], chunk: usize) -> Result<Vec<Vec<f32>>> {
    let capacity = executor.capacity();
    let (mut pool, chunk) = (Pool::new(capacity.pages), chunk.min(capacity.rows / texts.len()));
    let sequence = |(i, text): (usize, &&[u32])| Sequence::new(i as u32, text.len());
    let mut sequences: Vec<Sequence> = texts.iter().enumerate().map(sequence).collect();
    let mut logits = vec![Vec::new(); texts.len()];
    while sequences.iter().zip(texts).any(|(s, t)| s.len() < t.len()) {
        let (mut step, mut whose) = (Step::default(), Vec::new());
        for (i, (sequence, text)) in sequences.iter_mut().zip(texts).enumerate() {
            let next = &text[sequence.len()..];
            let ids: Vec<Token> = next.iter().take(chunk).map(|t| Token::Id(*t)).collect();
            whose.extend(std::iter::repeat_n(i, ids.len()));
            if !step.push(sequence, &mut pool, &ids, |_| Some(Draw { logits: true, ..Draw::default() })) {
                return Err(Error::Memory("the check's own cache is too small".into()));
            }
        }
        executor.submit(&step)?;
        for (i, row) in whose.into_iter().zip(executor.collect()?.logits) {
            logits[i].extend(row);
        }
    }
    Ok(logits)
}
