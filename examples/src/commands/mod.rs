//! One file per subcommand, and what several of them share.

pub mod devices;
pub mod inspect;
pub mod output;
pub mod plugins;

use clap::Args;
use std::path::{Path, PathBuf};
use tamarack::{checkpoint::Checkpoint, plugins::Registry};

/// Where plugins come from.
#[derive(Args)]
pub struct PluginArgs {
    /// Load the plugin libraries of this directory, too; may be given several times
    #[arg(long = "plugins", value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Use nothing but the directories of --plugins
    #[arg(long, requires = "directories")]
    only_plugins: bool,
}

impl PluginArgs {
    /// All that these arguments, the environment and the build provide.
    pub fn registry(&self) -> Registry {
        let mut registry = if self.only_plugins { Registry::default() } else { Registry::from_env() };
        self.directories.iter().for_each(|directory| registry.load_dir(directory));
        registry
    }
}

/// How long conversations may get.
#[derive(Args)]
pub struct ContextArg {
    /// Tokens that the cache holds, prompt and answer together
    #[arg(long, value_name = "N")]
    context: Option<usize>,
}

impl ContextArg {
    /// The number given, or else 4096, or fewer where the model ends before.
    pub fn tokens(&self, checkpoint: &Checkpoint) -> usize {
        let longest = checkpoint.config()["max_position_embeddings"].as_u64().unwrap_or(u64::MAX);
        self.context.unwrap_or(longest.min(4096) as usize)
    }
}

/// Where the files of a model lie that `--model` names.
pub async fn model_path(model: &str) -> anyhow::Result<PathBuf> {
    Ok(Path::new(model).to_owned())
}
