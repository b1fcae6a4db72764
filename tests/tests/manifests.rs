//! Which folder may know which: what the design rules out is absent from every manifest, and the core
//! and the kernels name no plugin in their sources.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A package of the workspace.
#[derive(Clone)]
struct Package {
    name: String,
    /// From the root of the workspace: `core/api`.
    folder: String,
    dependencies: Vec<Dependency>,
}

#[derive(Clone)]
struct Dependency {
    name: String,
    /// Of the product, and not only of its tests or its build.
    normal: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every manifest of the workspace, as cargo understands it: inherited, renamed and per-target
/// dependencies under their real names.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let root = PathBuf::from(metadata["workspace_root"].as_str().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let dependency = |d: &Value| Dependency { name: text(&d["name"]), normal: d["kind"].is_null() };
    let package = |p: &Value| {
        let manifest = PathBuf::from(text(&p["manifest_path"]));
        let folder = manifest.parent().unwrap().strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        Package {
            name: text(&p["name"]),
            folder,
            dependencies: list(&p["dependencies"]).iter().map(dependency).collect(),
        }
    };
    list(&metadata["packages"]).iter().map(package).collect()
}

/// Folders are of a few kinds: all plugins but `plugins/all` are alike, and so are all examples.
fn kind(folder: &str) -> &str {
    match folder.split_once('/') {
        Some(("plugins", name)) if name != "all" => "plugins/*",
        Some(("examples", _)) => "examples",
        _ => folder,
    }
}

/// The folders of ours that a folder may depend on, in its tests, too.
fn allowed(folder: &str) -> &'static [&'static str] {
    match kind(folder) {
        "core/api" => &["core/abi"],
        "core" => &["core/api", "core/abi", "kernels"],
        "plugins/*" | "tests/rogue" => &["core/api"],
        "plugins/all" => &["plugins/*"],
        "docs" => &["core", "plugins/all", "tests"],
        "examples" => &["core", "core/api", "plugins/*", "plugins/all"],
        "tests" => &["core", "core/api", "kernels", "plugins/*", "plugins/all"],
        _ => &[],
    }
}

/// Others' packages that a folder must not depend on.
fn forbidden(folder: &str) -> &'static [&'static str] {
    match kind(folder) {
        "core/abi" | "core/api" | "plugins/*" | "plugins/all" => {
            &["wgpu", "wgpu-core", "wgpu-hal", "wgpu-types", "naga", "tokenizers", "tokio"]
        }
        _ => &[],
    }
}

/// Every arrow that must not be there.
fn violations(packages: &[Package]) -> Vec<String> {
    let arrows = packages.iter().flat_map(|p| p.dependencies.iter().map(move |d| (p, d)));
    let wrong = arrows.filter(|(p, d)| match packages.iter().find(|other| other.name == d.name) {
        Some(ours) => !allowed(&p.folder).contains(&kind(&ours.folder)),
        // A plugin is built of the api alone.
        None => kind(&p.folder) == "plugins/*" && d.normal || forbidden(&p.folder).contains(&d.name.as_str()),
    });
    wrong.map(|(p, d)| format!("{}/Cargo.toml must not name {}", p.folder, d.name)).collect()
}

#[test]
fn manifests_keep_to_the_design() {
    let packages = packages();
    for folder in ["core", "core/abi", "core/api", "kernels", "plugins/all", "plugins/llama", "examples", "tests"] {
        assert!(packages.iter().any(|p| p.folder == folder), "{folder} is missing");
    }
    assert_eq!(violations(&packages), [""; 0]);
}

#[test]
fn a_broken_arrow_is_noticed() {
    for (folder, name, normal) in [
        ("core", "tamarack-llama", true),
        ("core", "tamarack-plugins", false),
        ("core", "tamarack-tests", false),
        ("plugins/llama", "tamarack", false),
        ("plugins/llama", "tamarack-kernels", true),
        ("plugins/llama", "tamarack-plugins", true),
        ("plugins/llama", "wgpu", false),
        ("plugins/llama", "rand", true),
        ("plugins/all", "tamarack", true),
        ("kernels", "tamarack-api", true),
        ("kernels", "tamarack", false),
        ("core/api", "wgpu", true),
        ("core/api", "tokenizers", true),
        ("core/api", "tokio", false),
        ("core/api", "tamarack", false),
        ("core/abi", "tamarack-api", true),
        ("examples", "tamarack-tests", true),
    ] {
        let mut packages = packages();
        let package = packages.iter_mut().find(|p| p.folder == folder).unwrap();
        package.dependencies.push(Dependency { name: name.into(), normal });
        assert_eq!(violations(&packages), [format!("{folder}/Cargo.toml must not name {name}")]);
    }
}

/// The source files under a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|f| f.extension().is_some_and(|e| ["rs", "wgsl", "toml"].iter().any(|known| e == *known))).collect()
}

#[test]
fn core_and_kernels_name_no_plugin() {
    let packages = packages();
    let plugins: Vec<&str> =
        packages.iter().filter(|p| p.folder.starts_with("plugins/")).map(|p| p.name.as_str()).collect();
    assert!(plugins.contains(&"tamarack-llama"), "{plugins:?}");
    let names: Vec<String> = plugins.iter().flat_map(|name| [(*name).to_owned(), name.replace('-', "_")]).collect();
    let files: Vec<PathBuf> = ["core", "kernels"].iter().flat_map(|folder| sources(&root().join(folder))).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let named = names.iter().find(|name| text.contains(*name));
        assert!(named.is_none(), "{}: names the plugin {named:?}", file.display());
    }
}
