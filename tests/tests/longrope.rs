//! LongRoPE (arXiv:2402.13753): beyond a model's original length the long factors count for all positions, those of earlier
//! tokens included, whichever way a sequence gets there. What is right is what a fresh prompt gives, which parity.rs compares
//! with transformers.

use tamarack::{
    Device, GenerateParameters, Generation, LlmModelFactory, LoadOptions, ModelConfiguration, ModelContainer,
    PromptCache, plugins::Registry,
};
use tamarack_tests::{gpu::devices, models};

/// The original length of these models.
const LIMIT: usize = 16;

fn models() -> [ModelConfiguration; 2] {
    ["phi3", "phimoe"]
        .map(|name| ModelConfiguration::directory(models::folder("goldens/architectures").join(name).join("long")))
}

async fn load(model: &ModelConfiguration, device: Device, draft: bool) -> ModelContainer {
    let _ = tamarack_plugins::LINKED;
    let options = LoadOptions::default().device(device).context(512);
    let options = if draft { options.draft(model.clone()) } else { options };
    LlmModelFactory::new(Registry::linked()).load_container(model, options).await.expect("loads")
}

async fn generate(container: &ModelContainer, prompt: &[u32], count: usize, cache: Option<&PromptCache>) -> Vec<u32> {
    let parameters = GenerateParameters {
        max_tokens: Some(count),
        temperature: 0.0,
        ignore_eos: true,
        ..GenerateParameters::default()
    };
    let prompt = prompt.to_vec().into();
    let mut stream = match cache {
        Some(cache) => container.generate_from(prompt, parameters, cache).await.expect("runs"),
        None => container.generate(prompt, parameters).await.expect("runs"),
    };
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        if let Generation::Token(token) = event.expect("no failure") {
            tokens.push(token);
        }
    }
    tokens
}

/// Each token is what a fresh prompt of all tokens before it gives, unless two are as likely.
async fn check(container: &ModelContainer, prompt: &[u32], found: &[u32], what: &str) {
    let mut all = prompt.to_vec();
    for token in found {
        let tokens = all.clone();
        let logits = container.perform(move |c| c.model.forward(&tokens, 512)).await.expect("runs").expect("logits");
        let last = &logits[logits.len() - logits.len() / all.len()..];
        let best = last.iter().copied().fold(f32::MIN, f32::max);
        let behind = best - last[*token as usize];
        assert!(behind <= 0.03, "{what} on {}: token {} is {behind} behind the best", container.device(), all.len());
        all.push(*token);
    }
}

fn prompt(length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| (i * 7 + 5) % 60 + 3).collect()
}

#[tokio::test]
async fn generation_goes_on_beyond_the_original_length() {
    for model in models() {
        for device in devices() {
            let container = load(&model, device, false).await;
            for length in [3, LIMIT - 1, LIMIT, LIMIT + 1] {
                let found = generate(&container, &prompt(length), 18, None).await;
                check(&container, &prompt(length), &found, &format!("after {length}")).await;
            }
        }
    }
}

#[tokio::test]
async fn sequences_cross_it_beside_each_other() {
    for model in models() {
        let container = load(&model, Device::Reference, false).await;
        let lengths = [2, 9, 14, 15, 16, 20];
        let prompts = lengths.map(prompt);
        let running = prompts.iter().map(|prompt| generate(&container, prompt, 16, None));
        for (prompt, found) in prompts.iter().zip(futures::future::join_all(running).await) {
            check(&container, prompt, &found, "in a batch").await;
        }
    }
}

#[tokio::test]
async fn proposals_cross_it() {
    for model in models() {
        let container = load(&model, Device::Reference, true).await;
        for length in [5, LIMIT - 2, LIMIT] {
            let found = generate(&container, &prompt(length), 20, None).await;
            check(&container, &prompt(length), &found, "with a draft model").await;
        }
    }
}

/// From a kept cache, there and back, and from one that was saved.
#[tokio::test]
async fn prompt_caches_cross_it_both_ways() {
    for model in models() {
        let container = load(&model, Device::Reference, false).await;
        let cache = container.prompt_cache();
        for length in [10, LIMIT + 4, LIMIT + 9, 12, LIMIT, LIMIT + 1] {
            let found = generate(&container, &prompt(length), 4, Some(&cache)).await;
            check(&container, &prompt(length), &found, &format!("a kept cache and {length}")).await;
        }
        for (kept, next) in [(10, LIMIT + 4), (LIMIT + 4, 12), (LIMIT + 4, LIMIT + 8)] {
            let (cache, folder) = (container.prompt_cache(), tempfile::tempdir().expect("a folder"));
            generate(&container, &prompt(kept), 2, Some(&cache)).await;
            let path = folder.path().join("cache.safetensors");
            container.save_prompt_cache(&cache, &path, &Default::default()).await.expect("saved");
            let (loaded, _) = container.load_prompt_cache(&path).await.expect("loaded");
            let found = generate(&container, &prompt(next), 6, Some(&loaded)).await;
            check(&container, &prompt(next), &found, &format!("a saved cache of {kept} and {next}")).await;
        }
    }
}
