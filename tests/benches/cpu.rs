//! `cargo bench -p tamarack-tests --bench cpu`: products on the processor, with every instruction set that it has. A matrix
//! of each format times 1, 4 and 64 rows: the bytes of weights a second, beside those that as many threads copy in the same
//! run, read and written. An argument chooses: `-- "centered4 g32.*/1$"`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::time::Duration;
use tamarack::{
    checkpoint::{Checkpoint, Format, Scales, Values},
    cpu::{CpuExecutor, CpuSettings, default_threads},
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    program::{MatMul, Node, Op, Program},
};
use tamarack_api::{Dim, Sym, WeightExpr, WeightNode};
use tamarack_tests::cpu::settings;

const COLUMNS: usize = 2048;
const ROWS: [usize; 3] = [1, 4, 64];
const CAPACITY: Capacity = Capacity { rows: 64, outputs: 1, pages: 8, slots: 1 };

fn formats() -> Vec<Format> {
    let affine = |bits, group, scales| Format::Affine { bits, group, scales };
    vec![
        affine(4, 32, Scales::Centered),
        affine(4, 32, Scales::F16),
        affine(4, 64, Scales::F16),
        affine(5, 32, Scales::F16),
        affine(6, 16, Scales::Centered),
        affine(8, 32, Scales::Centered),
        Format::Scaled { values: Values::E2m1, group: 32, scales: Scales::E8m0 },
        Format::F16,
        Format::Bf16,
    ]
}

/// One product. Its input is a row of a small table, so that it is all that takes time.
fn program(outputs: usize) -> Program {
    let weight =
        |name: &str, shape: [usize; 2]| WeightNode { expr: WeightExpr::Tensor(name.into()), shape: shape.into() };
    let node = |op, inputs, shape| Node { op, inputs, shape, place: String::new() };
    let rows = Dim::from(Sym::Tokens);
    Program {
        weights: vec![weight("table", [64, COLUMNS]), weight("matrix", [outputs, COLUMNS])],
        nodes: vec![
            node(Op::Tokens, vec![], vec![rows]),
            node(Op::Embedding { weight: 0, scale: 1.0 }, vec![0], vec![rows, COLUMNS.into()]),
            node(Op::MatMul(MatMul::plain(1, None)), vec![1], vec![rows, outputs.into()]),
        ],
        output: 2,
        ..Program::default()
    }
}

/// What decoding cannot be faster than.
fn copy(c: &mut Criterion, bytes: usize) {
    let (threads, from, mut to) = (default_threads(), vec![1u8; bytes], vec![2u8; bytes]);
    let part = bytes.div_ceil(threads);
    let mut group = c.benchmark_group("copy");
    group.throughput(Throughput::Bytes(2 * bytes as u64));
    group.bench_function(format!("{threads} threads"), |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                    scope.spawn(move || to.copy_from_slice(from));
                }
            });
            std::hint::black_box(&mut to);
        })
    });
}

/// A step of so many new tokens.
fn step(rows: usize) -> Step {
    let tokens: Vec<Token> = (0..rows as u32).map(|i| Token::Id(i % 64)).collect();
    let mut step = Step::default();
    let last = |i: usize| (i + 1 == rows).then(Draw::default);
    assert!(step.push(&mut Sequence::new(0, rows), &mut Pool::new(CAPACITY.pages), &tokens, last), "out of pages");
    step
}

fn products(c: &mut Criterion, format: Format, outputs: usize) {
    let index = [("table", 64), ("matrix", outputs)].map(|(name, rows)| (name.to_owned(), vec![rows, COLUMNS]));
    let checkpoint = Checkpoint::synthetic(serde_json::json!({}), index, format).expect("made up");
    let mut group = c.benchmark_group(format.to_string());
    let bytes = 4 * outputs * (format.row_words(COLUMNS) + format.row_scale_words(COLUMNS));
    group.throughput(Throughput::Bytes(bytes as u64));
    for (name, settings) in settings() {
        let settings = CpuSettings { threads: None, ..settings };
        let mut executor = CpuExecutor::load(settings, program(outputs), &checkpoint, CAPACITY).expect("it loads");
        for rows in ROWS {
            let mut run = |step: Step| executor.submit(&step).and_then(|()| executor.collect()).expect("it runs");
            group.bench_function(BenchmarkId::new(&name, rows), |b| {
                b.iter_batched(|| step(rows), &mut run, BatchSize::SmallInput)
            });
        }
    }
}

fn main() {
    // As a test everything runs once, and is not to take long.
    let is_bench = std::env::args().any(|a| a == "--bench");
    let (outputs, bytes) = if is_bench { (8192, 256 << 20) } else { (64, 1 << 20) };
    let mut c = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    copy(&mut c, bytes);
    formats().into_iter().for_each(|format| products(&mut c, format, outputs));
    c.final_summary();
}
