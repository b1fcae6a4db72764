//! `tamarack plugin new`: a crate to start from.

use super::super::output;
use crate::errors::Usage;
use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of a new crate, in which `{{NAME}}`, `{{TYPE}}`, `{{STRUCT}}` and `{{API}}` are filled in.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("tests/records.rs", include_str!("template/records.rs.in")),
    ("check/tiny/config.json", include_str!("template/config.json.in")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", "/target\n"),
];

/// Where the api was when this command was built.
const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/api");

/// Writes a crate that builds and runs: a small decoder, a test, a configuration to check it with.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack plugin new my_model
  tamarack plugin new my_model --model-type mymodel2 --dir ~/plugins/my_model
  tamarack plugin new my_model --api 'git = \"https://example.org/tamarack\"'

The crate depends on tamarack-api alone: by default, the one in the sources that this command was built from.")]
pub struct New {
    /// Name of the package: lower-case letters, digits and underscores
    name: String,
    /// The `model_type` of config.json that it serves [default: NAME]
    #[arg(long, value_name = "TYPE")]
    model_type: Option<String>,
    /// The folder to write [default: NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where tamarack-api is: a folder, or what stands in a manifest ('version = "1"', 'git = ..')
    #[arg(long, value_name = "SOURCE", default_value = API, hide_default_value = true)]
    api: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Written {
    folder: PathBuf,
    files: Vec<&'static str>,
}

impl New {
    pub fn run(self) -> anyhow::Result<()> {
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !self.name.chars().all(sound) || !self.name.starts_with(|c: char| c.is_ascii_lowercase()) {
            let message = format!("`{}`: a name is lower-case letters, digits and underscores", self.name);
            return Err(Usage(message).into());
        }
        let folder = self.dir.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        ensure!(!folder.exists(), "{}: exists already: choose another folder with --dir", folder.display());
        let api = dependency(&self.api)?;
        let model_type = self.model_type.as_deref().unwrap_or(&self.name);
        let values = [("NAME", &*self.name), ("TYPE", model_type), ("STRUCT", &camel(&self.name)), ("API", &api)];
        for (name, template) in FILES {
            let text = values.iter().fold((*template).to_owned(), |t, (k, v)| t.replace(&format!("{{{{{k}}}}}"), v));
            write(&folder.join(name), &text)?;
        }
        let files = FILES.iter().map(|(name, _)| *name).collect();
        match self.json {
            true => output::json(&Written { folder, files }),
            false => output::text(&format!(
                "{0}: written. Next:\n  cargo test --manifest-path {0}/Cargo.toml\n  tamarack plugin check {0}\n\
                 Then make {0}/src/lib.rs the model that you mean: docs/writing-a-plugin.md.\n",
                folder.display()
            )),
        }
    }
}

/// What stands in the manifest: a path in full, or what the user wrote.
fn dependency(source: &str) -> anyhow::Result<String> {
    if source.contains('=') {
        return Ok(source.to_owned());
    }
    let path = Path::new(source);
    let missing =
        || format!("{source}: no tamarack-api here: name its folder, or a source like 'git = \"..\"', with --api");
    ensure!(path.join("Cargo.toml").is_file(), missing());
    Ok(format!("path = {:?}", path.canonicalize().with_context(missing)?.to_string_lossy()))
}

/// `my_model` as `MyModel`.
fn camel(name: &str) -> String {
    let word = |w: &str| w.chars().take(1).flat_map(char::to_uppercase).chain(w.chars().skip(1)).collect::<String>();
    name.split('_').map(word).collect()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    fs::write(path, text).with_context(|| path.display().to_string())
}
