//! Loading keeps little of a model in host memory: under its largest tensor plus 256 MiB.
//!
//! A model is loaded by a process of its own, whose resident pages are read every millisecond from
//! `/proc/PID/status`. What counts is `RssAnon` plus `RssShmem`, that is all resident memory without the
//! pages of mapped files (`RssFile`), which the system takes back whenever it needs them. The kernel
//! keeps a high-water mark only for the sum of both (`VmHWM`), hence the sampling; the mark is checked as
//! well, with room for all files, so that no large peak hides between two samples.
//!
//! The memory of a software adapter is memory of the same process, and so is that of the processor's executor. There
//! the bytes of weights that were copied to the device are taken off, because the device holds them, and nothing else:
//! caches, activations, the driver's compiler and staging buffers all count as the host's. The processor may hold as many
//! bytes of weights as the files, and 100 MiB beside.
//!
//! When a model is dropped, all that it took is the system's again, but for a tenth.
#![cfg(target_os = "linux")]

use serde_json::{Value, json};
use std::{
    env, fs,
    io::{BufRead, BufReader, Lines, stdin},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};
use tamarack::{
    Device, GenerateParameters, LlmModelFactory, LmInput, LoadOptions, ModelConfiguration, Target,
    checkpoint::Checkpoint,
    exec::Capacity,
    gpu::{Gpu, WgpuExecutor, adapters},
    plugins::Registry,
    program::RULES,
};
use tamarack_tests::{
    files,
    model::{program, rewritten},
    models,
};

/// What the process that loads is told.
const DEVICE: &str = "TAMARACK_TEST_DEVICE";
const MODEL: &str = "TAMARACK_TEST_MODEL";
const MIB: u64 = 1 << 20;

/// Resident memory without file pages, file pages, and the high-water mark of both together.
#[derive(Clone, Copy, Default, Debug)]
struct Resident {
    own: u64,
    file: u64,
    high_water: u64,
}

fn resident(pid: u32) -> Option<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    let own = field("RssAnon:")? + field("RssShmem:")?;
    Some(Resident { own, file: field("RssFile:")?, high_water: field("VmHWM:")? })
}

/// What the process does that is measured: loads by the way that everybody takes, says so, and then
/// says how many bytes of weights the device holds.
fn load(device: &str, model: &Path) {
    let _ = tamarack_plugins::LINKED;
    let device: Device = device.parse().expect("infallible");
    let configuration = ModelConfiguration::parse(&model.to_string_lossy());
    let options = LoadOptions::default().device(device.clone()).context(512);
    let factory = LlmModelFactory::new(Registry::linked());
    let container = pollster::block_on(factory.load_container(&configuration, options));
    let container = container.unwrap_or_else(|e| panic!("{e}"));
    println!("\nloaded on {}", container.device());
    let _ = stdin().lines().next();
    drop(container);

    let checkpoint = Checkpoint::open(model).unwrap_or_else(|e| panic!("{e}"));
    let program = rewritten(program(&checkpoint), RULES, &checkpoint);
    let capacity = Capacity { rows: 1, outputs: 1, pages: 1, slots: 1 };
    let weights = match device.target().unwrap_or_else(|e| panic!("{e}")) {
        Target::Gpu(adapter) | Target::Mixed(adapter) => Gpu::open(&adapter)
            .and_then(|gpu| WgpuExecutor::load(gpu, program, &checkpoint, capacity))
            .map(|executor| executor.weight_bytes()),
        // The same as in the files, and nothing beside.
        Target::Cpu => Ok(checkpoint.tensors().map(|(_, tensor)| tensor.bytes()).sum()),
        Target::Reference => Ok(0),
    };
    let weights = weights.unwrap_or_else(|e| panic!("{e}"));
    println!("\nweights {weights}");
}

/// A process that loads, and its highest resident memory up to the end of loading.
struct Loading {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    peak: Resident,
    last: Resident,
    samples: usize,
}

impl Loading {
    fn start(device: &str, model: &Path) -> Loading {
        let mut child = Command::new(env::current_exe().expect("a test has a path"))
            .args(["--exact", "smollm2", "--nocapture"])
            .env(DEVICE, device)
            .env(MODEL, model)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Loading { child, lines, peak: Resident::default(), last: Resident::default(), samples: 0 }
    }

