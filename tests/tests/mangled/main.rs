//! Hundreds of damaged and hostile model files, made here from tiny good ones: each opens, or fails
//! with an error. None panics, none makes us allocate what it merely claims.

mod allocator;
mod directory;
mod gguf;
mod tensors;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tamarack::Result;
use tamarack::checkpoint::{Checkpoint, Mapping};

/// Far above what tiny files need, far below what they claim.
const MAX_PEAK: usize = 64 << 20;

/// One file to be.
type Case = (String, Vec<u8>);

/// Opens and, if that succeeds, reads all there is. Says whether it opened.
fn try_out(name: &str, open: impl Fn() -> Result<Checkpoint>) -> bool {
    let (opened, peak) = allocator::peak_of(|| match open() {
        Ok(model) => {
            read_all(&model);
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 4000, "{name}: the error is endless");
            false
        }
    });
    assert!(peak < MAX_PEAK, "{name}: allocated {peak} bytes");
    opened
}

fn read_all(model: &Checkpoint) {
    let _ = model.config().to_string();
    for (_, tensor) in model.tensors() {
        let mut out = vec![0.0; tensor.cols()];
        (0..tensor.rows()).for_each(|row| tensor.row(row, &mut out));
        // A damaged scale is an error here; no more is asked.
        let _ = tensor.pack(0..tensor.rows(), &mut vec![], &mut vec![]);
    }
}

fn try_gguf(cases: &[Case]) -> usize {
    let open = |bytes: &Vec<u8>| Checkpoint::from_gguf(Path::new("m"), &[Mapping::from_bytes("m", bytes.clone())]);
    cases.iter().filter(|(name, bytes)| try_out(name, || open(bytes))).count()
}

fn try_safetensors(cases: &[Case]) -> usize {
    let config = json!({ "quantization": { "bits": 3, "group_size": 32 } });
    let open = |bytes: &Vec<u8>| {
        Checkpoint::from_safetensors(Path::new("m"), config.clone(), &[Mapping::from_bytes("m", bytes.clone())])
    };
    cases.iter().filter(|(name, bytes)| try_out(name, || open(bytes))).count()
}

/// Writes each case as `file` into a directory that is good otherwise.
fn try_directory(file: &str, cases: &[Case]) -> usize {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in directory::good() {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    std::fs::create_dir(dir.path().join("folder.safetensors")).unwrap();
    let opened = cases.iter().filter(|(name, bytes)| {
        std::fs::write(dir.path().join(file), bytes).unwrap();
        try_out(name, || Checkpoint::open(dir.path()))
    });
    opened.count()
}

/// `flips` copies with up to three bits flipped among the first `head` bytes, and `cuts` cut short.
fn damaged(what: &str, good: &[u8], head: usize, flips: usize, cuts: usize) -> Vec<Case> {
    let mut rng = StdRng::seed_from_u64(good.len() as u64);
    let head = head.min(good.len());
    let flipped = (0..flips).map(|i| {
        let mut bytes = good.to_vec();
        for _ in 0..=i % 3 {
            bytes[rng.random_range(0..head)] ^= 1 << rng.random_range(0..8);
        }
        (format!("{what}, flip {i}"), bytes)
    });
    let cut = (0..cuts).map(|i| {
        let end = if i % 4 == 3 { good.len() - 1 - i } else { head * i / cuts };
        (format!("{what}, cut to {end}"), good[..end].to_vec())
    });
    flipped.chain(cut).collect()
}

#[test]
fn files_of_every_kind() {
    // One test, so that the allocations of one case are not counted in another.
    let good = gguf::good().bytes();
    assert_eq!(try_gguf(&[("good".into(), good.clone())]), 1);
    let mut cases = damaged("gguf", &good, 1500, 400, 60);
    cases.extend(damaged("gguf data", &good, good.len(), 40, 0));
    try_gguf(&cases);
    let mut total = cases.len();
    for (cases, may_open) in [(gguf::headers(), 0), (gguf::contents(), 80), (gguf::overlapping(), 0)] {
        let opened = try_gguf(&cases);
        assert!(opened <= may_open, "{opened} of {} hostile files open", cases.len());
        total += cases.len();
    }

    let good = tensors::good();
    assert_eq!(try_safetensors(&[("good".into(), good.clone())]), 1);
    let cases = damaged("safetensors", &good, good.len() - 300, 400, 60);
    try_safetensors(&cases);
    total += cases.len();
    let cases = tensors::hostile();
    assert_eq!(try_safetensors(&cases), 0, "a hostile file opens");
    total += cases.len();

    for (file, cases, may_open) in [
        ("model.safetensors.index.json", directory::index(), 60),
        ("config.json", directory::configs(), 150),
        ("generation_config.json", damaged("generation config", b"{\"eos_token_id\": [1, 2]}", 99, 20, 8), 99),
    ] {
        let opened = try_directory(file, &cases);
        assert!(opened <= may_open, "{file}: {opened} of {} damaged files open", cases.len());
        total += cases.len();
    }
    println!("{total} mangled files");
    assert!(total >= 200);
}
