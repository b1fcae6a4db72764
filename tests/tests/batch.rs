//! Generations that share steps give token for token what each gives alone, on every device.

use futures::future::join_all;
use std::{path::Path, sync::mpsc};
use tamarack::{
    Device, GenerateParameters, Generation, GenerationStream, LlmModelFactory, LoadOptions, ModelConfiguration,
    ModelContainer, StopReason, plugins::Registry,
};
use tamarack_tests::{
    gpu::{devices, random},
    models,
};

type Prompts = Vec<Vec<u32>>;

/// Tokens that each prompt is answered with.
const NEW: usize = 8;

/// Lengths of the tiny models' prompts: below, at and above the 16 tokens of a page.
const LENGTHS: [usize; 8] = [1, 2, 15, 16, 17, 25, 33, 9];

/// 8 to 16 tokens each. Where two tokens are nearly as likely, another order of summation may swap
/// them: here the best logit is above the next by at least 0.05 at every step.
const TEXTS: [&str; 8] = [
    "The capital of France is the city of",
    "Once upon a time there was a little girl who lived in a",
    "Water freezes at a temperature of zero degrees Celsius, and boils at",
    "The quick brown fox jumps over the lazy",
    "In the year 1492 the explorer Christopher Columbus sailed across the",
    "def add(a, b):\n    \"\"\"Adds two numbers.\"\"\"\n    return",
    "To be, or not to be, that is the question: whether",
    "The three primary colours that painters mix are red, yellow and",
];

async fn load(path: &Path, device: Device, context: usize) -> ModelContainer {
    let _ = tamarack_plugins::LINKED;
    let factory = LlmModelFactory::new(Registry::linked());
    let options = LoadOptions::default().device(device).context(context);
    let container = factory.load_container(&ModelConfiguration::parse(&path.to_string_lossy()), options).await;
    container.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Seeded prompts over the model's vocabulary, with margins of at least 0.025.
fn prompts(container: &ModelContainer) -> Prompts {
    let vocabulary = container.model_info().vocabulary as f32;
    let token = |x: f32| ((x + 1.0) / 2.0 * vocabulary) as u32;
    (14..).zip(LENGTHS).map(|(seed, n)| random(seed, n).into_iter().map(token).collect()).collect()
}

async fn start(container: &ModelContainer, prompt: &[u32], n: usize) -> GenerationStream {
    let parameters =
        GenerateParameters { max_tokens: Some(n), temperature: 0.0, ignore_eos: true, ..Default::default() };
    container.generate(prompt.to_vec().into(), parameters).await.unwrap_or_else(|e| panic!("{e}"))
}

/// The next `n` tokens.
async fn take(stream: &mut GenerationStream, n: usize) -> Vec<u32> {
    let mut tokens = Vec::new();
    while tokens.len() < n {
        match stream.next().await {
            Some(Ok(Generation::Token(token))) => tokens.push(token),
            Some(Ok(Generation::Chunk(_))) => {}
            other => panic!("{other:?} after {tokens:?}"),
        }
    }
    tokens
}

/// All tokens to come, and why there are no more.
async fn rest(mut stream: GenerationStream) -> (Vec<u32>, StopReason) {
    let mut tokens = Vec::new();
    loop {
        match stream.next().await {
            Some(Ok(Generation::Token(token))) => tokens.push(token),
            Some(Ok(Generation::Chunk(_))) => {}
            Some(Ok(Generation::Info(info))) => return (tokens, info.stop_reason),
            other => panic!("{other:?} after {tokens:?}"),
        }
    }
}

async fn alone(container: &ModelContainer, prompts: &Prompts) -> Prompts {
    let mut answers = Vec::new();
    for prompt in prompts {
        let (tokens, reason) = rest(start(container, prompt, NEW).await).await;
        assert_eq!((tokens.len(), reason), (NEW, StopReason::Length));
        answers.push(tokens);
    }
    let differ = |i: usize| !answers[..i].contains(&answers[i]);
    assert!((0..answers.len()).filter(|i| differ(*i)).count() > 4, "equal answers prove nothing: {answers:?}");
    answers
}

/// All at once: the engine is kept busy until it has every request, so that all are in its first step.
async fn together(container: &ModelContainer, prompts: &Prompts) -> Prompts {
    let (release, released) = mpsc::channel::<()>();
    let hold = container.perform(move |_| released.recv());
    let ask = async {
        let streams = join_all(prompts.iter().map(|p| start(container, p, NEW))).await;
        drop(release);
        join_all(streams.into_iter().map(rest)).await
    };
    let (held, answers) = futures::join!(hold, ask);
    assert!(held.is_ok_and(|r| r.is_err()), "the engine waited until all had asked");
    answers.into_iter().map(|(tokens, _)| tokens).collect()
}

/// One after the other, each in the middle of those before.
async fn staggered(container: &ModelContainer, prompts: &Prompts) -> Prompts {
    let mut begun: Vec<(Vec<u32>, GenerationStream)> = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let mut stream = start(container, prompt, NEW).await;
        begun.push((take(&mut stream, 1 + i % 3).await, stream));
    }
    let finish = async |(tokens, stream)| [tokens, rest(stream).await.0].concat();
    join_all(begun.into_iter().map(finish)).await
}

