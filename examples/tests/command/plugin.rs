//! `tamarack plugin`: from an empty folder to an installed plugin, as its author goes.

use crate::support::*;
use serde_json::{Value, json};
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The command, for a user with this home who has cargo.
fn author(home: &Path, arguments: &[&str]) -> Command {
    let mut command = tamarack(arguments);
    with_cargo(&mut command, home);
    command
}

/// Cargo offline, with its dependencies and its target folder shared with the other tests.
fn with_cargo(command: &mut Command, home: &Path) {
    let own = |folder: &str| env::home_dir().unwrap().join(folder).into_os_string();
    let variable = |name: &str, folder: &str| env::var_os(name).unwrap_or_else(|| own(folder));
    let program = env::current_exe().unwrap();
    let target: OsString = program.ancestors().nth(3).unwrap().join("apart").into();
    command.env("HOME", home).env("XDG_DATA_HOME", home.join("data"));
    command.env("CARGO_HOME", variable("CARGO_HOME", ".cargo")).env("RUSTUP_HOME", variable("RUSTUP_HOME", ".rustup"));
    command.env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true");
}

/// What failed of a report, as `case: name: message`.
fn failed(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|c| c["passed"] == false);
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    checks.map(|c| [&c["case"], &c["name"], &c["message"]].map(text).join(": ")).collect()
}

fn report(outcome: Outcome) -> (Option<i32>, Value) {
    let json = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stderr));
    (outcome.code, json)
}

#[test]
fn a_plugin_is_written_checked_installed_and_removed() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("my_model");
    let path = text(&folder);
    let user = |arguments: &[&str]| run(author(around.path(), arguments));
    let new = ["plugin", "new", "my_model", "--model-type", "mymodel2", "--dir", path];
    let written = user(&[&new[..], &["--json"]].concat()).json("new");
    assert_eq!(written["files"][1], "src/lib.rs");
    assert!(user(&new).stderr.contains("my_model: exists already: choose another folder with --dir"));

    // The versions that the other tests have built.
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/custom_architecture/Cargo.lock"), folder.join("Cargo.lock"))
        .unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--release", "--quiet"]).current_dir(&folder);
    with_cargo(&mut cargo, around.path());
    let tested = run(cargo).expect("the crate's own test");
    assert!(tested.contains("1 passed"), "{tested}");

    let checked = user(&["plugin", "check", path]).expect("check");
    for line in [
        "  ok     has a licence: MIT OR Apache-2.0",
        "  ok     depends on tamarack-api alone: and on nothing else",
        "  ok     imports nothing foreign: ",
        "  ok     declares its models: my_model for mymodel2",
        "\ntiny\n  ok     records: ",
        "  ok     token by token gives the same on the oracle: off by ",
    ] {
        assert!(checked.contains(line), "{line}: {checked}");
    }
    assert!(!checked.contains("FAILED") && checked.ends_with(" checks passed\n"), "{checked}");

    // A model of another kind, one of absurd sizes, and one with a golden of another model.
    let case = |name: &str, change: &dyn Fn(&mut Value)| {
        let folder = folder.join("check").join(name);
        fs::create_dir(&folder).unwrap();
        let tiny = fs::read_to_string(folder.with_file_name("tiny").join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&tiny).unwrap();
        change(&mut config);
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
    };
    case("other", &|c| c["model_type"] = json!("bert"));
    case("large", &|c| c["vocab_size"] = json!(1 << 28));
    let (code, json) = report(user(&["plugin", "check", path, "--json"]));
    assert_eq!((code, &json["passed"]), (Some(1), &json!(false)));
    let failures = failed(&json);
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].starts_with("large: ") && failures[0].contains("write smaller sizes into it"), "{failures:?}");
    assert!(failures[1].ends_with("its model_type `bert` is not one that the plugin declares"), "{failures:?}");

    let installed = user(&["plugin", "install", path, "--json"]).json("install");
    let file = PathBuf::from(installed["installed"][0].as_str().unwrap());
    assert!(file.starts_with(around.path()) && file.to_string_lossy().contains("my_model-0.1.0"), "{installed}");
    let listed = user(&["plugin", "list", "--json"]).json("list");
    assert_eq!(listed["plugins"][0]["model_types"], json!(["mymodel2"]));
    assert!(user(&["plugin", "list"]).expect("list").contains("my_model 0.1.0"));
    assert!(user(&["plugins"]).expect("plugins").contains("mymodel2"), "every program of this user has it");
    let e = user(&["plugin", "remove", "your_model"]);
    assert!(e.code == Some(1) && e.stderr.contains("there are my_model"), "{}", e.stderr);
    assert_eq!(user(&["plugin", "remove", "my_model", "--json"]).json("remove")["removed"], json!([file]));
    assert!(user(&["plugin", "list"]).expect("list").contains("No plugins in "));
}

