//! A plugin directory that changes while the program runs.

use serde_json::json;
use std::{fs, path::Path, time::Duration};
use tamarack::plugins::{Change, Registry, Watch};
use tamarack_api::Index;
use tamarack_tests::plugins::{library, llama};

/// As often as it takes for a file to settle.
fn poll(watch: &mut Watch, registry: &mut Registry) -> Vec<Change> {
    (0..3).flat_map(|_| watch.poll(registry)).collect()
}

fn served(path: &Path, types: &[&str]) -> Vec<Change> {
    vec![Change { path: path.to_owned(), outcome: Ok(types.iter().map(|t| (*t).to_owned()).collect()) }]
}

#[test]
fn what_is_dropped_in_is_there_for_the_next_load() {
    let around = tempfile::tempdir().unwrap();
    let directory = around.path().join("plugins");
    let path = |name: &str| directory.join(format!("{name}{}", std::env::consts::DLL_SUFFIX));
    let (mut watch, mut registry) = (Watch::new(&directory), Registry::default());
    assert_eq!(poll(&mut watch, &mut registry), [], "a directory may come later");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("README.md"), "no plugin").unwrap();
    assert_eq!(poll(&mut watch, &mut registry), []);

    // While it is being copied.
    let whole = fs::read(library("tamarack-llama")).unwrap();
    fs::write(path("llama"), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(watch.poll(&mut registry), []);
    fs::write(path("llama"), &whole).unwrap();
    assert_eq!(watch.poll(&mut registry), []);
    assert_eq!(watch.poll(&mut registry), served(&path("llama"), &["llama", "mistral"]));
    assert_eq!(poll(&mut watch, &mut registry), [], "once is enough");
    let (config, index) = llama("llama", false);
    let first = registry.find("llama").unwrap();
    first.record("text", &config, index.clone()).unwrap();

    // Half a file stays a failure until it is whole.
    let rogue = fs::read(library("tamarack-rogue")).unwrap();
    fs::write(path("rogue"), &rogue[..rogue.len() - 100]).unwrap();
    let changes = poll(&mut watch, &mut registry);
    assert!(changes.len() == 1 && changes[0].outcome.as_ref().unwrap_err().starts_with("is "), "{changes:?}");
    assert_eq!(registry.list().failures.len(), 1);
    fs::write(path("rogue"), &rogue).unwrap();
    assert_eq!(poll(&mut watch, &mut registry), served(&path("rogue"), &["rogue"]));
    assert_eq!(registry.list().failures, []);
    let index_of_rogue = Index::from([("embed.weight".to_owned(), vec![16, 8])]);
    registry.find("rogue").unwrap().record("text", &json!({}), index_of_rogue).unwrap();

    // A new version, installed by rename, under the old name.
    let old = registry.list().plugins.len();
    fs::write(directory.join("new"), &whole).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    fs::File::options().write(true).open(directory.join("new")).unwrap().set_modified(later).unwrap();
    fs::rename(directory.join("new"), path("llama")).unwrap();
    assert_eq!(poll(&mut watch, &mut registry), served(&path("llama"), &["llama", "mistral"]));
    assert_eq!(registry.list().plugins.len(), old + 1, "the old one stays for whoever runs it");
    first.record("text", &config, index).unwrap();

    fs::remove_file(path("rogue")).unwrap();
    assert_eq!(poll(&mut watch, &mut registry), []);
    registry.find("rogue").expect("what was loaded stays");
}

#[test]
#[cfg(unix)]
fn a_directory_that_everybody_can_change_is_told_once() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    fs::copy(library("tamarack-llama"), directory.path().join("x.so")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (mut watch, mut registry) = (Watch::new(directory.path()), Registry::default());
    let changes = poll(&mut watch, &mut registry);
    assert!(changes.len() == 1 && changes[0].outcome.as_ref().unwrap_err().contains("chmod o-w"), "{changes:?}");
    assert!(registry.list().plugins.is_empty());
}
