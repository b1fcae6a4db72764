//! What `inspect` shows, as text and as JSON.

use super::cost::{Dispatches, Served};
use crate::{
    output,
    table::{Side, Table, bytes, count},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};
use tamarack::{
    Placement,
    checkpoint::{Checkpoint, Tensor},
};

/// The entries of `config.json` that say most about a model, in the order in which they are shown.
const CONFIG: [&str; 12] = [
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
];

/// A model, seen from outside.
#[derive(Serialize)]
pub struct Report {
    path: String,
    model_type: String,
    /// Null where none serves it.
    plugin: Option<String>,
    config: Map<String, Value>,
    tensors: usize,
    parameters: u64,
    /// In the files.
    bytes: u64,
    formats: Vec<FormatGroup>,
    /// Null where no plugin serves it.
    memory: Option<Memory>,
    dispatches: Option<Dispatches>,
    /// Which layers run where, if there are two devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor_list: Option<Vec<TensorEntry>>,
}

/// The tensors of one stored format that end in one device format.
#[derive(Serialize)]
struct FormatGroup {
    stored: String,
    device: String,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

/// Bytes on the device, activations excluded.
#[derive(Serialize)]
struct Memory {
    weights: u64,
    cache_per_token: u64,
    /// Tokens in the cache.
    context: usize,
    total: u64,
}

#[derive(Serialize)]
struct TensorEntry {
    name: String,
    shape: Vec<usize>,
    stored: String,
    device: String,
    bytes: u64,
}

impl Report {
    /// What `checkpoint` holds, and what it takes for `context` tokens where a plugin serves it.
    pub fn new(checkpoint: &Checkpoint, served: Option<&Served>, context: Option<usize>, list: bool) -> Report {
        let config = checkpoint.config();
        let context = context.unwrap_or_else(|| default_context(config));
        let tensors: Vec<&Tensor> = checkpoint.tensors().map(|(_, tensor)| tensor).collect();
        Report {
            path: checkpoint.path().display().to_string(),
            model_type: config["model_type"].as_str().unwrap_or("").to_owned(),
            plugin: served.map(|s| s.plugin.clone()),
            config: CONFIG.iter().filter_map(|key| Some(((*key).to_owned(), entry(config, key)?))).collect(),
            tensors: tensors.len(),
            parameters: tensors.iter().map(|t| parameters(t)).sum(),
            bytes: tensors.iter().map(|t| t.bytes()).sum(),
            formats: groups(&tensors),
            memory: served.map(|s| Memory::of(s, context)),
            dispatches: served.map(Served::dispatches),
            placement: None,
            tensor_list: list.then(|| tensors.iter().map(|t| TensorEntry::of(t)).collect()),
        }
    }
}

/// As many tokens as the engine's cache holds by default.
fn default_context(config: &Value) -> usize {
    let made_for = entry(config, "max_position_embeddings").and_then(|n| n.as_u64());
    made_for.map_or(8192, |n| n.clamp(1, 8192) as usize)
}

/// Vision-language models have their text model's entries one level down.
fn entry(config: &Value, key: &str) -> Option<Value> {
    let value = config.get(key).or_else(|| config.get("text_config")?.get(key))?;
    (!value.is_null()).then(|| value.clone())
}

fn parameters(tensor: &Tensor) -> u64 {
    tensor.rows() as u64 * tensor.cols() as u64
}

fn groups(tensors: &[&Tensor]) -> Vec<FormatGroup> {
    let mut groups: BTreeMap<[String; 2], FormatGroup> = BTreeMap::new();
    for tensor in tensors {
        let [stored, device] = [tensor.kind().to_string(), tensor.format().to_string()];
        let empty = FormatGroup { stored: stored.clone(), device: device.clone(), tensors: 0, parameters: 0, bytes: 0 };
        let group = groups.entry([stored, device]).or_insert(empty);
        group.tensors += 1;
        group.parameters += parameters(tensor);
        group.bytes += tensor.bytes();
    }
    let mut groups: Vec<FormatGroup> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.bytes));
    groups
}

impl Memory {
    fn of(served: &Served, context: usize) -> Memory {
        let (weights, cache_per_token) = (served.weights, served.cache_per_token());
        Memory { weights, cache_per_token, context, total: weights + cache_per_token * context as u64 }
    }
}

