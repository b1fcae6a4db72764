//! Plugins that do what no plugin should. Each is an error with its path, the reason and a remedy, and the host goes
//! on with the others.

mod graphs;
mod watch;
mod wgsl;

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tamarack::{
    Error,
    plugins::{Found, Registry},
};
use tamarack_api::{Graph, Index, ProcessRequest};
use tamarack_tests::plugins::{library, llama};
use tempfile::TempDir;

/// Where the rogue's file says what it does when it is loaded.
const MODE: &[u8] = b"rogue-mode:calm.";

/// The rogue in a directory of its own, with a well-behaved plugin beside it.
fn rogue(mode: &str) -> (TempDir, PathBuf) {
    assert_eq!(mode.len(), 5);
    let mut bytes = fs::read(library("tamarack-rogue")).unwrap();
    let at = bytes.windows(MODE.len()).position(|w| w == MODE).expect("the mode is in the library");
    bytes[at + 11..at + 16].copy_from_slice(mode.as_bytes());
    beside_llama(&bytes)
}

fn beside_llama(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(format!("{name}{}", std::env::consts::DLL_SUFFIX));
    fs::write(path("bad"), bytes).unwrap();
    fs::copy(library("tamarack-llama"), path("llama")).unwrap();
    let bad = path("bad");
    (directory, bad)
}

/// Loads a directory; whatever is wrong with the one, the other plugin serves.
fn load(directory: &Path) -> Registry {
    let mut registry = Registry::default();
    registry.set_time_limit(Duration::from_secs(2));
    registry.load_dir(directory);
    check_llama(&registry);
    registry
}

fn check_llama(registry: &Registry) {
    let (config, index) = llama("llama", false);
    registry.find("llama").unwrap().record("text", &config, index).unwrap_or_else(|e| panic!("{e}"));
}

/// Why the rogue did not load.
fn refused(mode: &str) -> String {
    let (directory, path) = rogue(mode);
    let failures = load(directory.path()).list().failures;
    assert_eq!(failures.iter().map(|f| &f.path).collect::<Vec<_>>(), [&path]);
    failures[0].reason.clone()
}

