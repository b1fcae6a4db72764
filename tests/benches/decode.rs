//! `cargo bench -p tamarack-tests --bench decode`: one step of decoding on this machine's first adapter, for regressions. How many
//! dispatches it has (printed), what the processor takes to encode it, the device's clock to run its kernels, and all of
//! it together where each step is submitted before the last one's token is read.
//!
//! Sizes of llamas (tiny, 1b, 8b) are those that suit the adapter, or those that arguments begin with: `-- 8b/step`.

use criterion::{BenchmarkId, Criterion};
use std::time::{Duration, Instant};
use tamarack::{
    checkpoint::{Format, Scales},
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    gpu::{Gpu, WgpuExecutor, adapters},
    program::RULES,
};
use tamarack_tests::{
    model::{program, rewritten},
    synthetic::{Sizes, llama},
};

const fn sizes(n: [usize; 7]) -> Sizes {
    let [hidden, layers, heads, kv_heads, head_dim, feed_forward, vocabulary] = n;
    Sizes { hidden, layers, heads, kv_heads, head_dim, feed_forward, vocabulary }
}

const SIZES: [(&str, Sizes); 3] = [
    ("tiny", sizes([256, 4, 4, 2, 64, 512, 512])),
    ("1b", sizes([2048, 16, 32, 8, 64, 8192, 128_256])),
    ("8b", sizes([4096, 32, 32, 8, 128, 14_336, 128_256])),
];

const DEPTHS: [usize; 2] = [0, 4096];
/// Tokens after which a sequence begins anew.
const STEPS: usize = 128;
const CAPACITY: Capacity = Capacity { rows: 512, outputs: 1, pages: 4096 / 16 + STEPS / 16, slots: 1 };

/// One sequence that goes on. What is in the cache before does not matter, only that it is read.
struct Text {
    pool: Pool,
    sequence: Sequence,
}

impl Text {
    fn new(depth: usize) -> Text {
        let mut text = Text { pool: Pool::new(CAPACITY.pages), sequence: Sequence::new(0, depth + STEPS) };
        if depth > 0 {
            text.step(&vec![Token::Id(1); depth]);
        }
        text
    }

    fn step(&mut self, tokens: &[Token]) -> Step {
        let mut step = Step::default();
        let last = |i: usize| (i + 1 == tokens.len()).then(Draw::default);
        assert!(step.push(&mut self.sequence, &mut self.pool, tokens, last), "out of pages");
        step
    }
}

/// What so many steps take: to encode, and in all.
fn decode(executor: &mut WgpuExecutor, depth: usize, steps: u64) -> tamarack::Result<[Duration; 2]> {
    let (mut text, mut encoding, start) = (Text::new(depth), Duration::ZERO, Instant::now());
    for i in 0..steps {
        if i > 0 && i.is_multiple_of(STEPS as u64) {
            text = Text::new(depth);
        }
        let step = text.step(&[if i == 0 { Token::Id(1) } else { Token::Sampled(0) }]);
        let begin = Instant::now();
        executor.submit(&step)?;
        encoding += begin.elapsed();
        if i > 0 {
            executor.collect()?;
        }
    }
    executor.collect()?;
    Ok([encoding, start.elapsed()])
}

/// What the kernels of so many steps take by the device's clock.
fn kernels(executor: &mut WgpuExecutor, depth: usize, steps: u64) -> tamarack::Result<Duration> {
    let (step, mut seconds) = (Text::new(depth).step(&[Token::Id(1)]), 0.0);
    for _ in 0..steps {
        seconds += executor.profile(&step)?.iter().map(|d| d.seconds).sum::<f64>();
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn measure(c: &mut Criterion, name: &str, sizes: Sizes, adapter: &wgpu::Adapter) -> tamarack::Result<()> {
    let checkpoint = llama(sizes, Format::Affine { bits: 4, group: 32, scales: Scales::Centered });
    let program = rewritten(program(&checkpoint), RULES, &checkpoint);
    let executor = &mut WgpuExecutor::load(Gpu::open(adapter)?, program, &checkpoint, CAPACITY)?;
    let mut group = c.benchmark_group(name);
    for depth in DEPTHS {
        println!("{name} at depth {depth}: {} dispatches", executor.dispatches(1, 1, depth + 1)?.len());
        // What is compiled in the first step is not to be measured.
        decode(executor, depth, 1)?;
        for (i, what) in ["encode", "step"].into_iter().enumerate() {
            group.bench_function(BenchmarkId::new(what, depth), |b| {
                b.iter_custom(|steps| decode(executor, depth, steps).expect("it decodes")[i])
            });
        }
        group.bench_function(BenchmarkId::new("kernels", depth), |b| {
            b.iter_custom(|steps| kernels(executor, depth, steps).expect("it can be profiled"))
        });
    }
    group.finish();
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // As a test everything runs once, and is not to take long.
    let is_bench = arguments.iter().any(|a| a == "--bench");
    let adapter = adapters().into_iter().next().expect("no adapter: install a software Vulkan, as tests/run does");
    let is_software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    println!("{} {}", adapter.get_info().name, adapter.get_info().driver_info);
    let is_named = |name: &str| arguments.iter().any(|a| a.starts_with(name));
    let any = SIZES.iter().any(|(name, _)| is_named(name));
    let suits = |name: &str| if any { is_named(name) } else { (name == "tiny") == (is_software || !is_bench) };
    let mut c = Criterion::default().sample_size(20).configure_from_args();
    for (name, sizes) in SIZES.into_iter().filter(|(name, _)| suits(name)) {
        measure(&mut c, name, sizes, &adapter).unwrap_or_else(|e| panic!("{e}"));
    }
    c.final_summary();
}
