//! Finding the module that is wrong.

use std::{collections::BTreeMap, path::Path};
use tamarack::{
    checkpoint::Checkpoint,
    compare::{self, Comparison, capacity},
    exec::Executor,
    gpu::{Gpu, WgpuExecutor, adapters},
    program::{Op, Program, RULES},
    reference::Reference,
};
use tamarack_tests::model::{program, rewritten};

/// What `modules.py` wrote about this model.
const MODEL: &str = "goldens/architectures/qwen3/biases";
const MODULES: &str = "goldens/modules.safetensors";
const TOKENS: [u32; 5] = [1, 5, 9, 2, 7];
/// The module that is made wrong.
const BROKEN: &str = "model.layers.1.self_attn.k_norm";

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn qwen3() -> (Checkpoint, Program) {
    let checkpoint = Checkpoint::open(&folder(MODEL)).unwrap_or_else(|e| panic!("{e}"));
    let program = program(&checkpoint);
    (checkpoint, program)
}

/// With another epsilon in [`BROKEN`].
fn broken(mut program: Program) -> Program {
    let node = compare::points(&program).into_iter().find(|p| p.name == BROKEN).expect("k_norm").node;
    match &mut program.nodes[node].op {
        Op::Norm { norm, .. } => norm.eps = 100.0,
        op => panic!("{op:?}"),
    }
    program
}

fn modules() -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(folder(MODULES)).expect(MODULES);
    let file = safetensors::SafeTensors::deserialize(&bytes).expect(MODULES);
    let floats = |t: safetensors::tensor::TensorView<'_>| {
        t.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    file.iter().map(|(name, tensor)| (name.to_owned(), floats(tensor))).collect()
}

fn first(compared: &[Comparison], tolerance: f32) -> Option<&str> {
    compared.iter().find(|c| !c.is_within(tolerance)).map(|c| c.point.name.as_str())
}

#[test]
fn every_module_equals_transformers() {
    let (checkpoint, program) = qwen3();
    let compared = compare::with_recorded(&program, &checkpoint, &TOKENS, &modules()).unwrap();
    assert_eq!(first(&compared, 1e-3), None, "{compared:?}");
    // Nine modules a layer and a norm for queries and for keys, embedding, last norm, logits.
    assert_eq!(compared.len(), 2 * 11 + 3);
}

#[test]
fn the_first_wrong_module_is_named() {
    let (checkpoint, program) = qwen3();
    let compared = compare::with_recorded(&broken(program), &checkpoint, &TOKENS, &modules()).unwrap();
    assert_eq!(first(&compared, 1e-3), Some(BROKEN));
    let wrong = compared.iter().find(|c| !c.is_within(1e-3)).expect("one");
    assert!(wrong.point.place.contains("qwen3"), "{wrong:?}");
}

#[test]
fn another_file_or_no_tokens_are_errors() {
    let (checkpoint, program) = qwen3();
    let of =
        |tokens: &[u32]| compare::with_recorded(&program, &checkpoint, tokens, &modules()).unwrap_err().to_string();
    assert!(
        of(&TOKENS[..3]).contains("model.embed_tokens: this model gives 96 numbers for 3 tokens, the file has 160")
    );
    assert!(of(&[]).contains("expected 1 to 64 tokens to compare, found 0"));
    assert!(of(&[1; 65]).contains("found 65"));
}

#[test]
fn executors_are_compared_with_the_oracle() {
    let (checkpoint, program) = qwen3();
    let reference = |program: Program| -> tamarack::Result<Box<dyn Executor>> {
        Ok(Box::new(Reference::load(program, &checkpoint, capacity(TOKENS.len()))?))
    };
    let same = compare::with_executor(&program, &checkpoint, &TOKENS, 1e-5, &reference).unwrap();
    assert_eq!(same, []);
    let wrong = |program: Program| reference(broken(program));
    let compared = compare::with_executor(&program, &checkpoint, &TOKENS, 1e-3, &wrong).unwrap();
    assert_eq!(first(&compared, 1e-3), Some(BROKEN), "{compared:?}");
    assert!(compared.len() < 10, "halving looks at few: {compared:?}");

    for adapter in adapters() {
        let device = |program: Program| -> tamarack::Result<Box<dyn Executor>> {
            let (gpu, short) = (Gpu::open(&adapter)?, rewritten(program, RULES, &checkpoint));
            Ok(Box::new(WgpuExecutor::load(gpu, short, &checkpoint, capacity(TOKENS.len()))?))
        };
        let name = adapter.get_info().name;
        let same = compare::with_executor(&program, &checkpoint, &TOKENS, 2e-2, &device).unwrap();
        assert_eq!(same, [], "{name}");
        let wrong = |program: Program| device(broken(program));
        let compared = compare::with_executor(&program, &checkpoint, &TOKENS, 2e-2, &wrong).unwrap();
        assert_eq!(first(&compared, 2e-2), Some(BROKEN), "{name}: {compared:?}");
    }
}
