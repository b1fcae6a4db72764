//! Tensors in a model's files that its architecture does not use.
//!
//! `transformers` and vLLM leave them out with a warning, and most are harmless: heads that score answers, layers that
//! predict further tokens, scales of caches, buffers that old versions saved. But a tensor in a layer that is used, or
//! a layer more of a kind that is used, changes what the model computes: config.json was misread then, or is not the model's. Such
//! tensors stay an error.

use serde::{Serialize, Serializer};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// Patterns that a message lists.
const SHOWN: usize = 8;

/// Full names and bytes.
type Tensors = Vec<(String, u64)>;

/// What was left out of a model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unused {
    /// By the pattern that names them.
    groups: BTreeMap<String, Tensors>,
}

impl Unused {
    /// The tensors `unused` of a model that uses those in `used`; an error for people if leaving them out does harm.
    pub(crate) fn new<'a>(
        used: impl IntoIterator<Item = &'a str>,
        unused: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<Unused, String> {
        let used = Used::new(used);
        let (mut harmless, mut harmful) = (Unused::default(), Unused::default());
        for (name, bytes) in unused {
            let root = used.root(&name).to_owned();
            let to = if used.is_harmless(&name, &root) { &mut harmless } else { &mut harmful };
            to.groups.entry(root).or_default().push((name, bytes));
        }
        let (layers, harmless) = harmless.groups.into_iter().partition(|(root, tensors)| used.is_layer(root, tensors));
        let harmless = Unused { groups: harmless };
        harmful.groups.extend::<BTreeMap<_, _>>(layers);
        if harmful.groups.is_empty() {
            return Ok(harmless.generalized());
        }
        Err(format!(
            "the architecture does not use {}, which would change what the model computes: config.json was not understood (is \
             its number of layers right?), or the model is of another kind; a plugin can `ignore` them",
            harmful.generalized()
        ))
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Full names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.values().flatten().map(|(name, _)| name.as_str())
    }

    /// With groups that differ in numbers as one: `layers.*.mlp` of `layers.0.mlp` and `layers.1.mlp`.
    fn generalized(self) -> Unused {
        let mut like: BTreeMap<String, Vec<(String, Tensors)>> = BTreeMap::new();
        for (root, tensors) in self.groups {
            like.entry(starred(&root)).or_default().push((root, tensors));
        }
        let group = |(pattern, mut groups): (String, Vec<(String, Tensors)>)| {
            let pattern = if groups.len() == 1 { groups[0].0.clone() } else { pattern };
            let tensors: Tensors = groups.iter_mut().flat_map(|(_, tensors)| tensors.drain(..)).collect();
            // A module of one tensor, or of the same one in each layer, is named as that.
            let names: HashSet<String> = tensors.iter().map(|(name, _)| starred(name)).collect();
            let only = if tensors.len() == 1 { Some(tensors[0].0.clone()) } else { names.iter().next().cloned() };
            (only.filter(|_| names.len() == 1).unwrap_or(format!("{pattern}.*")), tensors)
        };
        Unused { groups: like.into_iter().map(group).collect() }
    }
}

/// `2 tensors (1.5 KiB): score.weight, model.mtp.* (7)`
impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.groups.values().map(Vec::len).sum();
        let bytes: u64 = self.groups.values().flatten().map(|(_, bytes)| bytes).sum();
        write!(f, "{count} tensor{} of {}: ", if count == 1 { "" } else { "s" }, Bytes(bytes))?;
        for (i, (pattern, tensors)) in self.groups.iter().take(SHOWN).enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            // Names are the file's, and may hold anything.
            pattern.chars().try_for_each(|c| match c.is_control() {
                true => write!(f, "{}", c.escape_default()),
                false => write!(f, "{c}"),
            })?;
            if tensors.len() > 1 {
                write!(f, " ({})", tensors.len())?;
            }
        }
        match self.groups.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more patterns"),
        }
    }
}

/// How many tensors each pattern stands for.
impl Serialize for Unused {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.groups.iter().map(|(pattern, tensors)| (pattern, tensors.len())))
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 20 => write!(f, "{:.1} MiB", n as f64 / (1u64 << 20) as f64),
            n if n >= 1 << 10 => write!(f, "{:.1} KiB", n as f64 / 1024.0),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// The modules that a model uses.
struct Used<'a> {
    /// All of them, those around them included.
    modules: HashSet<&'a str>,
    /// Those that have tensors themselves.
    parents: HashSet<&'a str>,
    /// Tensors within a numbered module, with a star in place of the number: a layer's.
    numbered: HashSet<String>,
}

impl<'a> Used<'a> {
    fn new(names: impl IntoIterator<Item = &'a str>) -> Used<'a> {
        let mut used = Used { modules: HashSet::new(), parents: HashSet::new(), numbered: HashSet::new() };
        for name in names {
            used.modules.extend(prefixes(name));
            used.parents.insert(parent(name));
            let numbered = prefixes(name).filter(|module| is_number(last(module)));
            used.numbered.extend(numbered.map(|module| within(name, module)));
        }
        used
    }

    /// The outermost module of which nothing is used that a tensor is in, or else its own name.
    fn root<'b>(&self, name: &'b str) -> &'b str {
        prefixes(name).find(|module| !self.modules.contains(module)).unwrap_or(name)
    }

    fn is_harmless(&self, name: &str, root: &str) -> bool {
        if is_buffer(name) || is_scale(name) {
            return true;
        }
        let beside = root == name && self.parents.contains(parent(name));
        let in_layer = prefixes(name).any(|module| is_number(last(module)) && self.modules.contains(module));
        !(beside || in_layer)
    }

    /// Whether an unused module is a layer like others: those have all of its tensors, too, or there are no others. What
    /// predicts further tokens has tensors of its own, and often is numbered like the layers.
    fn is_layer(&self, root: &str, tensors: &[(String, u64)]) -> bool {
        match self.numbered.is_empty() {
            true => tensors.iter().any(|(name, _)| prefixes(name).any(|module| is_number(last(module)))),
            false => {
                is_number(last(root)) && tensors.iter().all(|(name, _)| self.numbered.contains(&within(name, root)))
            }
        }
    }
}

