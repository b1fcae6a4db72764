//! `tamarack debug compare`: the first module whose result is not what it should be.

use super::super::{
    model::{LoadArgs, warn_unused},
    output,
};
use crate::{
    errors::Usage,
    table::{Side, Table},
};
use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tamarack::{
    Target,
    checkpoint::Checkpoint,
    compare::{self, Comparison},
    cpu::{CpuExecutor, CpuSettings},
    exec::Executor,
    gpu::{Gpu, WgpuExecutor},
    program::{Program, RULES, lower, rewrite},
    weights::fold,
};

/// Finds the first module whose result is wrong.
#[derive(Args)]
#[command(after_help = "Examples:
  python3 tests/goldens/modules.py ./my-model modules.safetensors   # what transformers computes, module by module
  tamarack debug compare ./my-model --with modules.safetensors
  tamarack debug compare ./my-model --tokens 1,5,9,2 --device nvidia

With --with, the oracle's results, in plain f32, are compared with another engine's: FILE has `input_ids`, one tensor of f32
[tokens, ..] under the name of each module (`model.layers.0.mlp.down_proj`), and `logits`. This finds mistakes in a plugin.
Without, a device's results are compared with the oracle's, which finds mistakes in kernels. The exit code is 1 where
something differs.")]
pub struct Compare {
    /// A directory, a .gguf file or the id of a model on the hub
    model: String,
    /// What another engine computed: a safetensors file
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    /// Token ids, separated by commas [default: those of FILE]
    #[arg(long, value_name = "IDS", value_delimiter = ',', required_unless_present = "with")]
    tokens: Vec<u32>,
    /// The difference that is allowed, as a share of a module's largest number [default: 0.001, for a device 0.02]
    #[arg(long, value_name = "SHARE")]
    tolerance: Option<f32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Serialize)]
struct Report {
    /// What was compared, in the model's order.
    compared: Vec<Line>,
    /// The first module that differs.
    first: Option<String>,
}

#[derive(Serialize)]
struct Line {
    module: String,
    place: String,
    difference: f32,
    largest: f32,
    row: usize,
    column: usize,
    agrees: bool,
}

impl Compare {
    pub async fn run(self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint::open(&super::super::model::files(&self.model).await?)?;
        let program = self.program(&checkpoint)?;
        let tolerance = self.tolerance.unwrap_or(if self.with.is_some() { 1e-3 } else { 2e-2 });
        let compared = match &self.with {
            Some(path) => self.with_recorded(path, &program, &checkpoint)?,
            None => self.with_device(&program, &checkpoint, tolerance)?,
        };
        let report = Report::new(&compared, tolerance);
        if self.json {
            output::json(&report)?
        } else {
            output::text(&report.to_string())?
        }
        match compared.iter().find(|c| !c.is_within(tolerance)) {
            None => Ok(()),
            Some(c) => bail!("{}: the first result that differs, recorded at {}", c.point.name, c.point.place),
        }
    }

    /// The model as its plugin recorded it.
    fn program(&self, checkpoint: &Checkpoint) -> anyhow::Result<Program> {
        let model_type = checkpoint.config()["model_type"].as_str().unwrap_or("");
        let registry = self.load.plugins.registry();
        let found = registry.find(model_type)?;
        let (graph, unused) = found.record_text(checkpoint, self.load.strict)?;
        warn_unused(&self.model, &unused);
        Ok(lower(&graph))
    }

    fn with_recorded(
        &self,
        path: &Path,
        program: &Program,
        checkpoint: &Checkpoint,
    ) -> anyhow::Result<Vec<Comparison>> {
        let (ids, modules) = read(path).with_context(|| path.display().to_string())?;
        let tokens = if self.tokens.is_empty() { &ids } else { &self.tokens };
        let compared = compare::with_recorded(program, checkpoint, tokens, &modules)?;
        let names = compare::points(program).into_iter().map(|p| p.name).collect::<Vec<_>>();
        ensure!(
            !compared.is_empty(),
            "{}: has none of this model's modules: expected names like {}, found {}",
            path.display(),
            names.get(1).map_or("logits", |n| n),
            modules.keys().next().map_or("no tensor of f32", |n| n)
        );
        Ok(compared)
    }

