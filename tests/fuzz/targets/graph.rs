#![no_main]
//! Bytes that a plugin might send as a graph: refused with a reason, or sound enough to be lowered and rewritten.

use libfuzzer_sys::fuzz_target;
use tamarack::program::{RULES, lower, rewrite};
use tamarack_api::Graph;

fuzz_target!(|bytes: &[u8]| {
    match Graph::decode(bytes) {
        Ok(graph) => {
            let _ = tamarack::program::custom::validate_all(&graph);
            let _ = rewrite(lower(&graph), RULES, &|_, _| None);
        }
        Err(e) => assert!(!e.0.is_empty()),
    }
});
