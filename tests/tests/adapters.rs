//! Low-rank adapters, against what their makers compute: see tests/goldens/adapters.py.

use safetensors::{Dtype, tensor::TensorView};
use std::path::{Path, PathBuf};
use tamarack::{
    Device, Error, GenerateParameters, Generation, Image, LlmModelFactory, LoadOptions, ModelConfiguration,
    ModelContainer, Result, UserInput, plugins::Registry,
};
use tamarack_tests::{
    gpu::{assert_close, devices},
    models,
};

fn adapter(name: &str) -> PathBuf {
    models::tiny("adapters").into_iter().find(|p| p.ends_with(name)).expect(name)
}

fn base(name: &str) -> PathBuf {
    let (family, model) = match name.split('_').next() {
        Some("mlx") => ("mlx", "4bit_g64"),
        Some("tied") => ("llama", "tied"),
        _ => ("llama", "biases"),
    };
    models::tiny(family).into_iter().find(|p| p.ends_with(model)).expect(model)
}

async fn load(device: Device, base: &Path, adapters: &[&str]) -> Result<ModelContainer> {
    let _ = tamarack_plugins::LINKED;
    let options = LoadOptions::default().device(device).context(512);
    let options = adapters.iter().fold(options, |options, name| options.adapter(adapter(name)));
    LlmModelFactory::new(Registry::linked()).load_container(&ModelConfiguration::directory(base), options).await
}

/// The prompt and the logits of a golden.
fn golden(folder: &Path) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(folder.join("golden.safetensors")).expect("read");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let words = |name: &str| -> Vec<u32> {
        file.tensor(name)
            .expect(name)
            .data()
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    (words("input_ids"), words("logits").into_iter().map(f32::from_bits).collect())
}

async fn logits(container: &ModelContainer, adapter: Option<&str>, tokens: &[u32]) -> Result<Vec<f32>> {
    let (tokens, adapter) = (tokens.to_vec(), adapter.map(str::to_owned));
    container.perform(move |context| context.model.forward_with(adapter.as_deref(), &tokens, 9)).await?
}

async fn tokens(container: &ModelContainer, adapter: Option<&str>, prompt: &[u32]) -> Vec<u32> {
    let parameters = GenerateParameters {
        max_tokens: Some(16),
        temperature: 0.0,
        ignore_eos: true,
        adapter: adapter.map(str::to_owned),
        ..Default::default()
    };
    let mut stream = container.generate(prompt.to_vec().into(), parameters).await.expect("runs");
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        if let Generation::Token(token) = event.expect("no failure") {
            tokens.push(token);
        }
    }
    tokens
}

#[tokio::test]
async fn logits_are_those_of_their_makers() {
    let plain_lora = ["peft_lora", "peft_rslora", "peft_dora", "peft_patterns", "mlx_lora", "mlx_dora"];
    for name in plain_lora.into_iter().chain(["tied_lora", "tied_rslora", "tied_dora"]) {
        let (ids, expected) = golden(&adapter(name));
        let (_, plain) = golden(&base(name));
        for device in devices() {
            let container = load(device.clone(), &base(name), &[name]).await.expect("loads");
            // As in parity.rs: a device keeps keys and values in f16, and rounds what it multiplies quantized weights by.
            let tolerance = if device == Device::Reference { 1e-3 } else { 2e-2 };
            let what = format!("{name} on {}", container.device());
            assert_close(&what, &logits(&container, Some(name), &ids).await.expect("runs"), &expected, tolerance);
            assert_close(&what, &logits(&container, None, &ids).await.expect("runs"), &plain, tolerance);
        }
    }
}

#[tokio::test]
async fn one_batch_mixes_them() {
    let all = ["peft_lora", "peft_dora", "peft_rslora"];
    let folder = base("peft");
    let (ids, _) = golden(&folder);
    for device in devices() {
        let together = load(device.clone(), &folder, &all).await.expect("loads");
        let wanted = [None, Some(all[0]), Some(all[1]), Some(all[2]), Some(all[0]), None];
        let running = wanted.iter().map(|adapter| tokens(&together, *adapter, &ids));
        let found = futures::future::join_all(running).await;
        for (adapter, found) in wanted.iter().zip(&found) {
            let alone =
                load(device.clone(), &folder, &adapter.iter().copied().collect::<Vec<_>>()).await.expect("loads");
            assert_eq!(*found, tokens(&alone, *adapter, &ids).await, "{adapter:?} on {}", together.device());
        }
        assert!(found[0] != found[1] && found[1] != found[2] && found[2] != found[3], "each says something else");
    }
}

