//! What plugins record for a checkpoint: a text model, and for a vision-language model its tower.

use super::{
    text::{record_text, unused},
    unused::Unused,
};

use crate::{
    Error, Result,
    checkpoint::{Checkpoint, read_json},
    image::Processor,
    plugins::{Found, Registry},
    program::{Node, Op, Program, lower},
};
use serde_json::Value;
use std::{collections::HashMap, path::Path};
use tamarack_api::{Graph, Index, Kind, ProcessorConfig, WeightExpr};

/// What was recorded.
pub(super) struct Parts {
    pub text: Program,
    pub tower: Option<Program>,
    pub processor: Processing,
    /// Tensors that neither of them uses.
    pub unused: Unused,
}

/// What makes a model's input of what a user asks.
pub(super) enum Processing {
    /// The chat template and the tokenizer.
    Text,
    /// What the program has registered for the model's `processor_class`.
    Registered,
    /// The plugin.
    Plugin(Box<Processor>),
}

/// Records all of a checkpoint with the plugin that serves it, and, for the text model of a vision-language model, the
/// plugin that serves that. Unused tensors are an error if it is to be `strict`, or if that does harm.
pub(super) fn record(plugins: &Registry, plugin: &Found, checkpoint: &Checkpoint, strict: bool) -> Result<Parts> {
    record_all(plugins, plugin, checkpoint, strict).map_err(|e| match (e, checkpoint.all_unreadable().next()) {
        // The plugin only sees what can be a weight, so it calls these absent.
        (Error::Model(message), Some((name, why))) => {
            let count = checkpoint.all_unreadable().len();
            Error::Model(format!(
                "{message}\n{count} tensors of the files cannot be weights, the first is {name}: {why}"
            ))
        }
        (e, _) => e,
    })
}

fn record_all(plugins: &Registry, plugin: &Found, checkpoint: &Checkpoint, strict: bool) -> Result<Parts> {
    let config = checkpoint.config();
    let is_vlm = plugin.declaration().kind == Kind::Vlm;
    let Some(model) = (if is_vlm { plugin.text_model(config)? } else { None }) else {
        let graph = record_text(plugin, checkpoint)?;
        return Ok(Parts {
            unused: unused(plugin, checkpoint, &[&graph], strict)?,
            text: program(plugin, &graph),
            tower: None,
            processor: if is_vlm { Processing::Registered } else { Processing::Text },
        });
    };
    let of_text = plugins.find(&model.model_type)?;
    let (mut own, mut rest, mut names) = (Index::new(), Index::new(), HashMap::new());
    for (name, shape) in index(checkpoint) {
        match model.name(&name) {
            Some(inner) => {
                own.insert(inner.clone(), shape);
                names.insert(inner, name);
            }
            None => drop(rest.insert(name, shape)),
        }
    }
    if rest.is_empty() {
        // A conversion of the text alone.
        let graph = renamed(of_text.record_some("text", &model.config, own)?, &names);
        return Ok(Parts {
            unused: unused(&of_text, checkpoint, &[&graph], strict)?,
            text: program(&of_text, &graph),
            tower: None,
            processor: Processing::Text,
        });
    }
    let graph = renamed(of_text.record_some("text with images", &model.config, own)?, &names);
    let text = program(&of_text, &graph);
    if text.image_width().is_none() {
        let origin = of_text.origin();
        return Err(Error::Plugin(format!("{origin}: has no place for images: it must call Step::merge_embeddings")));
    }
    let of_tower = plugin.record_some("tower", config, rest)?;
    let unused = unused(plugin, checkpoint, &[&graph, &of_tower], strict)?;
    let tower = Program { span: model.span, ..program(plugin, &of_tower) };
    text.check_tower(tower.width(tower.output))?;
    let input = |(id, node): (usize, &Node)| match &node.op {
        Op::PatchInput(name) => Some((name.clone(), tower.width(id))),
        _ => None,
    };
    let patches = tower.nodes.iter().position(|n| n.op == Op::Patches);
    let processor = Processor {
        plugin: plugin.clone(),
        config: config.clone(),
        files: processor_config(checkpoint.path())?,
        most: 0,
        width: patches.map_or(0, |id| tower.width(id)),
        merge: tower.tower.unwrap_or(1),
        inputs: tower.nodes.iter().enumerate().filter_map(input).collect(),
        windowed: tower.caches.iter().any(|c| c.windowed),
    };
    Ok(Parts { text, tower: Some(tower), processor: Processing::Plugin(Box::new(processor)), unused })
}

fn program(plugin: &Found, graph: &Graph) -> Program {
    Program { plain: Some(plugin.plain_ops()), ..lower(graph) }
}

/// Names and shapes of its tensors.
pub(super) fn index(checkpoint: &Checkpoint) -> Index {
    checkpoint.tensors().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect()
}

/// With the checkpoint's own names.
pub(super) fn renamed(mut graph: Graph, names: &HashMap<String, String>) -> Graph {
    for weight in &mut graph.weights {
        if let WeightExpr::Tensor(name) = &mut weight.expr
            && let Some(own) = names.get(name)
        {
            name.clone_from(own);
        }
    }
    let own = |name: String| names.get(&name).cloned().unwrap_or(name);
    graph.unused = graph.unused.into_iter().map(|(name, shape)| (own(name), shape)).collect();
    graph
}

/// The files beside the checkpoint that say how images and videos are prepared.
fn processor_config(folder: &Path) -> Result<ProcessorConfig> {
    let read = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { read_json(&path) } else { Ok(Value::Null) }
    };
    Ok(ProcessorConfig {
        processor: read("processor_config.json")?,
        preprocessor: read("preprocessor_config.json")?,
        video: read("video_preprocessor_config.json")?,
    })
}