/// Two end in the middle, one by its stream being dropped, and another takes their place.
async fn interrupted(container: &ModelContainer, prompts: &Prompts, expected: &Prompts, name: &str) {
    let (dropped, cancelled) = (2, 5);
    let most = |i| if i == dropped || i == cancelled { 200 } else { NEW };
    let mut streams: Vec<GenerationStream> =
        join_all(prompts.iter().enumerate().map(|(i, p)| start(container, p, most(i)))).await;
    let begun = take(&mut streams[cancelled], 2).await;
    streams[cancelled].cancel();
    drop(streams.remove(dropped));
    streams.push(start(container, &prompts[dropped], NEW).await);

    let mut answers = join_all(streams.into_iter().map(rest)).await;
    let late = answers.pop().expect("the last one");
    answers.insert(dropped, late);
    for (i, (tokens, reason)) in answers.into_iter().enumerate() {
        if i == cancelled {
            let all = [&begun[..], &tokens].concat();
            let common = all.len().min(NEW);
            assert_eq!(all[..common], expected[i][..common], "{name}: the cancelled one");
            assert_eq!(reason, StopReason::Cancelled, "{name}");
        } else {
            assert_eq!((&tokens, reason), (&expected[i], StopReason::Length), "{name}: {i} beside cancelled ones");
        }
    }
}

#[tokio::test]
async fn tiny_models_on_every_device() {
    let models = [("llama", "tied"), ("llama", "mistral_window"), ("mlx", "4bit_g64")];
    for device in devices() {
        for (family, name) in models {
            let folder = models::tiny(family).into_iter().find(|p| p.ends_with(name)).expect(name);
            let container = load(&folder, device.clone(), 640).await;
            let name = format!("{name} on {}", container.device());
            let prompts = prompts(&container);
            let expected = alone(&container, &prompts).await;
            assert_eq!(together(&container, &prompts).await, expected, "{name}, together");
            assert_eq!(staggered(&container, &prompts).await, expected, "{name}, staggered");
            interrupted(&container, &prompts, &expected, &name).await;
            // Room for two or three at a time: sequences give way and begin again.
            let small = load(&folder, device.clone(), 80).await;
            assert_eq!(together(&small, &prompts).await, expected, "{name}, in a small cache");
        }
    }
}

#[tokio::test]
async fn smollm2_on_every_adapter() {
    for device in devices().into_iter().filter(|d| *d != Device::Reference) {
        let container = load(&models::smollm2(), device, 1024).await;
        let prompts: Prompts = TEXTS.iter().map(|t| container.encode(t).expect("tokens")).collect();
        let expected = alone(&container, &prompts).await;
        assert_eq!(together(&container, &prompts).await, expected, "SmolLM2 on {}", container.device());
    }
}
