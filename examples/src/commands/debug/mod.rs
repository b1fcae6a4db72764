//! `tamarack debug`: numbers for authors of plugins and kernels.

mod compare;
mod perplexity;
mod vision;

use super::{
    model::{LoadArgs, adapter},
    output,
};
use anyhow::{anyhow, ensure};
use clap::{Args, Subcommand};
use safetensors::{Dtype, tensor::TensorView};
use std::path::PathBuf;
use tamarack::{GenerateParameters, Generation, LmInput, ModelContainer};

/// Shows authors of plugins what a model computes.
#[derive(Args)]
#[command(after_help = "Example:
  tamarack debug logits ./my-model --tokens 1,5,9,2 --out logits.safetensors
  tamarack debug compare ./my-model --with modules.safetensors
  tamarack debug perplexity ./my-model --text book.txt")]
pub struct Debug {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Logits(Logits),
    Compare(compare::Compare),
    Perplexity(perplexity::Perplexity),
    Vision(vision::Vision),
}

/// Writes the logits after each given token, and the tokens that follow.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack debug logits ./my-model --tokens 1,5,9,2 --out logits.safetensors
  tamarack debug logits ./my-model --tokens 1,5,9,2 --greedy 16 --chunk 3 --device reference --out logits.safetensors

FILE holds `logits`, f32 [tokens, vocabulary], and with --greedy `greedy`, i32 [N]: the most likely
tokens that follow the given ones, past any end of sequence. The model needs no tokenizer.")]
struct Logits {
    /// A directory, a .gguf file or the id of a model on the hub
    model: String,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", required = true, value_delimiter = ',')]
    tokens: Vec<u32>,
    /// Also generate this many of the most likely tokens
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    greedy: usize,
    /// Tokens in a step at most [default: as many as fit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    load: LoadArgs,
}

impl Debug {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Subcommands::Logits(logits) => logits.run().await,
            Subcommands::Compare(compare) => compare.run().await,
            Subcommands::Perplexity(perplexity) => perplexity.run().await,
            Subcommands::Vision(vision) => vision.run().await,
        }
    }
}

impl Logits {
    async fn run(self) -> anyhow::Result<()> {
        let container = self.load.load(&self.model).await?;
        let (tokens, chunk) = (self.tokens.clone(), self.chunk.map_or(usize::MAX, |n| n as usize));
        let adapter = adapter(&container).await?;
        let logits =
            container.perform(move |context| context.model.forward_with(adapter.as_deref(), &tokens, chunk)).await??;
        let logits_shape = vec![self.tokens.len(), container.model_info().vocabulary];
        let logits: Vec<u8> = logits.into_iter().flat_map(f32::to_le_bytes).collect();
        let mut tensors = vec![("logits", TensorView::new(Dtype::F32, logits_shape, &logits)?)];
        let greedy = self.greedy(&container).await?;
        let greedy: Vec<u8> = greedy.into_iter().flat_map(u32::to_le_bytes).collect();
        if self.greedy > 0 {
            tensors.push(("greedy", TensorView::new(Dtype::I32, vec![self.greedy], &greedy)?));
        }
        self.write(tensors)
    }

    /// The tokens that follow.
    async fn greedy(&self, container: &ModelContainer) -> anyhow::Result<Vec<u32>> {
        if self.greedy == 0 {
            return Ok(Vec::new());
        }
        let parameters = GenerateParameters {
            max_tokens: Some(self.greedy),
            temperature: 0.0,
            ignore_eos: true,
            prefill_step: self.chunk.map(|n| n as usize),
            adapter: adapter(container).await?,
            ..Default::default()
        };
        let mut stream = container.generate(LmInput::from(self.tokens.clone()), parameters).await?;
        let mut tokens = Vec::with_capacity(self.greedy.min(container.model_info().context));
        while let Some(event) = stream.next().await {
            if let Generation::Token(token) = event? {
                tokens.push(token);
            }
        }
        let (wanted, found, context) = (self.greedy, tokens.len(), container.model_info().context);
        ensure!(
            found == wanted,
            "--greedy {wanted}: {found} tokens fill the context of {context}; --context enlarges it"
        );
        Ok(tokens)
    }

    fn write(&self, tensors: Vec<(&str, TensorView<'_>)>) -> anyhow::Result<()> {
        let shapes: Vec<String> = tensors.iter().map(|(name, t)| format!("{name} {:?}", t.shape())).collect();
        let fail = |e: &dyn std::fmt::Display| anyhow!("{}: {e}", self.out.display());
        let bytes = safetensors::serialize(tensors, None).map_err(|e| fail(&e))?;
        std::fs::write(&self.out, bytes).map_err(|e| fail(&e))?;
        output::text(&format!("{}: {}\n", self.out.display(), shapes.join(", ")))
    }
}
