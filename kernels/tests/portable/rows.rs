//! The kernels that work on rows: norms, arithmetic, attention and sampling.

use crate::DEVICES;
use tamarack_kernels::attend::{Attend, Besides, Keys};
use tamarack_kernels::bandwidth;
use tamarack_kernels::conv::Conv;
use tamarack_kernels::elementwise::{Elementwise, Op};
use tamarack_kernels::heads::HeadLinear;
use tamarack_kernels::matmul::Precision;
use tamarack_kernels::norm::{Norm, NormKind};
use tamarack_kernels::prepare::{HeadStep, Heads, Prepare};
use tamarack_kernels::rounded::Rounded;
use tamarack_kernels::sample::Sample;
use tamarack_kernels::small::{Mean, RowMatMul};
use tamarack_kernels::{Activation, CacheFormat, Caps, Format, Kernel, Post, Scales, View, step};

/// Every option and every odd size, on the most and the least able device and those between.
pub fn kernels() -> Vec<(Caps, Kernel)> {
    let mut list = Vec::new();
    for caps in DEVICES {
        let kernels =
            [norms(&caps), elementwise(&caps), prepare(&caps), attend(&caps), rare(&caps), sample(&caps)].concat();
        list.push((caps, bandwidth::read(1 << 30, &caps)));
        list.extend(kernels.into_iter().map(|kernel| (caps, kernel)));
    }
    list
}

fn post(heads: u32, dim: u32) -> Vec<Post> {
    vec![
        Post::Softcap(30.0),
        Post::Clamp(-f32::MAX, 7.0),
        Post::Activation(Activation::Gelu),
        Post::Add(View { offset: 1, row: 9999, heads, head: dim + 2, dim }),
        Post::Mul(View::heads(heads, dim)),
    ]
}

fn norms(caps: &Caps) -> Vec<Kernel> {
    let mut list = Vec::new();
    for (heads, dim) in [(1, 1), (3, 72), (32, 128), (1, 4096), (1, 8192)] {
        let (x, out) = (View::heads(heads, dim), View::rows(heads * dim));
        for kind in [NormKind::Rms, NormKind::Layer] {
            let plain = Norm { x, kind, eps: 1e-6, weight: 0, bias: false, post: Vec::new(), out };
            let full = Norm { weight: heads * dim, bias: true, post: post(heads, dim), ..plain.clone() };
            list.extend([plain.kernel(caps), full.kernel(caps)]);
        }
    }
    list
}

fn elementwise(caps: &Caps) -> Vec<Kernel> {
    let ops = [
        Op::Copy,
        Op::Unary(Activation::Tanh),
        Op::Add,
        Op::Sub,
        Op::Mul,
        Op::Div,
        Op::Glu(Activation::Silu),
        Op::Xielu,
        Op::Clamp { min: f32::NEG_INFINITY, max: 7.0 },
    ];
    let mut list = Vec::new();
    for op in ops {
        for second in [View::rows(240), View { offset: 2, row: 7, heads: 3, head: 2, dim: 1 }, View::rows(1)] {
            let inputs = [View::heads(3, 80), second][..op.inputs()].to_vec();
            let out = View { offset: 3, row: 301, heads: 3, head: 90, dim: 80 };
            list.push(Elementwise { op, inputs, gather: op == Op::Copy, post: post(3, 80), out }.kernel(caps));
        }
    }
    list
}

/// Every step, with a rope of `pairs` pairs.
fn steps(table: u32, pairs: u32) -> Vec<HeadStep> {
    vec![
        HeadStep::Norm { eps: 1e-6, weight: true },
        HeadStep::Rope { table, half: table == 0, pairs },
        HeadStep::Scale(-0.5),
        HeadStep::Norm { eps: 1e-6, weight: false },
    ]
}

fn prepare(caps: &Caps) -> Vec<Kernel> {
    let steps = |table| steps(table, 20);
    let heads = |input, n, dim| Heads { input, view: View::heads(n, dim), steps: steps(input) };
    let kv = Some((heads(1, 2, 80), Some(heads(0, 2, 96))));
    let both = Prepare {
        q: Some(heads(0, 6, 80)),
        kv,
        inputs: 2,
        tables: vec![20, 24],
        cache: CacheFormat::F16,
        out: View::heads(6, 80),
    };
    let affine = CacheFormat::Affine { bits: 4, group: 32, mixed: true };
    let (q, kv) = (Prepare { kv: None, ..both.clone() }, Prepare { q: None, ..both.clone() });
    let (keys, values) = (heads(1, 2, 64), heads(0, 2, 96));
    let quantized = Prepare { kv: Some((keys, Some(values))), cache: affine, ..both.clone() };
    [both, q, kv, quantized].map(|p| p.kernel(caps)).into()
}