/// What old versions of `transformers` saved beside weights.
fn is_buffer(name: &str) -> bool {
    const BUFFERS: [&str; 7] =
        ["inv_freq", "masked_bias", "position_ids", "causal_mask", "cos_cached", "sin_cached", "num_batches_tracked"];
    BUFFERS.contains(&last(name)) || name.ends_with(".attn.bias") || name.ends_with(".attention.bias")
}

/// A scale of activations or of a cache; those of weights count.
fn is_scale(name: &str) -> bool {
    let last = last(name);
    (last.ends_with("scale") || last.ends_with("zero_point") || last.ends_with("amax")) && !last.starts_with("weight")
}

/// `a`, `a.b` of `a.b.c`
fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[..at])
}

fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

fn starred(name: &str) -> String {
    name.split('.').map(|part| if is_number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// `layers.*.norm.weight` of a tensor in the module `layers.3`
fn within(name: &str, module: &str) -> String {
    format!("{}.*{}", parent(module), &name[module.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these beside a model of two layers.
    fn said(unused: &[&str]) -> Result<String, String> {
        let layer = |i| {
            ["self_attn.q_proj.weight", "mlp.up_proj.weight", "norm.weight"].map(|n| format!("model.layers.{i}.{n}"))
        };
        let mut used: Vec<String> = (0..2).flat_map(layer).collect();
        used.extend(["model.embed.weight", "model.norm.weight", "lm_head.weight"].map(str::to_owned));
        let unused = unused.iter().map(|name| ((*name).to_owned(), 1024));
        Unused::new(used.iter().map(String::as_str), unused).map(|unused| unused.to_string())
    }

    #[test]
    fn what_does_no_harm_is_named_by_pattern() {
        for (unused, expected) in [
            (&["score.weight"][..], "1 tensor of 1.0 KiB: score.weight"),
            (&["v_head.summary.weight", "v_head.summary.bias"], "2 tensors of 2.0 KiB: v_head.* (2)"),
            (
                &["model.mtp.layers.0.norm.weight", "model.mtp.layers.1.norm.weight", "model.mtp.norm.weight"],
                "3 tensors of 3.0 KiB: model.mtp.* (3)",
            ),
            (
                &["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.1.self_attn.rotary_emb.inv_freq"],
                "2 tensors of 2.0 KiB: model.layers.*.self_attn.rotary_emb.inv_freq (2)",
            ),
            // A layer that predicts further tokens has more than others.
            (
                &["model.layers.2.norm.weight", "model.layers.2.eh_proj.weight", "model.layers.2.mlp.up_proj.weight"],
                "3 tensors of 3.0 KiB: model.layers.2.* (3)",
            ),
            (
                &["model.layers.0.self_attn.q_proj.input_scale", "model.layers.1.self_attn.k_scale"],
                "2 tensors of 2.0 KiB: model.layers.0.self_attn.q_proj.input_scale, model.layers.1.self_attn.k_scale",
            ),
            (&["model.layers.0.self_attn.masked_bias"], "1 tensor of 1.0 KiB: model.layers.0.self_attn.masked_bias"),
            (&["a\u{1b}[2J"], r"1 tensor of 1.0 KiB: a\u{1b}[2J"),
            (
                &["a.x", "b.x", "c.x", "d.x", "e.x", "f.x", "g.x", "h.x", "i.x", "j.x"],
                "10 tensors of 10.0 KiB: a.x, b.x, c.x, d.x, e.x, f.x, g.x, h.x and 2 more patterns",
            ),
        ] {
            assert_eq!(said(unused).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn patterns_are_counted_in_json() {
        let unused = ["a.x", "a.y", "b"].map(|name| (name.to_owned(), 1));
        let json = serde_json::to_string(&Unused::new(["c.0.x"], unused).unwrap()).unwrap();
        assert_eq!(json, r#"{"a.*":2,"b":1}"#);
    }

    #[test]
    fn what_changes_the_model_is_an_error() {
        for (unused, expected) in [
            (&["model.layers.0.self_attn.q_proj.bias"][..], "model.layers.0.self_attn.q_proj.bias,"),
            (&["model.norm.bias"], "model.norm.bias,"),
            (&["model.layers.0.self_attn.q_norm.weight"], "model.layers.0.self_attn.q_norm.weight,"),
            (&["model.layers.0.self_attn.q_proj.weight_scale"], "model.layers.0.self_attn.q_proj.weight_scale,"),
            (
                &["model.layers.2.norm.weight", "model.layers.2.mlp.up_proj.weight"],
                "2 tensors of 2.0 KiB: model.layers.2.* (2),",
            ),
        ] {
            let e = said(unused).unwrap_err();
            assert!(e.contains(expected), "{e}");
        }
        let none = Unused::new(["embed.weight"], [("layers.0.norm.weight".to_owned(), 4)]);
        assert!(none.unwrap_err().contains("1 tensor of 4 bytes: layers.0.norm.weight,"));
    }
}
