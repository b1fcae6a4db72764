//! A host that watches a directory: a plugin that is dropped in while it runs is there for the next model.
//!
//!     cargo run --release --bin plugin_host DIRECTORY
//!
//! and then, a line each: a model and, after a space, a prompt.

use anyhow::bail;
use std::{
    io::BufRead,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tamarack::{
    GenerateParameters, LlmModelFactory, LoadOptions, ModelConfiguration,
    plugins::{Registry, Watch},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory] = &arguments[..] else { bail!("expected: plugin_host DIRECTORY") };

    let registry = Arc::new(Mutex::new(Registry::default()));
    let (watched, mut watch) = (registry.clone(), Watch::new(Path::new(directory)));
    thread::spawn(move || {
        loop {
            // A clone is cheap, and nobody waits for a library to load.
            let mut next = watched.lock().expect("no thread panicked").clone();
            for change in watch.poll(&mut next) {
                match change.outcome {
                    Ok(types) => println!("{}: serves {}", change.path.display(), types.join(", ")),
                    Err(reason) => println!("{}: {reason}", change.path.display()),
                }
            }
            *watched.lock().expect("no thread panicked") = next;
            thread::sleep(Duration::from_millis(500));
        }
    });

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (model, prompt) = line.split_once(' ').unwrap_or((&line, "Hello"));
        let now = registry.lock().expect("no thread panicked").clone();
        if let Err(e) = answer(now, model, prompt).await {
            println!("{e}");
        }
    }
    Ok(())
}

async fn answer(registry: Registry, model: &str, prompt: &str) -> anyhow::Result<()> {
    let factory = LlmModelFactory::new(registry);
    let container = factory.load_container(&ModelConfiguration::parse(model), LoadOptions::default()).await?;
    println!("{}", container.model_info().plugin);
    let input = container.prepare(prompt.into()).await?;
    let greedy = GenerateParameters { temperature: 0.0, max_tokens: Some(64), ..Default::default() };
    let (text, _) = container.generate(input, greedy).await?.text().await?;
    println!("{text}");
    Ok(())
}
