//! What can go wrong, said so that the reader can act: what, where, expected, found, remedy.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of this crate. `Display` is one message for people, causes included.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged, hostile or of a kind that is not understood.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, naming the tensor or key.
        message: String,
    },
    /// The configuration, the weights and the architecture do not fit together.
    #[error("{0}")]
    Model(String),
    /// No plugin serves this kind of model.
    #[error("{0}")]
    UnsupportedModelType(String),
    /// A plugin library could not be loaded or broke the contract.
    #[error("{0}")]
    Plugin(String),
    /// The tokenizer or the chat template failed.
    #[error("{0}")]
    Text(String),
    /// The hub could not be reached or refused.
    #[error("{0}")]
    Hub(String),
    /// The device failed, or there is none.
    #[error("{0}")]
    Device(String),
    /// The device was lost: its driver reset it, or it was unplugged. Whatever was under way there is gone. A
    /// [`crate::ModelContainer`] loads its model anew before it serves the next request.
    #[error("{0}")]
    DeviceLost(String),
    /// It does not fit into memory; the message says how much is needed and how much there is.
    #[error("{0}")]
    Memory(String),
    /// A request is malformed.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Error {
        Error::Io { path: path.as_ref().to_owned(), source }
    }

    /// The same, with the model's path in front where a message does not begin with a path of its own.
    pub(crate) fn of_model(self, path: &Path) -> Error {
        let at = |message: String| format!("{}: {message}", path.display());
        match self {
            Error::Model(message) => Error::Model(at(message)),
            Error::UnsupportedModelType(message) => Error::UnsupportedModelType(at(message)),
            Error::Plugin(message) => Error::Plugin(at(message)),
            other => other,
        }
    }

    /// An [`Error::File`] about `path`.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Error {
        Error::File { path: path.as_ref().to_owned(), message: message.into() }
    }
}
