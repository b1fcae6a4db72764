//! One architecture, whichever way it came into the program.

use super::library::Library;
use crate::{Error, Result};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::{fmt, path::PathBuf, sync::Arc};
use tamarack_api::{
    Architecture, Config, Declaration, Graph, Index,
    plugin::{RecordRequest, guarded},
};

/// Where an architecture comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The program registered it while it ran.
    Registered,
    /// This library.
    File(PathBuf),
    /// It is linked into the program.
    Linked,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Registered => f.write_str("registered"),
            Source::File(path) => path.display().fmt(f),
            Source::Linked => f.write_str("linked"),
        }
    }
}

/// As it is displayed: JSON has no paths that are not UTF-8.
impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An architecture that a [`super::Registry`] holds. Cheap to clone.
#[derive(Clone)]
pub struct Found(Arc<Inner>);

struct Inner {
    declaration: Declaration,
    package: String,
    version: String,
    source: Source,
    code: Code,
}

/// What records.
pub(super) enum Code {
    Here(&'static dyn Architecture),
    Library(Arc<Library>),
}

impl Found {
    pub(super) fn new(declaration: Declaration, [package, version]: [&str; 2], source: Source, code: Code) -> Found {
        Found(Arc::new(Inner { declaration, package: package.into(), version: version.into(), source, code }))
    }

    /// What it serves.
    pub fn declaration(&self) -> &Declaration {
        &self.0.declaration
    }

    /// The crate that it comes from; empty for one that the program registered itself.
    pub fn package(&self) -> &str {
        &self.0.package
    }

    /// That crate's version, likewise.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// Name, package, version and source, for people: `llama (my-llama 0.1.0, linked)`.
    pub fn origin(&self) -> String {
        let Inner { declaration, package, version, source, .. } = &*self.0;
        match package.as_str() {
            "" => format!("{} ({source})", declaration.name),
            _ => format!("{} ({package} {version}, {source})", declaration.name),
        }
    }

    /// Records the graph of this name (`text`) for a `config.json` and the names and shapes of a
    /// checkpoint's tensors. Shapes of the result are inferred by the host.
    ///
    /// # Errors
    /// [`Error::Model`] if configuration, tensors and architecture do not fit together, and
    /// [`Error::Plugin`] if the plugin panicked or sent what is no graph. Both begin with
    /// [`Found::origin`].
    pub fn record(&self, graph: &str, config: &Value, index: Index) -> Result<Graph> {
        let model = |e: String| match e.starts_with("panicked: ") {
            true => self.broken(e),
            false => Error::Model(format!("{}: {e}", self.origin())),
        };
        match &self.0.code {
            Code::Here(architecture) => {
                let mut graph = guarded(|| self.record_here(*architecture, graph, config, index)).map_err(model)?;
                graph.check().map_err(|e| self.broken(e.0))?;
                Ok(graph)
            }
            Code::Library(library) => {
                let request = self.request(graph, config, index)?;
                let reply = library.call("record", &request).map_err(model)?;
                Graph::decode(&reply).map_err(|e| self.broken(e.0))
            }
        }
    }

    fn record_here(
        &self,
        architecture: &dyn Architecture,
        graph: &str,
        config: &Value,
        index: Index,
    ) -> Result<Graph, String> {
        if graph != "text" {
            return Err(format!("has no graph `{graph}`"));
        }
        tamarack_api::record(architecture, &Config::from(config.clone()), index).map_err(|e| e.0)
    }

    /// Whether both are the same entry of one registry.
    pub(super) fn is(&self, other: &Found) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn request(&self, graph: &str, config: &Value, index: Index) -> Result<Vec<u8>> {
        let architecture = self.declaration().name.clone();
        let request = RecordRequest { architecture, graph: graph.to_owned(), config: config.clone(), index };
        serde_json::to_vec(&request).map_err(|e| self.broken(format!("the request cannot be encoded: {e}")))
    }

    fn broken(&self, message: String) -> Error {
        Error::Plugin(format!("{}: {message}", self.origin()))
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}
