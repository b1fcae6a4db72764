//! The architectures that a host knows, and where each comes from: linked into the program,
//! registered by the program while it runs, or loaded from a dynamic library.
//!
//! ```no_run
//! let registry = tamarack::plugins::Registry::from_env();
//! let plugin = registry.find("llama")?;
//! println!("{}", plugin.origin());
//! # Ok::<(), tamarack::Error>(())
//! ```
//!
//! A library is code that runs with the rights of the program. What is checked here guards against
//! accidents and against other users of the machine, not against an author of ill will. A plugin that
//! panics is an error with its name, except where it was built with `panic = "abort"`: that, and
//! running out of stack, ends the program.

mod binary;
mod found;
mod library;
mod limit;
mod registry;
mod reply;
mod watch;

use std::path::Path;

/// The functions that a library takes from the system although a plugin needs none of them: to reach a network, to
/// start processes and threads, to change files.
///
/// # Errors
/// [`crate::Error::Plugin`] with the path: it cannot be read, or is no library.
pub fn foreign_imports(path: &Path) -> crate::Result<Vec<String>> {
    let wrong = |e: String| crate::Error::Plugin(format!("{}: {e}", path.display()));
    let bytes = library::read(path).map_err(wrong)?;
    binary::check(&bytes).and_then(|()| binary::foreign_imports(&bytes)).map_err(wrong)
}

pub use found::{Found, Source};
pub use limit::TIME_LIMIT;
pub(crate) use limit::within;
pub use registry::{Failure, Listed, Listing, PLUGIN_PATH, Registry, user_directory};
pub(crate) use reply::cut;
pub use watch::{Change, Watch};