#[test]
fn a_panic_or_an_endless_loop_while_loading_is_reported() {
    assert_eq!(refused("panic"), "panicked in Architecture::declaration: ask its author to mend it");
    let start = Instant::now();
    let e = refused("loop.");
    assert!(e.starts_with("loading it did not end within 2 s, an endless loop? It still runs: restart"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Records the rogue's model.
fn record(registry: &Registry, config: Value) -> tamarack::Result<Graph> {
    let index = Index::from([("embed.weight".to_owned(), vec![16, 8])]);
    registry.find("rogue").unwrap().record("text", &config, index)
}

#[test]
fn what_goes_wrong_while_recording_is_an_error_of_the_plugin() {
    let (directory, path) = rogue("calm.");
    let registry = load(directory.path());
    assert_eq!(registry.list().failures, []);
    let origin = format!("rogue (tamarack-rogue {}, {}): ", env!("CARGO_PKG_VERSION"), path.display());
    for (does, expected, is_of_plugin) in [
        ("panic", "panicked: no model of 7 layers", true),
        ("panic with a number", "panicked: ", true),
        ("elsewhere", "panicked: tensors and weights exist only while Architecture::text or", true),
        ("sleep", "recording the model did not end within 2 s, an endless loop? It still runs", true),
        ("work for ever", "recording does not end: ", false),
        ("err", "not this one", false),
        ("nest", "tests/rogue/src/lib.rs:", true),
        ("many ops", "expected at most 256 different custom ops of 1048576 bytes of WGSL in all, found 300 of ", true),
        ("many constants", "tests/rogue/src/lib.rs:", false),
        ("talk", "no no no ", false),
    ] {
        let start = Instant::now();
        let e = record(&registry, json!({ "does": does, "layers": 7 })).unwrap_err();
        assert_eq!(matches!(e, Error::Plugin(_)), is_of_plugin, "{does}: {e:?}");
        let e = e.to_string();
        assert!(e.strip_prefix(&origin).is_some_and(|e| e.starts_with(expected)), "{does}: {e}");
        assert!(e.len() < 2000, "{does}: {} bytes", e.len());
        assert_eq!(e.contains("WGSL 7:") && e.contains("nested more than 200 levels"), does == "nest", "{e}");
        assert_eq!(e.contains("100 constants, room is for 64"), does == "many constants", "{e}");
        assert!(start.elapsed() < Duration::from_secs(20), "{does}: {:?}", start.elapsed());
        // The same library goes on, and so does the other one.
        assert_eq!(record(&registry, json!({})).unwrap().nodes.len(), 4, "after {does}");
        check_llama(&registry);
    }
}

/// An entry point that fails.
type Entry = fn(&Found, &Value) -> Option<Error>;

#[test]
fn every_other_entry_point_may_panic_or_never_end_too() {
    let (directory, path) = rogue("sees.");
    let registry = load(directory.path());
    let found = registry.find("rogue").unwrap();
    let entries: [(&str, Entry); 4] = [
        ("tensors", |found, config| found.tensors(config).err()),
        ("tower", |found, config| found.record("tower", config, Index::new()).err()),
        ("text_model", |found, config| found.text_model(config).err()),
        ("process", |found, config| found.process(config, ProcessRequest::default()).err()),
    ];
    let origin = format!("rogue (tamarack-rogue {}, {}): ", env!("CARGO_PKG_VERSION"), path.display());
    std::thread::scope(|all| {
        for (entry, fails) in entries {
            for (does, expected) in [("panic", "panicked: no "), ("sleep", " did not end within 2 s, an endless loop?")]
            {
                let (found, registry, origin) = (&found, &registry, &origin);
                all.spawn(move || {
                    let e = fails(found, &json!({ "does": does, "layers": 7 })).unwrap_or_else(|| panic!("{entry}"));
                    assert!(matches!(e, Error::Plugin(_)), "{entry}: {e:?}");
                    let e = e.to_string();
                    assert!(e.strip_prefix(origin.as_str()).is_some_and(|e| e.contains(expected)), "{entry}: {e}");
                    check_llama(registry);
                });
            }
        }
    });
    // The same library goes on, and what it says of itself is no panic.
    let e = found.process(&json!({}), ProcessRequest::default()).unwrap_err().to_string();
    assert_eq!(e, format!("{origin}no eyes"));
}

#[test]
fn a_plain_form_in_a_library_computes_and_may_panic() {
    let (directory, _) = rogue("calm.");
    let registry = load(directory.path());
    let found = registry.find("rogue").unwrap();
    let graph = record(&registry, json!({ "does": "custom" })).unwrap();
    let request = |op: &str| tamarack_api::plugin::PlainRequest {
        architecture: String::new(),
        op: op.into(),
        constants: graph.custom[0].constants.clone(),
        rows: 2,
        inputs: vec![3],
        weights: Vec::new(),
    };
    let x = [1.0, -2.0, 0.5, f32::INFINITY, 4.0, f32::MIN_POSITIVE];
    let y = found.plain_ops().call(request("negate"), &[&x]).unwrap();
    assert_eq!(y, x.map(|x| -x));
    let e = found.plain_ops().call(request("moody"), &[&x]).unwrap_err();
    assert!(e.ends_with("panicked: not 3 today"), "{e}");
    check_llama(&registry);
}

#[test]
#[cfg(target_os = "linux")]
fn a_missing_symbol_is_named() {
    let mut bytes = fs::read(library("tamarack-rogue")).unwrap();
    // A function of the C library under a name that it does not have.
    let (from, to) = (b"\0getcwd\0", b"\0getcwX\0");
    let at = bytes.windows(from.len()).position(|w| w == from).expect("an import");
    bytes[at..at + to.len()].copy_from_slice(to);
    let (directory, _) = beside_llama(&bytes);
    let failures = load(directory.path()).list().failures;
    let reason = &failures[0].reason;
    let starts = reason.starts_with("the system cannot load it: undefined symbol: getcwX");
    assert!(starts && reason.ends_with("build the plugin on this machine"), "{reason}");
}

#[test]
fn a_file_that_is_mended_is_no_failure_any_more() {
    let (directory, path) = beside_llama(b"half a file");
    let mut registry = load(directory.path());
    assert_eq!(registry.list().failures.len(), 1);
    fs::copy(library("tamarack-rogue"), &path).unwrap();
    registry.load_file(&path).unwrap();
    assert_eq!(registry.list().failures, []);
    record(&registry, json!({})).unwrap();
}

#[test]
fn two_libraries_of_one_type_are_both_listed() {
    let (directory, path) = rogue("calm.");
    let other = directory.path().join(format!("other{}", std::env::consts::DLL_SUFFIX));
    fs::copy(&path, &other).unwrap();
    let registry = load(directory.path());
    let listing = registry.list();
    let rogues: Vec<_> = listing.plugins.iter().filter(|p| p.name == "rogue").collect();
    assert_eq!(rogues.len(), 2);
    assert!(rogues[0].shadowed_by.is_empty(), "the first name wins");
    assert_eq!(rogues[1].shadowed_by["rogue"].to_string(), path.display().to_string());
}

/// A graph of these nodes and weights.
fn decode(nodes: Value, weights: Value) -> Result<Graph, String> {
    let graph = json!({
        "api": [1, 0], "nodes": nodes, "weights": weights, "ropes": [], "places": ["a.rs:7"],
        "output": nodes.as_array().map_or(0, |n| n.len().saturating_sub(1)),
    });
    Graph::decode(&serde_json::to_vec(&graph).unwrap()).map_err(|e| e.0)
}

#[test]
fn cyclic_and_absurd_graphs_are_refused() {
    let node = |op: Value, inputs: &[u32]| json!({ "op": op, "inputs": inputs, "at": 0 });
    let tokens = node(json!({ "tokens": {} }), &[]);
    let embed = node(json!({ "embedding": { "weight": 0 } }), &[0]);
    let weight = |shape: Value| json!([{ "expr": { "tensor": "e" }, "shape": shape }]);
    let table = weight(json!([4, 8]));
    decode(json!([tokens, embed, node(json!({ "outputs": {} }), &[1])]), table.clone()).expect("a sound graph");
    let reshape = |shape: Value| node(json!({ "reshape": { "shape": shape } }), &[1]);
    for (nodes, weights, expected) in [
        (json!([tokens, node(json!({ "add": {} }), &[1, 1])]), json!([]), "a.rs:7: add: takes node 1, which does not"),
        (json!([tokens, node(json!({ "add": {} }), &[9, 0])]), json!([]), "a.rs:7: add: takes node 9, which does not"),
        (json!([tokens, embed]), json!([]), "a.rs:7: embedding: takes weight 0, of 0"),
        (json!([tokens, embed]), weight(json!([1u64 << 40, 8])), "weight 0: the shape [1099511627776, 8] is absurd"),
        (json!([tokens, embed]), weight(json!([4, 8, 1, 1, 1, 1])), "weight 0: the shape [4, 8, 1, 1, 1, 1] is absurd"),
        (json!([tokens, embed, reshape(json!([4294967295u32, 4294967295u32]))]), table.clone(), "a.rs:7: reshape: "),
        (json!([tokens, embed, reshape(json!([["tokens", 0, 0], 8]))]), table.clone(), "the graph (api 1.0) does not"),
        (
            json!([tokens, embed, reshape(json!([8, "tokens"]))]),
            table.clone(),
            "a.rs:7: reshape: the result [8, tokens] is",
        ),
        (
            json!([tokens, embed]),
            json!([{ "expr": { "stack": [0] }, "shape": [1] }]),
            "weight 0: takes weight 0, which does not come before it",
        ),
        (json!([]), json!([]), "the output is not logits"),
    ] {
        let e = decode(nodes, weights).unwrap_err();
        assert!(e.starts_with(expected), "{e}");
    }
    let many: Vec<Value> = (0..300_000).map(|_| tokens.clone()).collect();
    assert!(decode(many.into(), json!([])).unwrap_err().starts_with("300000 nodes are more than 262144"));
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert!(Graph::decode(&deep).unwrap_err().0.contains("recursion limit exceeded"));
}
