//! From files to a model on its device.

mod device;
mod place;
mod record;
mod sampling;
mod settings;
mod target;
mod text;
mod unused;

pub use place::{LayerTimes, Placement};
pub use target::Target;
pub use unused::Unused;

use crate::{
    Error, Result,
    adapter::{self, Adapter},
    checkpoint::{self, Checkpoint},
    exec::{Executor, MemoryUse, RopeLengths},
    image::Processor,
    model::{
        Files, LlmUserInputProcessor, LoadOptions, Model, ModelConfiguration, ModelContext, ModelInfo, Phase,
        ProcessorTypeRegistry, Shared, UserInputProcessor,
    },
    plugins::{Found, Registry},
    program::Program,
    text::Tokenizer,
};
use record::{Parts, Processing};
use serde_json::Value;
use std::{path::Path, sync::Arc};
use tamarack_api::Kind;

/// What serves models of one kind.
pub(crate) struct Source {
    /// Which kind.
    pub kind: Kind,
    /// Its architectures, among others.
    pub plugins: Registry,
    /// Its processors.
    pub processors: ProcessorTypeRegistry,
}

/// Refuses a model in `folder` that nothing serves.
pub(crate) fn check(sources: &[Source], folder: &Path) -> Result<()> {
    choose(sources, &checkpoint::config(folder)?, folder).map(drop)
}

/// Refuses a model of a type that nothing serves.
pub(crate) fn check_type(sources: &[Source], model_type: &str, path: &Path) -> Result<()> {
    choose(sources, &serde_json::json!({ "model_type": model_type }), path).map(drop)
}

/// The architecture that serves a model, and where it is from. Where both kinds do, the configuration tells.
fn choose<'a>(sources: &'a [Source], config: &Value, path: &Path) -> Result<(&'a Source, Found)> {
    let model_type = &config["model_type"];
    let model_type = model_type.as_str().ok_or_else(|| no_model_type(path, model_type))?;
    let likely = if config["vision_config"].is_object() { Kind::Vlm } else { Kind::Llm };
    let find = |source: &'a Source| (source, source.plugins.find_kind(model_type, source.kind));
    let mut found: Vec<_> = sources.iter().map(find).collect();
    // What serves it comes first, then what it looks like.
    found.sort_by_key(|(source, found)| (found.is_err(), source.kind != likely));
    let best = found.into_iter().next();
    let (source, found) = best.ok_or_else(|| Error::Request("no registry was given".to_owned()))?;
    Ok((source, found.map_err(|e| e.of_model(path))?))
}

/// A model of which no weight has been read yet.
struct Recorded<'a> {
    checkpoint: Checkpoint,
    source: &'a Source,
    plugin: Found,
    parts: Parts,
}

fn record<'a>(sources: &'a [Source], path: &Path, options: &LoadOptions) -> Result<Recorded<'a>> {
    let checkpoint = Checkpoint::open(path)?;
    let (source, plugin) = choose(sources, checkpoint.config(), path)?;
    let parts = record::record(&source.plugins, &plugin, &checkpoint, options.strict).map_err(|e| e.of_model(path))?;
    Ok(Recorded { checkpoint, source, plugin, parts })
}

/// What the model at `path` will take of its device's memory, beside the draft model at another.
pub(crate) fn estimate(
    sources: &[Source],
    path: &Path,
    draft: Option<&Path>,
    options: &LoadOptions,
) -> Result<MemoryUse> {
    let Recorded { mut checkpoint, parts, .. } = record(sources, path, options)?;
    options.quantize.map_or(Ok(()), |quantize| checkpoint.quantize(quantize))?;
    let adapters = adapters(options)?;
    let (text, tower, tensors) = adapter::apply(parts.text, parts.tower, &checkpoint, &adapters)?;
    let context = device::context(options, checkpoint.config())?;
    let own = device::estimate(text, tower, &checkpoint.with(tensors), options).map_err(|e| e.of_model(path))?;
    match draft {
        Some(draft) => Ok(own + estimate(sources, draft, None, &of_draft(options, context))?),
        None => Ok(own),
    }
}

