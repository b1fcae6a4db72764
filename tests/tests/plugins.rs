//! Plugins as a host finds them: the library that cargo built, its damaged copies, and what wins over what.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tamarack::plugins::{Found, PLUGIN_PATH, Registry, Source};
use tamarack_api::{Architecture, Config, Declaration, Graph, Index, Step, Tensor, Weights};
use tamarack_plugins as _;
use tamarack_tests::plugins::llama;
use tempfile::TempDir;

/// A directory, and a copy of the library `libtamarack_llama` in it under each of these names.
fn directory(names: &[&str]) -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let paths = names.iter().map(|name| write(directory.path(), name, &library())).collect();
    (directory, paths)
}

fn library() -> Vec<u8> {
    fs::read(tamarack_tests::plugins::library("tamarack-llama")).unwrap()
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(format!("{name}{}", std::env::consts::DLL_SUFFIX));
    fs::write(&path, bytes).unwrap();
    path
}

/// The library with another name for its second model type: a second plugin without a second build.
fn library_for(model_type: &str) -> Vec<u8> {
    assert_eq!(model_type.len(), "mistral".len());
    let mut bytes = library();
    let places: Vec<usize> = (0..bytes.len() - 7).filter(|i| bytes[*i..].starts_with(b"mistral")).collect();
    assert!(!places.is_empty(), "the model type is not in the library");
    for i in places {
        bytes[i..i + 7].copy_from_slice(model_type.as_bytes());
    }
    bytes
}

fn source(found: &Found) -> Source {
    found.source().clone()
}

fn record(registry: &Registry, (config, index): (Value, Index)) -> tamarack::Result<Graph> {
    registry.find(config["model_type"].as_str().unwrap()).unwrap().record("text", &config, index)
}

#[test]
fn a_library_records_what_the_linked_plugin_records() {
    let (directory, paths) = directory(&["llama"]);
    let linked = Registry::linked();
    let mut loaded = Registry::default();
    loaded.load_dir(directory.path());
    assert_eq!(loaded.list().failures, []);
    let found = loaded.find("mistral").unwrap();
    assert_eq!(source(&found), Source::File(paths[0].clone()));
    assert_eq!(source(&linked.find("mistral").unwrap()), Source::Linked);
    assert_eq!((found.package(), found.declaration().name.as_str()), ("tamarack-llama", "llama"));

    let mut seen = Vec::new();
    for (model_type, tied) in [("llama", false), ("llama", true), ("mistral", false)] {
        let graph = record(&loaded, llama(model_type, tied)).unwrap();
        assert_eq!(graph, record(&linked, llama(model_type, tied)).unwrap(), "{model_type}, tied: {tied}");
        assert_eq!(format!("{:?}", graph.shape(graph.output)), "[outputs, 64]");
        assert!(!seen.contains(&graph), "{model_type}, tied: {tied}: the graph ignores its input");
        seen.push(graph);
    }
}

#[test]
fn a_library_names_the_tensors_that_it_does_not_use() {
    let (directory, _) = directory(&["llama"]);
    let mut loaded = Registry::default();
    loaded.load_dir(directory.path());
    let (config, mut index) = llama("llama", false);
    let unused = Index::from([("a.weight".into(), vec![2, 3]), ("score.weight".into(), vec![1, 32])]);
    index.extend(unused.clone());
    index.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![4]);
    for registry in [Registry::linked(), loaded] {
        let found = registry.find("llama").unwrap();
        assert_eq!(found.record_some("text", &config, index.clone()).unwrap().unused, unused);
        let e = found.record("text", &config, index.clone()).unwrap_err().to_string();
        let expected = "the architecture does not use 2 of the checkpoint's 24 tensors, the first is a.weight [2, 3]: the model \
                        may be of another kind, or the plugin must `ignore` them";
        assert!(e.ends_with(expected), "{e}");
    }
}

#[test]
fn errors_of_recording_are_the_same_and_name_the_plugin() {
    let (_directory, paths) = directory(&["llama"]);
    let linked = Registry::linked();
    let mut loaded = Registry::default();
    loaded.load_file(&paths[0]).unwrap();

    let misshapen = || {
        let (config, mut index) = llama("llama", false);
        index.insert("model.norm.weight".into(), vec![31]);
        (config, index)
    };
    let absurd = || {
        let (mut config, index) = llama("llama", false);
        config["head_dim"] = 64.into();
        config["num_attention_heads"] = (1u64 << 60).into();
        (config, index)
    };
    // The author's loop has to be left from within.
    let endless = || {
        let (mut config, index) = llama("llama", false);
        config["num_hidden_layers"] = 2_000_000_000.into();
        (config, index)
    };
    for (input, expected) in [
        (endless(), "at least 64 errors: do config.json and the weights belong together"),
        (misshapen(), "model.norm.weight: expected [32] by config.json, file has [31]: "),
        (absurd(), "config.json: num_attention_heads: expected 2147483647 at most, found 1152921504606846976"),
    ] {
        let here = record(&linked, input.clone()).unwrap_err().to_string();
        let there = record(&loaded, input).unwrap_err().to_string();
        assert!(here.contains("(tamarack-llama") && here.contains("linked): "), "{here}");
        assert!(there.contains(&format!("{}): ", paths[0].display())), "{there}");
        assert!(here.contains(expected) && there.contains(expected), "{here}\n{there}");
    }
    for registry in [&linked, &loaded] {
        let e = registry.find("llama").unwrap().record("vision", &json!({}), Index::new()).unwrap_err();
        assert!(e.to_string().contains("has no graph `vision`"), "{e}");
    }
    record(&loaded, llama("llama", false)).expect("the library still works after an error");
}

