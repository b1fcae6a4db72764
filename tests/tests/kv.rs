//! Quantized caches, from the option to the logits.

use tamarack::{
    Device, GenerateParameters, Generation, LlmModelFactory, LoadOptions, ModelConfiguration, ModelContainer,
    gpu::Precision, model::KvQuantize, plugins::Registry,
};
use tamarack_tests::{gpu::devices, models};

async fn load(device: Device, kv: Option<&str>) -> tamarack::Result<ModelContainer> {
    load_from(device, kv, 0).await
}

/// With a cache that quantizes from a token on.
async fn load_from(device: Device, kv: Option<&str>, start: usize) -> tamarack::Result<ModelContainer> {
    let _ = tamarack_plugins::LINKED;
    let folder = models::tiny("mlx").into_iter().find(|p| p.ends_with("8bit_g128")).expect("a model");
    let kv = kv.map(|kv| KvQuantize { start, ..kv.parse().expect("sound") });
    // What is rounded on its way into products may take the other of two codes that it lies between. Here the question is
    // whether the same values become the same codes, and the same scores.
    let precision = Some(Precision::Full);
    let options = LoadOptions { kv, precision, ..LoadOptions::default().device(device).context(256) };
    let configuration = ModelConfiguration::directory(folder);
    LlmModelFactory::new(Registry::linked()).load_container(&configuration, options).await
}

/// Logits of a prompt in one piece, and fed token by token.
async fn logits(container: &ModelContainer) -> [Vec<f32>; 2] {
    let tokens: Vec<u32> = (0..41).map(|i| (i * 7 + 3) % 90).collect();
    let both = container.perform(move |context| [64, 1].map(|chunk| context.model.forward(&tokens, chunk)));
    both.await.expect("runs").map(|l| l.expect("logits"))
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
    square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut b.iter().copied())
}

#[tokio::test]
async fn logits_stay_close_and_devices_agree() {
    let plain = logits(&load(Device::Reference, None).await.expect("loads")).await;
    for (kv, most) in [("8:32", 0.01), ("4:32", 0.15)] {
        let reference = logits(&load(Device::Reference, Some(kv)).await.expect("loads")).await;
        for i in 0..2 {
            let found = apart(&reference[i], &plain[i]);
            println!("{kv}: {found} from a cache in full");
            assert!(found < most && found > 0.0, "{kv}: {found}");
        }
        for device in devices() {
            let container = load(device, Some(kv)).await.expect("loads");
            for (found, reference) in logits(&container).await.iter().zip(&reference) {
                let (found, name) = (apart(found, reference), container.device());
                println!("{kv}: {found} from the oracle on {name}");
                assert!(found < 1e-3, "{kv}: {found} from the oracle on {name}");
            }
        }
    }
}

/// Up to a token it is a cache of f16, and behind it one that quantizes.
#[tokio::test]
async fn the_first_tokens_stay_in_full() {
    let plain = logits(&load(Device::Reference, None).await.expect("loads")).await;
    for kv in ["8:32", "4:32", "2:32"] {
        let reference = logits(&load_from(Device::Reference, Some(kv), 20).await.expect("loads")).await;
        let all = logits(&load(Device::Reference, Some(kv)).await.expect("loads")).await;
        // Whole pages: 32 tokens.
        let (first, vocabulary) = (32 * plain[0].len() / 41, plain[0].len() / 41);
        for i in 0..2 {
            let [begin, end] = [0..first, first..41 * vocabulary]
                .map(|part| apart(&reference[i][part.clone()], &plain[i][part.clone()]));
            let quantized = apart(&all[i][first..], &plain[i][first..]);
            println!("{kv}: {begin} and then {end} from a cache in full, {quantized} where all is quantized");
            assert!(begin < 1e-3 && end > begin && end < quantized, "{kv}");
        }
        for device in devices() {
            let container = load_from(device, Some(kv), 20).await.expect("loads");
            for (found, reference) in logits(&container).await.iter().zip(&reference) {
                let (found, name) = (apart(found, reference), container.device());
                println!("{kv}: {found} from the oracle on {name}");
                assert!(found < 1e-3, "{kv}: {found} from the oracle on {name}");
            }
        }
    }
}

