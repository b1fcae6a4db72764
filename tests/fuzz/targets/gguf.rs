//! Any bytes as a GGUF file.
#![no_main]

mod read_all;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tamarack::checkpoint::{Checkpoint, Mapping};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = Checkpoint::from_gguf(Path::new("fuzz"), &[Mapping::from_bytes("fuzz", bytes.to_vec())]) {
        read_all::read_all(&model);
    }
});
