//! The matrix kernels and the embedding lookup against the oracle, on every adapter.

use tamarack::gpu::Gpu;
use tamarack::reference::ops;
use tamarack_kernels::embedding::{Embedding, embedding};
use tamarack_kernels::matmul::{
    IntegerTuning, MatMul, Norm, Precision, Tile, Tuning, integer, integer_with, tiled, tiled_with, vector, vector_with,
};
use tamarack_kernels::{Activation, Caps, Format, Kernel, Post, Scales, View, step};
use tamarack_tests::canonical::Matrix;
use tamarack_tests::gpu::{assert_close, floats, gpus, random, run, words};

/// What no kernel may touch.
const UNTOUCHED: f32 = 12345.0;

const fn affine(bits: u8, group: u16, scales: Scales) -> Format {
    Format::Affine { bits, group, scales }
}

const AFFINE4: Format = affine(4, 32, Scales::F16);

fn formats() -> Vec<Format> {
    let mut list = vec![Format::F32, Format::F16, Format::Bf16];
    list.extend([2, 3, 6].map(|bits| affine(bits, 16, Scales::F16)));
    for bits in [2, 3, 4, 5, 6, 8] {
        list.extend([(32, Scales::F16), (64, Scales::F32), (128, Scales::F16)].map(|(g, s)| affine(bits, g, s)));
    }
    list.extend([3, 4, 5, 6, 8].map(|bits| affine(bits, if bits == 6 { 16 } else { 32 }, Scales::Centered)));
    list.extend([affine(4, 64, Scales::F16), affine(4, 16, Scales::F32), affine(8, 32, Scales::F32)]);
    list
}

/// Nothing fused.
fn plain(format: Format, n: u32, k: u32) -> MatMul {
    MatMul {
        rows: step::TOKENS,
        n,
        k,
        format,
        x: View::rows(k),
        norm: None,
        bias: false,
        glu: None,
        post: Vec::new(),
        first: 0,
        out: View::rows(n),
    }
}

/// The device as it is, and as if it had no subgroups.
fn variants(gpu: &Gpu) -> [Caps; 2] {
    [gpu.caps, Caps { subgroups: None, ..gpu.caps }]
}

/// A step whose header says how many rows there are.
fn header(spec: &MatMul, rows: u32) -> Vec<u32> {
    let mut header = vec![0; step::HEADER_WORDS as usize];
    header[spec.rows as usize] = rows;
    header
}

/// Elements of a buffer that holds `rows` rows of a view.
fn elements(view: &View, rows: u32) -> usize {
    (view.offset + rows * view.row.max(view.heads * view.head)) as usize
}

fn index(view: &View, row: usize, column: usize) -> usize {
    let (head, j) = (column / view.dim as usize, column % view.dim as usize);
    view.offset as usize + row * view.row as usize + head * view.head as usize + j
}

#[track_caller]
fn check(gpu: &Gpu, spec: &MatMul, kernel: &Kernel, rows: u32) {
    check_within(1e-5, gpu, spec, kernel, rows);
}

/// Runs `kernel` with `rows` rows of random inputs and compares every word of its output;
/// `tolerance` is relative to the largest, or to 1.
#[track_caller]
fn check_within(tolerance: f32, gpu: &Gpu, spec: &MatMul, kernel: &Kernel, rows: u32) {
    let width = spec.out.width() as usize;
    let matrices = if spec.glu.is_some() { 2 } else { 1 };
    let x = random(1, elements(&spec.x, rows));
    let weight = Matrix::random(spec.format, spec.n as usize * matrices, spec.k as usize, 2);
    let gain = random(3, spec.k as usize);
    let bias = random(4, width * matrices);
    let inputs: Vec<Vec<f32>> = (spec.post.iter().zip(5..))
        .filter_map(|(post, seed)| match post {
            Post::Add(view) | Post::Mul(view) => Some(random(seed, elements(view, rows))),
            _ => None,
        })
        .collect();
    // More rows than the step has.
    let before = vec![UNTOUCHED; elements(&spec.out, rows + 3)];

    let mut buffers = vec![header(spec, rows), words(&x), weight.quants.clone()];
    buffers.extend((!weight.scales.is_empty()).then(|| weight.scales.clone()));
    buffers.extend(spec.norm.is_some_and(|norm| norm.weight).then(|| words(&gain)));
    buffers.extend(spec.bias.then(|| words(&bias)));
    buffers.extend(inputs.iter().map(|input| words(input)));
    buffers.push(words(&before));
    run(gpu, kernel, rows, 1, &mut buffers);
    let got = floats(buffers.last().expect("an output"));

    let mut dense: Vec<f32> = Vec::new();
    for r in 0..rows as usize {
        dense.extend((0..spec.k as usize).map(|c| x[index(&View { dim: spec.k, ..spec.x }, r, c)]));
    }
    if let Some(norm) = spec.norm {
        dense = ops::rms_norm(&dense, spec.k as usize, norm.weight.then_some(&gain), norm.eps);
    }
    let sums =
        ops::linear(&dense, spec.k as usize, spec.n as usize * matrices, |i, w| w.copy_from_slice(&weight.row(i)));
    let mut want = before;
    for r in 0..rows as usize {
        let sums = &sums[r * spec.n as usize * matrices..];
        for i in 0..spec.n as usize {
            let column = spec.first as usize + i;
            let biased = |part: usize| {
                let bias = if spec.bias { bias[part * width + column] } else { 0.0 };
                sums[part * spec.n as usize + i] + bias
            };
            let v = spec.glu.map_or_else(|| biased(0), |f| activate(f, biased(0)) * biased(1));
            want[index(&spec.out, r, column)] = finish(&spec.post, v, r, column, &inputs);
        }
    }
    if spec.norm.is_none() && spec.glu.is_none() && spec.post.is_empty() && !spec.bias {
        println!("{}: off by {:.1e} at most", kernel.name, error(spec, &got, &dense, &weight));
    }
    let largest = want.iter().filter(|v| **v != UNTOUCHED).fold(1.0f32, |max, v| max.max(v.abs()));
    assert_close(&format!("{} of {rows} rows", kernel.name), &got, &want, tolerance * largest);
}

