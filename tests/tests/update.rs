//! Changing a model's parameters, freeing it, and what it takes of memory.

use std::path::{Path, PathBuf};
use tamarack::{
    Device, Error, GenerateParameters, Generation, GenerationStream, LlmModelFactory, LoadOptions, ModelConfiguration,
    ModelContainer, ModelContext, StopReason, VlmModelFactory,
    checkpoint::{Checkpoint, Tensor},
    exec::MemoryUse,
    model::{GenericModelFactory, KvQuantize, ModelKind, Parameters, Verify},
    plugins::Registry,
};
use tamarack_tests::{
    gpu::{assert_close, devices},
    models::{self, Golden},
};

fn factory() -> LlmModelFactory {
    let _ = tamarack_plugins::LINKED;
    LlmModelFactory::new(Registry::linked())
}

fn options(device: Device) -> LoadOptions {
    LoadOptions::default().device(device).context(256)
}

async fn load(path: &Path, device: Device) -> ModelContainer {
    let configuration = ModelConfiguration::parse(&path.to_string_lossy());
    factory()
        .load_container(&configuration, options(device))
        .await
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn tiny(name: &str) -> PathBuf {
    models::tiny(name.split('/').next().expect("a family")).into_iter().find(|p| p.ends_with(name)).expect(name)
}

async fn logits(container: &ModelContainer, tokens: &[u32]) -> Vec<f32> {
    let tokens = tokens.to_vec();
    let logits = container.perform(move |context| context.model.forward(&tokens, 7)).await;
    logits.and_then(|l| l).expect("logits")
}

async fn update(container: &ModelContainer, parameters: Parameters, verify: Verify) -> Result<(), Error> {
    container.update(move |context| context.model.update(&parameters, verify)).await
}

/// Each tensor of a model that `pick` makes other values of.
fn changed(folder: &Path, pick: impl Fn(&str, f32) -> Option<f32>) -> Parameters {
    let checkpoint = Checkpoint::open(folder).expect("opens");
    let mut parameters = Parameters::default();
    for (name, tensor) in checkpoint.tensors() {
        let values: Option<Vec<f32>> = values(tensor).into_iter().map(|v| pick(name, v)).collect();
        if let Some(values) = values {
            parameters.insert(name, tensor.shape(), values).expect("as many as there were");
        }
    }
    parameters
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.rows() * tensor.cols()];
    values.chunks_exact_mut(tensor.cols()).enumerate().for_each(|(i, row)| tensor.row(i, row));
    values
}

#[tokio::test]
async fn logits_follow_the_parameters() {
    let folder = tiny("llama/biases");
    let golden = Golden::read(&folder);
    for device in devices() {
        let container = load(&folder, device).await;
        let before = logits(&container, &golden.input_ids).await;
        let doubled = changed(&folder, |name, v| (name == "model.norm.weight").then_some(2.0 * v));
        update(&container, doubled, Verify::NoUnusedKeys).await.expect("updated");
        let after = logits(&container, &golden.input_ids).await;
        let twice: Vec<f32> = before.iter().map(|l| 2.0 * l).collect();
        assert_close(&container.device(), &after, &twice, 1e-3);

        // Without what layers add, a token's logits depend on that token alone.
        let silent =
            changed(&folder, |name, _| ["o_proj", "down_proj"].iter().any(|part| name.contains(part)).then_some(0.0));
        update(&container, silent, Verify::NoUnusedKeys).await.expect("updated");
        let (one, other) = (logits(&container, &[5, 9]).await, logits(&container, &[9]).await);
        assert_close(&container.device(), &one[other.len()..], &other, 1e-5);

        let back = changed(&folder, |_, v| Some(v));
        update(&container, back, Verify::All).await.expect("updated");
        assert_close(&container.device(), &logits(&container, &golden.input_ids).await, &before, 1e-5);
        let norm = container.perform(|context| context.model.parameter("model.norm.weight")).await.expect("values");
        assert_eq!(norm, Checkpoint::open(&folder).expect("opens").get("model.norm.weight").map(values));
    }
}

/// Half of a stack that the device keeps as one, in another format than the rest.
#[tokio::test]
async fn quantized_parameters_become_dense() {
    let folder = tiny("mlx/4bit_g64");
    for device in devices().into_iter().filter(|d| *d != Device::Reference) {
        let (reference, device) = (load(&folder, Device::Reference).await, load(&folder, device).await);
        check_dense(&folder, &reference, &device).await;
    }
}