/// The program's own architecture; it is never asked to record here.
struct Own;

impl Architecture for Own {
    fn declaration(&self) -> Declaration {
        Declaration::llm("own", &["mistral"])
    }
    fn text(&self, _: &Config, _: &Weights, _: &Step) -> tamarack_api::Result<Tensor> {
        Err("own".into())
    }
}

#[test]
fn explicit_wins_over_directories_and_those_over_linked() {
    let (first, in_first) = directory(&["a", "b"]);
    let (second, in_second) = directory(&["c"]);
    let mut registry = Registry::default();
    registry.register(&Own).unwrap();
    registry.load_dir(first.path());
    assert_eq!(source(&registry.find("mistral").unwrap()), Source::Registered, "a directory never wins");
    assert_eq!(source(&registry.find("llama").unwrap()), Source::File(in_first[0].clone()), "the first name wins");

    let mut registry = Registry::linked();
    let expect = |registry: &Registry, llama: &Source, mistral: &Source| {
        assert_eq!(
            (&source(&registry.find("llama").unwrap()), &source(&registry.find("mistral").unwrap())),
            (llama, mistral)
        );
    };
    let files = [&in_first[0], &in_second[0], &in_first[1]].map(|path| Source::File(path.clone()));
    expect(&registry, &Source::Linked, &Source::Linked);
    registry.load_dir(first.path());
    expect(&registry, &files[0], &files[0]);
    registry.load_dir(second.path());
    expect(&registry, &files[1], &files[1]);
    let before = registry.clone();
    registry.load_file(&in_first[1]).unwrap();
    expect(&registry, &files[2], &files[2]);
    registry.register(&Own).unwrap();
    expect(&registry, &files[2], &Source::Registered);
    expect(&before, &files[1], &files[1]);

    let mut listing = registry.list();
    assert_eq!(listing.failures, []);
    listing.plugins.retain(|p| p.model_types.iter().any(|t| t == "mistral"));
    let sources: Vec<String> = listing.plugins.iter().map(|p| p.source.to_string()).collect();
    let paths = [&in_first[1], &in_second[0], &in_first[0], &in_first[1]].map(|p| p.display().to_string());
    assert_eq!(sources, [&["registered".to_owned()], &paths[..], &["linked".to_owned()]].concat());
    let json = serde_json::to_value(&listing).unwrap();
    assert_eq!(json["plugins"][0]["shadowed_by"], json!({}));
    assert_eq!(json["plugins"][1]["shadowed_by"], json!({ "mistral": "registered" }));
    assert_eq!(json["plugins"][5]["shadowed_by"], json!({ "llama": paths[0], "mistral": "registered" }));
    assert_eq!(json["plugins"][5]["package"], "tamarack-llama");
}

#[test]
fn an_unknown_type_says_what_there_is_and_what_failed() {
    let e = Registry::default().find("foo").unwrap_err().to_string();
    let remedy = "a directory with a plugin for it can be named in TAMARACK_PLUGIN_PATH";
    assert_eq!(e, format!("unsupported model_type `foo`: registered are none; {remedy}"));
    let (directory, _) = directory(&["llama"]);
    let broken = write(directory.path(), "broken", b"");
    let mut registry = Registry::linked();
    registry.load_dir(directory.path());
    registry.register(&Own).unwrap();
    let types: Vec<&str> = registry.model_types().into_iter().collect();
    assert!(types.contains(&"llama") && types.contains(&"mistral"), "{types:?}");
    let expected = format!(
        "unsupported model_type `foo`: registered are {}; {remedy}; failed to load: {}: is not a dynamic library: take it away, or copy it here again",
        types.join(", "),
        broken.display()
    );
    assert_eq!(registry.find("foo").unwrap_err().to_string(), expected);
}

