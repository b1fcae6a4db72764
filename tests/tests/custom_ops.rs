//! Ops of a plugin's own: the same on a GPU, in plain Rust and decomposed, and refused where they are not what they
//! declare.

use std::path::Path;
use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Executor},
    gpu::{Gpu, WgpuExecutor, adapters},
    plugins::Registry,
    program::{Program, RULES, custom, lower},
    reference::Reference,
};
use tamarack_api::{
    Architecture, Config, Custom, CustomOp, Declaration, Plain, PlainRow, Result, Step, Tensor, Weights, custom as op,
};
use tamarack_tests::{cpu, gpu::assert_close, model::Run, model::rewritten};

const D: usize = 40;
const VOCAB: usize = 30;

/// A part of a row, whose values are weighed and divided by the largest magnitude.
const WGSL: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> other: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> largest: array<f32, 32>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var most = LEAST;
    for (var i = thread; i < DIM; i += 32u) {
        most = max(most, abs(x[group.y * DIM + i]));
    }
    largest[thread] = most;
    workgroupBarrier();
    for (var i = 0u; i < 32u; i += 1u) {
        most = max(most, largest[i]);
    }
    let column = group.x * 32u + thread;
    if (column < DIM) {
        let at = group.y * DIM + column;
        y[at] = x[at] / most * weight[column] + other[at];
    }
}
";

/// How the architecture runs where there is no GPU.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Plain,
    Decomposed,
    Nothing,
}

/// An embedding, two layers of the op over strided and whole inputs, and a head.
struct MaxNorm(Without);

fn max_norm(weight: tamarack_api::Weight, dim: usize) -> Custom {
    op("max_norm", WGSL).constant("DIM", dim).constant("LEAST", 1e-3f32).weight(weight).groups(2)
}

fn plain(row: &PlainRow<'_>) -> Vec<f32> {
    let most = row.inputs[0].iter().fold(row.float("LEAST"), |m, v| v.abs().max(m));
    assert_eq!(row.inputs[0].len(), row.size("DIM"));
    let each = row.inputs[0].iter().zip(row.inputs[1]).zip(row.weights[0]);
    each.map(|((x, other), w)| x / most * w + other).collect()
}

impl Architecture for MaxNorm {
    fn declaration(&self) -> Declaration {
        Declaration::llm("max_norm", &["max_norm"])
    }

    fn text(&self, _: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let embed = w.embedding("embed", [VOCAB, 2 * D]);
        let [left, right] = embed.forward(step.tokens()).split([D, D]);
        let mut x = left;
        for name in ["a", "b"] {
            let (weight, inputs) = (w.tensor(name, &[D]), [right * 1.5, x]);
            x = match self.0 {
                // Not the same function: a test sees which of the two ran.
                Without::Decomposed => max_norm(weight, D).instead(&inputs, &[D], inputs[0] - inputs[1]),
                _ => max_norm(weight, D).forward(&inputs, &[D]),
            };
            x = max_norm(weight, D).forward(&[x.split_heads(8).merge_heads(), left], &[5, 8]).merge_heads();
        }
        Ok(w.linear("head", [VOCAB, D]).forward(step.outputs(x)))
    }

    fn plain(&self, op: &str) -> Option<Plain> {
        (op == "max_norm" && self.0 != Without::Nothing).then_some(plain)
    }
}

static PLAIN: MaxNorm = MaxNorm(Without::Plain);
static DECOMPOSED: MaxNorm = MaxNorm(Without::Decomposed);
static NOTHING: MaxNorm = MaxNorm(Without::Nothing);

fn checkpoint() -> Checkpoint {
    let index = [("embed.weight", vec![VOCAB, 2 * D]), ("a", vec![D]), ("b", vec![D]), ("head.weight", vec![VOCAB, D])];
    let index = index.map(|(name, shape)| (name.to_owned(), shape));
    let config = serde_json::json!({ "model_type": "max_norm" });
    Checkpoint::synthetic(config, index, tamarack_kernels::Format::F32).unwrap()
}

/// What a host makes of it.
fn program(architecture: &'static MaxNorm, checkpoint: &Checkpoint) -> Program {
    let mut registry = Registry::default();
    registry.register(architecture).unwrap();
    let found = registry.find("max_norm").unwrap();
    let index = checkpoint.tensors().map(|(n, t)| (n.to_owned(), t.shape().to_vec())).collect();
    let graph = found.record("text", checkpoint.config(), index).unwrap_or_else(|e| panic!("{e}"));
    let encoded = tamarack_api::Graph::decode(&graph.encode().unwrap()).unwrap();
    assert_eq!(encoded, graph);
    assert_eq!(graph.custom.len(), 2, "each op is sent once: {:?}", graph.custom);
    Program { plain: Some(found.plain_ops()), ..lower(&graph) }
}