/// As long as the context, several at once, and past its end: alone each says the same.
#[tokio::test]
async fn pages_of_two_forms_are_shared() {
    for device in devices() {
        let container = load_from(device, Some("4:32"), 64).await.expect("loads");
        assert_eq!(container.model_info().context, 256);
        let run = async |seed: u32, tokens: usize, max_kv_size: Option<usize>| {
            let prompt: Vec<u32> = (0..40 + seed).map(|i| (i * 7 + seed) % 90).collect();
            let parameters = GenerateParameters {
                max_tokens: Some(tokens),
                temperature: 0.0,
                ignore_eos: true,
                max_kv_size,
                ..Default::default()
            };
            let mut stream = container.generate(prompt.into(), parameters).await.expect("runs");
            let mut found = Vec::new();
            while let Some(event) = stream.next().await {
                if let Generation::Token(token) = event.expect("no failure") {
                    found.push(token);
                }
            }
            found
        };
        let name = container.device();
        let whole = run(1, usize::MAX, None).await;
        assert_eq!(whole.len(), 256 - 41, "{name}: all of the context");
        let together = futures::future::join_all((0..4).map(|seed| run(seed, 24, None))).await;
        for (seed, tokens) in together.iter().enumerate() {
            assert_eq!(*tokens, run(seed as u32, 24, None).await, "{name}");
        }
        let bounded = run(1, 230, Some(96)).await;
        assert_eq!((bounded.len(), &bounded[..40]), (230, &whole[..40]), "{name}");
    }
}

#[tokio::test]
async fn memory_is_saved_and_known_before() {
    for device in devices() {
        let kv = async |kv| load(device.clone(), kv).await.expect("loads").memory().await.expect("memory").kv;
        let (full, eight, four) = (kv(None).await, kv(Some("8:32")).await, kv(Some("4:32")).await);
        // Of 32 elements: 64 bytes (128 in the oracle), 32 and 4, 16 and 4.
        let each = if device == Device::Reference { 128 } else { 64 };
        assert_eq!((eight, four), (full * 36 / each, full * 20 / each), "{device:?}");
    }
}

#[tokio::test]
async fn kept_pages_go_on() {
    for (device, start) in devices().into_iter().flat_map(|device| [(device.clone(), 0), (device, 32)]) {
        check_kept_pages(&load_from(device, Some("8:32"), start).await.expect("loads")).await;
    }
}

async fn check_kept_pages(container: &ModelContainer) {
    let greedy =
        |n| GenerateParameters { max_tokens: Some(n), temperature: 0.0, ignore_eos: true, ..Default::default() };
    let run = async |prompt: Vec<u32>, n: usize, cache: Option<&tamarack::PromptCache>| {
        let parameters = greedy(n);
        let mut stream = match cache {
            Some(cache) => container.generate_from(prompt.into(), parameters, cache).await.expect("runs"),
            None => container.generate(prompt.into(), parameters).await.expect("runs"),
        };
        let mut tokens = Vec::new();
        while let Some(event) = stream.next().await {
            if let Generation::Token(token) = event.expect("no failure") {
                tokens.push(token);
            }
        }
        tokens
    };
    let prompt: Vec<u32> = (5..45).collect();
    let whole = run(prompt.clone(), 12, None).await;
    let cache = container.prompt_cache();
    let first = run(prompt.clone(), 6, Some(&cache)).await;
    assert_eq!(first, whole[..6]);
    let longer = [&prompt[..], &first].concat();
    assert_eq!(run(longer.clone(), 6, Some(&cache)).await, whole[6..]);

    // A file has all of them.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cache.safetensors");
    container.save_prompt_cache(&cache, &file, &Default::default()).await.expect("saved");
    let (cache, _) = container.load_prompt_cache(&file).await.expect("loaded");
    assert!(cache.common_prefix(&longer) + 1 >= longer.len());
    assert_eq!(run(longer, 6, Some(&cache)).await, whole[6..]);
}

#[tokio::test]
async fn heads_that_do_not_fit_are_refused() {
    let e = load(Device::Reference, Some("8:64")).await.expect_err("heads of 32").to_string();
    assert!(e.ends_with("quantized cache: heads of 32 elements are no whole groups of 64: 32 does"), "{e}");
    assert!("3".parse::<KvQuantize>().is_err() && "8:7".parse::<KvQuantize>().is_err());
}
