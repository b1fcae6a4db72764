//! GGUF files, as llama.cpp's converter writes them, give the numbers of the models they were made of.

use std::path::{Path, PathBuf};
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
    models::Golden,
};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

/// The files, each with the folder of its golden: `TYPE-CASE.gguf`.
fn files() -> Vec<(PathBuf, PathBuf)> {
    let entries = std::fs::read_dir(goldens().join("gguf")).expect("goldens/gguf");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
    files.sort();
    let golden = |file: &PathBuf| {
        let name = file.file_stem().and_then(|n| n.to_str()).expect("a name");
        let (model_type, case) = name.split_once('-').expect("TYPE-CASE");
        let family = if model_type == "llama" { goldens() } else { goldens().join("architectures") };
        family.join(model_type).join(case)
    };
    files.into_iter().map(|file| (file.clone(), golden(&file))).collect()
}

#[test]
fn every_family_equals_its_golden() {
    let wrong: Vec<String> = files().iter().filter_map(|(file, golden)| check(file, golden).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files().len() > 25, "goldens/gguf: {} files", files().len());
}

/// The logits of the prompt on the oracle and on every adapter.
fn check(file: &Path, folder: &Path) -> Result<(), String> {
    let name = file.display();
    let golden = Golden::read(folder);
    let checkpoint = Checkpoint::open(file).map_err(|e| e.to_string())?;
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
        let logits = Run::new(executor.as_mut(), prompt.len()).feed(prompt, prompt.len(), prompt.len()).concat();
        close(&format!("{name} on {}", executor.device()), &logits, &golden.logits, tolerance)?;
    }
    Ok(())
}