fn logits(executor: &mut dyn Executor, chunk: usize) -> Vec<f32> {
    let tokens: Vec<u32> = (0..13).map(|i| (i * 7 + 3) % VOCAB as u32).collect();
    Run::new(executor, tokens.len()).feed(&tokens, chunk, tokens.len()).concat()
}

const CAPACITY: Capacity = Capacity { rows: 16, outputs: 16, pages: 1, slots: 1 };

#[test]
fn a_gpu_and_plain_rust_agree() {
    let checkpoint = checkpoint();
    let recorded = program(&PLAIN, &checkpoint);
    let mut oracle = Reference::load(recorded.clone(), &checkpoint, CAPACITY).unwrap_or_else(|e| panic!("{e}"));
    let expected = logits(&mut oracle, 13);
    assert!(expected.iter().any(|x| x.abs() > 0.5), "{expected:?}");
    for form in [recorded.clone(), rewritten(recorded, RULES, &checkpoint)] {
        for (name, mut executor) in cpu::executors(&form, &checkpoint, CAPACITY) {
            assert_close(&name, &logits(&mut executor, 5), &expected, 2e-3);
        }
        for adapter in adapters() {
            let gpu = Gpu::open(&adapter).unwrap();
            let mut executor = WgpuExecutor::load(gpu, form.clone(), &checkpoint, CAPACITY).unwrap();
            assert!(executor.dispatches(1, 1, 1).unwrap().iter().any(|name| name == "custom max_norm"));
            for chunk in [13, 5, 1] {
                assert_close("in plain Rust", &logits(&mut executor, chunk), &expected, 2e-3);
            }
        }
    }
}

#[test]
fn what_an_op_stands_for_runs_where_there_is_no_gpu_and_only_there() {
    let checkpoint = checkpoint();
    let run = |architecture: &'static MaxNorm| {
        let mut oracle = Reference::load(program(architecture, &checkpoint), &checkpoint, CAPACITY).unwrap();
        logits(&mut oracle, 13)
    };
    let (plain, decomposed) = (run(&PLAIN), run(&DECOMPOSED));
    assert!(plain.iter().zip(&decomposed).any(|(a, b)| (a - b).abs() > 0.1), "the test's two forms differ");
    let gpu = Gpu::open(&adapters()[0]).unwrap();
    let mut executor = WgpuExecutor::load(gpu, program(&DECOMPOSED, &checkpoint), &checkpoint, CAPACITY).unwrap();
    assert_close("the WGSL runs on a GPU", &logits(&mut executor, 13), &plain, 2e-3);
    let names = executor.dispatches(1, 1, 1).unwrap();
    assert!(!names.iter().any(|n| n.starts_with("sub")), "what it stands for is left out: {names:?}");
}

#[test]
fn an_op_without_either_needs_a_gpu() {
    let checkpoint = checkpoint();
    let e = Reference::load(program(&NOTHING, &checkpoint), &checkpoint, CAPACITY).err().unwrap().to_string();
    assert!(e.contains("custom_ops.rs:") && e.contains("custom op `max_norm`: "), "{e}");
    assert!(e.contains("it has no plain form: choose a GPU to run it"), "{e}");
    let mut bare = program(&NOTHING, &checkpoint);
    bare.plain = None;
    let e = Reference::load(bare, &checkpoint, CAPACITY).err().unwrap().to_string();
    assert!(e.contains("has no plain form here: choose a GPU to run it"), "{e}");
}

/// An op with this WGSL, two inputs and a weight.
fn with(wgsl: &str) -> CustomOp {
    CustomOp {
        name: "x".into(),
        wgsl: wgsl.into(),
        constants: vec![("DIM".into(), D.into()), ("LEAST".into(), 1e-3f32.into())],
        inputs: 2,
        weights: 1,
        dims: vec![D],
        groups: 2,
    }
}