    fn with_device(
        &self,
        program: &Program,
        checkpoint: &Checkpoint,
        tolerance: f32,
    ) -> anyhow::Result<Vec<Comparison>> {
        let target = self.load.device.target()?;
        match target {
            Target::Gpu(_) | Target::Cpu => {}
            Target::Reference => {
                return Err(Usage("--device: reference is what devices are compared with".into()).into());
            }
            Target::Mixed(_) => return Err(Usage("--device: expected one device, such as gpu or cpu".into()).into()),
        }
        let load = |program: Program| -> tamarack::Result<Box<dyn Executor>> {
            let format = |p: &Program, w| fold(&p.weights, w, checkpoint).ok()?.format_of_all();
            let (program, _) = rewrite(program, RULES, &format);
            let capacity = compare::capacity(self.tokens.len());
            if let Target::Gpu(adapter) = &target {
                let gpu = Gpu::open(adapter)?.at(self.load.precision);
                return Ok(Box::new(WgpuExecutor::load(gpu, program, checkpoint, capacity)?));
            }
            let mut settings = CpuSettings { threads: self.load.threads, ..CpuSettings::new()? };
            settings.precision = self.load.precision.unwrap_or(settings.precision);
            Ok(Box::new(CpuExecutor::load(settings, program, checkpoint, capacity)?))
        };
        Ok(compare::with_executor(program, checkpoint, &self.tokens, tolerance, &load)?)
    }
}

/// What each module gave, by name.
type Modules = BTreeMap<String, Vec<f32>>;

/// The token ids, and what each module gave for them.
fn read(path: &Path) -> anyhow::Result<(Vec<u32>, Modules)> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let ids = file.tensor("input_ids").map_err(|e| anyhow!("input_ids: {e}"))?;
    let ids = integers(&ids).ok_or_else(|| anyhow!("input_ids: expected i32 or i64, found {:?}", ids.dtype()))?;
    let floats = |t: TensorView<'_>| t.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let modules = file.iter().filter(|(_, t)| t.dtype() == Dtype::F32).map(|(name, t)| (name.to_owned(), floats(t)));
    Ok((ids, modules.collect()))
}

fn integers(tensor: &TensorView<'_>) -> Option<Vec<u32>> {
    match tensor.dtype() {
        Dtype::I32 | Dtype::U32 => Some(tensor.data().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()),
        Dtype::I64 => tensor.data().as_chunks().0.iter().map(|b| u32::try_from(i64::from_le_bytes(*b)).ok()).collect(),
        _ => None,
    }
}

impl Report {
    fn new(compared: &[Comparison], tolerance: f32) -> Report {
        let line = |c: &Comparison| Line {
            module: c.point.name.clone(),
            place: c.point.place.clone(),
            difference: c.difference,
            largest: c.largest,
            row: c.at[0],
            column: c.at[1],
            agrees: c.is_within(tolerance),
        };
        let compared: Vec<Line> = compared.iter().map(line).collect();
        let first = compared.iter().find(|l| !l.agrees).map(|l| l.module.clone());
        Report { compared, first }
    }
}

impl std::fmt::Display for Report {
    /// Down to the first difference: what follows from it tells nothing more.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (left, right) = (Side::Left, Side::Right);
        let columns =
            [("module", left), ("off by", right), ("of", right), ("row", right), ("column", right), ("", left)];
        let mut table = Table::new(columns);
        let end = self.compared.iter().position(|l| !l.agrees).map_or(self.compared.len(), |i| i + 1);
        for l in &self.compared[..end] {
            let verdict = if l.agrees { "" } else { "differs" };
            let numbers = (format!("{:.2e}", l.difference), format!("{:.2e}", l.largest));
            table.row([
                l.module.clone(),
                numbers.0,
                numbers.1,
                l.row.to_string(),
                l.column.to_string(),
                verdict.into(),
            ]);
        }
        match (&self.first, self.compared.is_empty()) {
            (None, true) => writeln!(f, "The logits agree."),
            (None, false) => writeln!(f, "{table}All {} agree.", self.compared.len()),
            (Some(_), _) => write!(f, "{table}"),
        }
    }
}
