//! What is in a picture: a vision-language model, a question, an image.
//!
//!     cargo run --release --bin describe_image MODEL IMAGE [QUESTION]

use std::io::{self, Write};
use tamarack::{Generation, Image, LoadOptions, ModelConfiguration, UserInput, load_container};
use tamarack_plugins as _; // links the plugins of this repository

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(image)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("expected MODEL IMAGE [QUESTION]");
    };
    let question = arguments.next().unwrap_or("What is in this image?".to_owned());
    let container = load_container(&ModelConfiguration::parse(&model), LoadOptions::default()).await?;
    let input = container.prepare(UserInput::from(question).image(Image::parse(&image))).await?;
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