/// The largest difference from sums in f64.
fn error(spec: &MatMul, got: &[f32], x: &[f32], weight: &Matrix) -> f64 {
    let mut worst = 0.0f64;
    for i in 0..spec.n as usize {
        let w = weight.row(i);
        for (r, x) in x.chunks_exact(spec.k as usize).enumerate() {
            let sum: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            worst = worst.max((sum - f64::from(got[index(&spec.out, r, spec.first as usize + i)])).abs());
        }
    }
    worst
}

fn finish(posts: &[Post], mut v: f32, row: usize, column: usize, inputs: &[Vec<f32>]) -> f32 {
    let mut inputs = inputs.iter();
    let mut input = |view: &View| inputs.next().expect("an input")[index(view, row, column)];
    for post in posts {
        v = match post {
            Post::Activation(f) => activate(*f, v),
            Post::Scale(c) => v * c,
            Post::AddScalar(c) => v + c,
            Post::Clamp(low, high) => v.clamp(*low, *high),
            Post::Softcap(c) => c * (v / c).tanh(),
            Post::Sqrt => v.sqrt(),
            Post::Add(view) => v + input(view),
            Post::Mul(view) => v * input(view),
        };
    }
    v
}

fn activate(f: Activation, v: f32) -> f32 {
    use tamarack_api::Activation as Named;
    let f = match f {
        Activation::Silu => Named::Silu,
        Activation::Gelu => Named::Gelu,
        Activation::GeluTanh => Named::GeluTanh,
        Activation::Relu => Named::Relu,
        Activation::Sigmoid => Named::Sigmoid,
        Activation::Tanh => Named::Tanh,
    };
    ops::activation(f, v)
}

#[test]
fn every_format() {
    for gpu in gpus() {
        for (i, format) in formats().into_iter().enumerate() {
            let spec = plain(format, 37, 256);
            let caps = variants(&gpu)[i % 2];
            check(&gpu, &spec, &vector(&spec, &caps, 1), 1);
            check(&gpu, &spec, &vector(&spec, &caps, 4), 3);
            check(&gpu, &spec, &tiled(&spec, &caps), 19);
        }
    }
}

/// What rounding x costs, relative to the largest result.
const ROUNDED: [(Precision, f32); 2] = [(Precision::High, 1e-4), (Precision::Fast, 2e-2)];

#[test]
fn every_format_in_integers() {
    for gpu in gpus() {
        for (i, format) in formats().into_iter().enumerate() {
            let spec = plain(format, 37, 384);
            let caps = variants(&gpu)[i % 2];
            for (precision, tolerance) in ROUNDED {
                let kernels = [(1, 1), (4, 3)].map(|(most, rows)| (integer(&spec, &caps, most, precision), rows));
                let quantized = matches!(format, Format::Affine { .. });
                assert!(kernels.iter().all(|(kernel, _)| kernel.is_some() == quantized), "{format}");
                for (kernel, rows) in kernels.into_iter().filter_map(|(kernel, rows)| Some((kernel?, rows))) {
                    check_within(tolerance, &gpu, &spec, &kernel, rows);
                }
            }
            assert_eq!(integer(&spec, &caps, 1, Precision::Full), None);
        }
    }
}

