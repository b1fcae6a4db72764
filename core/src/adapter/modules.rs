//! Which weight of the model each module of an adapter belongs to.
//!
//! PEFT names modules by the classes of the `transformers` version that trained the adapter, and a checkpoint names tensors by
//! that of its own day, so the two differ in what stands before the layers: `model.language_model.layers.0.mlp.up_proj` and
//! `language_model.model.layers.0.mlp.up_proj.weight` are one layer. From the layer's number on the paths are the same. Of the
//! weights whose paths agree there, a module's is the one whose path before agrees best, and that of the text rather than of a
//! tower.

use super::Adapter;
use crate::{Error, Result};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// The names of weights that adapters may change.
#[derive(Default)]
pub(super) struct Adaptable {
    /// Weights of products.
    pub products: BTreeSet<String>,
    /// Those of a tower.
    pub tower: BTreeSet<String>,
    /// Those that are embeddings as well: a head that is tied to them has no name of its own.
    pub tied: BTreeSet<String>,
}

/// For each weight that `adapter` changes, its module.
///
/// # Errors
/// [`Error::Model`] if a module belongs to no weight, or to several equally.
pub(super) fn assign<'a>(adapter: &'a Adapter, adaptable: &Adaptable) -> Result<BTreeMap<String, &'a str>> {
    let Adaptable { products, tower, tied } = adaptable;
    let mut by_layer: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in products.difference(tied) {
        let path = name.strip_suffix(".weight").unwrap_or(name);
        by_layer.entry(split(path).1).or_default().push(path);
    }
    let wrong = |module: &str, why: &str| Error::Model(format!("adapter `{}`: {module}: {why}", adapter.name));
    let mut chosen: BTreeMap<String, (Agreement, &str)> = BTreeMap::new();
    for module in adapter.modules.keys() {
        let (before, layer) = split(module);
        let mut best: Vec<(Agreement, &str)> = Vec::new();
        for path in by_layer.get(layer).into_iter().flatten() {
            let is_text = !tower.contains(&format!("{path}.weight"));
            let agreement = agreement(before, split(path).0, is_text);
            best.retain(|(other, _)| *other >= agreement);
            if best.first().is_none_or(|(other, _)| *other == agreement) {
                best.push((agreement, path));
            }
        }
        let (agreement, name) = match (&best[..], tied.first()) {
            ([(agreement, path)], _) => (*agreement, format!("{path}.weight")),
            ([(_, one), (_, other), ..], _) => {
                return Err(wrong(
                    module,
                    &format!("may be {one} or {other}: rename the adapter's module to one of them"),
                ));
            }
            ([], Some(head)) if !is_numbered(module) && tied.len() == 1 => ((0, Reverse(0), true), head.clone()),
            ([], _) => return Err(wrong(module, "the model has no such linear layer")),
        };
        if let Some((other, taken)) = chosen.insert(name, (agreement, module)) {
            let loser = if other < agreement { taken } else { module };
            return Err(wrong(loser, "the model has no such linear layer"));
        }
    }
    Ok(chosen.into_iter().map(|(name, (_, module))| (name, module)).collect())
}

/// How many parts two paths have in common, how many only one of them has, and whether the weight is the text's.
type Agreement = (usize, Reverse<usize>, bool);

fn agreement(one: &str, other: &str, is_text: bool) -> Agreement {
    let parts = |path: &'_ str| path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (one, mut other) = (parts(one), parts(other));
    let all = one.len() + other.len();
    let mut common = 0;
    for part in one {
        if let Some(at) = other.iter().position(|other| *other == part) {
            other.swap_remove(at);
            common += 1;
        }
    }
    (common, Reverse(all - 2 * common), is_text)
}

/// A path before its first numbered layer, and from there on; without a number, before its last part and that.
fn split(path: &str) -> (&str, &str) {
    let starts = || std::iter::once(0).chain(path.match_indices('.').map(|(at, _)| at + 1));
    let is_number = |at: &usize| path[*at..].split('.').next().is_some_and(|part| part.parse::<u32>().is_ok());
    let layer = match starts().find(is_number) {
        // The name of the list that the number counts through belongs to it.
        Some(number) => starts().take_while(|at| *at < number).last().unwrap_or(number),
        None => starts().last().unwrap_or(0),
    };
    path.split_at(layer)
}

fn is_numbered(path: &str) -> bool {
    path.split('.').any(|part| part.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LowRank;

    fn adapter(modules: &[&str]) -> Adapter {
        let low = || LowRank { a: vec![0.0], b: vec![0.0], rank: 1, scale: 1.0, magnitude: None };
        Adapter { name: "a".into(), modules: modules.iter().map(|m| ((*m).to_owned(), low())).collect() }
    }

    fn assigned(modules: &[&str], names: &[&str], tied: &[&str]) -> Result<Vec<String>, String> {
        let set = |names: &[&str]| names.iter().map(|n| format!("{n}.weight")).collect();
        let adapter = adapter(modules);
        let found = assign(&adapter, &Adaptable { products: set(names), tied: set(tied), ..Adaptable::default() })
            .map_err(|e| e.to_string())?;
        Ok(found
            .into_iter()
            .map(|(name, module)| format!("{module} -> {}", name.trim_end_matches(".weight")))
            .collect())
    }

    #[test]
    fn modules_of_any_transformers_version_are_found() {
        let old = [
            "language_model.model.layers.0.q",
            "vision_tower.vision_model.encoder.layers.0.q",
            "language_model.lm_head",
        ];
        let new = ["model.language_model.layers.0.q", "model.vision_tower.encoder.layers.0.q", "lm_head"];
        let text = ["model.layers.0.q", "visual.blocks.0.qkv", "lm_head"];
        let text_new = ["model.language_model.layers.0.q", "model.visual.blocks.0.qkv", "lm_head"];
        for (modules, names) in [(old, new), (new, old), (old, old), (new, new), (text, text_new), (text_new, text)] {
            for i in 0..3 {
                let wanted = vec![format!("{} -> {}", modules[i], names[i])];
                assert_eq!(assigned(&[modules[i]], &names, &[]), Ok(wanted), "{modules:?} in {names:?}");
            }
        }
    }

    #[test]
    fn a_tied_head_is_found() {
        let names = ["model.layers.0.q", "model.embed_tokens"];
        let found = assigned(&["lm_head", "model.layers.0.q"], &names, &["model.embed_tokens"]);
        let wanted = ["lm_head -> model.embed_tokens", "model.layers.0.q -> model.layers.0.q"];
        assert_eq!(found.unwrap(), wanted);
        let error = assigned(&["lm_head"], &["model.layers.0.q"], &[]).unwrap_err();
        assert!(error.contains("adapter `a`: lm_head: the model has no such linear layer"), "{error}");
    }

    #[test]
    fn what_is_ambiguous_or_absent_is_refused() {
        let names = ["a.layers.0.q", "b.layers.0.q"];
        let error = |modules: &[&str]| assigned(modules, &names, &[]).unwrap_err();
        assert!(error(&["c.layers.0.q"]).contains("may be a.layers.0.q or b.layers.0.q"));
        assert!(error(&["a.layers.1.q"]).contains("the model has no such linear layer"));
        // Both would be the same layer, of which one has the better name.
        let error = error(&["a.layers.0.q", "a.x.layers.0.q"]);
        assert!(error.contains("a.x.layers.0.q: the model has no such linear layer"), "{error}");
    }
}