#[test]
fn wgsl_is_what_its_op_declares_or_refused() {
    custom::validate(&with(WGSL)).unwrap();
    let entry = "@compute @workgroup_size(32)\nfn main";
    for (from, to, expected) in [
        ("var most = LEAST;", "var most = LEAST", "WGSL 12:5: expected `;`"),
        ("abs(x[group.y", "abs(x[most", "WGSL 13:32: Entry point main at Compute is invalid: "),
        ("LEAST;", "MOST;", "WGSL 11:16: no definition in scope for identifier: `MOST`"),
        ("> y: array<f32>", "> y: array<u32>", "WGSL 23:9: "),
        ("<storage, read> other", "<storage, read_write> other", "`other` at binding 1: expected `var<storage, read>`"),
        ("<storage, read_write> y", "<storage, read_write> y2: array<f32>; var<private> y", "WGSL"),
        (
            "@binding(1) var<storage, read> other: array<f32>",
            "@binding(1) var<uniform> other: vec4<f32>",
            "`other` at binding 1: expected `array<f32>`",
        ),
        ("x: array<f32>", "x: array<f32, 4>", "`x` at binding 0: expected `array<f32>` in the space `storage`"),
        ("@binding(3)", "@binding(4)", "`y` is bound to 0.4, the op declares 0.0 to 0.3"),
        ("@group(0) @binding(2)", "@group(1) @binding(2)", "`weight` is bound to 1.2, the op declares"),
        ("array<f32, 32>", "array<f32, 5000>", "20000 bytes of workgroup memory, every device has 16384"),
        ("workgroup_size(32)", "workgroup_size(32, 16)", "a workgroup of 512 invocations, every device runs 256"),
        (entry, "@fragment\nfn main", "WGSL"),
        ("fn main", "fn other_name", "expected the compute entry point `main`, found `other_name`"),
        ("var most = LEAST;", "var most = LEAST; var many: array<f32, 2000>;", "8012 bytes of variables for each"),
        ("var<workgroup>", "override k: u32 = 1u;\nvar<workgroup>", "`override k`: nothing sets it"),
        ("fn main", "fn main() {}\n@compute @workgroup_size(1)\nfn more", "expected one entry point, `main`, found 2"),
        ("max(most, abs(", "subgroupAdd(max(most, abs(", "WGSL"),
    ] {
        assert!(WGSL.contains(from), "{from}");
        let e = custom::validate(&with(&WGSL.replacen(from, to, 1))).expect_err(to);
        assert!(e.starts_with(expected) && !e.contains('\n'), "{to}: {e}");
    }
    let e = custom::validate(&CustomOp { inputs: 3, ..with(WGSL) }).unwrap_err();
    assert_eq!(e, "`y` at binding 3: expected `var<storage, read>`");
    let fewer = CustomOp { inputs: 1, weights: 1, ..with(WGSL) };
    assert_eq!(custom::validate(&fewer).unwrap_err(), "`weight` at binding 2: expected `var<storage, read_write>`");
}

#[test]
fn mistakes_are_told_with_the_authors_line() {
    type Text = fn(Tensor) -> Tensor;
    struct Case(Text);
    impl Architecture for Case {
        fn declaration(&self) -> Declaration {
            Declaration::llm("case", &["case"])
        }
        fn text(&self, _: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
            Ok((self.0)(w.embedding("embed", [VOCAB, D]).forward(step.tokens())))
        }
    }
    let cases: [(Text, &str); 7] = [
        (|_| op("none", WGSL).forward(&[], &[D]), "does not take 0 inputs"),
        (
            |x| op("many", WGSL).forward(&[x; 8], &[D]),
            "`many`: 8 inputs and 0 weights: wants at least one input, and 7",
        ),
        (|x| op("idle", WGSL).groups(0).forward(&[x], &[D]), "`idle`: 0 workgroups for each row, wants 1 to 4096"),
        (|x| op("flat", WGSL).forward(&[x], &[]), "`flat`: a result of [rows, ..[]]"),
        (|x| op("huge", WGSL).forward(&[x], &[1 << 20, 1 << 20]), "`huge`: a result of [rows, ..[1048576, 1048576]]"),
        (|x| op("odd", WGSL).constant("1x", 1u32).forward(&[x], &[D]), "`odd`: a constant `1x` of U32(1)"),
        (
            |x| op("same", WGSL).instead(&[x], &[D], x.split_heads(8)),
            "`same`: its result [tokens, 40] is [tokens, 5, 8]",
        ),
    ];
    for (text, expected) in cases {
        let index = [("embed.weight".to_owned(), vec![VOCAB, D])].into_iter().collect();
        let e = tamarack_api::record(&Case(text), &Config::from(serde_json::json!({})), index).unwrap_err().to_string();
        assert!(e.contains("custom_ops.rs:") && e.contains("custom: ") && e.contains(expected), "{e}");
    }
}

#[test]
fn a_broken_op_is_an_error_of_its_plugin() {
    struct Broken;
    impl Architecture for Broken {
        fn declaration(&self) -> Declaration {
            Declaration::llm("broken", &["broken"])
        }
        fn text(&self, _: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
            let x = w.embedding("embed", [VOCAB, D]).forward(step.tokens());
            Ok(step.outputs(op("nonsense", "fn main() {").forward(&[x], &[D])))
        }
    }
    let mut registry = Registry::default();
    registry.register(&Broken).unwrap();
    let index = [("embed.weight".to_owned(), vec![VOCAB, D])].into_iter().collect();
    let e = registry.find("broken").unwrap().record("text", &serde_json::json!({}), index).unwrap_err();
    assert!(matches!(e, tamarack::Error::Plugin(_)));
    let e = e.to_string();
    let file = Path::new(file!()).file_name().unwrap().to_str().unwrap();
    assert!(
        e.starts_with("broken (registered): ") && e.contains(file) && e.contains("custom op `nonsense`: WGSL 1:"),
        "{e}"
    );
}
