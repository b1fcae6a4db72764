//! Plugin libraries as cargo builds them.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
    process::Command,
};

/// The dynamic library of the workspace's package `package`. Cargo builds it beside the rlib that the
/// tests link; it is built here only where it is missing.
pub fn library(package: &str) -> PathBuf {
    let name = format!("{DLL_PREFIX}{}{DLL_SUFFIX}", package.replace('-', "_"));
    let program = std::env::current_exe().expect("a test has a path");
    let find = || program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
    find()
        .or_else(|| {
            build(package, program.parent()?.parent()?);
            find()
        })
        .unwrap_or_else(|| panic!("{name} is neither beside {} nor above", program.display()))
}

/// Builds into the profile's folder, `TARGET/debug` for the profile `dev`.
fn build(package: &str, folder: &Path) {
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--package", package, "--profile", if profile == "debug" { "dev" } else { profile }])
        .arg("--target-dir")
        .arg(folder.parent().unwrap_or(folder))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.is_ok_and(|s| s.success()), "cargo build --package {package} failed");
}
