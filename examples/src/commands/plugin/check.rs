//! `tamarack plugin check`: whether a plugin keeps to the contract.

use super::{
    super::output,
    crate_folder::{self, CrateFolder},
};
use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tamarack::{
    conformance::{self, Case, Check as Checked},
    plugins::{Found, Registry, foreign_imports},
};

/// Checks that a plugin keeps to the contract, on this machine's devices.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack plugin check my_model                            builds it, and takes the models in my_model/check
  tamarack plugin check libmy_model.so --model ./tiny       a directory with config.json and safetensors
  tamarack plugin check my_model --config config.json       random weights
  tamarack plugin check my_model --json

Looked at are: the manifest; what the library imports, exports and declares; for each model that what is recorded is
sound and repeatable, that prefill, pieces, token by token and batches give the same logits, on the oracle and on
every adapter; and that they equal another engine's where the model has a golden.safetensors (`input_ids`, `logits`).
The library runs in a process of its own. Exit code 1: something failed.")]
pub struct Check {
    /// A crate's folder, which is built, or a library
    path: PathBuf,
    /// A model directory to check it with; may be given several times
    #[arg(long = "model", value_name = "DIR")]
    models: Vec<PathBuf>,
    /// A config.json to check it with, with random weights; may be given several times
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Check the library in this process, and write the report into this file
    #[arg(long, hide = true, value_name = "FILE")]
    here: Option<PathBuf>,
}

#[derive(Serialize, Deserialize, Default)]
struct Report {
    /// The library.
    library: PathBuf,
    /// Whether all is as it should be.
    passed: bool,
    checks: Vec<Line>,
}

/// See [`conformance::Check`].
#[derive(Serialize, Deserialize)]
struct Line {
    /// The model; empty for what concerns the plugin as a whole.
    case: String,
    name: String,
    passed: bool,
    message: String,
}

impl Check {
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(file) = &self.here {
            let report = serde_json::to_vec(&self.check_here())?;
            return std::fs::write(file, report).with_context(|| file.display().to_string());
        }
        let (library, folder) = crate_folder::library(&self.path)?;
        let mut report = Report { library: library.clone(), ..Report::default() };
        report.add("", folder.iter().flat_map(CrateFolder::checks));
        let cases = self.models.iter().cloned().chain(folder.iter().flat_map(CrateFolder::cases)).collect();
        report.checks.extend(self.check_apart(&library, cases)?.checks);
        report.passed = report.checks.iter().all(|c| c.passed);
        let failed = report.checks.iter().filter(|c| !c.passed).count();
        let summary =
            if failed == 0 { format!("\nall {} checks passed\n", report.checks.len()) } else { String::new() };
        match self.json {
            true => output::json(&report)?,
            false => output::text(&(report.text() + &summary))?,
        }
        if failed > 0 {
            bail!("{}: {failed} of {} checks failed", self.path.display(), report.checks.len());
        }
        Ok(())
    }

    /// In a process of its own, which a plugin may end. What the plugin prints goes to stderr.
    fn check_apart(&self, library: &Path, cases: Vec<PathBuf>) -> anyhow::Result<Report> {
        let file = tempfile::NamedTempFile::new()?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["plugin", "check", "--here"]).arg(file.path()).arg(library);
        cases.iter().for_each(|case| {
            child.arg("--model").arg(case);
        });
        self.configs.iter().for_each(|config| {
            child.arg("--config").arg(config);
        });
        let status = child.stdin(Stdio::null()).stdout(std::io::stderr()).status()?;
        // A plugin that exits with 0 leaves the file empty.
        if let Ok(report) = serde_json::from_slice(&std::fs::read(file.path())?) {
            return Ok(report);
        }
        let reason = format!(
            "the plugin ended its process ({status}): is it built with panic = \"abort\", does it recurse without end, or \
             call exit?"
        );
        let mut report = Report::default();
        report.add("", [Checked::new("leaves the host running", Err(reason))]);
        Ok(report)
    }

    fn check_here(&self) -> Report {
        let mut report = Report::default();
        report.add("", [Checked::new("imports nothing foreign", imports(&self.path))]);
        let mut registry = Registry::default();
        if let Err(e) = registry.load_file(&self.path) {
            report.add("", [Checked::new("loads", Err(e.to_string()))]);
            return report;
        }
        let plugins: Vec<Found> =
            registry.model_types().into_iter().filter_map(|model_type| registry.find(model_type).ok()).collect();
        report.add("", [Checked::new("loads", Ok("the layout of the boundary and the api fit".into()))]);
        report.add("", [Checked::new("declares its models", declared(&registry))]);
        let models = self.models.iter().map(|path| (path, true));
        let cases: Vec<_> = models.chain(self.configs.iter().map(|path| (path, false))).collect();
        if cases.is_empty() {
            let remedy =
                "there is no model to check it with: give --config FILE or --model DIR, or keep check/NAME/config.json";
            report.add("", [Checked::new("runs", Err(remedy.into()))]);
        }
        for (path, is_model) in cases {
            let name = case_name(path);
            match case(&plugins, path, is_model) {
                Ok((plugin, case)) => report.add(&name, conformance::check(plugin, &case)),
                Err(e) => report.add(&name, [Checked::new("is a model of this plugin", Err(e.to_string()))]),
            }
        }
        report
    }
}

