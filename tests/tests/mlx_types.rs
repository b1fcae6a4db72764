//! Every model type as `mlx-lm` quantizes it to 4 and to 8 bits: whole prompts, and token by token.

use std::{collections::BTreeSet, path::Path};
use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Executor},
    gpu::WgpuExecutor,
    program::RULES,
    reference::Reference,
};
use tamarack_tests::{
    cpu,
    gpu::{OFF, close, precisions},
    model::{Run, program, rewritten},
    models::{self, Golden, certain},
};

#[test]
fn four_bits() {
    check_all("-4bit");
}

#[test]
fn eight_bits() {
    check_all("-8bit");
}

fn check_all(suffix: &str) {
    let named = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folders: Vec<_> = models::tiny("mlx_types").into_iter().filter(|f| named(f).ends_with(suffix)).collect();
    let wrong: Vec<String> = folders.iter().filter_map(|folder| check(folder).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let compared: BTreeSet<String> = folders.iter().map(|f| named(f).trim_end_matches(suffix).to_owned()).collect();
    for model_type in models::types().chain(["llama".to_owned(), "mistral".to_owned()]) {
        assert!(
            compared.contains(&model_type) || WITHOUT.contains(&&*model_type),
            "goldens/mlx_types: {model_type}{suffix} is missing"
        );
    }
}

/// What mlx-lm does not have; its `olmo` is another one.
const WITHOUT: [&str; 2] = ["gemma3n_text", "olmo"];

fn check(folder: &Path) -> Result<(), String> {
    let name = folder.display();
    let golden = Golden::read(folder);
    let checkpoint = Checkpoint::open(folder).map_err(|e| e.to_string())?;
    let short = std::panic::catch_unwind(|| rewritten(program(&checkpoint), RULES, &checkpoint))
        .map_err(|e| format!("{name}: {}", e.downcast_ref::<String>().map_or("panicked", |m| m)))?;
    let capacity = Capacity { rows: 64, outputs: 64, pages: 8, slots: 1 };
    let reference = Reference::load(short.clone(), &checkpoint, capacity).map_err(|e| e.to_string())?;
    let mut executors: Vec<(Box<dyn Executor>, f32)> = vec![(Box::new(reference), 2e-3)];
    for (_, executor) in cpu::executors(&short, &checkpoint, capacity) {
        executors.push((Box::new(executor), OFF));
    }
    for (_, gpu, off) in precisions() {
        let executor = WgpuExecutor::load(gpu, short.clone(), &checkpoint, capacity).map_err(|e| e.to_string())?;
        executors.push((Box::new(executor), off));
    }
    let prompt = &golden.input_ids;
    for (mut executor, tolerance) in executors {
        for chunk in [prompt.len(), 1] {
            let logits = Run::new(executor.as_mut(), prompt.len()).feed(prompt, chunk, prompt.len()).concat();
            let what = format!("{name} on {}, in steps of {chunk}", executor.device());
            close(&what, &logits, &golden.logits, tolerance)?;
        }
        let greedy = Run::new(executor.as_mut(), prompt.len()).greedy(prompt, prompt.len(), golden.greedy.len());
        let n = certain(&golden.margins, 2.0 * tolerance.min(OFF));
        if greedy[..n] != golden.greedy[..n] {
            return Err(format!("{name} on {}: greedy tokens {greedy:?}, want {:?}", executor.device(), golden.greedy));
        }
    }
    Ok(())
}