#[test]
fn every_path_and_every_new_content_is_a_library_of_its_own() {
    let (directory, paths) = directory(&["one"]);
    write(directory.path(), "two", &library_for("mixtral"));
    let mut registry = Registry::default();
    registry.load_dir(directory.path());
    let types: Vec<&str> = registry.model_types().into_iter().collect();
    assert_eq!(types, ["llama", "mistral", "mixtral"]);

    // The same name again, once cut off in place, as a careless installer does.
    fs::write(&paths[0], "").unwrap();
    record(&registry, llama("llama", true)).expect("a loaded library does not depend on its file");
    fs::write(&paths[0], library_for("mostral")).unwrap();
    registry.load_file(&paths[0]).unwrap();
    assert_eq!(registry.find("mostral").unwrap().declaration().model_types, ["llama", "mostral"]);
    registry.find("mistral").expect("what was loaded before stays");
}

/// Loads a directory that holds just this file; the reason why it failed.
fn reason(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "junk", bytes);
    reason_in(directory.path())
}

fn reason_in(directory: &Path) -> String {
    let mut registry = Registry::default();
    registry.load_dir(directory);
    assert!(registry.list().plugins.is_empty());
    let failures = registry.list().failures;
    assert_eq!(failures.len(), 1, "{failures:?}");
    let e = failures[0].reason.clone();
    assert!(!e.is_empty() && e.len() < 700 && !e.contains('\n'), "{e}");
    e
}

/// Bytes that look random and are the same each time.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    tamarack_tests::gpu::random(seed, len).into_iter().map(|x| (x * 128.0) as i8 as u8).collect()
}

