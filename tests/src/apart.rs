//! Crates that are not of the workspace, built as strangers build them.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
    process::Command,
};

/// Builds the packages of `folder`, below the repository, with a profile; the folder of what is built. They share a
/// target folder, and with it the dependencies.
pub fn build(folder: &str, profile: &str, arguments: &[&str]) -> PathBuf {
    let program = std::env::current_exe().expect("a test has a path");
    // TARGET/debug/deps/apart-HASH
    let target = program.ancestors().nth(3).expect("cargo's folders").join("apart");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", profile, "--target-dir"])
        .arg(&target)
        .args(arguments)
        .current_dir(&folder)
        .status();
    assert!(status.is_ok_and(|s| s.success()), "cargo build in {} failed", folder.display());
    target.join(if profile == "dev" { "debug" } else { profile })
}

/// The library of a crate that [`build`] put there.
pub fn dylib(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"))
}
