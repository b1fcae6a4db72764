//! One model on the processor and a GPU: the same numbers wherever it is cut.

use futures::future::try_join_all;
use std::path::{Path, PathBuf};
use tamarack::{
    Device, Error, GenerateParameters, Generation, LoadOptions, ModelConfiguration, ModelContainer,
    checkpoint::Checkpoint,
    cpu::CpuSettings,
    exec::{Capacity, Executor, PAGE},
    gpu::{Gpu, adapters, adapters_within_budget},
    load_container,
    mixed::MixedExecutor,
    model::placement,
    plugins::Registry,
    program::{Program, RULES},
};
use tamarack_tests::{
    gpu::{assert_close, precisions},
    model::{Run, program, rewritten},
    models::{self, Golden, certain},
};

/// What a logit may be off by where keys and values are f16.
const TOLERANCE: f32 = 2e-2;
const CAPACITY: Capacity = Capacity { rows: 64, outputs: 64, pages: 8, slots: 1 };

/// A model of two layers or more.
fn layered() -> PathBuf {
    let is_layered = |folder: &PathBuf| opened(folder).1.cuts().len() > 1;
    models::tiny("llama").into_iter().find(is_layered).expect("a model of two layers")
}

fn opened(folder: &Path) -> (Checkpoint, Program) {
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|e| panic!("{e}"));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    (checkpoint, short)
}

/// Cuts a model before each of its layers, and compares what it says with its golden, in one piece, in chunks, and token
/// by token; the caches travel to the next cut and back.
fn check(model_type: &str) {
    for folder in models::tiny(model_type) {
        let (golden, (checkpoint, program)) = (Golden::read(&folder), opened(&folder));
        let cuts = program.cuts();
        assert!(!cuts.is_empty(), "{}", folder.display());
        let prompt = golden.input_ids.len();
        for (device, gpu, tolerance) in precisions() {
            for at in &cuts {
                let name = format!("{} on {device}, cut at {at}", folder.display());
                let split = program.split(*at).unwrap_or_else(|e| panic!("{name}: {e}"));
                let expected = MixedExecutor::estimate(&gpu, &split, &checkpoint, &CAPACITY).expect("an estimate");
                let settings = CpuSettings::new().expect("instructions");
                let mut executor = MixedExecutor::load(settings, gpu.clone(), split, &checkpoint, CAPACITY, &|_| {})
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                let taken = executor.memory();
                assert!(
                    taken.total().abs_diff(expected.total()) * 100 < expected.total(),
                    "{name}: {taken:?}, {expected:?}"
                );
                assert_eq!(executor.cache_widths(), program.cache_widths(), "{name}");
                for chunk in [prompt, 7] {
                    let logits = Run::new(&mut executor, prompt).feed(&golden.input_ids, chunk, prompt).concat();
                    assert_close(&format!("{name}, in steps of {chunk}"), &logits, &golden.logits, tolerance);
                }
                let greedy = Run::new(&mut executor, prompt).greedy(&golden.input_ids, prompt, golden.greedy.len());
                let n = certain(&golden.margins, 2.0 * tolerance);
                assert_eq!(greedy[..n], golden.greedy[..n], "{name}");
                caches_come_back(&name, &mut executor, &golden.input_ids, tolerance);
            }
        }
    }
}

/// What is read from a cache, wiped, and written again, serves as before.
fn caches_come_back(name: &str, executor: &mut MixedExecutor, prompt: &[u32], tolerance: f32) {
    let (last, before) = prompt.split_last().expect("tokens");
    let widths = executor.cache_widths();
    let mut run = Run::new(executor, prompt.len());
    run.feed(before, before.len(), 1);
    let pages: Vec<u32> = (0..prompt.len().div_ceil(PAGE) as u32).collect();
    let kept: Vec<Vec<f32>> =
        (0..widths.len()).map(|cache| run.executor.read_cache(cache, &pages).expect("a cache")).collect();
    for (cache, rows) in kept.iter().enumerate() {
        run.executor.write_cache(cache, &pages, &vec![0.0; rows.len()]).expect("wiped");
    }
    for (cache, rows) in kept.iter().enumerate() {
        run.executor.write_cache(cache, &pages, rows).expect("written");
    }
    let continued = run.feed(&[*last], 1, 1).concat();
    let whole = Run::new(executor, prompt.len()).feed(prompt, prompt.len(), 1).concat();
    assert_close(&format!("{name}, with its caches written back"), &continued, &whole, tolerance);
}

#[test]
fn llama() {
    check("llama");
}

#[test]
fn windows() {
    check("architectures/gemma3_text");
}

