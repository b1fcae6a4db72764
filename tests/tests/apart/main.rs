//! Plugins that were built apart from this host, and hosts of another age.

mod custom_architecture;
mod evolution;
