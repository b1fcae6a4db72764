//! What a plugin implements, and how it is registered.

use crate::{Config, Error, Plain, Result, Step, Tensor, Weights, vision::VisionLanguage};
use serde::{Deserialize, Serialize};

/// A model architecture: a pure function from a configuration and the names and shapes of weights to
/// a recorded graph.
pub trait Architecture: Send + Sync {
    /// What this serves, as data.
    fn declaration(&self) -> Declaration;

    /// Records the text model: from [`Step::tokens`] to logits [outputs, vocabulary].
    /// A vision-language model leaves this to another architecture, see [`VisionLanguage::text`].
    fn text(&self, _config: &Config, _weights: &Weights, _step: &Step) -> Result<Tensor> {
        Err(Error(format!("{} records no text model", self.declaration().name)))
    }

    /// The rest of it, for architectures of the kind [`Kind::Vlm`].
    fn vision(&self) -> Option<&dyn VisionLanguage> {
        None
    }

    /// What a custom op of this architecture computes, in plain Rust: the host runs it where it has no GPU, and
    /// compares the op's WGSL with it.
    fn plain(&self, _op: &str) -> Option<Plain> {
        None
    }
}

/// What kind of model an architecture makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A language model.
    #[default]
    Llm,
    /// A vision-language model.
    Vlm,
    /// A model whose output is an embedding.
    Embedder,
}

/// What the host needs to know of an architecture before it runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Declaration {
    /// Its name, unique in its library.
    pub name: String,
    /// The `model_type`s of `config.json` that it serves.
    pub model_types: Vec<String>,
    /// What it makes.
    pub kind: Kind,
    /// How its models write tool calls, where the chat template does not tell.
    pub tool_call_format: Option<String>,
    /// How its models mark reasoning, where the chat template does not tell.
    pub reasoning_format: Option<String>,
    /// Tokens that end a turn beside those that the files name.
    pub extra_stop_tokens: Vec<String>,
    /// The chat template of models whose files have none.
    pub chat_template: Option<String>,
    /// Whether it implements [`Architecture::vision`]. Since api 1.2.
    pub sees: bool,
    /// Whether it takes videos, see [`crate::ProcessRequest::videos`]. Since api 1.4.
    pub watches: bool,
}

impl Declaration {
    /// A language model for these model types.
    pub fn llm(name: &str, model_types: &[&str]) -> Declaration {
        let model_types = model_types.iter().map(|t| (*t).to_owned()).collect();
        Declaration { name: name.to_owned(), model_types, ..Declaration::default() }
    }

    /// A vision-language model for these model types, which implements [`Architecture::vision`].
    pub fn vlm(name: &str, model_types: &[&str]) -> Declaration {
        Declaration { kind: Kind::Vlm, sees: true, ..Declaration::llm(name, model_types) }
    }
}

/// An architecture that is linked into this program or library.
pub struct Registration {
    /// The architecture.
    pub architecture: &'static dyn Architecture,
    /// The crate that registers it.
    pub package: &'static str,
    /// That crate's version.
    pub version: &'static str,
}

inventory::collect!(Registration);

/// Every architecture that is linked in, in the order of their names: the linker's own order changes
/// from build to build.
pub fn registered() -> Vec<&'static Registration> {
    let mut all: Vec<&Registration> = inventory::iter::<Registration>.into_iter().collect();
    all.sort_by_key(|r| (r.architecture.declaration().name, r.package));
    all
}

/// Registers an architecture, a unit struct: statically where the crate is linked, and in the
/// exported module where it is built as a dynamic library.
#[macro_export]
macro_rules! register {
    ($architecture:expr) => {
        $crate::private::inventory::submit! {
            $crate::Registration {
                architecture: &$architecture,
                package: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
            }
        }
    };
}
