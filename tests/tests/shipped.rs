//! Every plugin of this repository built as a library: a directory of them serves what the linked ones serve.

use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};
use tamarack::plugins::Registry;
use tamarack_plugins as _;
use tamarack_tests::plugins::library;

/// What `tamarack plugins --json` prints: the model types of each architecture, by package and name.
fn listed(registry: &Registry) -> BTreeMap<String, Value> {
    let listing = serde_json::to_value(registry.list()).expect("a listing is JSON");
    assert_eq!(listing["failures"], json!([]));
    let plugins = listing["plugins"].as_array().expect("a list").clone();
    let key = |p: &Value| format!("{} of {}", p["name"].as_str().unwrap_or("?"), p["package"].as_str().unwrap_or("?"));
    plugins.into_iter().map(|p| (key(&p), p["model_types"].clone())).collect()
}

#[test]
fn a_directory_of_libraries_lists_what_is_linked() {
    let linked = Registry::linked();
    let expected = listed(&linked);
    assert!(expected.len() >= tamarack_plugins::LINKED, "{expected:?}");
    let directory = tempfile::tempdir().expect("a directory");
    for name in expected.keys() {
        let package = name.rsplit(' ').next().expect("a package");
        let path = library(package);
        let to = directory.path().join(path.file_name().expect("a name"));
        fs::copy(&path, &to).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let mut loaded = Registry::default();
    loaded.load_dir(directory.path());
    assert_eq!(listed(&loaded), expected);
}