/// Which layers of the model at `path` run where, if options leave that open.
pub(crate) fn placement(sources: &[Source], path: &Path, options: &LoadOptions) -> Result<Option<Placement>> {
    let Recorded { mut checkpoint, parts, .. } = record(sources, path, options)?;
    options.quantize.map_or(Ok(()), |quantize| checkpoint.quantize(quantize))?;
    let (text, tower, tensors) = adapter::apply(parts.text, parts.tower, &checkpoint, &adapters(options)?)?;
    device::placement(text, tower, &checkpoint.with(tensors), options).map_err(|e| e.of_model(path))
}

/// How a draft model is loaded beside a model with such a context.
fn of_draft(options: &LoadOptions, context: usize) -> LoadOptions {
    LoadOptions { context: Some(context), adapters: Vec::new(), draft: None, ..options.clone() }
}

/// The adapters that a model is loaded with.
fn adapters(options: &LoadOptions) -> Result<Vec<Adapter>> {
    options.adapters.iter().map(|folder| Adapter::open(folder)).collect()
}

/// What runs a program, and its tower if it has one, with adapters.
pub(crate) fn executor(
    program: Program,
    tower: Option<Program>,
    checkpoint: &Checkpoint,
    adapters: &[Adapter],
    options: &LoadOptions,
    name: &str,
) -> Result<Box<dyn Executor>> {
    let (program, tower, tensors) = adapter::apply(program, tower, checkpoint, adapters)?;
    device::executor(program, tower, &checkpoint.with(tensors), options, name)
}

/// Loads the model at `path`, on the thread that will run it.
pub(crate) fn load(
    sources: &[Source],
    configuration: ModelConfiguration,
    path: &Path,
    tokenizer: Option<&Path>,
    options: &LoadOptions,
) -> Result<(ModelContext, Shared)> {
    let Recorded { mut checkpoint, source, plugin, parts } = record(sources, path, options)?;
    let Parts { text, tower, processor, unused } = parts;
    if !unused.is_empty() {
        tracing::warn!("{}: left out, since the architecture does not use them: {unused}", path.display());
    }
    let model_type = checkpoint.config()["model_type"].as_str().unwrap_or_default().to_owned();
    options.quantize.map_or(Ok(()), |quantize| checkpoint.quantize(quantize))?;

    // While weights are copied, a core is free to read a vocabulary.
    let kind = configuration.override_tokenizer.as_deref();
    let (tokenizer, executor, adapters) = std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().name("tamarack tokenizer".to_owned());
        let reading = reading.spawn_scoped(scope, || find_tokenizer(&checkpoint, tokenizer, kind));
        let adapters = adapters(options)?;
        let name = &configuration.name;
        let executor = executor(text.clone(), tower.clone(), &checkpoint, &adapters, options, name);
        let executor = executor.map_err(|e| e.of_model(path))?;
        let tokenizer = match reading.map(|thread| thread.join()) {
            Ok(Ok(tokenizer)) => tokenizer,
            Ok(Err(_)) => {
                Err(Error::file(path, "its tokenizer could not be read: a fault in the library that does".to_owned()))
            }
            Err(e) => Err(Error::file(path, format!("no thread to read its tokenizer: {e}"))),
        };
        Ok::<_, Error>((tokenizer.map_err(|e| e.to_string()), executor, adapters))
    })?;
    let tokenizer = match &plugin.declaration().chat_template {
        Some(template) => tokenizer.map(|t| t.with_default_template(template)),
        None => tokenizer,
    };
    let configuration = settings::complete(configuration, &checkpoint, tokenizer.as_ref().ok(), plugin.declaration());

    let mut model = Model::new(executor).with_lead(options.lead()).with_ropes(RopeLengths::new(&text.ropes));
    model.executor.compile(&|done, total| options.report(Phase::Compile, &configuration.name, done, total))?;

    let capacity = model.capacity();
    let info = ModelInfo {
        model_type,
        plugin: plugin.origin(),
        device: model.device(),
        is_software: model.executor.is_software(),
        parameters: checkpoint.tensors().map(|(_, t)| t.shape().iter().map(|d| *d as u64).product::<u64>()).sum(),
        bytes: checkpoint.tensors().map(|(_, t)| t.bytes()).sum(),
        vocabulary: model.vocabulary(),
        context: options.lead().tokens_in(capacity.pages),
        step_rows: capacity.rows,
        image_rows: model.executor.image_rows(),
        unused,
    };
    let processor = match processor {
        Processing::Text => Arc::new(LlmUserInputProcessor),
        Processing::Registered => create(source, &processor_config(&checkpoint)?, path)?,
        Processing::Plugin(own) => {
            // What a program registers wins.
            let config = processor_config(&checkpoint).unwrap_or_default();
            match source.processors.contains(config["processor_class"].as_str().unwrap_or_default()) {
                true => create(source, &config, path)?,
                false => Arc::new(Processor { most: model.executor.patches(), ..*own }),
            }
        }
    };
    model.adapters = adapters;
    model.files = Some(Files::new(checkpoint, text, tower, options));
    let (configuration, tokenizer) = (Arc::new(configuration), Arc::new(tokenizer));
    let shared = Shared { configuration, tokenizer, processor, info };
    Ok((shared.context(model), shared))
}

