//! Every plugin of this repository. A crate that is only listed in a manifest is dropped by the
//! linker with its registrations; the `use` keeps it.

#[allow(unused_imports)] // the linker uses it
pub use tamarack_llama as _;
