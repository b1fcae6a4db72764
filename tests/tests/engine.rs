//! Containers of real models: the same tokens as the engines that the models come from.

use futures::future::try_join_all;
use std::path::Path;
use tamarack::{
    Device, Error, GenerateParameters, Generation, LlmModelFactory, LmInput, LoadOptions, ModelConfiguration,
    ModelContainer, Result, StopReason, UserInput, plugins::Registry,
};
use tamarack_tests::{
    gpu::{assert_close, devices},
    models::{self, Golden, certain},
};

async fn load(path: &Path, device: Device, context: usize) -> Result<ModelContainer> {
    let _ = tamarack_plugins::LINKED;
    let factory = LlmModelFactory::new(Registry::linked());
    let options = LoadOptions::default().device(device).context(context);
    factory.load_container(&ModelConfiguration::parse(&path.to_string_lossy()), options).await
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ignore_eos: true, ..Default::default() }
}

async fn tokens(container: &ModelContainer, prompt: &[u32], parameters: GenerateParameters) -> Result<Vec<u32>> {
    let mut stream = container.generate(prompt.to_vec().into(), parameters).await?;
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        match event? {
            Generation::Token(token) => tokens.push(token),
            Generation::Chunk(text) => panic!("{text:?} without a tokenizer"),
            Generation::Info(info) => assert_eq!(info.generation_tokens, tokens.len()),
            other => panic!("{other:?} in what is no conversation"),
        }
    }
    Ok(tokens)
}

/// Whole prompts, and prompts in uneven pieces, all in one batch; then the logits.
async fn check(folder: &Path, device: Device, tolerance: f32) {
    let golden = Golden::read(folder);
    let container = load(folder, device, 256).await.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name = format!("{} on {}", folder.display(), container.device());
    let steps = [None, Some(7), Some(1), None];
    let asked = steps.map(|prefill_step| {
        let parameters = GenerateParameters { prefill_step, ..greedy(golden.greedy.len()) };
        tokens(&container, &golden.input_ids, parameters)
    });
    for found in try_join_all(asked).await.unwrap_or_else(|e| panic!("{name}: {e}")) {
        assert_eq!(found, golden.greedy, "{name}");
    }
    let ids = golden.input_ids.clone();
    let logits = container.perform(move |context| context.model.forward(&ids, 7)).await;
    let logits = logits.and_then(|l| l).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_close(&name, &logits, &golden.logits, tolerance);
}

#[tokio::test]
async fn tiny_models_without_tokenizers_on_the_reference() {
    for folder in models::tiny("llama") {
        check(&folder, Device::Reference, 1e-3).await;
    }
}

#[tokio::test]
async fn what_a_model_is_and_what_it_cannot_do() {
    let folder = &models::tiny("llama")[0];
    let container = load(folder, Device::Reference, 64).await.expect("it loads");
    let info = container.model_info();
    assert_eq!((info.model_type.as_str(), info.context), ("llama", 64));
    assert!(
        info.plugin.starts_with("llama (tamarack-llama ") && info.parameters > 1000 && info.bytes > info.parameters
    );
    assert_eq!(container.configuration().eos_token_ids, [2].into());
    let e = container.prepare(UserInput::raw("text")).await.expect_err("there is no tokenizer");
    assert!(matches!(&e, Error::Text(e) if e.contains("tokenizer.json")), "{e}");
    let stop = GenerateParameters { stop: vec!["a".to_owned()], ..greedy(1) };
    let e = container.generate(LmInput::from(vec![1]), stop).await.expect_err("stop strings are text");
    assert_eq!(e.to_string(), "stop strings need a tokenizer, and the model has none");
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why() {
    let e = load(Path::new("/absent/folder"), Device::Reference, 64).await.expect_err("absent");
    assert!(e.to_string().contains("/absent/folder"), "{e}");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(models::tiny("llama")[0].join("model.safetensors"), folder.path().join("model.safetensors"))
        .expect("copied");
    for (config, expected) in [
        (r#"{"model_type": "warp"}"#, "unsupported model_type `warp`: registered are "),
        ("{}", "expected a `model_type`"),
    ] {
        std::fs::write(folder.path().join("config.json"), config).expect("written");
        let e = load(folder.path(), Device::Reference, 64).await.expect_err(expected);
        assert!(e.to_string().contains(expected), "{e}");
    }
    let folder = &models::tiny("llama")[0];
    let e = load(folder, Device::Named("no such thing".to_owned()), 64).await.expect_err("no device");
    assert!(e.to_string().starts_with("no device `no such thing`: there are "), "{e}");
    let e = load(folder, Device::Reference, usize::MAX).await.expect_err("too large");
    assert!(matches!(e, Error::Memory(_)), "{e}");
}

#[tokio::test]
async fn a_tiny_model_on_every_device() {
    for device in devices() {
        // Caches hold keys and values in f16, except for the oracle's.
        check(&models::tiny("llama")[0], device, 0.02).await;
    }
}

/// Conversations, from messages to text, together.
#[tokio::test]
#[ignore = "minutes on a processor"]
async fn smollm2_answers_as_transformers_does() {
    let container = load(&models::smollm2(), Device::Auto, 4096).await.expect("it loads");
    let answers = models::smollm2_answers();
    let asked = answers.iter().filter(|a| !a.messages.is_empty()).map(async |answer| {
        let input = container.prepare(UserInput::messages(answer.messages.clone())).await?;
        assert_eq!(input.tokens, answer.prompt_ids, "{}", answer.rendered);
        let n = certain(&answer.margins, 0.05).min(answer.first_eos.unwrap_or(usize::MAX));
        let parameters = GenerateParameters { max_tokens: Some(n.max(1)), ignore_eos: false, ..greedy(0) };
        let (text, info) = container.generate(input, parameters).await?.text().await?;
        assert!(n == 0 || answer.text.starts_with(&text), "{text:?}, expected {:?}", answer.text);
        assert!(info.stop_reason == StopReason::Length);
        Ok::<_, Error>(())
    });
    try_join_all(asked).await.expect("answers");
}
