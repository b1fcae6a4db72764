//! GGUF files, as llama.cpp's converter writes them, give the numbers of the models they were made of.

use safetensors::SafeTensors;
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
    let check = |(file, golden): &(PathBuf, PathBuf)| {
        let golden = Golden::read(golden);
        check(file, &golden.input_ids, &golden.logits, 0.0).err()
    };
    let wrong: Vec<String> = files().iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files().len() > 25, "goldens/gguf: {} files", files().len());
}

/// The files of `goldens/gguf_llama_cpp` whose names begin with `kind`, against llama.cpp's logits.
fn check_llama_cpp(kind: &str, count: usize, tolerance: f32) {
    let entries = std::fs::read_dir(goldens().join("gguf_llama_cpp")).expect("goldens/gguf_llama_cpp");
    let files = entries.map(|e| e.expect("entry").path()).filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(kind))).collect();
    files.sort();
    assert_eq!(files.len(), count, "{files:?}");
    let check = |file: &PathBuf| {
        let bytes = std::fs::read(file.with_extension("golden")).expect("a golden");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let words = |name: &str| -> Vec<u32> {
            let data = tensors.tensor(name).expect("a tensor").data();
            data.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let logits: Vec<f32> = words("logits").into_iter().map(f32::from_bits).collect();
        let largest = logits.iter().fold(0f32, |m, v| m.max(v.abs()));
        check(file, &words("input_ids"), &logits, tolerance * largest).err()
    };
    let wrong: Vec<String> = files.iter().filter_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// llama.cpp rounds activations to 8 bits before such products.
#[test]
fn scales_beside_matrices_multiply_as_in_llama_cpp() {
    check_llama_cpp("scale_", 3, 0.05);
}

#[test]
fn keys_of_rope_scaling_mean_what_llama_cpp_makes_of_them() {
    check_llama_cpp("rope_", 15, 4e-3);
}

/// The logits of the prompt on the oracle and on every adapter; `more` is what the golden itself may be off by.
fn check(file: &Path, prompt: &[u32], wanted: &[f32], more: f32) -> Result<(), String> {
    let name = file.display();
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
    for (mut executor, tolerance) in executors {
        let logits = Run::new(executor.as_mut(), prompt.len()).feed(prompt, prompt.len(), prompt.len()).concat();
        close(&format!("{name} on {}", executor.device()), &logits, wanted, tolerance + more)?;
    }
    Ok(())
}