#[tokio::test]
async fn they_come_and_go_and_are_fused() {
    let names = ["peft_dora", "mlx_lora", "peft_rslora"];
    for (name, device) in names.into_iter().cycle().zip(devices()) {
        let (ids, expected) = golden(&adapter(name));
        let (_, plain) = golden(&base(name));
        let container = load(device, &base(name), &[]).await.expect("loads");
        let check = async |adapter: Option<&str>, expected: &[f32]| {
            let found = logits(&container, adapter, &ids).await.expect("runs");
            assert_close(&format!("{name} on {}", container.device()), &found, expected, 2e-2);
        };
        check(None, &plain).await;
        assert_eq!(container.load_adapter(adapter(name)).await.expect("loads"), name);
        let e = container.load_adapter(adapter(name)).await.expect_err("twice").to_string();
        assert_eq!(e, format!("adapter `{name}` is loaded already: unload it, or rename its folder"));
        check(Some(name), &expected).await;
        container.unload_adapter(name).await.expect("unloads");
        let e = logits(&container, Some(name), &ids).await.expect_err("it is gone").to_string();
        assert_eq!(e, format!("no adapter `{name}`: none is loaded"));
        check(None, &plain).await;
        container.load_adapter(adapter(name)).await.expect("loads");
        container.fuse_adapter(name).await.expect("fuses");
        assert!(container.adapters().await.expect("adapters").is_empty());
        check(None, &expected).await;
    }
}

/// In f32, where nothing but the order of sums differs.
#[tokio::test]
async fn what_is_fused_is_what_was_applied() {
    for name in ["peft_lora", "peft_rslora", "peft_dora", "mlx_lora", "mlx_dora"] {
        let (ids, _) = golden(&adapter(name));
        let container = load(Device::Reference, &base(name), &[name]).await.expect("loads");
        check_fused(&container, name, &ids).await;
    }
}

async fn check_fused(container: &ModelContainer, name: &str, ids: &[u32]) {
    let plain = logits(container, None, ids).await.expect("runs");
    let applied = logits(container, Some(name), ids).await.expect("runs");
    assert!(applied.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 0.1), "{name} changes something");
    container.fuse_adapter(name).await.expect("fuses");
    assert_close(&format!("{name}, fused"), &logits(container, None, ids).await.expect("runs"), &applied, 1e-4);
}

/// An adapter of one module, in MLX's layout.
fn write_adapter(folder: &Path, module: &str, [outputs, inputs]: [usize; 2]) {
    let values = |n: usize| (0..n).flat_map(|i| ((i * 37 % 23) as f32 / 23.0 - 0.5).to_le_bytes()).collect::<Vec<u8>>();
    let parts = [("lora_a", vec![inputs, 2]), ("lora_b", vec![2, outputs])];
    let parts = parts.map(|(name, shape)| (format!("{module}.{name}"), values(shape.iter().product()), shape));
    let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("sizes agree");
    let tensors = parts.iter().map(|(name, bytes, shape)| (name, view(shape, bytes)));
    let file = safetensors::serialize(tensors, None).expect("serialises");
    std::fs::write(folder.join("adapters.safetensors"), file).expect("written");
    let config = r#"{"fine_tune_type": "lora", "lora_parameters": {"scale": 2}}"#;
    std::fs::write(folder.join("adapter_config.json"), config).expect("written");
}

async fn shape(container: &ModelContainer, tensor: &'static str) -> [usize; 2] {
    let find = move |context: &mut tamarack::ModelContext| {
        let mut all = context.model.parameters();
        all.find(|(name, _)| name.ends_with(tensor)).and_then(|(_, shape)| shape.try_into().ok())
    };
    container.perform(find).await.expect("runs").expect(tensor)
}

async fn load_vlm(name: &str, device: Device) -> (ModelContainer, String) {
    let _ = tamarack_plugins::LINKED;
    let model = name.trim_start_matches("vlm_").trim_end_matches("_old");
    let configuration = ModelConfiguration::directory(models::folder("goldens/vision").join(model));
    let options = LoadOptions::default().device(device).context(512);
    let container = tamarack::load_container(&configuration, options).await.expect("loads");
    let name = container.load_adapter(adapter(name)).await.expect("loads");
    (container, name)
}

#[tokio::test]
async fn vision_language_models_have_them_under_old_names_and_new() {
    for name in ["vlm_gemma3", "vlm_gemma3_old", "vlm_qwen2_vl", "vlm_qwen2_vl_old"] {
        let (ids, expected) = golden(&adapter(name));
        let (container, name) = load_vlm(name, Device::Reference).await;
        assert_close(&name, &logits(&container, Some(&name), &ids).await.expect("runs"), &expected, 1e-3);
    }
}

/// A tower computes an image anew for each adapter, and as with the adapter's weights fused into it.
#[tokio::test]
async fn towers_have_them_too() {
    let names = ["vlm_gemma3", "vlm_qwen2_vl"];
    for (name, device) in names.into_iter().flat_map(|name| devices().into_iter().map(move |device| (name, device))) {
        let (container, name) = load_vlm(name, device).await;
        let image = Image::Path(models::folder("goldens/vision/images/cat.png"));
        let input = container.prepare(UserInput::from("What is it?").image(image)).await.expect("is prepared");
        let run = async |adapter: Option<&str>| {
            let (input, adapter) = (input.clone(), adapter.map(str::to_owned));
            let run = move |c: &mut tamarack::ModelContext| c.model.forward_input_with(adapter.as_deref(), &input, 512);
            container.perform(run).await.expect("runs").expect("logits")
        };
        let (plain, adapted) = (run(None).await, run(Some(&name)).await);
        assert_eq!(run(None).await, plain, "{name}: rows of the image with the adapter are not used without it");
        container.fuse_adapter(&name).await.expect("fuses");
        let what = format!("{name} on {}", container.device());
        let fused = run(None).await;
        assert_close(&what, &adapted, &fused, 2e-2);
        let moved = plain.iter().zip(&fused).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(moved > 0.1, "{what}: the adapter moves no logit by more than {moved}");
    }
}

