//! `cargo bench -p tamarack-tests --bench cpu`: products on the processor, with every instruction set that it has.
//!
//! One matrix of [8192, 2048] of each format times 1, 4 and 64 rows: the bytes of weights a second, beside those that
//! as many threads copy in the same run (read and written), and multiplications a second. An argument names a format.

use std::{sync::Arc, time::Instant};
use tamarack::{
    checkpoint::{Checkpoint, Format, Scales, Values},
    cpu::{CpuExecutor, CpuSettings, default_threads},
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    program::{MatMul, Node, Op, Program},
};
use tamarack_api::{Dim, Sym, WeightExpr, WeightNode};
use tamarack_tests::cpu::settings;

const OUTPUTS: usize = 8192;
const COLUMNS: usize = 2048;
const ROWS: [usize; 3] = [1, 4, 64];
const REPETITIONS: usize = 30;

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
fn program() -> Program {
    let weight =
        |name: &str, shape: [usize; 2]| WeightNode { expr: WeightExpr::Tensor(name.into()), shape: shape.into() };
    let node = |op, inputs, shape| Node { op, inputs, shape, place: String::new() };
    let rows = Dim::from(Sym::Tokens);
    Program {
        weights: vec![weight("table", [64, COLUMNS]), weight("matrix", [OUTPUTS, COLUMNS])],
        nodes: vec![
            node(Op::Tokens, vec![], vec![rows]),
            node(Op::Embedding { weight: 0, scale: 1.0 }, vec![0], vec![rows, COLUMNS.into()]),
            node(Op::MatMul(MatMul::plain(1, None)), vec![1], vec![rows, OUTPUTS.into()]),
        ],
        output: 2,
        ..Program::default()
    }
}

/// Bytes a second that threads copy, read and written: the best of five.
fn copied(threads: usize) -> f64 {
    let from = Arc::new(vec![1u8; 256 << 20]);
    let once = || {
        let mut to = vec![0u8; from.len()];
        to.fill(2);
        let (part, start) = (from.len().div_ceil(threads), Instant::now());
        std::thread::scope(|scope| {
            for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        std::hint::black_box(&to);
        2.0 * from.len() as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}

/// The least seconds of a step of so many rows.
fn seconds(executor: &mut CpuExecutor, rows: usize) -> f64 {
    let tokens: Vec<Token> = (0..rows as u32).map(|i| Token::Id(i % 64)).collect();
    let once = |executor: &mut CpuExecutor| {
        let (mut step, mut pool) = (Step::default(), Pool::new(8));
        let last = |i: usize| (i + 1 == rows).then(Draw::default);
        assert!(step.push(&mut Sequence::new(0, rows), &mut pool, &tokens, last));
        let start = Instant::now();
        executor.submit(&step).expect("it runs");
        executor.collect().expect("it ran");
        start.elapsed().as_secs_f64()
    };
    (0..REPETITIONS).map(|_| once(executor)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let threads = default_threads();
    println!("{threads} threads copy {:.1} GB/s\n", copied(threads) / 1e9);
    println!("| format | instructions | rows | us | GB/s of weights | GMAC/s |\n|---|---|---|---|---|---|");
    for format in formats() {
        if !wanted.is_empty() && !wanted.iter().any(|w| format.to_string().contains(w)) {
            continue;
        }
        let index = ["table", "matrix"].map(|n| (n.to_owned(), vec![if n == "table" { 64 } else { OUTPUTS }, COLUMNS]));
        let checkpoint = Checkpoint::synthetic(serde_json::json!({}), index, format).expect("made up");
        for (name, settings) in settings() {
            let settings = CpuSettings { threads: None, ..settings };
            let capacity = Capacity { rows: 64, outputs: 1, pages: 8, slots: 1 };
            let mut executor = CpuExecutor::load(settings, program(), &checkpoint, capacity).expect("it loads");
            let bytes = 4 * OUTPUTS * (format.row_words(COLUMNS) + format.row_scale_words(COLUMNS));
            for rows in ROWS {
                let s = seconds(&mut executor, rows);
                let (us, read) = (s * 1e6, bytes as f64 / s / 1e9);
                let products = (OUTPUTS * COLUMNS * rows) as f64 / s / 1e9;
                println!("| {format} | {name} | {rows} | {us:.0} | {read:.1} | {products:.1} |");
            }
        }
    }
}
