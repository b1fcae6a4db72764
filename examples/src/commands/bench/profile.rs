//! What each kernel takes of a step.

use serde::Serialize;
use std::collections::BTreeMap;
use tamarack::{Result, gpu::DispatchTime};

/// Profiles of the same step; the first one is not looked at.
const RUNS: usize = 6;

/// One step, kernel by kernel.
#[derive(Serialize)]
pub struct Profile {
    /// `prefill` or `decode`.
    pub step: &'static str,
    /// Tokens in it.
    pub rows: usize,
    /// Microseconds of all dispatches.
    pub micros: f64,
    /// Those that take longest first.
    pub kernels: Vec<KernelTime>,
}

/// All dispatches of one kernel.
#[derive(Serialize)]
pub struct KernelTime {
    /// Its name.
    pub kernel: String,
    /// How many dispatches.
    pub count: usize,
    /// Microseconds of all.
    pub micros: f64,
    /// Of the whole step, 0 to 1.
    pub share: f64,
    /// Bytes of weights that all read.
    pub weight_bytes: u64,
    /// Bytes of weights a second; null for what is no product.
    pub weight_bandwidth: Option<f64>,
    /// Multiplications and additions a second, likewise.
    pub flops: Option<f64>,
}

impl Profile {
    /// Runs a step several times; what counts is each dispatch's median.
    pub fn of(step: &'static str, rows: usize, mut run: impl FnMut() -> Result<Vec<DispatchTime>>) -> Result<Profile> {
        let runs = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
        let runs = &runs[1..];
        let median = |i: usize| {
            let mut seconds: Vec<f64> = runs.iter().map(|run| run[i].seconds).collect();
            seconds.sort_by(f64::total_cmp);
            DispatchTime { seconds: seconds[seconds.len() / 2], ..runs[0][i].clone() }
        };
        Ok(Profile::new(step, rows, (0..runs[0].len()).map(median)))
    }

    fn new(step: &'static str, rows: usize, dispatches: impl Iterator<Item = DispatchTime>) -> Profile {
        // Dispatches, seconds, bytes and operations of each.
        type Sums = (usize, f64, [u64; 2]);
        let mut kernels: BTreeMap<String, Sums> = BTreeMap::new();
        for d in dispatches {
            let (count, seconds, [bytes, flops]) = kernels.entry(d.kernel).or_default();
            *count += 1;
            *seconds += d.seconds;
            *bytes += d.weight_bytes;
            *flops += d.flops;
        }
        let all: f64 = kernels.values().map(|k| k.1).sum();
        let rate = |work: u64, seconds: f64| (work > 0 && seconds > 0.0).then(|| work as f64 / seconds);
        let time = |(kernel, (count, seconds, [weight_bytes, flops])): (String, Sums)| KernelTime {
            kernel,
            count,
            micros: seconds * 1e6,
            share: if all > 0.0 { seconds / all } else { 0.0 },
            weight_bytes,
            weight_bandwidth: rate(weight_bytes, seconds),
            flops: rate(flops, seconds),
        };
        let mut kernels: Vec<KernelTime> = kernels.into_iter().map(time).collect();
        kernels.sort_by(|a, b| b.micros.total_cmp(&a.micros));
        Profile { step, rows, micros: all * 1e6, kernels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispatches_are_summed_by_kernel_and_medians_count() {
        let mut round = 0.0;
        let mut run = || {
            round += 1.0;
            let time = |kernel: &str, seconds: f64, weight_bytes| DispatchTime {
                kernel: kernel.to_owned(),
                seconds: seconds * round,
                weight_bytes,
                flops: 2 * weight_bytes,
            };
            Ok(vec![time("a", 1e-6, 0), time("b", 1e-6, 600), time("b", 2e-6, 600)])
        };
        let profile = Profile::of("decode", 1, &mut run).unwrap();
        // Rounds 2 to 6: the median is the fourth.
        assert!((profile.micros - 16.0).abs() < 1e-6, "{}", profile.micros);
        let [b, a] = &profile.kernels[..] else { panic!("two kernels") };
        assert_eq!((b.kernel.as_str(), b.count, b.weight_bytes), ("b", 2, 1200));
        assert!((b.share - 0.75).abs() < 1e-9 && (b.weight_bandwidth.unwrap() - 1e8).abs() < 1.0);
        assert!((b.flops.unwrap() - 2e8).abs() < 1.0);
        assert_eq!((a.count, a.weight_bandwidth, a.flops), (1, None, None));
    }
}