/// A tower's layers may be called as the text's are, and an adapter is the text's.
#[tokio::test]
async fn towers_stay_as_they_are() {
    let _ = tamarack_plugins::LINKED;
    let configuration = ModelConfiguration::directory(models::folder("goldens/vision/gemma3"));
    let options = LoadOptions::default().device(Device::Reference).context(64);
    let container = tamarack::load_container(&configuration, options).await.expect("loads");
    let tensor = "language_model.model.layers.0.self_attn.q_proj.weight";
    let (parent, module) = (tempfile::tempdir().expect("a folder"), "layers.0.self_attn.q_proj");
    write_adapter(parent.path(), module, shape(&container, tensor).await);
    let name = container.load_adapter(parent.path()).await.expect("loads");
    let values = async |name: &'static str| container.perform(move |c| c.model.parameter(name)).await.expect("values");
    let before = values(tensor).await.expect("is there");
    check_fused(&container, &name, &[2, 9, 30, 4]).await;
    assert_ne!(values(tensor).await.expect("is there"), before);
}

#[tokio::test]
async fn what_is_used_elsewhere_is_not_fused() {
    let folder = models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("a model");
    let container = load(Device::Reference, &folder, &[]).await.expect("loads");
    let parent = tempfile::tempdir().expect("a folder");
    write_adapter(parent.path(), "model.embed_tokens", shape(&container, "embed_tokens.weight").await);
    let name = container.load_adapter(parent.path()).await.expect("loads");
    let applied = logits(&container, Some(&name), &[5, 9]).await.expect("runs");
    let e = container.fuse_adapter(&name).await.expect_err("the embedding would change").to_string();
    assert!(e.contains("cannot be fused: the model uses model.embed_tokens.weight elsewhere"), "{e}");
    assert_eq!(logits(&container, Some(&name), &[5, 9]).await.expect("it is still there"), applied);
}

#[tokio::test]
async fn prompt_caches_know_theirs() {
    let container = load(Device::Reference, &base("peft"), &["peft_lora"]).await.expect("loads");
    let (ids, _) = golden(&base("peft"));
    let cache = container.prompt_cache();
    let cached = async |adapter: Option<&str>| {
        let parameters = GenerateParameters {
            max_tokens: Some(1),
            ignore_eos: true,
            adapter: adapter.map(str::to_owned),
            ..Default::default()
        };
        let stream = container.generate_from(ids.clone().into(), parameters, &cache).await.expect("runs");
        stream.text().await.expect("ends").1.cached_prompt_tokens
    };
    assert_eq!(cached(None).await, 0);
    assert_eq!(cached(None).await, ids.len() - 1);
    assert_eq!(cached(Some("peft_lora")).await, 0, "what the model computed without it is of no use");
    assert_eq!(cached(Some("peft_lora")).await, ids.len() - 1);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let e = load(Device::Reference, &base("mlx"), &["peft_lora"]).await.expect_err("another model").to_string();
    assert!(e.contains("adapter `peft_lora`: model.layers.0."), "{e}");
    let container = load(Device::Reference, &base("peft"), &["peft_lora"]).await.expect("loads");
    let parameters = GenerateParameters { adapter: Some("none".into()), ..Default::default() };
    let stream = container.generate(vec![1].into(), parameters).await.expect("is taken on");
    let e = stream.text().await.expect_err("no such adapter");
    assert!(matches!(&e, Error::Request(e) if e == "no adapter `none`: there are peft_lora"), "{e}");

    let folder = tempfile::tempdir().expect("a folder");
    let broken = |config: &str, tensors: &str| {
        std::fs::write(folder.path().join("adapter_config.json"), config).expect("written");
        std::fs::copy(adapter(tensors).join("adapters.safetensors"), folder.path().join("adapters.safetensors"))
            .expect("copied");
        container.load_adapter(folder.path())
    };
    for (config, expected) in [
        (r#"{"fine_tune_type": "full"}"#, "`fine_tune_type` is `full`: these are whole weights"),
        (r#"{"fine_tune_type": "lora"}"#, "expected lora_parameters.scale, found none"),
        (r#"{"fine_tune_type": "lora", "lora_parameters": {"scale": 1}}"#, "expected ["),
    ] {
        let e = broken(config, "mlx_lora").await.expect_err(expected).to_string();
        assert!(e.contains(expected), "{e}");
    }
}
