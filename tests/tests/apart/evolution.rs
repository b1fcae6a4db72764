//! Plugins and hosts of different api versions, built differently: see tests/evolution.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tamarack::plugins::Registry;
use tamarack_api::{API, Index, plugin::RecordRequest};
use tamarack_plugins as _;
use tamarack_tests::{
    apart::{build, dylib},
    plugins::{library, llama},
};

/// Builds everything in tests/evolution, without or with optimisation. Returns the folder of a profile.
fn built(profile: &str) -> PathBuf {
    // Only the old plugin is built twice.
    build("tests/evolution", profile, if profile == "dev" { &["--workspace"] } else { &["--package", "old-llama"] })
}

/// What a host of api 1.0 makes of a plugin and a request.
fn in_old_host(library: &Path, architecture: &str, (config, index): (serde_json::Value, Index)) -> String {
    // Such a host does not say its version.
    let (architecture, graph) = (architecture.into(), "text".into());
    let request = RecordRequest { architecture, graph, config, index, api: None };
    let mut host = Command::new(built("dev").join("old-host"))
        .arg(library)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.stdin.take().unwrap().write_all(&serde_json::to_vec(&request).unwrap()).unwrap();
    let output = host.wait_with_output().unwrap();
    assert!(output.status.success(), "the old host ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_old_plugin_runs_in_this_host_however_it_was_built() {
    let today = Registry::linked();
    for profile in ["dev", "release"] {
        let path = dylib(&built(profile), "old_llama");
        let mut registry = Registry::default();
        registry.load_file(&path).unwrap_or_else(|e| panic!("{e}"));
        let old = registry.find("llama").unwrap();
        assert_eq!((old.package(), old.version()), ("old-llama", "0.0.1"));
        for (model_type, tied) in [("llama", false), ("llama", true), ("mistral", false)] {
            let (config, index) = llama(model_type, tied);
            let mut graph = old.record("text", &config, index.clone()).unwrap_or_else(|e| panic!("{profile}: {e}"));
            assert_eq!(graph.api, (1, 0), "the plugin is of its own version");
            let expected = today.find(model_type).unwrap().record("text", &config, index).unwrap();
            // Only versions and source lines tell the two apart.
            (graph.api, graph.places) = (expected.api, expected.places.clone());
            for (old, new) in graph.nodes.iter_mut().zip(&expected.nodes) {
                old.at = new.at;
            }
            assert_eq!(graph, expected, "{profile}, {model_type}, tied: {tied}");
        }
        let (config, mut index) = llama("llama", false);
        index.remove("model.norm.weight");
        let e = old.record("text", &config, index).unwrap_err().to_string();
        assert!(e.contains("model.norm.weight: expected [32] by config.json, absent from the file"), "{e}");
    }
}

#[test]
fn a_new_plugin_that_uses_nothing_new_runs_in_an_old_host() {
    assert!(API > (1, 0), "the old host is older");
    let found = in_old_host(&library("tamarack-llama"), "llama", llama("llama", false));
    assert!(found.ends_with(" nodes, logits [outputs, 64]"), "{found}");
}

#[test]
fn a_new_op_in_an_old_host_is_refused_with_both_versions() {
    let index = Index::from([("embed.weight".to_owned(), vec![16, 8])]);
    let model = |does: &str| (serde_json::json!({ "does": does }), index.clone());
    let rogue = library("tamarack-rogue");
    assert_eq!(in_old_host(&rogue, "rogue", model("")), "4 nodes, logits [outputs, 16]");
    let (major, minor) = API;
    let expected = format!("refused: needs op `custom` (api {major}.{minor}), this host has api 1.0: update the host");
    assert_eq!(in_old_host(&rogue, "rogue", model("custom")), expected);
}

/// A host of before there were towers gets nothing that it could take for all of a model. What hosts since make of
/// replies that say more than they know is tested where they read them, in plugins/found.rs.
#[test]
fn a_vision_language_model_in_a_host_without_towers_is_refused() {
    let config = serde_json::json!({ "model_type": "paligemma" });
    let found = in_old_host(&library("tamarack-paligemma"), "paligemma", (config, Index::new()));
    assert_eq!(found, "refused: paligemma records no text model");
}

#[test]
fn an_old_plugin_is_told_of_an_entry_that_it_lacks() {
    // What custom ops need: an old plugin cannot have any, and says so in words.
    let path = dylib(&built("dev"), "old_llama");
    let mut registry = Registry::default();
    registry.load_file(&path).unwrap();
    let ops = registry.find("llama").unwrap().plain_ops();
    let request = tamarack_api::plugin::PlainRequest {
        architecture: String::new(),
        op: "x".into(),
        constants: Vec::new(),
        rows: 0,
        inputs: vec![1],
        weights: Vec::new(),
    };
    let e = ops.call(request, &[&[]]).unwrap_err();
    assert!(e.ends_with("unknown entry `plain`: this plugin has api 1.0 and knows `record`"), "{e}");
}

#[test]
fn another_layout_is_refused_by_the_layout_check() {
    let path = dylib(&built("dev"), "other_layout");
    let mut registry = Registry::default();
    let e = registry.load_file(&path).unwrap_err().to_string();
    assert!(e.starts_with(&format!("{}: does not fit this host: ", path.display())), "{e}");
    assert!(e.contains("rebuild the plugin") && e.len() < 1000, "{e}");
    assert_eq!(registry.list().failures.len(), 1);
    registry.load_file(&library("tamarack-llama")).expect("the host goes on");
}
