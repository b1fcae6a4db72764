//! `tamarack bench`: how fast a model runs, and how far that is from what the device's memory allows.

mod measure;
mod profile;
mod report;
mod shapes;
mod traffic;

use super::{
    inspect::cost::Served,
    model::{PluginArgs, served_files, warn_unused},
    output,
};
use crate::errors::Usage;
use anyhow::anyhow;
use clap::Args;
use measure::{Runner, Workload};
use profile::Profile;
use report::{Measurement, Report, Weights};
use shapes::Synthetic;
use std::time::Instant;
use tamarack::{
    Device, Target,
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings, read_bandwidth},
    exec::{Capacity, Executor, PAGE},
    gpu::{Gpu, Precision, Settings, WgpuExecutor},
};

/// Measures prefill, decoding and loading, as shares of the memory bandwidth that the device has.
#[derive(Args)]
#[command(after_help = "Examples:
  tamarack bench --synthetic llama-8b:q4_0
  tamarack bench --model model.gguf --prompt 2048 --generate 64 --json
  tamarack bench --synthetic llama-1b:q4g64 --batch 32 --depth 0 --profile

SHAPE is one of tiny, llama-1b, qwen3-4b, 4b and llama-8b; FORMAT one of q4_0, q5_0, q8_0, q3_k, q6_k,
f16, bf16, f32, or as q4g64 2, 3, 4, 5, 6 or 8 bits in groups of 16, 32, 64 or 128. Synthetic weights are
random: they are as fast as real ones, and nothing has to be downloaded.")]
pub struct Bench {
    /// A directory, a .gguf file or the id of a model on the hub
    #[arg(long, conflicts_with = "synthetic", required_unless_present = "synthetic")]
    model: Option<String>,
    /// Random weights of a model's shape
    #[arg(long, value_name = "SHAPE:FORMAT")]
    synthetic: Option<Synthetic>,
    #[command(flatten)]
    workload: Workload,
    /// Where it runs: auto, cpu, an index or a part of a name, see 'tamarack devices'
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: Device,
    /// Threads that compute where it runs on the processor [default: one for each physical core]
    #[arg(long, value_name = "N", value_parser = measure::number(1))]
    threads: Option<usize>,
    /// Tokens in a step at most
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = measure::number(1))]
    rows: usize,
    /// How activations are rounded before they meet quantized weights: full (not), high (16 bits) or fast
    /// (8 bits) [default: what suits the device]
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    /// Use the kernels that are right for most devices, without a search for what is fastest on this one
    #[arg(long)]
    no_tune: bool,
    /// Also show what each kernel takes
    #[arg(long)]
    profile: bool,
    /// Print one JSON object instead of Markdown
    #[arg(long)]
    json: bool,
    /// Refuse a model whose files have tensors that its architecture does not use, instead of a warning
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    plugins: PluginArgs,
}

impl Bench {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let (name, checkpoint) = match (&self.synthetic, &self.model) {
            (Some(synthetic), _) => (synthetic.to_string(), synthetic.checkpoint()?),
            (None, Some(model)) => {
                let path = served_files(model, None, &self.plugins.registry()).await?;
                (model.clone(), Checkpoint::open(&path)?)
            }
            (None, None) => return Err(Usage("expected --model or --synthetic".to_owned()).into()),
        };
        let report = self.measure(name, &checkpoint)?;
        if self.json { output::json(&report) } else { output::text(&report.to_string()) }
    }

    fn measure(&self, name: String, checkpoint: &Checkpoint) -> anyhow::Result<Report> {
        let capacity = self.capacity()?;
        let program = || Ok::<_, anyhow::Error>(self.served(checkpoint)?.program);
        match self.device.target()? {
            Target::Gpu(adapter) => {
                let gpu = Gpu::open(&adapter)?;
                let tune = gpu.settings.tune && !self.no_tune;
                let settings = Settings { tune, ..gpu.settings };
                let gpu = gpu.with(settings).at(self.precision);
                let about = (report::Device::of(gpu.info()), gpu.read_bandwidth()?);
                let load = || {
                    let executor = WgpuExecutor::load(gpu, program()?, checkpoint, capacity)?;
                    Ok((executor.weight_bytes(), executor))
                };
                self.run_on(name, checkpoint, about, load, |runner, depth| runner.profiles(depth))
            }
            Target::Cpu if self.profile => Err(anyhow!("--profile: a processor has no timestamps of kernels")),
            Target::Cpu => {
                let mut settings = CpuSettings { threads: self.threads, ..CpuSettings::new()? };
                settings.precision = self.precision.unwrap_or(settings.precision);
                let about = (report::Device::cpu(&settings), read_bandwidth(self.threads)?);
                let load = || {
                    let executor = CpuExecutor::load(settings, program()?, checkpoint, capacity)?;
                    Ok((executor.weight_bytes(), executor))
                };
                self.run_on(name, checkpoint, about, load, |_, _| Ok(Vec::new()))
            }
            Target::Mixed(_) => Err(anyhow!("--device: one device at a time is measured, such as gpu or cpu")),
            Target::Reference => Err(anyhow!("no speed to measure: the reference executor is to be right, not quick")),
        }
    }

    /// Loads a model and measures it. `load` also gives the bytes of its weights.
    fn run_on<E: Executor>(
        &self,
        name: String,
        checkpoint: &Checkpoint,
        (device, bandwidth): (report::Device, f64),
        load: impl FnOnce() -> anyhow::Result<(u64, E)>,
        profiles: impl Fn(&mut Runner<'_, E>, usize) -> tamarack::Result<Vec<Profile>>,
    ) -> anyhow::Result<Report> {
        let Served { program, unused, .. } = self.served(checkpoint)?;
        warn_unused(&name, &unused);
        let traffic = traffic::Traffic::of(&program, checkpoint)?;

        let start = Instant::now();
        let (bytes, mut executor) = load()?;
        let weights = Weights { bytes, load_seconds: start.elapsed().as_secs_f64() };

        let mut runner = Runner::new(&mut executor, &self.workload);
        let cold_first_token_seconds = runner.first_token()?;
        let mut measurements = Vec::new();
        for depth in &self.workload.depth {
            let seconds = runner.measure(*depth)?;
            let profiles = if self.profile { profiles(&mut runner, *depth)? } else { Vec::new() };
            measurements.push(Measurement::new(&self.workload, *depth, seconds, &traffic, bandwidth, profiles));
        }
        let (version, workload) = (env!("CARGO_PKG_VERSION"), self.workload.clone());
        Ok(Report {
            model: name,
            version,
            device,
            bandwidth,
            workload,
            rows: self.rows,
            weights,
            cold_first_token_seconds,
            measurements,
        })
    }

    fn served(&self, checkpoint: &Checkpoint) -> tamarack::Result<Served> {
        Served::by(&self.plugins.registry(), checkpoint, self.strict)
    }

    /// Room for the longest sequences asked for.
    fn capacity(&self) -> anyhow::Result<Capacity> {
        let batch = self.workload.batch;
        if batch > self.rows {
            return Err(Usage(format!("--batch {batch} does not fit a step of --rows {}", self.rows)).into());
        }
        let pages = self.workload.longest().div_ceil(PAGE).saturating_mul(batch);
        Ok(Capacity { rows: self.rows, outputs: batch, pages, slots: batch })
    }
}
