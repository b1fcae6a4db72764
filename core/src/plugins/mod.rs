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
mod registry;

pub use found::{Found, Source};
pub use registry::{Failure, Listed, Listing, PLUGIN_PATH, Registry, user_directory};