impl TensorEntry {
    fn of(tensor: &Tensor) -> TensorEntry {
        TensorEntry {
            name: tensor.name().to_owned(),
            shape: tensor.shape().to_vec(),
            stored: tensor.kind().to_string(),
            device: tensor.format().to_string(),
            bytes: tensor.bytes(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, text: String| writeln!(f, "{name:<11}{}", output::name(&text));
        line("model", self.path.clone())?;
        line("type", self.model_type.clone())?;
        line("plugin", self.plugin.clone().unwrap_or_else(|| "none".to_owned()))?;
        let config: Vec<String> = self.config.iter().map(|(key, value)| format!("{key} {value}")).collect();
        for (i, entries) in config.chunks(4).enumerate() {
            line(if i == 0 { "config" } else { "" }, entries.join(", "))?;
        }
        line("tensors", format!("{}: {} parameters, {}", self.tensors, count(self.parameters), bytes(self.bytes)))?;
        if let Some(Memory { weights, cache_per_token, context, total }) = &self.memory {
            let (weights, cache) = (bytes(*weights), bytes(*cache_per_token));
            let total = bytes(*total);
            line("memory", format!("{total}: weights {weights}, cache {cache} a token for {context} tokens"))?;
        }
        if let Some(Dispatches { step, layer }) = &self.dispatches {
            let layer = layer.map(|n| format!(", {n} a layer")).unwrap_or_default();
            line("dispatches", format!("{step} a step{layer}"))?;
        }
        if let Some(placement) = &self.placement {
            placed(placement).into_iter().try_for_each(|(name, text)| line(name, text))?;
        }
        write!(f, "\n{}", self.format_table())?;
        if let Some(list) = &self.tensor_list {
            write!(f, "\n{}", tensor_table(list))?;
        }
        Ok(())
    }
}

/// Which layers run where, and why.
fn placed(placement: &Placement) -> Vec<(&'static str, String)> {
    let Placement { gpu, cpu_layers, gpu_layers, all_on_gpu, .. } = placement;
    let times = placement
        .layer_times
        .map(|t| [t.gpu_seconds, t.cpu_seconds].map(|s| format!(", {:.2} ms each a token", s * 1e3)));
    let [gpu_time, cpu_time] = times.unwrap_or_default();
    let room = placement.gpu_room.map(|room| {
        let all = placement.gpu_bytes_of_all;
        let (most, found) = (bytes(all), bytes(room));
        if room < all {
            format!("; all of it would take {most}, {found} are free")
        } else {
            "; all of it fits".to_owned()
        }
    });
    let taken = bytes(placement.gpu_memory.total());
    let what = if *all_on_gpu { "all".to_owned() } else { format!("the last {gpu_layers}") };
    vec![
        ("layers", format!("{what} on {gpu}: {taken}{gpu_time}{}", room.unwrap_or_default())),
        (
            "",
            format!(
                "{} on the processor{cpu_time}",
                if *cpu_layers == 0 { "none".to_owned() } else { format!("the first {cpu_layers}") }
            ),
        ),
    ]
}

impl Report {
    fn format_table(&self) -> Table {
        let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
        let columns = [left("STORED AS"), left("ON DEVICE"), right("TENSORS"), right("PARAMETERS"), right("BYTES")];
        let mut table = Table::new(columns);
        for group in &self.formats {
            let FormatGroup { stored, device, tensors, parameters, bytes: stored_bytes } = group;
            let numbers = [tensors.to_string(), count(*parameters), bytes(*stored_bytes)];
            let [tensors, parameters, stored_bytes] = numbers;
            table.row([stored.clone(), device.clone(), tensors, parameters, stored_bytes]);
        }
        table
    }
}

fn tensor_table(list: &[TensorEntry]) -> Table {
    let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
    let mut table = Table::new([left("TENSOR"), left("SHAPE"), left("STORED AS"), left("ON DEVICE"), right("BYTES")]);
    for TensorEntry { name, shape, stored, device, bytes: stored_bytes } in list {
        table.row([name.clone(), format!("{shape:?}"), stored.clone(), device.clone(), bytes(*stored_bytes)]);
    }
    table
}
