//! `tamarack plugin install`, `list` and `remove`: the user's own plugin directory.

use super::{super::output, crate_folder};
use crate::table::{Side, Table};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde::Serialize;
use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use tamarack::plugins::{Failure, Listed, Registry, Source, user_directory};

/// Installs a plugin for all programs of this user.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack plugin install my_model             builds the crate in this folder
  tamarack plugin install libmy_model.so

The library goes into the user's plugin directory under its package's name and version, in place of other versions of
it. A program that runs keeps what it has loaded.")]
pub struct Install {
    /// A crate's folder, which is built, or a library
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Lists the plugins that are installed for this user.
#[derive(Args)]
#[command(after_help = "Example:
  tamarack plugin list --json

'tamarack plugins' also has those that are linked in and those of $TAMARACK_PLUGIN_PATH.")]
pub struct List {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Removes an installed plugin.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack plugin remove my_model
  tamarack plugin remove my_model --json")]
pub struct Remove {
    /// The name of its package, of an architecture in it, or of its file
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is in the directory.
#[derive(Serialize)]
struct Installed {
    directory: PathBuf,
    plugins: Vec<Listed>,
    failures: Vec<Failure>,
}

/// What a command changed.
#[derive(Serialize, Default)]
struct Changed {
    installed: Vec<PathBuf>,
    removed: Vec<PathBuf>,
}

impl Install {
    pub fn run(self) -> anyhow::Result<()> {
        let (library, _) = crate_folder::library(&self.path)?;
        let mut registry = Registry::default();
        registry.load_file(&library)?;
        let plugin = registry.list().plugins.into_iter().next().context("holds no architecture")?;
        let directory = directory()?;
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let older = files_of(&installed()?, &plugin.package);
        let name = format!("{DLL_PREFIX}{}-{}{DLL_SUFFIX}", plugin.package.replace('-', "_"), plugin.version);
        let path = directory.join(name);
        write_whole(&path, &fs::read(&library)?).with_context(|| path.display().to_string())?;
        let mut changed = Changed { installed: vec![path.clone()], removed: Vec::new() };
        for old in older.into_iter().filter(|old| *old != path) {
            fs::remove_file(&old).with_context(|| old.display().to_string())?;
            changed.removed.push(old);
        }
        let types = plugin.model_types.join(", ");
        changed.show(self.json, &format!("{} {} serves {types}", plugin.package, plugin.version))
    }
}

/// By another name and a rename: nobody sees half a file, and whoever has mapped the old one keeps it.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    #[cfg(unix)]
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    file.persist(path)?;
    Ok(())
}

impl List {
    pub fn run(self) -> anyhow::Result<()> {
        let installed = installed()?;
        if self.json {
            return output::json(&installed);
        }
        let mut table = Table::new(["NAME", "MODEL TYPES", "PACKAGE", "FILE"].map(|name| (name, Side::Left)));
        for p in &installed.plugins {
            let package = format!("{} {}", p.package, p.version);
            table.row([p.name.clone(), p.model_types.join(", "), package, p.source.to_string()]);
        }
        let mut text = match installed.plugins.is_empty() {
            true => format!("No plugins in {}: see 'tamarack plugin install'.\n", installed.directory.display()),
            false => table.to_string(),
        };
        for Failure { path, reason } in &installed.failures {
            text += &format!("{}: {reason}\n", path.display());
        }
        output::text(&text)
    }
}

impl Remove {
    pub fn run(self) -> anyhow::Result<()> {
        let installed = installed()?;
        let files = files_of(&installed, &self.name);
        if files.is_empty() {
            let mut names: Vec<&str> = installed.plugins.iter().map(|p| p.package.as_str()).collect();
            names.dedup();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            bail!("{}: no such plugin in {}: there are {names}", self.name, installed.directory.display());
        }
        let mut changed = Changed::default();
        for file in files {
            fs::remove_file(&file).with_context(|| file.display().to_string())?;
            changed.removed.push(file);
        }
        changed.show(self.json, "")
    }
}

impl Changed {
    fn show(&self, json: bool, what: &str) -> anyhow::Result<()> {
        if json {
            return output::json(self);
        }
        let mut text = String::new();
        self.installed.iter().for_each(|path| text += &format!("{}: installed; {what}\n", path.display()));
        self.removed.iter().for_each(|path| text += &format!("{}: removed\n", path.display()));
        output::text(&text)
    }
}

fn directory() -> anyhow::Result<PathBuf> {
    user_directory().ok_or_else(|| anyhow!("this user has no data directory: set HOME"))
}

fn installed() -> anyhow::Result<Installed> {
    let directory = directory()?;
    let mut registry = Registry::default();
    if directory.exists() {
        registry.load_dir(&directory);
    }
    let listing = registry.list();
    Ok(Installed { directory, plugins: listing.plugins, failures: listing.failures })
}

/// The files of a package, of an architecture, or of this name; broken ones only by their names.
fn files_of(installed: &Installed, name: &str) -> Vec<PathBuf> {
    let named = |path: &Path| path.file_name().is_some_and(|n| n == name);
    let loaded = installed.plugins.iter().filter_map(|p| match &p.source {
        Source::File(path) if p.package == name || p.name == name || named(path) => Some(path.clone()),
        _ => None,
    });
    let broken = installed.failures.iter().map(|f| f.path.clone()).filter(|path| named(path));
    let mut files: Vec<PathBuf> = loaded.chain(broken).collect();
    files.sort();
    files.dedup();
    files
}