#[test]
fn experts() {
    check("architectures/qwen3_moe");
}

#[test]
fn latents() {
    check("architectures/deepseek_v3");
}

#[test]
fn convolutions() {
    check("architectures/lfm2");
}

#[test]
fn streams_and_shared_caches() {
    check("architectures/gemma3n_text");
}

/// A dense decoder hands on its residual stream and nothing else.
#[test]
fn little_is_handed_on() {
    let (checkpoint, program) = opened(&layered());
    let hidden = checkpoint.config()["hidden_size"].as_u64().expect("a size") as usize;
    let layers = checkpoint.config()["num_hidden_layers"].as_u64().expect("a number") as usize;
    let cuts = program.cuts();
    assert_eq!(cuts.len(), layers);
    for (layer, at) in cuts.into_iter().enumerate() {
        let split = program.split(at).expect("it can be cut");
        assert_eq!(split.back.carried_width(), hidden);
        assert_eq!((split.front_caches.len(), split.back_caches.len()), (layer, layers - layer));
        let [all, front, back] = [&program, &split.front, &split.back].map(Program::used_names);
        assert_eq!(front.union(&back).cloned().collect::<std::collections::BTreeSet<_>>(), all);
    }
    assert!(program.split(0).is_err() && program.split(program.nodes.len()).is_err(), "nothing on one side");
}

/// The name of an adapter with the processor behind it.
fn mixed() -> Device {
    let name = adapters().first().expect("an adapter").get_info().name;
    format!("{name},cpu").parse().expect("a device")
}

async fn loaded(options: LoadOptions) -> ModelContainer {
    let _ = &tamarack_plugins::LINKED;
    let configuration = ModelConfiguration::directory(layered());
    load_container(&configuration, options.context(256)).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Three at once answer as the golden does.
#[tokio::test]
async fn a_container_on_two_devices() {
    let folder = &layered();
    let (golden, layers) = (Golden::read(folder), opened(folder).1.cuts().len());
    let container = loaded(LoadOptions::default().device(mixed()).gpu_layers(1)).await;
    assert!(container.device().starts_with(&format!("{} layers on cpu", layers - 1)), "{}", container.device());
    let n = certain(&golden.margins, 2.0 * TOLERANCE);
    let answer = async || {
        let parameters = GenerateParameters { max_tokens: Some(n), ignore_eos: true, ..Default::default() };
        let input = golden.input_ids.clone().into();
        let mut stream = container.generate(input, GenerateParameters { temperature: 0.0, ..parameters }).await?;
        let mut tokens = Vec::new();
        while let Some(event) = stream.next().await {
            if let Generation::Token(token) = event? {
                tokens.push(token);
            }
        }
        Ok::<_, Error>(tokens)
    };
    for tokens in try_join_all([answer(), answer(), answer()]).await.expect("answers") {
        assert_eq!(tokens, golden.greedy[..n]);
    }
}

/// Both devices are timed, and what is said is what is done.
#[test]
fn layers_are_placed_by_measurement() {
    let _ = &tamarack_plugins::LINKED;
    let configuration = ModelConfiguration::directory(layered());
    let options = LoadOptions::default().device(mixed()).context(256);
    let place = |options: &LoadOptions| placement(&Registry::linked(), &configuration, options).expect("a placement");
    let found = place(&options).expect("two devices");
    let times = found.layer_times.expect("measured");
    assert!(times.cpu_seconds > 0.0 && times.gpu_seconds > 0.0, "{found:?}");
    assert_eq!(found.gpu_layers > 0, times.gpu_seconds <= times.cpu_seconds, "{found:?}");
    assert_eq!(found.gpu_room, Some(found.gpu_bytes_of_all), "a tiny model fits");
    let layers = found.cpu_layers + found.gpu_layers;
    for wanted in 0..=layers + 1 {
        let found = place(&options.clone().gpu_layers(wanted)).expect("two devices");
        assert_eq!((found.gpu_layers, found.cpu_layers), (wanted.min(layers), layers.saturating_sub(wanted)));
        assert_eq!(found.all_on_gpu, wanted >= layers);
    }
    assert!(place(&options.device(Device::Cpu)).is_none());
}

/// No more is promised than is asked for, and what is promised is given back.
#[test]
fn room_is_found_and_returned() {
    for adapter in adapters_within_budget() {
        let gpu = Gpu::open(&adapter).expect("it opens");
        for wanted in [0, 1000, 300 << 20] {
            assert_eq!(gpu.room(wanted).expect("a number"), wanted);
        }
    }
}