#[test]
fn junk_is_refused() {
    let text = "is not a dynamic library";
    for (bytes, expected) in [
        (vec![], text),
        (b"\n".to_vec(), text),
        (b"#!/bin/sh\necho hello\n".to_vec(), text),
        (noise(1, 10_000), text),
        ([b"\x7fELF\x02\x01\x01\0".to_vec(), vec![0; 8], noise(2, 10_000)].concat(), "is"),
        (b"\x7fELF\x02\x01\x01\0".to_vec(), "is"),
        (b"\xca\xfe\xba\xbe\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec(), "is damaged"),
        (b"\xcf\xfa\xed\xfe\x07\0\0\x01\x03\0\0\0\x06\0\0\0".to_vec(), "is"),
        (b"MZ".to_vec(), "is"),
    ] {
        let e = reason(&bytes);
        assert!(e.starts_with(expected), "{:?}: {e}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]));
    }
}

#[test]
fn a_library_that_is_cut_off_is_refused() {
    let whole = library();
    let len = whole.len();
    for keep in [1, 4, 16, 63, 64, 65, 200, 4096, len / 4, len / 2, len * 3 / 4, len - 5000, len - 64, len - 1] {
        let e = reason(&whole[..keep]);
        let short = e.starts_with("is not a dynamic library") && keep < 64;
        assert!(short || e.starts_with("is damaged or cut off") || e.starts_with("is cut off"), "{keep} of {len}: {e}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_library_for_another_machine_is_refused() {
    let patched = |at: usize, to: &[u8]| {
        let mut bytes = library();
        assert_ne!(&bytes[at..at + to.len()], to);
        bytes[at..at + to.len()].copy_from_slice(to);
        reason(&bytes)
    };
    // Offsets and numbers of the ELF header, System V ABI, chapter 4.
    let (number, name) = if cfg!(target_arch = "aarch64") { (62, "X86_64") } else { (183, "Aarch64") };
    let e = patched(18, &[number, 0]);
    assert!(e.starts_with(&format!("is for {name}, this program for ")), "{e}");
    let e = patched(16, &[1, 0]);
    assert!(e.starts_with("is not a dynamic library, but of kind Relocatable: build"), "{e}");
    for (at, to) in [(4, [1]), (5, [2])] {
        assert!(patched(at, &to).starts_with("is "), "byte {at}");
    }
}

#[test]
fn a_library_that_is_no_plugin_is_refused_unloaded() {
    let plugin = tamarack_tests::plugins::library("tamarack-llama");
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let named = |p: &PathBuf| p.extension() == Some(std::env::consts::DLL_EXTENSION.as_ref()) && *p != plugin;
    // The procedural macros that cargo built on the way.
    let mut other = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(named);
    let other = other.find(|p| !p.to_string_lossy().contains("tamarack")).expect("a library beside the test");
    let e = reason(&fs::read(other).unwrap());
    assert!(e.starts_with("is a library, but no Tamarack plugin: it exports no root module: take it away"), "{e}");
}

#[test]
#[cfg(unix)]
fn rights_and_kinds_of_files_are_checked() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |directory: &Path, expected: &str| {
        let e = reason_in(directory);
        assert!(e.contains(expected), "{e}");
    };

    let (open, paths) = directory(&["llama"]);
    chmod(&paths[0], 0o646);
    refused(open.path(), &format!("every user can change {}", paths[0].display()));
    chmod(&paths[0], 0o644);
    chmod(open.path(), 0o777);
    refused(open.path(), "every user can change");
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link.so").with_extension(std::env::consts::DLL_EXTENSION);
    symlink(&paths[0], &link).unwrap();
    refused(links.path(), "every user can change");
    assert!(Registry::default().load_file(&link).unwrap_err().to_string().starts_with(&link.display().to_string()));
    chmod(open.path(), 0o755);
    let mut registry = Registry::default();
    registry.load_dir(links.path());
    assert_eq!(source(&registry.find("llama").unwrap()), Source::File(link.clone()), "a link is followed");

    fs::remove_file(&paths[0]).unwrap();
    refused(links.path(), "No such file or directory (os error 2): mend the path, or take the link to nothing away");
    fs::create_dir(&paths[0]).unwrap();
    refused(open.path(), "is not a regular file");
    fs::remove_dir(&paths[0]).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&paths[0]).unwrap();
    refused(open.path(), "is not a regular file");

    refused(&link.with_extension("absent"), "No such file or directory (os error 2): mend the path");
    let file = links.path().join("file");
    fs::write(&file, "").unwrap();
    refused(&file, "Not a directory (os error 20): name the directory");
    chmod(open.path(), 0o000);
    // The super user reads everything, and finds the socket.
    refused(open.path(), if fs::read_dir(open.path()).is_ok() { "is not a regular file" } else { "Permission denied" });
}

/// Even for the super user, who may read what nobody else may.
#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_read_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("memory.so");
    // A regular file whose first page is nowhere.
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    let e = reason_in(directory.path());
    assert!(e.ends_with("(os error 5): copy it here again, or take it away"), "{e}");
    fs::remove_file(&path).unwrap();
    // As long as it says, and nothing in it.
    fs::File::create(&path).unwrap().set_len((256 << 20) + 1).unwrap();
    assert_eq!(reason_in(directory.path()), "is longer than 256 MiB, no plugin is: take it away, or strip it");
}

#[test]
fn five_hundred_pieces_of_junk_take_no_time() {
    let (directory, _) = directory(&["zz"]);
    let whole = library();
    for i in 0..500 {
        let bytes = match i % 4 {
            0 => vec![],
            1 => noise(i, 4096),
            2 => whole[..4096 + i as usize].to_vec(),
            _ => format!("junk {i}").into_bytes(),
        };
        write(directory.path(), &format!("junk{i}"), &bytes);
    }
    fs::write(directory.path().join("README.md"), "not even tried").unwrap();
    let start = Instant::now();
    let mut registry = Registry::default();
    registry.load_dir(directory.path());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(registry.list().failures.len(), 500);
    assert_eq!(registry.find("llama").unwrap().package(), "tamarack-llama");
    let e = registry.find("foo").unwrap_err().to_string();
    assert!(e.ends_with("; and 492 more"), "{e}");
}

/// Runs this test again in a process whose environment and working directory are its own.
#[test]
fn the_environment_names_directories_but_never_the_working_one() {
    const CHILD: &str = "TAMARACK_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return println!("listing: {}", serde_json::to_string(&Registry::from_env().list()).unwrap());
    }
    let dirs = [directory(&["one"]), directory(&["two"]), directory(&["here"])];
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join("tamarack/plugins");
    fs::create_dir_all(&own).unwrap();
    write(&own, "own", b"junk");
    let list = [dirs[0].0.path(), Path::new(""), Path::new("."), dirs[1].0.path()];
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_environment_names_directories_but_never_the_working_one", "--nocapture"])
        .env(CHILD, "1")
        .env(PLUGIN_PATH, std::env::join_paths(list).unwrap())
        .env("XDG_DATA_HOME", home.path())
        // Without a cache directory, private copies go to the temporary one.
        .env("XDG_CACHE_HOME", "/dev/null")
        .current_dir(dirs[2].0.path())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let json =
        output.split("listing: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_else(|| panic!("{output}"));
    let listing: Value = serde_json::from_str(json).unwrap();
    let sources: Vec<&str> =
        listing["plugins"].as_array().unwrap().iter().filter_map(|p| p["source"].as_str()).collect();
    let path = |i: usize| dirs[i].1[0].to_str().unwrap();
    assert_eq!(sources[..3], [path(0), path(1), "linked"]);
    assert!(!json.contains("/here."), "{json}");
    let relative = listing["failures"].as_array().unwrap().iter().find(|f| f["path"] == ".").unwrap();
    assert_eq!(relative["reason"], format!("is relative: name plugin directories in full in {PLUGIN_PATH}"));
    if cfg!(target_os = "linux") {
        assert_eq!(listing["failures"][0]["path"], own.join("own.so").to_str().unwrap());
    }
}
