//! The shortest host: load a model, ask it something, print the answer as it comes.
//!
//!     cargo run --release --bin quickstart [MODEL]

use std::io::{self, Write};
use tamarack::{Generation, LoadOptions, ModelConfiguration, load_container};
use tamarack_plugins as _; // links the plugins of this repository

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let model = std::env::args().nth(1).unwrap_or("HuggingFaceTB/SmolLM2-135M-Instruct".to_owned());
    let container = load_container(&ModelConfiguration::parse(&model), LoadOptions::default()).await?;
    let input = container.prepare("What is the capital of France?".into()).await?;
    let mut stream = container.generate(input, container.generate_parameters()).await?;
    while let Some(event) = stream.next().await {
        if let Generation::Chunk(text) = event? {
            print!("{text}");
            io::stdout().flush()?;
        }
    }
    println!();
    Ok(())
}