    /// The rest of the line that begins with `word`.
    fn wait_for(&mut self, word: &str) -> String {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let found = lines.find_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the loading process ended without `{word}`"))
    }

    /// Samples until it says that it has loaded.
    fn watch(&mut self) -> String {
        let (pid, done) = (self.child.id(), AtomicBool::new(false));
        thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut all = Vec::new();
                while !done.load(Relaxed) {
                    all.extend(resident(pid));
                    thread::sleep(Duration::from_millis(1));
                }
                all
            });
            let device = self.wait_for("loaded on ");
            done.store(true, Relaxed);
            let samples = sampler.join().expect("sampled");
            self.last = resident(pid).expect("it waits");
            self.peak = samples.iter().chain([&self.last]).copied().max_by_key(|r| r.own).expect("samples");
            self.samples = samples.len();
            device
        })
    }

    /// Lets it go on; the bytes of weights on its device.
    fn weights(&mut self) -> u64 {
        drop(self.child.stdin.take());
        let weights = self.wait_for("weights ").parse().expect("a number");
        assert!(self.child.wait().is_ok_and(|status| status.success()));
        weights
    }
}

/// Loads a model everywhere.
fn check(model: &Path) {
    let checkpoint = Checkpoint::open(model).unwrap_or_else(|e| panic!("{e}"));
    let (name, largest) = checkpoint.tensors().map(|(n, t)| (n, t.bytes())).max_by_key(|t| t.1).expect("tensors");
    let all: u64 = checkpoint.tensors().map(|(_, t)| t.bytes()).sum();
    let limit = largest + 256 * MIB;
    println!("{name}, {} of {} MiB, is the largest: up to {} MiB", largest / MIB, all / MIB, limit / MIB);

    let software = |adapter: &wgpu::Adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    let adapters: Vec<bool> = adapters().iter().map(software).collect();
    assert!(!adapters.is_empty(), "no adapter found: install a software Vulkan, as tests/run does");
    let adapters = adapters.into_iter().enumerate().map(|(i, software)| (i.to_string(), software));
    let processor = [("reference", false), ("cpu", true)].map(|(name, holds)| (name.to_owned(), holds));
    for (device, is_software) in processor.into_iter().chain(adapters) {
        let mut loading = Loading::start(&device, model);
        let device = loading.watch();
        let weights = loading.weights() * u64::from(is_software);
        let Loading { peak, last, samples, .. } = loading;
        println!(
            "{device}: {} MiB at most, with {} MiB of weights on the device; {} MiB in the end, and {} MiB of files; \
             high-water mark {} MiB; {samples} samples",
            peak.own / MIB,
            weights / MIB,
            last.own / MIB,
            last.file / MIB,
            last.high_water / MIB,
        );
        let host = peak.own.saturating_sub(weights);
        let limit = if device.starts_with("cpu ") { 100 * MIB } else { limit };
        assert!(host < limit, "{device}: {} MiB in host memory, allowed are {}", host / MIB, limit / MIB);
        // What falls between two samples is in the high-water mark, beside the pages of all files.
        let files = last.file + all;
        assert!(last.high_water < limit + weights + files, "{device}: a peak of {} MiB", last.high_water / MIB);
    }
}

#[test]
fn smollm2() {
    // The process that is measured runs this test, too.
    if let (Some(device), Some(model)) = (env::var_os(DEVICE), env::var_os(MODEL)) {
        return load(&device.to_string_lossy(), Path::new(&model));
    }
    check(&models::smollm2());
}

/// Loads a model, has it say something, and drops it.
fn load_and_drop(device: &Device, model: &Path) {
    let configuration = ModelConfiguration::parse(&model.to_string_lossy());
    let options = LoadOptions::default().device(device.clone()).context(512);
    pollster::block_on(async {
        let factory = LlmModelFactory::new(Registry::linked());
        let container = factory.load_container(&configuration, options).await.unwrap_or_else(|e| panic!("{e}"));
        let parameters = GenerateParameters { max_tokens: Some(4), ..Default::default() };
        let input = LmInput::from(vec![1; 40]);
        container.generate(input, parameters).await.unwrap().text().await.unwrap_or_else(|e| panic!("{e}"));
    });
}

