//! A plugin that does what no plugin should: what its `config.json` asks for under `does` when a model is
//! recorded, and what its [`MODE`] says, which tests overwrite in the file, when it is loaded.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::Duration,
};
use tamarack_api::*;

/// What the library does when it is loaded; tests look for these bytes.
#[used]
static MODE: [u8; 16] = *b"rogue-mode:calm.";

const WGSL: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    y[group.y * 8u + thread] = -x[group.y * 8u + thread];
}
";

/// Recordings so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

struct Rogue;

/// Without end, and without keeping a processor busy.
fn forever() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}

impl Architecture for Rogue {
    fn declaration(&self) -> Declaration {
        match &black_box(&MODE)[11..] {
            b"panic" => panic!("no declaration today"),
            b"loop." => forever(),
            b"abort" => std::process::abort(),
            b"exit." => std::process::exit(0),
            b"print" => {
                println!("{{}}");
                Declaration::llm("rogue", &["rogue"])
            }
            b"none." => Declaration::default(),
            b"sees." => Declaration::vlm("rogue", &["rogue"]),
            _ => Declaration::llm("rogue", &["rogue"]),
        }
    }

    fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let embed = w.embedding("embed", [16, 8]);
        let mut x = embed.forward(step.tokens());
        x = match config.json()["does"].as_str().unwrap_or_default() {
            "panic" => panic!("no model of {} layers", config.json()["layers"]),
            "panic with a number" => std::panic::panic_any(7),
            "sleep" => forever(),
            "err" => return Err("not this one".into()),
            "work for ever" => loop {
                x = x * 2.0;
            },
            "elsewhere" => std::thread::scope(|s| {
                let there = s.spawn(|| x * 2.0).join();
                there.unwrap_or_else(|e| std::panic::resume_unwind(e))
            }),
            "custom" => custom("negate", WGSL).forward(&[x], &[8]),
            "nest" => custom("nested", &WGSL.replace("-x[", &("- ".repeat(30_000) + "x["))).forward(&[x], &[8]),
            "many ops" => {
                let one = |x: Tensor, i: u32| custom("one", WGSL).constant("I", i).forward(&[x], &[8]);
                (0..300).fold(x, one)
            }
            "many constants" => {
                let op = (0..100u32).fold(custom("full", WGSL), |op, i| op.constant(&format!("C{i}"), i));
                op.forward(&[x], &[8])
            }
            "talk" => return Err("no ".repeat(1 << 20).into()),
            "plain panics" => custom("moody", WGSL).forward(&[x], &[8]),
            // Row 0 instead of its own.
            "look at other rows" => custom("negate", &WGSL.replace("-x[group.y * 8u", "-x[0u")).forward(&[x], &[8]),
            "differ" => x * COUNT.fetch_add(1, Ordering::Relaxed) as f32,
            _ => x,
        };
        Ok(embed.as_linear().forward(step.outputs(x)))
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }

    fn plain(&self, op: &str) -> Option<Plain> {
        match op {
            "negate" => Some(|row| row.inputs[0].iter().map(|x| -x).collect()),
            _ => Some(|row| panic!("not {} today", row.inputs[0].len())),
        }
    }
}

/// Sees nothing, and what its configuration asks for comes first.
impl VisionLanguage for Rogue {
    fn text(&self, config: &Config) -> Result<TextModel> {
        misbehave(config);
        Ok(TextModel::new("rogue", config, &[]))
    }

    fn tower(&self, config: &Config, _: &Weights, _: &TowerStep) -> Result<Tensor> {
        misbehave(config);
        Err("no tower".into())
    }

    fn process(&self, config: &Config, _: &ProcessRequest) -> Result<Processed> {
        misbehave(config);
        Err("no eyes".into())
    }
}

fn misbehave(config: &Config) {
    match config.json()["does"].as_str().unwrap_or_default() {
        "panic" => panic!("no picture of {} layers", config.json()["layers"]),
        "sleep" => forever(),
        _ => {}
    }
}

register!(Rogue);
