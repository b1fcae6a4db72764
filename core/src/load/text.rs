//! The text model of a checkpoint that has all of it, and what it leaves over.

use super::{
    record::{index, renamed},
    unused::Unused,
};
use crate::{Error, Result, checkpoint::Checkpoint, plugins::Found};
use std::collections::{HashMap, HashSet};
use tamarack_api::{Graph, Index, WeightExpr};

impl Found {
    /// Records the text model of a checkpoint, and says which tensors it leaves over.
    ///
    /// # Errors
    /// As for [`Found::record`]. Tensors that are left over are an error if it is to be `strict`, or if the model would compute
    /// something else without them.
    pub fn record_text(&self, checkpoint: &Checkpoint, strict: bool) -> Result<(Graph, Unused)> {
        let graph = record_text(self, checkpoint)?;
        let unused = unused(self, checkpoint, &[&graph], strict)?;
        Ok((graph, unused))
    }
}

/// Records the text model with the checkpoint's own names.
///
/// A model that was saved without its head has names without the prefix that the class with a head puts before them, `model.`
/// mostly. `transformers` finds either (`base_model_prefix`), and so does this.
pub(super) fn record_text(plugin: &Found, checkpoint: &Checkpoint) -> Result<Graph> {
    let config = checkpoint.config();
    match plugin.record_some("text", config, index(checkpoint)) {
        Err(Error::Model(e)) => {
            let asked = plugin.tensors(config).unwrap_or_default();
            let Some(names) = prefixed(&asked, checkpoint) else { return Err(Error::Model(e)) };
            let shape = |own| checkpoint.get(own).map_or_else(Vec::new, |tensor| tensor.shape().to_vec());
            let index = names.iter().map(|(name, own)| (name.clone(), shape(own))).collect();
            Ok(renamed(plugin.record_some("text", config, index)?, &names))
        }
        found => found,
    }
}

/// The checkpoint's own names by those with the first part that most of the names `asked` for have, where the checkpoint has
/// no tensor of that first part, but some without it.
fn prefixed(asked: &Index, checkpoint: &Checkpoint) -> Option<HashMap<String, String>> {
    let mut modules: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (prefix, name) in asked.keys().filter_map(|name| name.split_once('.')) {
        modules.entry(prefix).or_default().insert(first(name));
    }
    let (prefix, modules) = modules.into_iter().max_by_key(|(prefix, modules)| (modules.len(), *prefix))?;
    let names = || checkpoint.tensors().map(|(name, _)| name);
    // Only modules of the base model get the prefix: heads, and tensors that are not known, keep their names.
    let full = |name: &str| match modules.contains(first(name)) {
        true => format!("{prefix}.{name}"),
        false => name.to_owned(),
    };
    let is_base = names().all(|name| first(name) != prefix) && names().any(|name| asked.contains_key(&full(name)));
    is_base.then(|| names().map(|name| (full(name), name.to_owned())).collect())
}

fn first(name: &str) -> &str {
    name.split_once('.').map_or(name, |(first, _)| first)
}

/// What none of these graphs uses; an error if it does harm, or if all is to be used.
pub(super) fn unused(plugin: &Found, checkpoint: &Checkpoint, graphs: &[&Graph], strict: bool) -> Result<Unused> {
    let error = |e: String| Error::Model(format!("{}: {e}", plugin.origin()));
    if strict {
        let all = checkpoint.tensors().count();
        graphs.iter().try_for_each(|graph| graph.refuse_unused(all)).map_err(|e| error(e.0))?;
    }
    let used = graphs.iter().flat_map(|graph| &graph.weights);
    let used = used.filter_map(|w| if let WeightExpr::Tensor(name) = &w.expr { Some(name.as_str()) } else { None });
    let bytes = |name: &String| checkpoint.get(name).map_or(0, |tensor| tensor.bytes());
    let unused = graphs.iter().flat_map(|graph| graph.unused.keys()).map(|name| (name.clone(), bytes(name)));
    Unused::new(used, unused).map_err(error)
}