#[test]
fn every_fusion_in_integers() {
    let tunings = [
        IntegerTuning { outputs: 1, lanes: 1, teams: 1, batches: 1 },
        IntegerTuning { outputs: 2, lanes: 64, teams: 4, batches: 3 },
        IntegerTuning { outputs: 3, lanes: 32, teams: 5, batches: 2 },
        IntegerTuning { outputs: 8, lanes: 1024, teams: 1024, batches: 1000 },
    ];
    for gpu in gpus() {
        for spec in fused() {
            let spec = if spec.format.block() > 2 { spec } else { MatMul { format: AFFINE4, ..spec } };
            for (i, tuning) in tunings.into_iter().enumerate() {
                let caps = variants(&gpu)[i % 2];
                for (most, rows) in [[(1, 1), (2, 2), (1, 1), (4, 3)][i], [(8, 7), (1, 1), (4, 4), (1, 1)][i]] {
                    let kernel = integer_with(&spec, &caps, most, Precision::High, tuning).expect("a kernel");
                    check_within(1e-4, &gpu, &spec, &kernel, rows);
                }
            }
        }
    }
}

/// Long rows need more workgroup memory than there is: other kernels serve them.
#[test]
fn integers_need_room() {
    let caps =
        Caps { subgroups: None, f16: true, workgroup_memory: 16 << 10, workgroup_size: 256, binding_size: 1 << 30 };
    for (k, rows, fits) in [(4096, 1, true), (4096, 2, false), (8192, 1, false)] {
        let kernel = integer(&plain(AFFINE4, 8, k), &caps, rows, Precision::High);
        assert_eq!(kernel.is_some(), fits, "{rows} rows of {k}");
    }
}

/// Fusions, alone and together.
fn fused() -> Vec<MatMul> {
    let (n, k) = (29, 192);
    let view = View { offset: 3, row: 40, ..View::rows(n) };
    let norm = |weight| Some(Norm { eps: 1e-5, weight });
    let base = plain(AFFINE4, n, k);
    vec![
        MatMul { norm: norm(true), ..base.clone() },
        MatMul { norm: norm(false), bias: true, format: Format::F16, ..base.clone() },
        MatMul { glu: Some(Activation::Silu), ..base.clone() },
        MatMul { post: vec![Post::Add(view)], rows: step::OUTPUTS, ..base.clone() },
        MatMul {
            norm: norm(true),
            glu: Some(Activation::GeluTanh),
            bias: true,
            post: vec![Post::Scale(0.5), Post::Mul(View::rows(n)), Post::AddScalar(-1.0), Post::Add(view)],
            format: affine(6, 16, Scales::F32),
            ..base.clone()
        },
        MatMul { bias: true, post: vec![Post::Softcap(3.0), Post::Clamp(-1.0, 2.0)], format: Format::Bf16, ..base },
    ]
}

#[test]
fn every_fusion() {
    for gpu in gpus() {
        for spec in fused() {
            let [subgroups, tree] = variants(&gpu);
            for (caps, most, rows) in
                [(subgroups, 1, 1), (tree, 1, 1), (tree, 2, 2), (subgroups, 4, 1), (subgroups, 8, 7)]
            {
                check(&gpu, &spec, &vector(&spec, &caps, most), rows);
            }
            let spec = MatMul { norm: None, ..spec };
            check(&gpu, &spec, &tiled(&spec, &gpu.caps), 65);
        }
        let spec = MatMul { glu: Some(Activation::Silu), ..plain(AFFINE4, 131, 64) };
        for tile in [Tile { rows: 8, outputs: 8 }, Tile { rows: 4, outputs: 8 }] {
            check(&gpu, &spec, &tiled_with(&spec, &gpu.caps, tile), 129);
        }
    }
}

#[test]
fn every_activation() {
    use Activation::{Gelu, GeluTanh, Relu, Sigmoid, Silu, Tanh};
    for gpu in gpus() {
        for f in [Gelu, GeluTanh, Relu, Sigmoid, Silu, Tanh] {
            // Where it bends, and far into the tails; of products, not sums, which round but once.
            for scale in [3.0, 50.0] {
                let post = vec![Post::Scale(scale), Post::Activation(f)];
                let spec = MatMul { post, ..plain(Format::F32, 3000, 1) };
                check_within(5e-7, &gpu, &spec, &vector(&spec, &gpu.caps, 1), 1);
            }
        }
    }
}

