#![no_main]
//! Bytes that a plugin might send as a graph: refused with a reason, or sound enough to be lowered and rewritten.

use libfuzzer_sys::fuzz_target;
use tamarack::program::{RULES, lower, rewrite};
use tamarack_api::{Graph, Index};

fuzz_target!(|bytes: &[u8]| {
    let index = Index::from([("a".to_owned(), vec![4, 8]), ("b".to_owned(), vec![8]), ("c".to_owned(), vec![])]);
    match Graph::decode_for(bytes, index) {
        Ok(graph) => {
            let _ = tamarack::program::custom::validate_all(&graph);
            let _ = rewrite(lower(&graph), RULES, &|_, _| None);
        }
        Err(e) => assert!(!e.0.is_empty()),
    }
});
