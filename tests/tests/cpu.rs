//! The processor's executor agrees with the oracle, with every instruction set that this machine has.

use std::time::Instant;
use tamarack::{
    checkpoint::{Checkpoint, Format, Scales, Values},
    cpu::{CpuExecutor, CpuSettings},
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    gpu::Precision,
    program::{Program, RULES},
    reference::{Reference, ops},
};
use tamarack_tests::{
    cpu::{executors, settings},
    gpu::assert_close,
    model::{Run, capacity, program, rewritten},
    synthetic::{Sizes, llama},
    zoo,
};

const CAPACITY: Capacity = Capacity { rows: 64, outputs: 64, pages: 64, slots: 8 };

fn oracle(program: &Program, checkpoint: &Checkpoint) -> Reference {
    Reference::load(program.clone(), checkpoint, capacity(1024)).unwrap_or_else(|e| panic!("{e}"))
}

fn prompt(seed: u32, n: usize, vocabulary: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 7 + i * seed + seed) % vocabulary).collect()
}

/// Every operation, whole and in pieces. The cache is f16, as on other devices.
#[test]
fn every_operation() {
    let checkpoint = zoo::checkpoint();
    let recorded = zoo::program(&checkpoint);
    for (form, program) in [("rewritten", rewritten(recorded.clone(), RULES, &checkpoint)), ("as recorded", recorded)] {
        let tokens = prompt(3, 61, zoo::VOCAB as u32);
        let want = Run::new(&mut oracle(&program, &checkpoint), 61).feed(&tokens, 61, 61).concat();
        for (name, mut executor) in executors(&program, &checkpoint, CAPACITY) {
            for chunk in [61, 9, 7, 1] {
                let got = Run::new(&mut executor, 61).feed(&tokens, chunk, 61).concat();
                assert_close(&format!("{form} on {name} in steps of {chunk}"), &got, &want, 0.02);
            }
        }
    }
}

/// Caches of many pages, and sequences of different lengths in one step.
#[test]
fn long_and_ragged_sequences() {
    let checkpoint = zoo::checkpoint();
    let program = rewritten(zoo::program(&checkpoint), RULES, &checkpoint);
    let texts = [600, 1, 17, 130].map(|n| prompt(n as u32, n, zoo::VOCAB as u32));
    let want =
        texts.each_ref().map(|text| Run::new(&mut oracle(&program, &checkpoint), 600).feed(text, 512, 1).concat());
    for (name, mut executor) in executors(&program, &checkpoint, CAPACITY) {
        let mut pool = Pool::new(CAPACITY.pages);
        let mut sequences = [0, 1, 2, 3].map(|slot| Sequence::new(slot, 600));
        let mut found = vec![Vec::new(); texts.len()];
        while sequences.iter().zip(&texts).any(|(s, t)| s.len() < t.len()) {
            let (mut step, mut ends) = (Step::default(), Vec::new());
            for (i, (sequence, text)) in sequences.iter_mut().zip(&texts).enumerate() {
                let next: Vec<Token> = text[sequence.len()..].iter().take(14).map(|t| Token::Id(*t)).collect();
                let is_end = !next.is_empty() && sequence.len() + next.len() == text.len();
                let draw =
                    |j: usize| (is_end && j + 1 == next.len()).then_some(Draw { logits: true, ..Draw::default() });
                assert!(step.push(sequence, &mut pool, &next, draw), "out of pages");
                ends.extend(is_end.then_some(i));
            }
            executor.submit(&step).unwrap_or_else(|e| panic!("{e}"));
            let result = executor.collect().unwrap_or_else(|e| panic!("{e}"));
            ends.into_iter().zip(result.logits).for_each(|(i, logits)| found[i] = logits);
        }
        for (i, (found, want)) in found.iter().zip(&want).enumerate() {
            assert_close(&format!("sequence {i} on {name}"), found, want, 0.02);
        }
    }
}

/// Every form that a weight may have.
fn formats() -> Vec<Format> {
    let affine = |bits, group, scales| Format::Affine { bits, group, scales };
    let scaled = |values, group, scales| Format::Scaled { values, group, scales };
    let mut formats = vec![Format::F32, Format::F16, Format::Bf16];
    for bits in [2, 3, 4, 5, 6, 8] {
        let kinds = [(16, Scales::Centered), (32, Scales::F16), (64, Scales::F32)];
        formats.extend(kinds.map(|(group, scales)| affine(bits, group, scales)));
    }
    formats.push(affine(4, 32, Scales::Centered));
    formats.extend([
        scaled(Values::E2m1, 32, Scales::E8m0),
        scaled(Values::E2m1, 16, Scales::E4m3),
        scaled(Values::E4m3, 32, Scales::E8m0),
        scaled(Values::E4m3, 64, Scales::F32),
        scaled(Values::Nf4, 64, Scales::F32),
        scaled(Values::BnbFp4, 64, Scales::F32),
        scaled(Values::Iq4, 32, Scales::F16),
    ]);
    formats
}