async fn check_dense(folder: &Path, reference: &ModelContainer, device: &ModelContainer) {
    let golden = Golden::read(folder);
    let before = logits(reference, &golden.input_ids).await;
    let memory = device.memory().await.expect("memory");
    for part in ["gate_proj.weight", "v_proj.weight", "embed_tokens.weight"] {
        let halved = changed(folder, |name, v| name.ends_with(part).then_some(0.5 * v));
        assert!(halved.names().count() > 0, "{part}");
        update(reference, halved.clone(), Verify::NoUnusedKeys).await.expect("updated");
        update(device, halved, Verify::NoUnusedKeys).await.expect("updated");
        let expected = logits(reference, &golden.input_ids).await;
        assert!(expected.iter().zip(&before).any(|(a, b)| (a - b).abs() > 0.05), "{part} changes something");
        assert_close(
            &format!("{part} on {}", device.device()),
            &logits(device, &golden.input_ids).await,
            &expected,
            0.02,
        );
    }
    assert!(device.memory().await.expect("memory").weights > memory.weights);
}

#[tokio::test]
async fn what_does_not_fit_changes_nothing() {
    let folder = tiny("llama/biases");
    let container = load(&folder, Device::Reference).await;
    let before = logits(&container, &[5, 9]).await;
    let of = |entries: &[(&str, &[usize])]| {
        let mut parameters = changed(&folder, |name, v| (name == "model.norm.weight").then_some(3.0 * v));
        for (name, shape) in entries {
            parameters.insert(name, shape, vec![0.0; shape.iter().product()]).expect("values");
        }
        parameters
    };
    let norm: &[usize] = &[7];
    for (parameters, verify, expected) in [
        (of(&[("model.warp", &[2])]), Verify::NoUnusedKeys, "update: the model has no parameter model.warp"),
        (of(&[]), Verify::All, "update: no value is given for lm_head.weight, model.embed_tokens.weight, "),
        (of(&[("model.norm.weight", norm)]), Verify::None, "update: model.norm.weight: expected [48], found [7]"),
    ] {
        let e = update(&container, parameters, verify).await.expect_err(expected).to_string();
        assert!(e.starts_with(expected), "{e}");
        assert_eq!(logits(&container, &[5, 9]).await, before);
    }
    update(&container, of(&[("model.warp", &[2])]), Verify::None).await.expect("what is unknown is left out");
    assert_ne!(logits(&container, &[5, 9]).await, before);
    let e = Parameters::default().insert("x", &[3], vec![0.0; 2]).expect_err("too few").to_string();
    assert!(e.starts_with("x: expected "), "{e}");
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ignore_eos: true, ..Default::default() }
}

/// A generation in whose middle parameters get the values that they had computes its cache anew, and goes on.
#[tokio::test]
async fn generations_outlive_an_update() {
    let folder = tiny("llama/biases");
    let golden = Golden::read(&folder);
    let container = load(&folder, Device::Reference).await;
    let mut stream =
        container.generate(golden.input_ids.clone().into(), greedy(golden.greedy.len())).await.expect("runs");
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        if let Generation::Token(token) = event.expect("goes on") {
            tokens.push(token);
        }
        if tokens.len() == 3 {
            update(&container, changed(&folder, |_, v| Some(v)), Verify::All).await.expect("updated");
        }
    }
    assert_eq!(tokens, golden.greedy);
}

/// What a generation gives, and how many tokens of its prompt were known.
async fn tokens(mut stream: GenerationStream) -> Result<(Vec<u32>, usize), Error> {
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        match event? {
            Generation::Token(token) => tokens.push(token),
            Generation::Info(info) => return Ok((tokens, info.cached_prompt_tokens)),
            _ => {}
        }
    }
    panic!("a stream ends on its info or an error")
}

/// The next request finds the model loaded anew, with what an update has changed and with its adapters.
#[tokio::test]
async fn a_lost_device_is_one_error() {
    let folder = tiny("llama/biases");
    let prompt = Golden::read(&folder).input_ids;
    for device in devices().into_iter().filter(|d| matches!(d, Device::Named(_))) {
        let options = options(device)
            .adapter(tiny("adapters/peft_lora"))
            .draft(ModelConfiguration::directory(tiny("llama/biases")));
        let container = factory().load_container(&ModelConfiguration::directory(&folder), options).await;
        let container = container.unwrap_or_else(|e| panic!("{e}"));
        let name = container.device();
        let halved = changed(&folder, |name, v| name.ends_with("q_proj.weight").then_some(0.5 * v));
        update(&container, halved, Verify::NoUnusedKeys).await.expect("updated");
        let cache = container.prompt_cache();
        let ask = async |n, adapter: Option<&str>, draft_tokens| {
            let parameters = GenerateParameters { adapter: adapter.map(str::to_owned), draft_tokens, ..greedy(n) };
            container.generate_from(prompt.clone().into(), parameters, &cache).await.expect("a stream")
        };
        let lose = async || container.perform(|context| context.model.lose_device()).await.expect("performed");

        let (plain, adapted) = (tokens(ask(9, None, 0).await).await, tokens(ask(9, Some("peft_lora"), 0).await).await);
        let (plain, adapted) = (plain.expect("runs").0, adapted.expect("runs").0);
        assert_ne!(plain, adapted, "the adapter changes what comes");
        assert!(tokens(ask(9, Some("peft_lora"), 0).await).await.expect("runs").1 > 0, "{name}: the prompt is known");

        // In the middle of two generations.
        let (mut one, mut other) = (ask(200, None, 0).await, ask(200, None, 2).await);
        for stream in [&mut one, &mut other] {
            stream.next().await.expect("an event").expect("a token");
        }
        lose().await;
        for stream in [one, other] {
            let e = tokens(stream).await.expect_err("the device is gone");
            assert!(matches!(e, Error::DeviceLost(_)), "{name}: {e}");
        }
        assert_eq!(tokens(ask(9, Some("peft_lora"), 0).await).await.expect("runs"), (adapted, 0), "{name}: anew");
        assert_eq!(tokens(ask(9, None, 2).await).await.expect("runs"), (plain, 0), "{name}: with a draft model");

        // While nothing runs: whoever comes next may be told, and nobody after that.
        let before = logits(&container, &prompt).await;
        lose().await;
        let forward = |context: &mut ModelContext| context.model.forward(&[1, 2, 3], 8);
        let e = container.perform(forward).await.expect("performed").expect_err("the device is gone");
        assert!(matches!(e, Error::DeviceLost(_)), "{name}: {e}");
        assert_close(&name, &logits(&container, &prompt).await, &before, 1e-5);
    }
}

