//! Prompt caches, draft models and caches of bounded size, with real arithmetic: what is kept, proposed or
//! rotated gives the tokens that plain generation gives.

use std::collections::BTreeMap;
use tamarack::{
    Device, GenerateCompletionInfo, GenerateParameters, Generation, GenerationStream, LlmModelFactory, LoadOptions,
    ModelConfiguration, ModelContainer, plugins::Registry,
};
use tamarack_tests::{gpu::devices, models};

async fn load(name: &str, device: &Device, draft: Option<&str>) -> ModelContainer {
    let _ = tamarack_plugins::LINKED;
    let configuration = |name: &str| {
        let folder = models::tiny("llama").into_iter().find(|p| p.ends_with(name)).expect("a tiny model");
        ModelConfiguration::directory(folder)
    };
    let mut options = LoadOptions::default().device(device.clone()).context(256);
    options.draft = draft.map(configuration);
    let factory = LlmModelFactory::new(Registry::linked());
    factory.load_container(&configuration(name), options).await.unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ignore_eos: true, ..Default::default() }
}

async fn tokens(mut stream: GenerationStream) -> (Vec<u32>, GenerateCompletionInfo) {
    let mut tokens = Vec::new();
    loop {
        match stream.next().await.expect("an event").unwrap_or_else(|e| panic!("{e}")) {
            Generation::Token(token) => tokens.push(token),
            Generation::Info(info) => return (tokens, info),
            _ => {}
        }
    }
}

/// Margins of the tiny models' own goldens are at least 0.05: no order of summation changes these tokens.
fn prompt() -> Vec<u32> {
    models::Golden::read(&models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("tied")).input_ids
}

#[tokio::test]
async fn a_prompt_cache_survives_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for device in devices() {
        let prompt = prompt();
        let container = load("tied", &device, None).await;
        let name = container.device();
        let (plain, _) = tokens(container.generate(prompt.clone().into(), greedy(8)).await.unwrap()).await;

        let cache = container.prompt_cache();
        let first = container.generate_from(prompt.clone().into(), greedy(4), &cache).await.unwrap();
        let (begun, info) = tokens(first).await;
        assert_eq!((&begun[..], info.cached_prompt_tokens), (&plain[..4], 0), "{name}");
        let file = folder.path().join("cache.safetensors");
        let texts = BTreeMap::from([("note".to_owned(), "kept".to_owned())]);
        container.save_prompt_cache(&cache, &file, &texts).await.unwrap();

        // The same model, loaded anew, knows nothing but the file.
        let again = load("tied", &device, None).await;
        let (loaded, found) = again.load_prompt_cache(&file).await.unwrap();
        assert_eq!((loaded.tokens(), found), (cache.tokens(), texts), "{name}");
        let longer = [&prompt[..], &begun].concat();
        let (rest, info) = tokens(again.generate_from(longer.clone().into(), greedy(4), &loaded).await.unwrap()).await;
        assert_eq!(rest, plain[4..], "{name}");
        assert!(info.cached_prompt_tokens + 2 > longer.len(), "{name}: {info:?}");

        let other = load("mistral_full", &device, None).await;
        let e = other.load_prompt_cache(&file).await.unwrap_err().to_string();
        assert!(e.contains("another model's cache"), "{name}: {e}");
        let e = other.generate_from(prompt.into(), greedy(4), &cache).await.unwrap_err().to_string();
        assert!(e.contains("belongs to another model"), "{name}: {e}");
    }
}

#[tokio::test]
async fn a_draft_model_changes_nothing_but_the_speed() {
    for device in devices() {
        let prompt = prompt();
        let container = load("tied", &device, Some("tied")).await;
        let name = container.device();
        let without = GenerateParameters { draft_tokens: 0, ..greedy(8) };
        let (plain, info) = tokens(container.generate(prompt.clone().into(), without).await.unwrap()).await;
        assert_eq!(info.proposed_draft_tokens, 0, "{name}");
        let with = GenerateParameters { draft_tokens: 3, ..greedy(8) };
        let (found, info) = tokens(container.generate(prompt.into(), with).await.unwrap()).await;
        assert_eq!(found, plain, "{name}");
        assert_eq!(info.accepted_draft_tokens, info.proposed_draft_tokens, "{name}: it drafts for itself");
        assert!(info.accepted_draft_tokens >= 5, "{name}: {info:?}");
    }
}

