//! `tamarack quantize`

use super::{model, output};
use crate::progress::Bars;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use tamarack::{
    Phase, Progress,
    checkpoint::{Checkpoint, Quantize as Form, write_mlx},
};

/// Writes a float model again, quantized as MLX does: the new folder loads here, and in mlx-lm.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack quantize HuggingFaceTB/SmolLM2-135M-Instruct smollm2-4bit
  tamarack quantize ./my-model my-model-8bit --bits 8:32")]
pub struct Quantize {
    /// A directory, or the id of a model on the hub
    source: String,
    /// The folder to write; it is not there yet
    destination: PathBuf,
    /// Bits, 4 or 8, and the group: 32, 64 or 128 columns [default group: 64]
    #[arg(long, value_name = "BITS[:GROUP]", default_value = "4")]
    bits: Form,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Quantize {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let source = model::files(&self.source).await?;
        let (bars, file) = (Bars::default(), self.destination.display().to_string());
        let told = |done, total| bars.show(&Progress { phase: Phase::Load, done, total, file: file.clone() });
        let written = write_mlx(&source, &self.destination, self.bits, &told);
        bars.clear();
        written?;
        if self.json {
            let Form { bits, group } = self.bits;
            let bytes: u64 = Checkpoint::open(&self.destination)?.tensors().map(|(_, tensor)| tensor.bytes()).sum();
            output::json(&json!({ "folder": self.destination, "bits": bits, "group": group, "bytes": bytes }))?;
        }
        Ok(())
    }
}