#[test]
fn a_golden_is_compared() {
    let (good, _) = plugins();
    let library = fs::read_dir(good.path()).unwrap().next().unwrap().unwrap().path();
    let check = |model: &Path| run(tamarack(&["plugin", "check", text(&library), "--model", text(model), "--json"]));
    let (code, json) = report(check(&tiny("biases")));
    assert_eq!((code, failed(&json)), (Some(0), vec![]));
    let names: Vec<&str> = json["checks"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert!(names.contains(&"equals the golden on the oracle"), "{names:?}");

    // Another model's golden.
    let wrong = tempfile::tempdir().unwrap();
    for (file, case) in [("config.json", "biases"), ("model.safetensors", "biases"), ("golden.safetensors", "tied")] {
        fs::copy(tiny(case).join(file), wrong.path().join(file)).unwrap();
    }
    let (code, json) = report(check(wrong.path()));
    let failures = failed(&json);
    assert!(code == Some(1) && failures.iter().all(|f| f.contains("equals the golden on ")), "{failures:?}");
    assert!(failures[0].contains("`tamarack debug compare` finds the first module"), "{failures:?}");
}

#[test]
fn names_that_are_none_and_folders_without_a_crate_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    let folder = text(empty.path());
    for (arguments, code, message) in [
        (vec!["plugin", "new", "My-Model"], 2, "`My-Model`: a name is lower-case letters, digits and underscores"),
        (vec!["plugin", "new", "m", "--dir", "/dev/null/m", "--api", folder], 1, "no tamarack-api here"),
        (vec!["plugin", "check", folder], 1, "expected a library or the folder of a crate"),
        (vec!["plugin", "check", "/no/such/file.so"], 1, "/no/such/file.so: no such file or folder"),
        (vec!["plugin", "install", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")], 1, "is not a dynamic library"),
        (vec!["plugin", "remove", "x"], 1, "x: no such plugin in "),
    ] {
        let outcome = run(tamarack(&arguments));
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{arguments:?}: {}", outcome.stderr);
    }
}

/// The plugin of `tests/rogue`, which does this when it is loaded.
fn rogue(folder: &Path, mode: &str) -> PathBuf {
    let program = env::current_exe().unwrap();
    let name = format!("{}tamarack_rogue{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let find = || program.ancestors().skip(1).take(2).map(|f| f.join(&name)).find(|path| path.is_file());
    // A build of the whole workspace leaves it there.
    let library = find().unwrap_or_else(|| {
        let target = program.ancestors().nth(3).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "tamarack-rogue", "--target-dir"]).arg(target);
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        find().expect("the library")
    });
    let mut bytes = fs::read(library).unwrap();
    let at = bytes.windows(16).position(|w| w == b"rogue-mode:calm.").unwrap();
    bytes[at + 11..at + 16].copy_from_slice(mode.as_bytes());
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_a_plugin_should_not_do_is_found_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let check = |mode: &str, does: &str| {
        let library = rogue(folder.path(), mode);
        fs::write(&config, json!({ "model_type": "rogue", "does": does }).to_string()).unwrap();
        let arguments = ["plugin", "check", text(&library), "--config", text(&config), "--json"];
        // The plugin's own panics are on its stderr.
        let (code, json) = report(outcome(tamarack(&arguments)));
        assert_eq!(code, Some(1), "{mode} {does}");
        failed(&json)
    };
    let starts_thread = |failures: &[String]| failures.iter().any(|f| f.contains("foreign: pthread_create"));
    let failures = check("calm.", "");
    assert!(failures.len() == 1 && (starts_thread(&failures) || !cfg!(target_os = "linux")), "{failures:?}");
    assert_eq!(check("print", ""), failures, "what it prints is not taken for a report");
    for (mode, does, expected) in [
        ("abort", "", ": leaves the host running: the plugin ended its process ("),
        ("exit.", "", ": leaves the host running: the plugin ended its process (exit status: 0)"),
        ("panic", "", ": loads: "),
        ("none.", "", ": declares its models: `` serves no model type"),
        ("calm.", "panic", "panicked: no model of null layers"),
        ("calm.", "differ", "is repeatable: a second recording differs from "),
        ("calm.", "plain panics", "panicked: not 8 today"),
        ("calm.", "look at other rows", "computes what was recorded on "),
    ] {
        let failures = check(mode, does);
        assert!(failures.iter().any(|f| f.contains(expected)), "{mode} {does}: {failures:?}");
    }
}
