//! The boundary in both directions: what a plugin library exports, and the messages in the bytes.
//!
//! Messages are JSON. A host sends [`RecordRequest`] to the entry `record` and gets an encoded
//! [`crate::Graph`]; `describe` gives a [`Description`]. Entries and fields are only ever added.

use crate::{API, Config, Declaration, Index, record, registered};
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
pub struct RecordRequest {
    /// The architecture's name in its library.
    pub architecture: String,
    /// Which graph: `text`.
    pub graph: String,
    /// `config.json`.
    pub config: serde_json::Value,
    /// The checkpoint's tensors.
    pub index: Index,
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
    if entry != "record" {
        return Err(format!("unknown entry `{entry}`: this plugin has api {}.{} and knows `record`", API.0, API.1));
    }
    let request: RecordRequest = serde_json::from_slice(request).map_err(|e| format!("request: {e}"))?;
    if request.graph != "text" {
        return Err(format!("{} has no graph `{}`", request.architecture, request.graph));
    }
    let found = registered().into_iter().find(|r| r.architecture.declaration().name == request.architecture);
    let architecture = found.ok_or(format!("no architecture `{}` in this library", request.architecture))?.architecture;
    let graph = record(architecture, &Config::from(request.config), request.index).map_err(|e| e.0)?;
    graph.encode().map_err(|e| e.0)
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
