//! `tamarack inspect`: what a model is made of, and what it will take, without loading it.

pub mod cost;
mod report;

use super::{
    model::{self, PluginArgs},
    output,
};
use clap::Args;
use report::Report;
use tamarack::checkpoint::Checkpoint;

/// Shows what a model is made of and the memory it will take.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack inspect ./SmolLM2-135M-Instruct
  tamarack inspect model.gguf --context 32768 --json
  tamarack inspect HuggingFaceTB/SmolLM2-135M-Instruct --tensors

Nothing is loaded: headers are read, and the plugin records the model. A model that no plugin serves
is shown as far as its files tell, and the command then fails with the reason.")]
pub struct Inspect {
    /// A directory, a .gguf file or the id of a model on the hub
    model: String,
    /// Tokens that the cache is to hold [default: what the model was made for, 8192 at most]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    plugins: PluginArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint::open(&model::files(&self.model).await?)?;
        let registry = self.plugins.registry();
        let served = cost::Served::by(&registry, &checkpoint);
        model::warn(&registry.list().failures, served.as_ref().err());
        let report = Report::new(&checkpoint, served.as_ref().ok(), self.context, self.tensors);
        if self.json {
            output::json(&report)?
        } else {
            output::text(&report.to_string())?
        }
        Ok(served.map(|_| ())?)
    }
}