/// The folder's name, or that of the folder around a `config.json`.
fn case_name(path: &Path) -> String {
    let named = if path.is_file() && path.ends_with("config.json") { path.parent() } else { Some(path) };
    named.and_then(Path::file_name).unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn imports(library: &Path) -> Result<String, String> {
    match &foreign_imports(library).map_err(|e| e.to_string())?[..] {
        [] => Ok("no networks, processes, threads or changes to files".into()),
        names => Err(format!(
            "{}: what only describes a model reaches no network, starts no process or thread and changes no file",
            names.join(", ")
        )),
    }
}

fn declared(registry: &Registry) -> Result<String, String> {
    let plugins = registry.list().plugins;
    let of = |p: &tamarack::plugins::Listed| format!("{} for {}", p.name, p.model_types.join(", "));
    match plugins.iter().find(|p| p.model_types.is_empty() || p.name.is_empty()) {
        Some(p) => Err(format!("`{}` serves no model type: name at least one in its declaration", p.name)),
        None => Ok(plugins.iter().map(of).collect::<Vec<_>>().join("; ")),
    }
}

/// A model directory with weights, or a configuration alone.
fn case<'a>(plugins: &'a [Found], path: &Path, is_model: bool) -> anyhow::Result<(&'a Found, Case)> {
    let config = if is_model { path.join("config.json") } else { path.to_owned() };
    let text = std::fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).with_context(|| config.display().to_string())?;
    let model_type = json["model_type"].as_str().unwrap_or_default();
    let serves = |p: &&Found| p.declaration().model_types.iter().any(|t| t == model_type);
    let plugin = plugins.iter().find(serves);
    let plugin =
        plugin.with_context(|| format!("its model_type `{model_type}` is not one that the plugin declares"))?;
    let has_weights = is_model && std::fs::read_dir(path)?.flatten().any(|e| is_weights(&e.path()));
    let case = match has_weights {
        true => Case::open(path)?,
        false => Case::made_up(&case_name(path), plugin, &json)?,
    };
    Ok((plugin, case))
}

fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "safetensors") && !path.ends_with("golden.safetensors")
}

impl Report {
    fn add(&mut self, case: &str, checks: impl IntoIterator<Item = Checked>) {
        let line = |Checked { name, passed, message }| Line { case: case.to_owned(), name, passed, message };
        self.checks.extend(checks.into_iter().map(line));
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.library.display());
        let mut last = "";
        for Line { case, name, passed, message } in &self.checks {
            if case != last {
                let _ = writeln!(text, "\n{case}");
                last = case;
            }
            let _ = writeln!(text, "  {} {name}: {message}", if *passed { "ok    " } else { "FAILED" });
        }
        text
    }
}
