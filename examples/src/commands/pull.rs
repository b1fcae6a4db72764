//! `tamarack pull`, `tamarack models`, `tamarack remove`: the models on this machine.

use super::{
    model::{PluginArgs, files_at, served_files},
    output,
};
use crate::table::{self, Side, Table};
use anyhow::anyhow;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use tamarack::{
    Error,
    checkpoint::Checkpoint,
    hub::{Hub, Installed},
    plugins::Registry,
};

/// Downloads a model.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack pull HuggingFaceTB/SmolLM2-135M-Instruct
  tamarack pull org/name:model-q4_k_m.gguf      one GGUF file of a repository
  tamarack pull org/name --revision v1.0

Prints where it is. What is there already is not fetched again, and what was cut off goes on. Of a model
that no plugin serves nothing is fetched but its configuration, unless --force is given.")]
pub struct Pull {
    /// The id of a model on the hub
    model: String,
    /// A branch, a tag or a commit [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Download the model even if no plugin serves it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    plugins: PluginArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Pull {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let revision = self.revision.as_deref();
        let path = match self.force {
            true => files_at(&self.model, revision).await?,
            false => served_files(&self.model, revision, &self.plugins.registry()).await.map_err(with_remedy)?,
        };
        match self.json {
            true => output::json(&json!({ "id": self.model, "path": path })),
            false => output::text(&format!("{}\n", path.display())),
        }
    }
}

/// Says how to have a model that no plugin serves, here where it is not meant to run.
fn with_remedy(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Error>() {
        Some(Error::UnsupportedModelType(why)) => anyhow!("{why}; --force downloads it all the same"),
        _ => error,
    }
}

/// Lists the models that were downloaded.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack models
  tamarack models --json")]
pub struct Models {
    #[command(flatten)]
    plugins: PluginArgs,
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
}

/// One model, or one of the GGUF files of a repository.
struct Row {
    id: String,
    bytes: u64,
    path: PathBuf,
    /// The `model_type` of its configuration, or why there is none.
    model_type: Result<String, String>,
    plugin: Option<String>,
}

impl Models {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let registry = self.plugins.registry();
        let rows: Vec<Row> = Hub::new()?.installed()?.iter().flat_map(|model| rows(model, &registry)).collect();
        if self.json {
            let json = |r: &Row| {
                json!({ "id": r.id, "bytes": r.bytes, "path": r.path, "model_type": r.model_type.as_ref().ok(),
                    "plugin": r.plugin })
            };
            return output::json(&rows.iter().map(json).collect::<Vec<_>>());
        }
        if rows.is_empty() {
            return output::text("No models yet: 'tamarack pull ORG/NAME' downloads one.\n");
        }
        let (left, right) = (Side::Left, Side::Right);
        let mut table = Table::new([("MODEL", left), ("SIZE", right), ("TYPE", left), ("PLUGIN", left)]);
        for Row { id, bytes, model_type, plugin, .. } in rows {
            let plugin = plugin.unwrap_or_else(|| "none serves it".to_owned());
            table.row([id, table::bytes(bytes), model_type.unwrap_or_else(|why| why), plugin]);
        }
        output::text(&table.to_string())
    }
}

fn rows(model: &Installed, registry: &Registry) -> Vec<Row> {
    // Of a model in several parts the first stands for all.
    let is_first = |name: &&String| !name.contains("-of-") || name.contains("-00001-of-");
    let ggufs: Vec<&String> = model.files.iter().filter(|f| f.ends_with(".gguf")).filter(is_first).collect();
    let row = |id: String, path: PathBuf, bytes: u64| {
        let model_type = Checkpoint::open(&path).map_err(|e| e.to_string()).and_then(|checkpoint| {
            let found = checkpoint.config()["model_type"].as_str().map(str::to_owned);
            found.ok_or_else(|| "config.json names no model_type".to_owned())
        });
        let found = model_type.as_ref().ok().and_then(|model_type| registry.find(model_type).ok());
        Row { id, bytes, path, model_type, plugin: found.map(|plugin| plugin.origin()) }
    };
    if ggufs.is_empty() {
        return vec![row(model.id.clone(), model.path.clone(), model.bytes)];
    }
    let each = |file: &String| {
        let path = model.path.join(file);
        let bytes = path.metadata().map_or(0, |m| m.len());
        row(format!("{}:{file}", model.id), path, bytes)
    };
    ggufs.into_iter().map(each).collect()
}

/// Removes a model that was downloaded.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack remove HuggingFaceTB/SmolLM2-135M-Instruct
  tamarack remove org/name:model-q4_k_m.gguf")]
pub struct Remove {
    /// The id of a model, as 'tamarack models' lists it
    model: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Remove {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let bytes = Hub::new()?.remove(&self.model)?;
        match self.json {
            true => output::json(&json!({ "id": self.model, "bytes": bytes })),
            false => output::text(&format!("{} removed, {} are free again\n", self.model, table::bytes(bytes))),
        }
    }
}