#[tokio::test]
async fn a_cache_of_bounded_size_goes_on_past_the_context() {
    for device in devices() {
        let prompt = prompt();
        let container = load("tied", &device, None).await;
        let name = container.device();
        let (plain, _) = tokens(container.generate(prompt.clone().into(), greedy(8)).await.unwrap()).await;
        let bounded = GenerateParameters { max_kv_size: Some(64), ..greedy(300) };
        let (found, _) = tokens(container.generate(prompt.into(), bounded).await.unwrap()).await;
        assert_eq!((found.len(), &found[..8]), (300, &plain[..]), "{name}: as without until it drops something");
    }
}

/// A tiny model whose answer passes the length at which its rope changes, and its golden.
async fn crossing(case: &str, device: &Device, has_draft: bool) -> (ModelContainer, models::Golden) {
    let _ = tamarack_plugins::LINKED;
    let folder = models::tiny("longrope").into_iter().find(|p| p.ends_with(case)).expect("a tiny model");
    let configuration = ModelConfiguration::directory(&folder);
    let draft = has_draft.then(|| configuration.clone());
    let options = LoadOptions { draft, ..LoadOptions::default().device(device.clone()).context(128) };
    let container = LlmModelFactory::new(Registry::linked()).load_container(&configuration, options).await;
    (container.unwrap_or_else(|e| panic!("{case}: {e}")), models::Golden::read(&folder))
}

#[tokio::test]
async fn longrope_is_what_transformers_gives_whichever_way_past_its_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    for (device, case) in
        devices().iter().flat_map(|d| ["phi3", "phimoe", "llama", "llama_attention_factor"].map(|c| (d, c)))
    {
        let (container, golden) = crossing(case, device, true).await;
        let name = format!("{case} on {}", container.device());
        let (prompt, expected, n) = (golden.input_ids.clone(), golden.greedy.clone(), golden.greedy.len());
        let without = |n| GenerateParameters { draft_tokens: 0, ..greedy(n) };
        let generate = async |prompt: &[u32], parameters| {
            tokens(container.generate(prompt.to_vec().into(), parameters).await.unwrap()).await.0
        };
        assert_eq!(generate(&prompt, without(n)).await, expected, "{name}: while generating");
        assert_eq!(
            generate(&prompt, GenerateParameters { draft_tokens: 3, ..greedy(n) }).await,
            expected,
            "{name}: with a draft"
        );
        assert_eq!(
            generate(&prompt, GenerateParameters { max_kv_size: Some(48), ..greedy(n) }).await,
            expected,
            "{name}: with a window"
        );
        let other = &prompt[..9];
        let alone = generate(other, without(n)).await;
        let both = tokio::join!(generate(&prompt, without(n)), generate(other, without(n)));
        assert_eq!(both, (expected.clone(), alone.clone()), "{name}: in a batch");

        // Turns that end before and behind the limit, and begin again in front of it.
        let cache = container.prompt_cache();
        for (known, turn) in [(0, 3), (2, 6), (8, n - 8), (1, 3), (0, n), (12, 4), (4, 2)] {
            let text = [&prompt[..], &expected[..known]].concat();
            let stream = container.generate_from(text.into(), without(turn), &cache).await.unwrap();
            assert_eq!(tokens(stream).await.0, expected[known..][..turn], "{name}: a turn after {known} tokens");
        }
        // A saved cache, from each side of it.
        for (known, turn) in [(0, 3), (9, 2)] {
            let text = |known: usize| [&prompt[..], &expected[..known]].concat();
            let cache = container.prompt_cache();
            let _ = tokens(container.generate_from(text(known).into(), without(turn), &cache).await.unwrap()).await;
            let file = folder.path().join("cache.safetensors");
            container.save_prompt_cache(&cache, &file, &BTreeMap::new()).await.unwrap();
            for from in [1, 11] {
                let (loaded, _) = container.load_prompt_cache(&file).await.unwrap();
                let (rest, info) =
                    tokens(container.generate_from(text(from).into(), without(n - from), &loaded).await.unwrap()).await;
                assert_eq!(rest, expected[from..], "{name}: saved after {known}, at {from}");
                assert_eq!(info.cached_prompt_tokens > 0, (known > 5) == (from > 5), "{name}: {known}, {from}");
            }
        }
    }
}
