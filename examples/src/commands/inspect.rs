//! `tamarack inspect`: what a model is made of, and what it will take, without loading it.

pub mod cost;
mod report;

use super::{
    model::{self, PluginArgs},
    output,
};
use clap::Args;
use report::Report;
use tamarack::{Device, LoadOptions, ModelConfiguration, checkpoint::Checkpoint, model::placement};

/// Shows what a model is made of and the memory it will take.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack inspect ./SmolLM2-135M-Instruct
  tamarack inspect model.gguf --context 32768 --json
  tamarack inspect HuggingFaceTB/SmolLM2-135M-Instruct --tensors
  tamarack inspect model.gguf --device gpu,cpu   which layers the GPU has room for

Nothing is loaded: headers are read, and the plugin records the model. A model that no plugin serves
is shown as far as its files tell, and the command then fails with the reason; its weights are not
downloaded for that.")]
pub struct Inspect {
    /// A directory, a .gguf file or the id of a model on the hub
    model: String,
    /// Tokens that the cache is to hold [default: what the model was made for, 8192 at most]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Show which layers run where on two devices, as gpu,cpu: some of them are loaded and timed
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// The model's last layers that are to run on the GPU [default: as many as it has room for, if it is faster]
    #[arg(long, value_name = "N", requires = "device")]
    gpu_layers: Option<usize>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Refuse a model whose files have tensors that its architecture does not use, instead of a warning
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    plugins: PluginArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let registry = self.plugins.registry();
        let path = model::served_files(&self.model, None, &registry).await?;
        let checkpoint = Checkpoint::open(&path)?;
        let served = cost::Served::by(&registry, &checkpoint, self.strict);
        model::warn(&registry.list().failures, served.as_ref().err());
        served.iter().for_each(|served| model::warn_unused(&self.model, &served.unused));
        let mut report = Report::new(&checkpoint, served.as_ref().ok(), self.context, self.tensors);
        if let (Some(device), Ok(_)) = (&self.device, &served) {
            let mut options = LoadOptions::default().device(device.clone());
            (options.context, options.gpu_layers, options.strict) = (self.context, self.gpu_layers, self.strict);
            let whole = if path.is_dir() { ModelConfiguration::directory } else { ModelConfiguration::gguf };
            report.placement = placement(&registry, &whole(&path), &options)?;
        }
        if self.json {
            output::json(&report)?
        } else {
            output::text(&report.to_string())?
        }
        Ok(served.map(|_| ())?)
    }
}
