//! `tamarack debug perplexity`: how well a model, as it is computed here, predicts a text.

use super::super::{
    model::{LoadArgs, adapter},
    output, text,
};
use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Measures how well a model predicts a text: what a format or a precision costs.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack debug perplexity ./my-model --text book.txt
  tamarack debug perplexity model.gguf --text book.txt --tokens 2048 --precision fast --chunk 1

The text is cut into windows of --window tokens, and each token of a window but the first is predicted
from those before it. Perplexity is the exponential of the mean loss: 1 is perfect. --chunk 1 takes the
kernels of decoding, more than 8 those of prefill.")]
pub struct Perplexity {
    /// A directory, a .gguf file or the id of a model on the hub
    model: String,
    /// A file of text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of the text that are looked at, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: Option<u32>,
    /// Tokens in a window
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    window: u32,
    /// Tokens in a step at most [default: as many as fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Serialize)]
struct Report {
    perplexity: f64,
    /// Mean of the negative logarithm of a token's probability.
    loss: f64,
    predicted: usize,
    device: String,
}

impl Perplexity {
    pub async fn run(self) -> anyhow::Result<()> {
        let text = text::read(&self.text)?;
        let container = self.load.load(&self.model).await?;
        let mut tokens = container.encode(&text)?;
        tokens.truncate(self.tokens.map_or(usize::MAX, |n| n as usize));
        ensure!(tokens.len() > 1, "{}: expected two tokens or more, found {}", self.text.display(), tokens.len());
        let (window, chunk) = (self.window as usize, self.chunk.map_or(usize::MAX, |n| n as usize));
        let adapter = adapter(&container).await?;
        let losses = container
            .perform(move |context| {
                let mut losses = Vec::new();
                for window in tokens.chunks(window).filter(|w| w.len() > 1) {
                    let note = |i: usize, row: Vec<f32>| losses.extend(window.get(i + 1).map(|next| loss(&row, *next)));
                    context.model.forward_each(adapter.as_deref(), window, chunk, 0, note)?;
                }
                Ok::<_, tamarack::Error>(losses)
            })
            .await??;
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        let device = container.model_info().device.clone();
        let report = Report { perplexity: loss.exp(), loss, predicted: losses.len(), device };
        match self.json {
            true => output::json(&report),
            false => output::text(&report.to_string()),
        }
    }
}

/// -log softmax(row)[token]
fn loss(row: &[f32], token: u32) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
    sum.ln() - row.get(token as usize).map_or(f64::NEG_INFINITY, |v| f64::from(v - largest))
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report { perplexity, loss, predicted, device } = self;
        writeln!(f, "perplexity {perplexity:.4} (loss {loss:.5} over {predicted} tokens) on {device}")
    }
}

#[cfg(test)]
mod tests {
    use super::loss;

    #[test]
    fn losses_are_negative_logarithms_of_probabilities() {
        let row = [1.0f32, 2.0, -500.0, 3.0e4];
        assert!((loss(&row[..2], 0) - (1.0 + 1.0f64.exp()).ln()).abs() < 1e-12);
        assert!(loss(&row, 3).abs() < 1e-12);
        assert_eq!(loss(&row, 4), f64::INFINITY);
    }
}
