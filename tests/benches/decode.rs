//! `cargo bench -p tamarack-tests`: one step of decoding on this machine's first adapter. How many dispatches
//! it has, what it takes the processor to encode, the device to run, and both together; for regressions.
//! Arguments are llama sizes (tiny, 1b, 8b) and depths; without any, sizes that suit the adapter.

use std::time::Instant;
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
const STEPS: usize = 128;
const REPETITIONS: usize = 5;

/// One sequence that goes on.
struct Text {
    pool: Pool,
    sequence: Sequence,
}

impl Text {
    fn new(capacity: Capacity) -> Text {
        Text { pool: Pool::new(capacity.pages), sequence: Sequence::new(0, capacity.pages * 16) }
    }

    fn step(&mut self, tokens: &[Token]) -> Step {
        let mut step = Step::default();
        let last = |i: usize| (i + 1 == tokens.len()).then(Draw::default);
        assert!(step.push(&mut self.sequence, &mut self.pool, tokens, last), "out of pages");
        step
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let adapter = adapters().into_iter().next().expect("no adapter: install a software Vulkan, as tests/run does");
    let software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    println!("{} {}", adapter.get_info().name, adapter.get_info().driver_info);
    let format = Format::Affine { bits: 4, group: 32, scales: Scales::Centered };
    for (name, sizes) in SIZES {
        let fits = if wanted.is_empty() { (name == "tiny") == software } else { wanted.iter().any(|w| w == name) };
        if !fits {
            continue;
        }
        let checkpoint = llama(sizes, format);
        let program = rewritten(program(&checkpoint), RULES, &checkpoint);
        let capacity = Capacity { rows: 512, outputs: 1, pages: (4096 + 2 * STEPS) / 16, slots: 1 };
        let gpu = Gpu::open(&adapter).unwrap_or_else(|e| panic!("{e}"));
        let mut executor = WgpuExecutor::load(gpu, program, &checkpoint, capacity).unwrap_or_else(|e| panic!("{e}"));
        for depth in DEPTHS {
            measure(name, &mut executor, depth).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

fn measure(name: &str, executor: &mut WgpuExecutor, depth: usize) -> tamarack::Result<()> {
    let capacity = executor.capacity();
    let dispatches = executor.dispatches(1, 1, depth + 1)?.len();
    let (mut encoding, mut total) = (Vec::new(), Vec::new());
    for _ in 0..=REPETITIONS {
        let mut text = Text::new(capacity);
        if depth > 0 {
            // What is in the cache does not matter, only that it is read.
            text.step(&vec![Token::Id(1); depth]);
        }
        let start = Instant::now();
        let mut encoded = 0.0;
        for i in 0..STEPS {
            let step = text.step(&[if i == 0 { Token::Id(1) } else { Token::Sampled(0) }]);
            let begin = Instant::now();
            executor.submit(&step)?;
            encoded += begin.elapsed().as_secs_f64();
            if i > 0 {
                executor.collect()?;
            }
        }
        executor.collect()?;
        total.push(start.elapsed().as_secs_f64() / STEPS as f64);
        encoding.push(encoded / STEPS as f64);
    }
    // The first one compiles.
    let (encoding, total) = (median(encoding.split_off(1)), median(total.split_off(1)));
    println!(
        "{name} at {depth}: {dispatches} dispatches, {:.0} us to encode, {:.0} us a step, {:.0} tokens a second",
        encoding * 1e6,
        total * 1e6,
        1.0 / total
    );
    let mut text = Text::new(capacity);
    if depth > 0 {
        text.step(&vec![Token::Id(1); depth]);
    }
    let step = text.step(&[Token::Id(1)]);
    let runs = (0..6).map(|_| executor.profile(&step)).collect::<tamarack::Result<Vec<_>>>()?;
    let mut kernels: Vec<(String, usize, f64, u64)> = Vec::new();
    for (i, d) in runs[0].iter().enumerate() {
        let seconds = median(runs[1..].iter().map(|run| run[i].seconds).collect());
        match kernels.iter_mut().find(|k| k.0 == d.kernel) {
            Some(k) => (k.1, k.2, k.3) = (k.1 + 1, k.2 + seconds, k.3 + d.weight_bytes),
            None => kernels.push((d.kernel.clone(), 1, seconds, d.weight_bytes)),
        }
    }
    for (kernel, count, seconds, bytes) in kernels {
        let rate = bytes as f64 / seconds / 1e9;
        println!("    {count:3} x {:7.2} us, {rate:5.0} GB/s: {kernel}", seconds * 1e6 / count as f64);
    }
    Ok(())
}