/// Prints what is resident before a model is loaded, and each time that it has been dropped.
fn drop_again_and_again(device: &str, model: &Path) {
    let _ = tamarack_plugins::LINKED;
    let device: Device = device.parse().expect("infallible");
    // Threads stay, and a driver with what it compiles with.
    let tiny = models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("a tiny model");
    load_and_drop(&device, &tiny);
    if !matches!(device.target(), Ok(Target::Cpu)) {
        load_and_drop(&device, model);
    }
    let now = || resident(std::process::id()).expect("Linux has it").own;
    let mut found = vec![now().to_string()];
    for _ in 0..3 {
        load_and_drop(&device, model);
        found.push(now().to_string());
    }
    println!("\nresident {}", found.join(","));
}

#[test]
fn what_a_dropped_model_took_is_the_systems_again() {
    const NAME: &str = "what_a_dropped_model_took_is_the_systems_again";
    if let (Some(device), Some(model)) = (env::var_os(DEVICE), env::var_os(MODEL)) {
        return drop_again_and_again(&device.to_string_lossy(), Path::new(&model));
    }
    let model = models::smollm2();
    let checkpoint = Checkpoint::open(&model).unwrap_or_else(|e| panic!("{e}"));
    let size: u64 = checkpoint.tensors().map(|(_, t)| t.bytes()).sum();
    let adapters = (0..adapters().len()).map(|i| i.to_string());
    for device in std::iter::once("cpu".to_owned()).chain(adapters) {
        let mut child = Command::new(env::current_exe().expect("a test has a path"));
        child.args(["--exact", NAME, "--nocapture"]).env(DEVICE, &device).env(MODEL, &model);
        let output = child.output().expect("started");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|l| l.strip_prefix("resident "));
        let line = line.unwrap_or_else(|| panic!("{device}: {text} {}", String::from_utf8_lossy(&output.stderr)));
        let resident: Vec<u64> = line.split(',').map(|n| n.parse().expect("a number")).collect();
        println!(
            "{device}: {:?} MiB, of a model of {} MiB",
            resident.iter().map(|n| n / MIB).collect::<Vec<_>>(),
            size / MIB
        );
        for after in &resident[1..] {
            let more = after.saturating_sub(resident[0]);
            assert!(more <= size / 10, "{device}: {} MiB more of {resident:?}", more / MIB);
        }
    }
}

/// Here the limit is far below the model's size: what copies the weights fails.
#[test]
fn a_model_much_larger_than_the_limit() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    write_zeros(folder.path());
    check(folder.path());
}

/// A llama of 704 MiB in bf16, all zeros: a file of holes, that takes no room.
fn write_zeros(folder: &Path) {
    let (vocab, d, ff, layers) = (32_768, 1024, 4096, 20);
    let config = json!({
        "model_type": "llama", "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": 16, "vocab_size": vocab, "tie_word_embeddings": true,
    });
    let mut tensors = vec![("embed_tokens".to_owned(), vec![vocab, d]), ("norm".to_owned(), vec![d])];
    for i in 0..layers {
        let mut add = |name: &str, shape: &[usize]| tensors.push((format!("layers.{i}.{name}"), shape.to_vec()));
        for name in ["input_layernorm", "post_attention_layernorm"] {
            add(name, &[d]);
        }
        for name in ["q", "k", "v", "o"] {
            add(&format!("self_attn.{name}_proj"), &[d, d]);
        }
        for name in ["gate", "up"] {
            add(&format!("mlp.{name}_proj"), &[ff, d]);
        }
        add("mlp.down_proj", &[d, ff]);
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let tensor = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        header.insert(format!("model.{name}.weight"), tensor);
    }
    let file = files::safetensors_with(&Value::Object(header).to_string(), &[]);
    let path = folder.join("model.safetensors");
    fs::write(&path, &file).expect("written");
    let opened = fs::OpenOptions::new().write(true).open(&path).expect("opened");
    opened.set_len((file.len() + end) as u64).expect("made longer");
    fs::write(folder.join("config.json"), config.to_string()).expect("written");
}