#[test]
fn every_view() {
    for gpu in gpus() {
        for (format, k) in [(Format::F32, 7), (Format::F32, 1), (Format::F16, 26), (Format::Bf16, 36), (AFFINE4, 96)] {
            let specs = [
                // Rows that do not begin at whole vectors.
                MatMul { x: View { offset: 5, row: k + 3, ..View::rows(k) }, ..plain(format, 11, k) },
                // One part of a weight that is split, into the heads of a wider output.
                MatMul {
                    x: View { offset: 8, row: k.next_multiple_of(4) + 4, ..View::rows(k) },
                    norm: Some(Norm { eps: 1e-6, weight: true }),
                    glu: Some(Activation::Relu),
                    bias: true,
                    first: 9,
                    out: View { offset: 6, row: 45, heads: 4, head: 11, dim: 8 },
                    ..plain(format, 14, k)
                },
            ];
            for (spec, caps) in specs.iter().zip(variants(&gpu)) {
                check(&gpu, spec, &vector(spec, &caps, 2), 2);
                let spec = MatMul { norm: None, ..spec.clone() };
                check(&gpu, &spec, &tiled(&spec, &caps), 5);
            }
        }
    }
}

#[test]
fn every_tuning() {
    let tunings = [
        Tuning { outputs: 1, lanes: 1, teams: 1, columns: 16 },
        Tuning { outputs: 8, lanes: 256, teams: 1, columns: 16 },
        Tuning { outputs: 2, lanes: 64, teams: 4, columns: 32 },
        Tuning { outputs: 3, lanes: 32, teams: 5, columns: 8 },
        Tuning { outputs: 8, lanes: 1024, teams: 1024, columns: 64 },
    ];
    for gpu in gpus() {
        for tuning in tunings {
            for caps in variants(&gpu) {
                for format in [AFFINE4, affine(8, 64, Scales::F16), affine(2, 64, Scales::F16), Format::F16] {
                    let spec = MatMul { norm: Some(Norm { eps: 1e-6, weight: false }), ..plain(format, 43, 320) };
                    check(&gpu, &spec, &vector_with(&spec, &caps, 1, tuning), 1);
                }
            }
            let spec = MatMul { glu: Some(Activation::Silu), ..plain(AFFINE4, 21, 320) };
            check(&gpu, &spec, &vector_with(&spec, &gpu.caps, 8, tuning), 6);
        }
    }
}

/// More workgroups than one axis of the grid takes.
#[test]
fn many_outputs() {
    for gpu in gpus() {
        let spec = plain(Format::F32, 70_001, 8);
        let tuning = Tuning { outputs: 1, lanes: 8, teams: 1, columns: 4 };
        check(&gpu, &spec, &vector_with(&spec, &gpu.caps, 1, tuning), 1);
    }
}

#[test]
fn looks_up_embeddings() {
    // Tokens inside, before and after the part of the table, beyond the table, and one that was sampled.
    let tokens = [5, 17, 4, 18, step::SAMPLED | 2, 11, 0, 99];
    let sampled = [0, 0, 9, 0];
    let (count, total) = (13, 20);
    for gpu in gpus() {
        for (first, format) in formats().into_iter().chain([Format::F16]).flat_map(|f| [(5, f), (0, f)]) {
            let dim = if format.block() == 2 { 270 } else { 384 };
            let out = View { offset: 2, row: dim + 1, ..View::rows(dim) };
            let spec = Embedding { rows: step::TOKENS, first, count, total, dim, format, scale: 1.5, out };
            let table = Matrix::random(format, count as usize, dim as usize, 7);
            let rows = tokens.len() as u32;
            let mut step = vec![rows, 0, 0, 0, 0, 0, 0, 0];
            for token in tokens {
                step.extend([token, 0, 0, 0, 0, 0, 0, 0]);
            }
            let mut want = vec![UNTOUCHED; elements(&out, rows + 2)];
            let mut buffers = vec![step, sampled.to_vec(), table.quants.clone()];
            buffers.extend((!table.scales.is_empty()).then(|| table.scales.clone()));
            buffers.push(words(&want));
            for (r, token) in tokens.into_iter().enumerate() {
                let token = if token & step::SAMPLED != 0 { sampled[(token & 3) as usize] } else { token };
                let token = if token < total { token } else { 0 };
                if (first..first + count).contains(&token) {
                    let row = table.row((token - first) as usize);
                    for (c, v) in row.iter().enumerate() {
                        want[index(&out, r, c)] = 1.5 * v;
                    }
                }
            }
            let kernel = embedding(&spec);
            run(&gpu, &kernel, rows, 1, &mut buffers);
            assert_close(&kernel.name, &floats(&buffers[buffers.len() - 1]), &want, 1e-6);
        }
    }
}
