//! Dropping the last handle of a model gives its memory back.
//!
//! The memory of a software adapter is memory of this process: `RssAnon` plus `RssShmem` of `/proc/self/status`, all
//! resident memory without the pages of mapped files. Cycles before the first measurement let the driver's compiler and
//! the allocator get what they keep for themselves. Cycles run in a process with an empty cache of compiled kernels of
//! its own: what other processes add to a shared one is read, and then compiled, by the next load, which takes megabytes
//! at times that have nothing to do with this.
#![cfg(target_os = "linux")]

use std::{env, fs, process::Command};
use tamarack::{Device, GenerateParameters, LlmModelFactory, LoadOptions, ModelConfiguration, plugins::Registry};
use tamarack_tests::models;

const MIB: u64 = 1 << 20;
/// Cycles before the first measurement of `cycles`. Memory is given back in whole pages, and how many are whole settles over some
/// hundred cycles.
fn first(cycles: usize) -> usize {
    10.max(cycles)
}

/// Cycles of which the one that left least counts. What is never given back is in the least of them, too.
const FEW: usize = 5;
/// Settings of glibc's allocator: one arena for all threads, and what is free at its end goes back at once. Otherwise it is a
/// matter of chance which arenas a driver's threads take and how much free memory those hold at the moment: one to two
/// megabytes, up and down.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "0")];
/// Says how many cycles follow.
const CYCLES: &str = "TAMARACK_CYCLES";

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect(name) * 1024
    };
    field("RssAnon:") + field("RssShmem:")
}

/// Loads a model, generates, and lets go of it.
async fn cycle(factory: &LlmModelFactory, configuration: &ModelConfiguration, device: Device) {
    let options = LoadOptions::default().device(device).context(1 << 16);
    let container = factory.load_container(configuration, options).await.expect("it loads");
    let parameters = GenerateParameters { max_tokens: Some(8), ignore_eos: true, ..Default::default() };
    let clone = container.clone();
    let stream = container.generate(vec![1, 2, 3].into(), parameters).await.expect("it generates");
    drop(container);
    assert_eq!(stream.text().await.expect("it ends").1.generation_tokens, 8);
    assert!(clone.memory().await.expect("memory").total() > MIB, "a leak would show");
}

/// What [`check`] runs in a process of its own.
#[tokio::test]
#[ignore = "not a test of its own"]
async fn cycles() {
    let Some(cycles) = env::var(CYCLES).ok().and_then(|n| n.parse::<usize>().ok()) else { return };
    let _ = tamarack_plugins::LINKED;
    let factory = LlmModelFactory::new(Registry::linked());
    let configuration = ModelConfiguration::parse(&models::tiny("llama")[0].to_string_lossy());
    let mut after = Vec::new();
    let first = first(cycles);
    for _ in 0..first + cycles {
        for device in [Device::Cpu, Device::Named("0".to_owned())] {
            cycle(&factory, &configuration, device).await;
        }
        after.push(resident());
    }
    let least = |after: &[u64]| *after.iter().min().expect("cycles");
    let (before, left) = (least(&after[first..first + FEW]), least(&after[after.len() - FEW..]));
    let more = left.saturating_sub(before);
    println!("{} MiB after the first cycles, {more} bytes more after {cycles} that follow", before / MIB);
    assert!(more <= MIB, "{more} bytes were not given back: {after:?}");
}

fn check(cycles: usize) {
    let cache = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env::current_exe().expect("this program"));
    child.args(["--exact", "cycles", "--ignored", "--nocapture"]);
    child.env(CYCLES, cycles.to_string()).env("XDG_CACHE_HOME", cache.path()).envs(ALLOCATOR);
    let output = child.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    print!("{text}");
    assert!(output.status.success() && text.contains(&format!("after {cycles} that follow")), "{text}");
}

#[test]
fn twenty_times() {
    check(20);
}

#[test]
#[ignore = "minutes"]
fn two_hundred_times() {
    check(200);
}