fn attend(caps: &Caps) -> Vec<Kernel> {
    let mut list = Vec::new();
    let shapes = [
        (1, 1, 2, 2),
        (3, 1, 10, 6),
        (32, 8, 64, 64),
        (7, 1, 80, 80),
        (12, 12, 72, 96),
        (32, 8, 128, 128),
        (64, 8, 64, 64),
        (71, 1, 64, 64),
        (128, 128, 192, 128),
        (8, 4, 256, 256),
        (4, 1, 512, 512),
        (16, 1, 576, 512),
    ];
    for (heads, kv_heads, dk, dv) in shapes {
        let plain = Attend {
            heads,
            kv_heads,
            dk,
            dv,
            scale: 0.125,
            window: None,
            softcap: None,
            sinks: false,
            latent: false,
            cache: CacheFormat::F16,
            q: View::heads(heads, dk),
            out: View::heads(heads, dv),
        };
        let full = Attend { window: Some(512), softcap: Some(50.0), sinks: true, ..plain.clone() };
        let latent = Attend { latent: true, kv_heads: 1, ..plain.clone() };
        let affine = CacheFormat::Affine { bits: 4, group: 32, mixed: true };
        let quantized = Attend { cache: affine, ..full.clone() };
        let quantized = (affine.fits(dk) && affine.fits(dv)).then_some(quantized);
        for spec in [plain, full.clone(), latent].into_iter().chain(quantized) {
            list.extend([Keys::Few, Keys::Many, Keys::Split].map(|keys| spec.vector(caps, keys)));
            list.extend([spec.reduce(caps), spec.tiled(caps)]);
            list.extend(spec.cooperative(caps));
        }
        let part = |input, heads, dim| Heads { input, view: View::heads(heads, dim), steps: steps(input, 1) };
        let kv = (part(1, kv_heads, dk), Some(part(0, kv_heads, dv)));
        let prepare = Prepare {
            q: Some(part(0, heads, dk)),
            kv: Some(kv),
            inputs: 2,
            tables: vec![1, 2],
            cache: CacheFormat::F16,
            out: View::rows(1),
        };
        let columns = heads * dv;
        for (precision, gain) in [(Precision::High, false), (Precision::Fast, true)] {
            let next = dv.is_multiple_of(32).then_some(Rounded { columns, precision, gain });
            let besides = Besides { prepare: Some(prepare.clone()), alone: gain, store: next.is_none(), next };
            list.extend([Keys::Few, Keys::Many, Keys::Split].map(|keys| full.vector_with(caps, keys, &besides)));
            list.push(full.reduce_with(caps, &besides));
        }
    }
    list
}

fn rare(caps: &Caps) -> Vec<Kernel> {
    let mut list = Vec::new();
    for (heads, dim) in [(1, 1), (3, 75), (1, 2048)] {
        let view = View { offset: 1, row: 9999, heads, head: dim + 2, dim };
        list.push(Mean { x: view, out: View::heads(heads, 1) }.kernel(caps));
        for post in [Vec::new(), post(heads, dim)] {
            let inputs = vec![view; if post.is_empty() { 1 } else { 2 }];
            let conv = Conv { inputs, kernel: 3, bias: !post.is_empty(), post, out: View::rows(heads * dim) };
            list.push(conv.kernel(caps));
        }
    }
    let (a, b, out) = (View::heads(4, 3), View { head: 90, ..View::heads(3, 80) }, View::heads(4, 80));
    list.push(RowMatMul { a, b, out }.kernel(caps));
    let affine = Format::Affine { bits: 4, group: 32, scales: Scales::F16 };
    for (format, k, n) in [(Format::F32, 33, 7), (Format::Bf16, 128, 512), (affine, 512, 128), (affine, 128, 512)] {
        let x = View { offset: 3, ..View::heads(16, k) };
        for transposed in [false, true].into_iter().filter(|t| format != affine || *t == (n == 512)) {
            let spec = HeadLinear { rows: step::TOKENS, format, transposed, x, out: View::heads(16, n) };
            list.extend([1, 8].map(|tile| spec.kernel(caps, tile)));
        }
    }
    list
}

fn sample(caps: &Caps) -> Vec<Kernel> {
    let sample = Sample { vocab: 50_257, logits: View { offset: 3, row: 50_304, ..View::rows(50_257) } };
    vec![sample.partial(caps), sample.finish(caps)]
}