#[tokio::test]
async fn unloading_ends_everything() {
    let container = load(&tiny("llama/biases"), Device::Reference).await;
    let other = container.clone();
    let mut stream = container.generate(vec![1, 2, 3].into(), greedy(200)).await.expect("runs");
    stream.next().await.expect("an event").expect("a token");
    container.unload().await.expect("unloaded");
    let mut reason = None;
    while let Some(event) = stream.next().await {
        if let Generation::Info(info) = event.expect("no failure") {
            reason = Some(info.stop_reason);
        }
    }
    assert_eq!(reason, Some(StopReason::Cancelled));
    for e in [
        other.generate(vec![1].into(), greedy(1)).await.map(drop).expect_err("no model"),
        other.perform(|_| ()).await.expect_err("no model"),
        other.unload().await.expect_err("no model"),
    ] {
        assert_eq!(e.to_string(), "the model was unloaded");
    }
    assert_eq!(other.model_info().model_type, "llama", "what it was is still known");
}

fn close(found: u64, estimate: u64) -> bool {
    found.abs_diff(estimate) as f64 <= 0.05 * found as f64
}

#[tokio::test]
async fn memory_is_what_was_estimated() {
    for folder in [tiny("llama/biases"), tiny("mlx/4bit_g64"), models::smollm2()] {
        for device in devices() {
            check_memory(&LlmModelFactory::new(Registry::linked()), &folder, options(device)).await;
        }
    }
}

/// With all that options add to a model.
#[tokio::test]
async fn memory_of_all_parts_is_what_was_estimated() {
    let factory = factory();
    for device in devices() {
        let tied = ModelConfiguration::directory(tiny("llama/tied"));
        let alone = check_memory(&factory, &tiny("llama/tied"), options(device.clone())).await;
        let both = check_memory(&factory, &tiny("llama/tied"), options(device.clone()).draft(tied)).await;
        assert_eq!(both, alone + alone, "a draft model counts");
        let quantized = options(device.clone()).quantize("4:32".parse().expect("sound"));
        check_memory(&factory, &tiny("llama/tied"), quantized).await;
        let adapted = options(device.clone()).adapter(tiny("adapters/peft_dora")).adapter(tiny("adapters/peft_lora"));
        check_memory(&factory, &tiny("llama/biases"), adapted).await;
        for start in [0, 64] {
            let kv = KvQuantize { start, ..("4:32".parse().expect("sound")) };
            check_memory(&factory, &tiny("mlx/8bit_g128"), options(device.clone()).kv(kv)).await;
        }
        let sees = models::folder("goldens/vision/qwen2_vl");
        check_memory(&VlmModelFactory::new(Registry::linked()), &sees, options(device)).await;
    }
}

async fn check_memory<K: ModelKind>(
    factory: &GenericModelFactory<K>,
    folder: &Path,
    options: LoadOptions,
) -> MemoryUse {
    let _ = tamarack_plugins::LINKED;
    let configuration = ModelConfiguration::parse(&folder.to_string_lossy());
    let estimate = factory.estimate(&configuration, &options).expect("an estimate");
    let container = factory.load_container(&configuration, options).await.expect("it loads");
    let found = container.memory().await.expect("memory");
    let name = format!("{} on {}: {found:?}, {estimate:?}", folder.display(), container.device());
    let MemoryUse { weights, kv, workspace } = estimate;
    assert!(close(found.total(), estimate.total()), "{name}");
    assert!(close(found.weights, weights) && found.kv == kv && close(found.workspace, workspace), "{name}");
    assert!(kv > 0, "{name}");
    found
}
