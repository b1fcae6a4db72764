//! Every plugin of this repository, as this crate's manifest lists them: one line there links one.

#![allow(unused_imports)] // the linker uses them

include!(concat!(env!("OUT_DIR"), "/plugins.rs"));