/// Rounded to 16 bits, logits are as near to the oracle's as in f32: what is left is the cache's f16.
#[test]
fn every_format() {
    let sizes = Sizes { hidden: 64, layers: 1, heads: 2, kv_heads: 1, head_dim: 32, feed_forward: 576, vocabulary: 88 };
    for format in formats() {
        let checkpoint = llama(sizes, format);
        let program = rewritten(program(&checkpoint), RULES, &checkpoint);
        let tokens = prompt(5, 20, 88);
        let want = Run::new(&mut oracle(&program, &checkpoint), 20).feed(&tokens, 20, 20).concat();
        let spread = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (name, settings) in settings() {
            for precision in [Precision::High, Precision::Full] {
                let settings = CpuSettings { precision, ..settings };
                let loaded = CpuExecutor::load(settings, program.clone(), &checkpoint, CAPACITY);
                let mut executor = loaded.unwrap_or_else(|e| panic!("{e}"));
                for chunk in [20, 3, 1] {
                    let got = Run::new(&mut executor, 20).feed(&tokens, chunk, 20).concat();
                    let what = format!("{format} on {name}, {precision:?}, in steps of {chunk}");
                    assert_close(&what, &got, &want, 4e-3 * spread);
                }
            }
        }
    }
}

/// In full precision, weights are unpacked for all rows together and multiplied over lanes, as in high: slower by a factor, and
/// not by orders of magnitude, as decoding each code for itself is.
#[test]
fn full_precision_is_usable() {
    let sizes =
        Sizes { hidden: 512, layers: 2, heads: 4, kv_heads: 2, head_dim: 64, feed_forward: 1024, vocabulary: 512 };
    let checkpoint = llama(sizes, Format::Affine { bits: 4, group: 32, scales: Scales::F16 });
    let program = rewritten(program(&checkpoint), RULES, &checkpoint);
    let (_, best) = settings().into_iter().next().expect("one");
    let time = |precision| {
        let settings = CpuSettings { precision, ..best };
        let mut executor = CpuExecutor::load(settings, program.clone(), &checkpoint, CAPACITY).expect("loads");
        let run = |_| {
            let began = Instant::now();
            Run::new(&mut executor, 40).feed(&prompt(3, 40, 512), 1, 1);
            began.elapsed()
        };
        (0..5).map(run).min().expect("five runs")
    };
    let (high, full) = (time(Precision::High), time(Precision::Full));
    println!("high {high:?}, full {full:?}");
    assert!(full < high * 12, "full precision takes {full:?}, high {high:?}");
}

/// Draws are the oracle's, whoever of the threads makes them.
#[test]
fn draws() {
    let checkpoint = zoo::checkpoint();
    let program = rewritten(zoo::program(&checkpoint), RULES, &checkpoint);
    let (_, mut executor) = executors(&program, &checkpoint, CAPACITY).next().expect("the best");
    for seed in 0..20 {
        let (mut pool, mut step) = (Pool::new(CAPACITY.pages), Step::default());
        let draw = Draw { inv_temperature: 0.7, seed, counter: 3, logits: true };
        assert!(step.push(&mut Sequence::new(0, 4), &mut pool, &[Token::Id(seed)], |_| Some(draw)));
        executor.submit(&step).unwrap_or_else(|e| panic!("{e}"));
        let result = executor.collect().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(result.tokens[0], ops::sample(&result.logits[0], 0.7, seed, 3));
    }
}

/// What a cache kept is what comes back from it.
#[test]
fn the_cache_is_read_and_written() {
    let checkpoint = zoo::checkpoint();
    let program = rewritten(zoo::program(&checkpoint), RULES, &checkpoint);
    let (_, mut executor) = executors(&program, &checkpoint, CAPACITY).next().expect("the best");
    let mut oracle = oracle(&program, &checkpoint);
    let tokens = prompt(3, 40, zoo::VOCAB as u32);
    Run::new(&mut executor, 40).feed(&tokens, 40, 1);
    let mut run = Run::new(&mut oracle, 40);
    run.feed(&tokens, 40, 1);
    let pages = run.sequence.pages().to_vec();
    for cache in 0..program.caches.len() {
        let (found, want) = (executor.read_cache(cache, &pages).unwrap(), oracle.read_cache(cache, &pages).unwrap());
        assert_close(&format!("cache {cache}"), &found, &want, 0.02);
        executor.write_cache(cache, &[7, 3, 9], &found).unwrap();
        assert_eq!(executor.read_cache(cache, &[7, 3, 9]).unwrap(), found);
    }
}
