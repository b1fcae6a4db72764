//! A plugin's sources: what its manifest says, and building it.

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;
use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tamarack::conformance::Check;

/// Packages that have no business in what only describes a model.
const FORBIDDEN: &[&str] =
    &["wgpu", "naga", "tokenizers", "tokio", "rayon", "reqwest", "ureq", "hyper", "tamarack", "tamarack-kernels"];

/// A package that cargo builds.
pub struct CrateFolder {
    folder: PathBuf,
    package: Value,
    target: PathBuf,
}

/// What a user names: a library, or the folder of its sources, which are built. With what the manifest says of it.
pub fn library(path: &Path) -> anyhow::Result<(PathBuf, Option<CrateFolder>)> {
    if !path.is_dir() {
        ensure!(path.exists(), "{}: no such file or folder", path.display());
        return Ok((path.to_owned(), None));
    }
    let folder = CrateFolder::open(path)?;
    Ok((folder.build()?, Some(folder)))
}

impl CrateFolder {
    fn open(folder: &Path) -> anyhow::Result<CrateFolder> {
        let manifest = folder.join("Cargo.toml");
        ensure!(manifest.is_file(), "{}: expected a library or the folder of a crate", folder.display());
        let manifest = manifest.canonicalize().with_context(|| folder.display().to_string())?;
        let arguments = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path"];
        let output = cargo().args(arguments).arg(&manifest).stderr(Stdio::inherit()).output();
        let output = output.map_err(|e| anyhow!("cargo: {e}: building a plugin takes rustup, https://rustup.rs"))?;
        ensure!(output.status.success(), "{}: cargo cannot read it", manifest.display());
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let package = packages.into_iter().find(|p| p["manifest_path"].as_str().map(Path::new) == Some(&manifest));
        let package = package.with_context(|| format!("{}: is no package", manifest.display()))?.clone();
        let target = PathBuf::from(metadata["target_directory"].as_str().unwrap_or("target"));
        Ok(CrateFolder { folder: folder.to_owned(), package, target })
    }

    /// Builds it with optimisation; the library.
    fn build(&self) -> anyhow::Result<PathBuf> {
        let status = cargo()
            .args(["build", "--release", "--quiet", "--lib", "--manifest-path"])
            .arg(self.folder.join("Cargo.toml"))
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "{}: cargo build failed", self.folder.display());
        let Some(name) = self.cdylib() else {
            let folder = self.folder.display();
            bail!("{folder}: builds no library that can be loaded: its [lib] needs crate-type = [\"cdylib\", \"rlib\"]")
        };
        let path = self.target.join("release").join(format!("{DLL_PREFIX}{}{DLL_SUFFIX}", name.replace('-', "_")));
        ensure!(path.is_file(), "{}: cargo built no such file", path.display());
        Ok(path)
    }

    fn cdylib(&self) -> Option<&str> {
        let is_cdylib = |t: &&Value| t["crate_types"].as_array().is_some_and(|c| c.iter().any(|c| c == "cdylib"));
        self.package["targets"].as_array()?.iter().find(is_cdylib)?["name"].as_str()
    }

    /// What the manifest should say.
    pub fn checks(&self) -> Vec<Check> {
        let text = |field: &str| self.package[field].as_str().filter(|s| !s.is_empty());
        let said = |field: &str, remedy: &str| {
            Check::new(&format!("has a {field}"), text(field).map(str::to_owned).ok_or_else(|| remedy.to_owned()))
        };
        let version = text("version").filter(|v| *v != "0.0.0").map(str::to_owned);
        let licence = text("license").or_else(|| text("license_file")).map(str::to_owned);
        let remedy = |field: &str| format!("write `{field} = \"..\"` into Cargo.toml");
        vec![
            Check::new("has a version", version.ok_or_else(|| remedy("version"))),
            Check::new("has a licence", licence.ok_or_else(|| remedy("license"))),
            said("description", &remedy("description")),
            Check::new("depends on tamarack-api alone", self.dependencies()),
            Check::new("panics can be caught", self.unwinds()),
        ]
    }

    fn dependencies(&self) -> Result<String, String> {
        let dependencies = self.package["dependencies"].as_array().into_iter().flatten();
        let names: Vec<&str> =
            dependencies.filter(|d| d["kind"].is_null()).filter_map(|d| d["name"].as_str()).collect();
        if let Some(name) = names.iter().find(|n| FORBIDDEN.contains(n)) {
            return Err(format!("a plugin only describes: take `{name}` out of its dependencies"));
        }
        match names.iter().filter(|n| **n != "tamarack-api").copied().collect::<Vec<_>>()[..] {
            _ if !names.contains(&"tamarack-api") => Err("add tamarack-api to the dependencies".into()),
            [] => Ok("and on nothing else".into()),
            ref others => Ok(format!("and on {}, which must not compute either", others.join(", "))),
        }
    }

    fn unwinds(&self) -> Result<String, String> {
        let manifest = std::fs::read_to_string(self.folder.join("Cargo.toml")).unwrap_or_default();
        let aborts = manifest.lines().any(|l| l.replace(' ', "").starts_with("panic=\"abort\""));
        match aborts {
            true => Err("panic = \"abort\" ends the host with the plugin: take it out of Cargo.toml".into()),
            false => Ok("no profile says panic = \"abort\"".into()),
        }
    }

    /// The models that the author keeps to check it with: the folders of `check`, sorted.
    pub fn cases(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.join("check")).into_iter().flatten();
        let mut cases: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
        cases.sort();
        cases
    }
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo")))
}
