//! Many generations on one container at once, of which some are given up.

use tamarack::{GenerateParameters, Generation, LlmModelFactory, LoadOptions, ModelConfiguration, plugins::Registry};
use tamarack_tests::{gpu::devices, models};

/// Calls at once.
const CALLS: usize = 64;
/// Each so many tokens.
const TOKENS: usize = 24;

fn parameters(i: usize) -> GenerateParameters {
    // Half of them draw, each with a seed of its own.
    let temperature = if i.is_multiple_of(2) { 0.0 } else { 0.8 };
    let seed = Some(i as u64);
    GenerateParameters { max_tokens: Some(TOKENS), temperature, seed, ignore_eos: true, ..Default::default() }
}

/// Prompts of 3 to 40 tokens, no two alike.
fn prompt(i: usize) -> Vec<u32> {
    (0..3 + i * 7 % 38).map(|j| ((i * 31 + j * 17) % 90 + 3) as u32).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_that_are_not_cancelled_are_right() {
    let _ = tamarack_plugins::LINKED;
    let folder = models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("a model");
    let configuration = ModelConfiguration::directory(folder);
    for device in devices() {
        let options = LoadOptions::default().device(device).context(8192);
        let factory = LlmModelFactory::new(Registry::linked());
        let container = factory.load_container(&configuration, options).await.expect("it loads");
        let run = async |i: usize, most: usize| {
            let mut stream = container.generate(prompt(i).into(), parameters(i)).await.expect("runs");
            let mut tokens = Vec::new();
            while let Some(event) = stream.next().await {
                if let Generation::Token(token) = event.expect("no failure") {
                    tokens.push(token);
                }
                if tokens.len() == most {
                    // Dropping the stream cancels it.
                    break;
                }
            }
            tokens
        };
        // Every fourth is given up: at once, or after some tokens.
        let most = |i: usize| if i % 4 == 3 { i % 9 + 1 } else { TOKENS };
        let together = futures::future::join_all((0..CALLS).map(|i| run(i, most(i)))).await;
        for (i, tokens) in together.iter().enumerate() {
            assert_eq!(tokens.len(), most(i), "call {i}");
            assert_eq!(*tokens, run(i, most(i)).await, "call {i} alone on {}", container.device());
        }
    }
}