fn create(source: &Source, config: &Value, path: &Path) -> Result<Arc<dyn UserInputProcessor>> {
    source.processors.create(config).map_err(|e| e.of_model(path))
}

/// Loads a draft model beside the model that it is to help.
pub(crate) fn add_draft(
    (mut context, shared): (ModelContext, Shared),
    sources: &[Source],
    configuration: ModelConfiguration,
    path: &Path,
    options: &LoadOptions,
) -> Result<(ModelContext, Shared)> {
    let options = of_draft(options, shared.info.context);
    let (draft, about) = load(sources, configuration, path, None, &options)?;
    let words = ["Hello, world", "fn main() {}", " 1234 été"];
    let [own, theirs] = [&shared.tokenizer, &about.tokenizer].map(|t| {
        let tokenizer = t.as_ref().as_ref().ok()?;
        Some(words.map(|w| tokenizer.encode(w, false).ok()))
    });
    if own != theirs {
        let message = "the draft model has another tokenizer than the model, so it cannot propose tokens";
        return Err(Error::Model(message.to_owned()).of_model(path));
    }
    context.model.draft = Some(Box::new(draft.model));
    Ok((context, shared))
}

/// What says how a vision-language model's input is prepared: the first of these files that there is.
fn processor_config(checkpoint: &Checkpoint) -> Result<Value> {
    let files = ["preprocessor_config.json", "processor_config.json"];
    let found = files.iter().map(|name| checkpoint.path().join(name)).find(|path| path.exists());
    let found =
        found.ok_or_else(|| Error::file(checkpoint.path(), format!("expected {}, found neither", files.join(" or "))));
    checkpoint::read_json(&found?)
}

fn find_tokenizer(checkpoint: &Checkpoint, elsewhere: Option<&Path>, kind: Option<&str>) -> Result<Tokenizer> {
    match (elsewhere, checkpoint.metadata()) {
        (Some(folder), _) => Tokenizer::from_dir(folder),
        (None, Some(metadata)) => Tokenizer::from_gguf_as(metadata, kind),
        (None, None) => Tokenizer::from_dir(checkpoint.path()),
    }
}

fn no_model_type(path: &Path, found: &Value) -> Error {
    let found = if found.is_null() { "none".to_owned() } else { found.to_string() };
    Error::file(
        path,
        format!("config.json: expected a `model_type`, a text that names the architecture, found {found}"),
    )
}
