//! A host without any plugin of its own: architectures come from a directory of libraries.
//!
//!     cargo build --release --package tamarack-llama
//!     cargo run --release --bin plugin_dir target/release MODEL "What is the capital of France?"

use anyhow::bail;
use std::path::Path;
use tamarack::{GenerateParameters, LlmModelFactory, LoadOptions, ModelConfiguration, plugins::Registry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, model, prompt] = &arguments[..] else { bail!("expected: plugin_dir DIRECTORY MODEL PROMPT") };

    let mut registry = Registry::default();
    registry.load_dir(Path::new(directory));
    // One that does not load stops nobody; what it serves is missing, and a host says why.
    for failure in registry.list().failures {
        eprintln!("{}: {}", failure.path.display(), failure.reason);
    }

    let factory = LlmModelFactory::new(registry);
    let container = factory.load_container(&ModelConfiguration::parse(model), LoadOptions::default()).await?;
    let input = container.prepare(prompt.as_str().into()).await?;
    let greedy = GenerateParameters { temperature: 0.0, max_tokens: Some(256), ..Default::default() };
    let (text, info) = container.generate(input, greedy).await?.text().await?;
    println!("{text}");
    eprintln!("{}, {:.1} tokens/s", container.model_info().plugin, info.tokens_per_second());
    Ok(())
}
