//! Any bytes as a safetensors file of a model that MLX quantized.
#![no_main]

mod read_all;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tamarack::checkpoint::{Checkpoint, Mapping};

fuzz_target!(|bytes: &[u8]| {
    let config = serde_json::json!({ "quantization": { "bits": 4, "group_size": 32 } });
    let file = Mapping::from_bytes("fuzz", bytes.to_vec());
    if let Ok(model) = Checkpoint::from_safetensors(Path::new("fuzz"), config, &[file]) {
        read_all::read_all(&model);
    }
});
