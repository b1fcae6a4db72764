//! From files to a model on its device.

mod device;
mod settings;

pub use device::Target;

use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    model::{LoadOptions, Model, ModelConfiguration, ModelContext, ModelInfo, Phase, Shared},
    plugins::Registry,
    program::{Program, lower},
    text::Tokenizer,
};
use serde_json::Value;
use std::{path::Path, sync::Arc};

/// Loads the model at `path`, on the thread that will run it.
pub(crate) fn load(
    plugins: &Registry,
    configuration: ModelConfiguration,
    path: &Path,
    tokenizer: Option<&Path>,
    options: &LoadOptions,
) -> Result<(ModelContext, Shared)> {
    let mut checkpoint = Checkpoint::open(path)?;
    let model_type = &checkpoint.config()["model_type"];
    let model_type = model_type.as_str().ok_or_else(|| no_model_type(path, model_type))?.to_owned();
    let plugin = plugins.find(&model_type).map_err(|e| e.of_model(path))?;
    let index = checkpoint.tensors().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
    let graph = plugin.record("text", checkpoint.config(), index).map_err(|e| e.of_model(path))?;
    let program = Program { plain: Some(plugin.plain_ops()), ..lower(&graph) };
    options.quantize.map_or(Ok(()), |quantize| checkpoint.quantize(quantize))?;

    let tokenizer = find_tokenizer(&checkpoint, tokenizer).map_err(|e| e.to_string());
    let configuration = settings::complete(configuration, &checkpoint, tokenizer.as_ref().ok(), plugin.declaration());

    let bytes = checkpoint.tensors().map(|(_, t)| t.bytes()).sum();
    options.report(Phase::Load, &configuration.name, 0, bytes);
    let model = Model::new(device::executor(program, &checkpoint, options).map_err(|e| e.of_model(path))?);
    options.report(Phase::Load, &configuration.name, bytes, bytes);

    let capacity = model.capacity();
    let info = ModelInfo {
        model_type,
        plugin: plugin.origin(),
        device: model.device(),
        is_software: model.executor.is_software(),
        parameters: checkpoint.tensors().map(|(_, t)| t.shape().iter().map(|d| *d as u64).product::<u64>()).sum(),
        bytes,
        vocabulary: model.vocabulary(),
        context: capacity.pages * crate::exec::PAGE,
        step_rows: capacity.rows,
    };
    let (configuration, tokenizer) = (Arc::new(configuration), Arc::new(tokenizer));
    let context = ModelContext { model, configuration: configuration.clone(), tokenizer: tokenizer.clone() };
    Ok((context, Shared { configuration, tokenizer, info }))
}

/// Loads a draft model beside the model that it is to help.
pub(crate) fn add_draft(
    (mut context, shared): (ModelContext, Shared),
    plugins: &Registry,
    configuration: ModelConfiguration,
    path: &Path,
    options: &LoadOptions,
) -> Result<(ModelContext, Shared)> {
    let options = LoadOptions { context: Some(shared.info.context), ..options.clone() };
    let (draft, about) = load(plugins, configuration, path, None, &options)?;
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

fn find_tokenizer(checkpoint: &Checkpoint, elsewhere: Option<&Path>) -> Result<Tokenizer> {
    match (elsewhere, checkpoint.metadata()) {
        (Some(folder), _) => Tokenizer::from_dir(folder),
        (None, Some(metadata)) => Tokenizer::from_gguf(metadata),
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
