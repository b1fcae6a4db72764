//! The boundary in both directions: what a plugin library exports, and the messages in the bytes.
//!
//! Messages are JSON. A host sends [`RecordRequest`] to the entry `record` and gets an encoded
//! [`crate::Graph`], the same to the entry `tensors` and gets an [`Index`], and [`PlainRequest`] to the entry `plain`
//! and gets numbers, [`VisionRequest`] to the entries `text_model` and `process` and gets a [`crate::TextModel`] and a
//! [`crate::Processed`]; `describe` gives a [`Description`]. Entries and fields are only ever added.

pub use crate::plain::{PlainRequest, from_bytes, to_bytes};

use crate::{
    API, Architecture, Config, Declaration, Graph, Index, ProcessRequest, VisionLanguage,
    encoding::{NUMBERS, UNUSED},
    index::Names,
    recorder::{Recorder, text, tower},
    registered, tensors,
};
use abi_stable::{
    export_root_module,
    prefix_type::PrefixTypeTrait,
    std_types::{RResult, RSlice, RStr, RString, RVec},
};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tamarack_abi::{Plugin, PluginRef};

/// What a library holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The vocabulary's version that the library was built with.
    pub api: (u32, u32),
    /// Its architectures.
    pub architectures: Vec<Described>,
}

/// One architecture of a library.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Described {
    /// What it serves.
    pub declaration: Declaration,
    /// The crate that it comes from.
    pub package: String,
    /// That crate's version.
    pub version: String,
}

/// Asks an architecture to record a model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordRequest<I = Index> {
    /// The architecture's name in its library.
    pub architecture: String,
    /// Which graph: `text`; `text with images`, that of a vision-language model; `tower`.
    pub graph: String,
    /// `config.json`.
    pub config: serde_json::Value,
    /// The checkpoint's tensors.
    pub index: I,
    /// The vocabulary's version that the host was built with. Since api 1.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<(u32, u32)>,
}

/// Asks an architecture of a vision-language model for its text model, or to process a prompt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VisionRequest {
    /// The architecture's name in its library.
    pub architecture: String,
    /// `config.json`.
    pub config: serde_json::Value,
    /// The prompt and its images, for `process`.
    #[serde(default)]
    pub process: ProcessRequest,
}

/// The architectures linked into this program or library.
pub fn describe() -> Description {
    let architectures = registered()
        .into_iter()
        .map(|r| Described {
            declaration: r.architecture.declaration(),
            package: r.package.to_owned(),
            version: r.version.to_owned(),
        })
        .collect();
    Description { api: API, architectures }
}

/// Runs an entry point; errors are messages for people.
pub fn call(entry: &str, request: &[u8]) -> Result<Vec<u8>, String> {
    match entry {
        "record" => call_record(request),
        "plain" => call_plain(request),
        "tensors" => call_tensors(request),
        "text_model" => call_vision(request, |model, config, _| model.text(config)),
        "process" => call_vision(request, |model, config, process| model.process(config, process)),
        _ => {
            let (major, minor) = API;
            Err(format!(
                "unknown entry `{entry}`: this plugin has api {major}.{minor} and knows `record`, `plain`, `tensors`, \
                 `text_model` and `process`"
            ))
        }
    }
}

fn call_record(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: RecordRequest<Names> = serde_json::from_slice(request).map_err(|e| format!("request: {e}"))?;
    let recorder = Recorder::new(request.index);
    let architecture = architecture(&request.architecture)?;
    let recorded = recorded(architecture, &request.graph, &Config::from(request.config), recorder)?;
    if request.api < Some(UNUSED) {
        recorded.graph.refuse_unused(recorded.tensors()).map_err(|e| e.0)?;
    }
    match request.api >= Some(NUMBERS) {
        true => recorded.graph.encode_with(&recorded.numbers(), &recorded.unused_numbers()),
        false => recorded.into_graph().encode(),
    }
    .map_err(|e| e.0)
}

/// Records the graph of this name, see [`RecordRequest::graph`], with the names of tensors that are unused.
pub fn record_graph(
    architecture: &dyn Architecture,
    graph: &str,
    config: &Config,
    index: Index,
) -> Result<Graph, String> {
    recorded(architecture, graph, config, Recorder::new(index)).map(Recorder::into_graph)
}

fn recorded(
    architecture: &dyn Architecture,
    graph: &str,
    config: &Config,
    recorder: Recorder,
) -> Result<Recorder, String> {
    match (graph, architecture.vision()) {
        ("text", _) => text(architecture, config, recorder),
        ("text with images", _) => text(architecture, config, recorder.with_images()),
        ("tower", Some(model)) => tower(model, config, recorder),
        _ => return Err(format!("has no graph `{graph}`")),
    }
    .map_err(|e| e.0)
}

fn call_vision<T: Serialize>(
    request: &[u8],
    work: impl FnOnce(&dyn VisionLanguage, &Config, &ProcessRequest) -> crate::Result<T>,
) -> Result<Vec<u8>, String> {
    let request: VisionRequest = serde_json::from_slice(request).map_err(|e| format!("request: {e}"))?;
    let model = architecture(&request.architecture)?.vision();
    let model = model.ok_or_else(|| format!("{} is no vision-language model", request.architecture))?;
    let reply = work(model, &Config::from(request.config), &request.process).map_err(|e| e.0)?;
    serde_json::to_vec(&reply).map_err(|e| e.to_string())
}

fn call_tensors(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: RecordRequest = serde_json::from_slice(request).map_err(|e| format!("request: {e}"))?;
    let index = tensors(architecture(&request.architecture)?, &Config::from(request.config)).map_err(|e| e.0)?;
    serde_json::to_vec(&index).map_err(|e| e.to_string())
}

fn call_plain(request: &[u8]) -> Result<Vec<u8>, String> {
    let (request, values) = PlainRequest::decode(request)?;
    let plain = architecture(&request.architecture)?.plain(&request.op);
    let plain = plain.ok_or(format!("{} has no plain form of the op `{}`", request.architecture, request.op))?;
    Ok(to_bytes(&request.run(plain, &request.cut(&values))))
}

fn architecture(name: &str) -> Result<&'static dyn Architecture, String> {
    let found = registered().into_iter().find(|r| r.architecture.declaration().name == name);
    Ok(found.ok_or(format!("no architecture `{name}` in this library"))?.architecture)
}

/// Runs `f` and turns a panic into an error: past this crate it could not be caught any more.
pub fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("panicked: {}", message.unwrap_or_default()))
    })
}

extern "C" fn exported_describe() -> RVec<u8> {
    let bytes = guarded(|| serde_json::to_vec(&describe()).map_err(|e| e.to_string()));
    bytes.unwrap_or_default().into()
}

extern "C" fn exported_call(entry: RStr<'_>, request: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
    match guarded(|| call(&entry, &request)) {
        Ok(reply) => RResult::ROk(reply.into()),
        Err(message) => RResult::RErr(message.into()),
    }
}

/// Here and not in the author's crate: any number of plugins link statically, and a library still
/// exports exactly one.
#[export_root_module]
fn root_module() -> PluginRef {
    Plugin { describe: exported_describe, call: exported_call }.leak_into_prefix()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_messages() {
        let number = 7;
        assert_eq!(guarded::<()>(|| panic!("boom")).unwrap_err(), "panicked: boom");
        assert_eq!(guarded::<()>(|| panic!("boom {number}")).unwrap_err(), "panicked: boom 7");
        assert_eq!(guarded(|| Err::<(), _>("no".to_owned())).unwrap_err(), "no");
        assert_eq!(guarded(|| Ok(7)), Ok(7));
    }
}
