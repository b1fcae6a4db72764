//! What `bench` shows, as Markdown and as JSON.

use super::{
    measure::Workload,
    profile::{KernelTime, Profile},
    traffic::Traffic,
};
use crate::table::bytes;
use serde::Serialize;
use std::fmt;
use tamarack::{
    cpu::{CpuSettings, default_threads},
    gpu::AdapterInfo,
};

/// All that was measured.
#[derive(Serialize)]
pub struct Report {
    pub model: String,
    pub version: &'static str,
    pub device: Device,
    /// Bytes a second that the device reads at best.
    pub bandwidth: f64,
    pub workload: Workload,
    /// Rows in a step at most.
    pub rows: usize,
    pub weights: Weights,
    /// From the first prompt to its first token, kernels not yet compiled.
    pub cold_first_token_seconds: f64,
    pub measurements: Vec<Measurement>,
}

/// The adapter.
#[derive(Serialize)]
pub struct Device {
    name: String,
    backend: String,
    driver: String,
}

/// Weights on the device.
#[derive(Serialize)]
pub struct Weights {
    pub bytes: u64,
    /// Until the first step can be submitted.
    pub load_seconds: f64,
}

/// What was measured at one depth.
#[derive(Serialize)]
pub struct Measurement {
    /// Tokens in the cache before.
    depth: usize,
    /// Null where the prompt is empty.
    prefill: Option<Rate>,
    /// Null where nothing is generated.
    decode: Option<Rate>,
    /// Multiplications and additions with weights a second; attention is not counted.
    prefill_flops: Option<f64>,
    /// From the prompts to all their first tokens.
    first_token_seconds: Option<f64>,
    /// Bytes that one step of decoding has to read.
    decode_step_bytes: f64,
    /// Of the bandwidth, 0 to 1: what decoding makes use of.
    decode_share: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<Profile>,
}

/// Tokens a second, over all sequences.
#[derive(Serialize)]
pub struct Rate {
    median: f64,
    min: f64,
    max: f64,
    /// Of the median.
    seconds: f64,
}

impl Device {
    /// As it calls itself.
    pub fn of(info: &AdapterInfo) -> Device {
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
        Device { name: info.name.clone(), backend: info.backend.to_string(), driver }
    }

    /// The processor.
    pub fn cpu(settings: &CpuSettings) -> Device {
        let threads = settings.threads.unwrap_or_else(default_threads);
        let [name, backend] = ["the processor", "cpu"].map(str::to_owned);
        Device { name, backend, driver: format!("{}, {threads} threads", settings.instructions) }
    }
}

impl Rate {
    /// Of `tokens` tokens in as many repetitions as there are seconds; none without tokens.
    fn of(tokens: usize, seconds: &[f64]) -> Option<Rate> {
        let mut seconds = seconds.to_vec();
        seconds.sort_by(f64::total_cmp);
        let (first, last) = (*seconds.first()?, *seconds.last()?);
        let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
        let rate = |seconds: f64| tokens as f64 / seconds;
        (tokens > 0).then(|| Rate { median: rate(median), min: rate(last), max: rate(first), seconds: median })
    }
}

impl Measurement {
    /// Of the seconds of each repetition's prefill and decoding.
    pub fn new(
        workload: &Workload,
        depth: usize,
        (prefill, decode): (Vec<f64>, Vec<f64>),
        traffic: &Traffic,
        bandwidth: f64,
        profiles: Vec<Profile>,
    ) -> Measurement {
        let Workload { prompt, generate, batch, .. } = workload;
        let [prefill, decode] =
            [(prompt, prefill), (generate, decode)].map(|(tokens, seconds)| Rate::of(tokens * batch, &seconds));
        // The cache grows with each token; this is its mean length.
        let length = depth as f64 + (*generate as f64 + 1.0) / 2.0;
        let decode_step_bytes = traffic.step(*batch, length);
        Measurement {
            depth,
            prefill_flops: prefill.as_ref().map(|r| r.median * traffic.flops as f64),
            first_token_seconds: prefill.as_ref().map(|r| r.seconds),
            decode_share: decode.as_ref().map(|r| r.median / *batch as f64 * decode_step_bytes / bandwidth),
            prefill,
            decode,
            decode_step_bytes,
            profiles,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { device, weights, workload, .. } = self;
        writeln!(f, "# {}\n", self.model)?;
        writeln!(f, "- {} ({}, {}), tamarack {}", device.name, device.backend, device.driver, self.version)?;
        writeln!(f, "- memory read at {}", rate(self.bandwidth))?;
        let (size, seconds) = (bytes(weights.bytes), weights.load_seconds);
        writeln!(f, "- {size} of weights, loaded in {seconds:.2} s: {}", rate(weights.bytes as f64 / seconds))?;
        writeln!(f, "- first token after {:.0} ms, kernels not yet compiled", self.cold_first_token_seconds * 1e3)?;
        let Workload { prompt, generate, batch, repetitions, .. } = workload;
        writeln!(
            f,
            "- {} of {prompt} tokens of prompt and {generate} of answer, {} a step at most; median (least to most) \
             of {}\n",
            plural(*batch, "sequence"),
            plural(self.rows, "row"),
            plural(*repetitions, "repetition"),
        )?;
        self.table(f)?;
        for m in &self.measurements {
            m.profiles.iter().try_for_each(|p| self.profile(f, m.depth, p))?;
        }
        Ok(())
    }
}

impl Report {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header =
            ["depth", "prefill tokens/s", "TFLOP/s", "first token", "decode tokens/s", "read a step", "of bandwidth"];
        let mut rows = Vec::new();
        for m in &self.measurements {
            let tokens = |rate: &Option<Rate>| {
                let text = rate.as_ref().map(|r| format!("{} ({} to {})", short(r.median), short(r.min), short(r.max)));
                text.unwrap_or_else(none)
            };
            rows.push([
                m.depth.to_string(),
                tokens(&m.prefill),
                m.prefill_flops.map_or_else(none, tera),
                m.first_token_seconds.map_or_else(none, |s| format!("{:.1} ms", s * 1e3)),
                tokens(&m.decode),
                bytes(m.decode_step_bytes as u64),
                m.decode_share.map_or_else(none, percent),
            ]);
        }
        markdown(f, header, &rows)
    }

