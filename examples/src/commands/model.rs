//! Arguments about a model, and loading it.

use crate::{errors::Usage, output, progress::Bars};
use clap::Args;
use std::path::PathBuf;
use tamarack::{
    Device, Error, LoadOptions, ModelConfiguration, ModelContainer, Phase, Progress, Unused,
    checkpoint::Quantize,
    gpu::Precision,
    hub::{Hub, MODEL_FILES},
    load_container_with,
    model::{Identifier, KvQuantize},
    plugins::{Failure, Registry},
};

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

/// How a model is loaded.
#[derive(Args)]
pub struct LoadArgs {
    /// Where it runs: auto, gpu, cpu, reference, an index or a part of a name, see 'tamarack devices'; gpu,cpu puts as
    /// many layers on the GPU as it has room for
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: Device,
    /// Threads that compute where it runs on the processor [default: one for each physical core]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub threads: Option<usize>,
    /// The model's last layers that run on the GPU, with --device gpu,cpu [default: as many as it has room for, if it is
    /// faster]
    #[arg(long, value_name = "N")]
    gpu_layers: Option<usize>,
    /// Tokens that the cache holds [default: what the model was made for, 8192 at most]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// How activations are rounded before they meet quantized weights: full (not), high (16 bits) or fast
    /// (8 bits) [default: what suits the device]
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Quantize the float matrices while loading, to 4 or 8 bits; with a group of 32, 64 or 128 columns
    /// as 4:32 [default group: 64]
    #[arg(long, value_name = "BITS[:GROUP]")]
    quantize: Option<Quantize>,
    /// Quantize keys and values in the cache, to 2, 4 or 8 bits; with a group of 32, 64 or 128 elements as 4:32
    /// [default: f16; default group: 64]
    #[arg(long, value_name = "BITS[:GROUP]")]
    kv_bits: Option<KvQuantize>,
    /// Keep so many of the first tokens in f16, and quantize later ones
    #[arg(long, value_name = "TOKENS", requires = "kv_bits", default_value_t = 0)]
    kv_start: usize,
    /// A folder with a low-rank adapter, in MLX's layout or PEFT's, to run with
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A smaller model with the same tokenizer that guesses ahead: answers come faster, and the same
    #[arg(long, value_name = "MODEL")]
    draft_model: Option<String>,
    /// Refuse a model whose files have tensors that its architecture does not use, instead of a warning
    #[arg(long)]
    pub strict: bool,
    /// Which plugins serve it
    #[command(flatten)]
    pub plugins: PluginArgs,
}

impl LoadArgs {
    /// Loads the model that a user calls `model`, and says so where it does not run on a GPU.
    pub async fn load(&self, model: &str) -> anyhow::Result<ModelContainer> {
        let configuration = configuration(model)?;
        let bars = Bars::default();
        let shown = bars.clone();
        let mut options = LoadOptions::default().device(self.device.clone()).progress(move |p| shown.show(&p));
        options.context = self.context;
        options.threads = self.threads;
        options.gpu_layers = self.gpu_layers;
        options.precision = self.precision;
        options.strict = self.strict;
        options.quantize = self.quantize;
        options.kv = self.kv_bits.map(|kv| KvQuantize { start: self.kv_start, ..kv });
        options.adapters.extend(self.adapter.clone());
        options.draft = self.draft_model.as_deref().map(self::configuration).transpose()?;
        let registry = self.plugins.registry();
        let failures = registry.list().failures;
        let loaded = load_container_with(&registry, &configuration, options).await;
        bars.clear();
        warn(&failures, loaded.as_ref().err());
        let container = loaded.map_err(|e| explain(e, &configuration))?;
        warn_unused(model, &container.model_info().unused);
        announce(&container);
        Ok(container)
    }
}

/// The adapter that was asked for, which everything runs with.
pub async fn adapter(container: &ModelContainer) -> anyhow::Result<Option<String>> {
    Ok(container.adapters().await?.pop())
}

/// The local files of the model that a user calls `model`, fetched if need be.
pub async fn files(model: &str) -> anyhow::Result<PathBuf> {
    files_at(model, None).await
}

/// The same at a branch, a tag or a commit.
pub async fn files_at(model: &str, revision: Option<&str>) -> anyhow::Result<PathBuf> {
    let configuration = configuration(model)?;
    let configuration = revision.into_iter().fold(configuration, ModelConfiguration::revision);
    let (id, revision) = match &configuration.id {
        Identifier::Directory(path) | Identifier::Gguf(path) => return Ok(path.clone()),
        Identifier::Hub { id, revision } => (id, revision),
    };
    let bars = Bars::default();
    let shown = bars.clone();
    let report = move |p: tamarack::hub::Progress| {
        shown.show(&Progress { phase: Phase::Download, done: p.bytes, total: p.total, file: p.file });
    };
    let path = Hub::new()?.snapshot(id, Some(revision), MODEL_FILES, report).await;
    bars.clear();
    Ok(path.map_err(|e| explain(e, &configuration))?)
}

fn configuration(model: &str) -> anyhow::Result<ModelConfiguration> {
    match model.trim() {
        "" => Err(Usage("expected a model: a directory, a .gguf file or the id of a model on the hub".into()).into()),
        model => Ok(ModelConfiguration::parse(model)),
    }
}

/// Names the plugins that failed to load, which perhaps were meant to serve the model. The error about
/// a model that none serves has them already.
pub fn warn(failures: &[Failure], error: Option<&Error>) {
    if matches!(error, Some(Error::UnsupportedModelType(_))) {
        return;
    }
    for Failure { path, reason } in failures {
        output::note(format_args!("warning: {}: {reason}", path.display()));
    }
}

/// Names the tensors that the architecture does not use.
pub fn warn_unused(model: &str, unused: &Unused) {
    if !unused.is_empty() {
        let reason = "left out, since the architecture does not use them";
        output::note(format_args!("warning: {model}: {reason}: {unused} (--strict refuses that)"));
    }
}

/// Says where a model runs if that is not a GPU: it will be slow.
fn announce(container: &ModelContainer) {
    let info = container.model_info();
    if info.is_software {
        output::note(format_args!("Running on {}: no GPU.", info.device));
    }
}

/// A misspelt path looks like a model of the hub.
fn explain(error: Error, configuration: &ModelConfiguration) -> Error {
    match (error, &configuration.id) {
        (Error::Hub(e), Identifier::Hub { id, .. }) => {
            Error::Hub(format!("{e}\n(`{id}` is no file or directory here, so it was looked for on the hub)"))
        }
        (error, _) => error,
    }
}