    fn profile(&self, f: &mut fmt::Formatter<'_>, depth: usize, p: &Profile) -> fmt::Result {
        let Profile { step, rows, micros, kernels } = p;
        let count: usize = kernels.iter().map(|k| k.count).sum();
        writeln!(f, "\n## {step} of {} at depth {depth}: {count} dispatches, {micros:.0} us\n", plural(*rows, "row"))?;
        let header = ["kernel", "count", "us", "us each", "share", "weights read", "of bandwidth", "TFLOP/s"];
        let row = |k: &KernelTime| {
            let (each, weights) = (k.micros / k.count as f64, k.weight_bandwidth);
            [
                k.kernel.clone(),
                k.count.to_string(),
                format!("{:.1}", k.micros),
                format!("{each:.2}"),
                percent(k.share),
                weights.map_or_else(none, rate),
                weights.map_or_else(none, |w| percent(w / self.bandwidth)),
                k.flops.map_or_else(none, tera),
            ]
        };
        markdown(f, header, &kernels.iter().map(row).collect::<Vec<_>>())
    }
}

/// A Markdown table whose columns also line up as plain text: numbers on the right, names on the left.
fn markdown<const N: usize>(f: &mut fmt::Formatter<'_>, header: [&str; N], rows: &[[String; N]]) -> fmt::Result {
    let header = header.map(str::to_owned);
    let width = |i: usize| std::iter::once(&header).chain(rows).map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let named = |i: usize| i == 0 && rows.iter().any(|r| r[0].parse::<f64>().is_err());
    let line = |f: &mut fmt::Formatter<'_>, cells: &[String; N]| {
        for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if named(i) { write!(f, "| {cell:<width$} ")? } else { write!(f, "| {cell:>width$} ")? }
        }
        writeln!(f, "|")
    };
    line(f, &header)?;
    for (i, width) in widths.into_iter().enumerate() {
        let dashes = "-".repeat(width + 1);
        if named(i) { write!(f, "|{dashes}-")? } else { write!(f, "|{dashes}:")? }
    }
    writeln!(f, "|")?;
    rows.iter().try_for_each(|row| line(f, row))
}

fn none() -> String {
    "-".to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Bytes a second.
fn rate(bytes_a_second: f64) -> String {
    format!("{} GB/s", short(bytes_a_second / 1e9))
}

/// Operations a second.
fn tera(flops: f64) -> String {
    short(flops / 1e12)
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// Three digits or more.
fn short(n: f64) -> String {
    let decimals = if n >= 99.95 {
        0
    } else if n >= 9.995 {
        1
    } else {
        2
    };
    format!("{n:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_median() {
        let r = Rate::of(100, &[4.0, 1.0, 2.0]).unwrap();
        assert_eq!((r.median, r.min, r.max, r.seconds), (50.0, 25.0, 100.0, 2.0));
        assert_eq!(Rate::of(100, &[1.0, 3.0]).unwrap().median, 50.0);
        assert!(Rate::of(0, &[1.0]).is_none());
        let workload = Workload { prompt: 0, generate: 9, depth: vec![10], batch: 2, repetitions: 1 };
        let traffic = Traffic { weights: 70, flops: 3, caches: vec![(1, None), (2, Some(4))] };
        let m = Measurement::new(&workload, 10, (vec![2.0], vec![3.0]), &traffic, 1000.0, Vec::new());
        // Three steps a second of 70 bytes of weights, and 2 times 15 keys of one byte and 4 of two.
        assert_eq!((m.decode_step_bytes, m.decode_share), (116.0, Some(0.348)));
        assert!(m.prefill_flops.is_none() && m.first_token_seconds.is_none());
        let workload = Workload { prompt: 8, generate: 0, ..workload };
        let m = Measurement::new(&workload, 0, (vec![2.0], vec![0.0]), &traffic, 1000.0, Vec::new());
        assert_eq!((m.prefill_flops, m.first_token_seconds, m.decode_share), (Some(24.0), Some(2.0), None));
    }

    #[test]
    fn numbers_are_short() {
        for (n, expected) in [(0.123, "0.12"), (9.999, "10.0"), (99.96, "100"), (1234.5, "1234"), (3.0, "3.00")] {
            assert_eq!(short(n), expected);
        }
    }
}
