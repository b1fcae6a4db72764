//! The matrix kernels and the embedding lookup against the oracle, on every adapter.

mod case;
mod cooperative;

use case::{AFFINE4, Case, MXFP4, NVFP4, UNTOUCHED, affine, elements, formats, fused, has_bytes, header, index, plain};
use tamarack::gpu::Gpu;
use tamarack_kernels::embedding::{Embedding, Ids, embedding};
use tamarack_kernels::matmul::{
    IntegerTuning, MatMul, Norm, Precision, Tile, Tuning, integer, integer_with, tiled, tiled_integer,
    tiled_integer_with, tiled_with, vector, vector_with,
};
use tamarack_kernels::rounded::{self, Rounded};
use tamarack_kernels::{Activation, Caps, Format, Kernel, Post, Scales, View, step};
use tamarack_tests::canonical::Matrix;
use tamarack_tests::gpu::{assert_close, floats, gpus, random, run, words};
use tamarack_tests::rounded::read;

/// The device as it is, and as if it had no subgroups.
fn variants(gpu: &Gpu) -> [Caps; 2] {
    [gpu.caps, Caps { subgroups: None, ..gpu.caps }]
}

#[track_caller]
fn check(gpu: &Gpu, spec: &MatMul, kernel: &Kernel, rows: u32) {
    check_within(1e-5, gpu, spec, kernel, rows);
}

/// Runs `kernel` with `rows` rows of random inputs and compares every word of its output;
/// `tolerance` is relative to the largest, or to 1.
#[track_caller]
fn check_within(tolerance: f32, gpu: &Gpu, spec: &MatMul, kernel: &Kernel, rows: u32) {
    let case = Case::new(spec, rows, random(1, elements(&spec.x, rows)));
    let mut buffers = vec![header(spec, rows), words(&case.x)];
    buffers.extend(case.weights());
    buffers.extend(spec.norm.is_some_and(|norm| norm.weight).then(|| words(&case.gain)));
    buffers.extend(case.last());
    run(gpu, kernel, rows, 1, &mut buffers);
    case.check(tolerance, &kernel.name, buffers.last().expect("an output"));
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
                assert!(kernels.iter().all(|(kernel, _)| kernel.is_some() == has_bytes(format)), "{format}");
                let many = (tiled_integer(&spec, &caps, 19, precision), 19);
                assert_eq!(many.0.is_some(), has_bytes(format), "{format}");
                for (kernel, rows) in
                    kernels.into_iter().chain([many]).filter_map(|(kernel, rows)| Some((kernel?, rows)))
                {
                    check_within(tolerance, &gpu, &spec, &kernel, rows);
                }
            }
            assert_eq!(integer(&spec, &caps, 1, Precision::Full), None);
            assert_eq!(tiled_integer(&spec, &caps, 19, Precision::Full), None);
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
            // Where there is room for tall tiles, and where there is just what WebGPU promises.
            let spec = MatMul { norm: None, ..spec };
            for (workgroup_memory, rows) in [(gpu.caps.workgroup_memory, 129), (16 << 10, 65)] {
                let caps = Caps { workgroup_memory, ..gpu.caps };
                let kernel = tiled_integer_with(&spec, &caps, Precision::High, Tile::TALL).expect("a kernel");
                // The worst of so many results is 4 standard deviations off, where that of a few is 2 or 3.
                check_within(2e-4, &gpu, &spec, &kernel, rows);
            }
        }
    }
}

/// Long rows need more workgroup memory than there is: other kernels serve them.
#[test]
fn integers_need_room() {
    let caps = Caps {
        subgroups: None,
        f16: true,
        workgroup_memory: 16 << 10,
        workgroup_size: 256,
        binding_size: 1 << 30,
        cooperative: None,
    };
    for (k, rows, fits) in [(4096, 1, true), (4096, 2, false), (8192, 1, false)] {
        let kernel = integer(&plain(AFFINE4, 8, k), &caps, rows, Precision::High);
        assert_eq!(kernel.is_some(), fits, "{rows} rows of {k}");
    }
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
        let dense = [(Format::F32, 7), (Format::F32, 1), (Format::F16, 26), (Format::Bf16, 36)];
        // Rows of scales that are no whole words.
        let quantized = [AFFINE4, MXFP4, NVFP4].map(|format| (format, 96));
        for (format, k) in dense.into_iter().chain(quantized) {
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
                let others = [affine(8, 64, Scales::F16), affine(2, 64, Scales::F16), Format::F16, MXFP4];
                for format in [AFFINE4].into_iter().chain(others) {
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
    // The same, computed.
    let (view, computed) = (View { offset: 1, row: 3, ..View::rows(1) }, [5.0, 17.0, 4.0, 18.0, 9.0, 11.0, -3.0, 3e38]);
    for gpu in gpus() {
        let ids = [Ids::Step(step::ROW_TOKEN), Ids::Computed(view)];
        let cases =
            formats().into_iter().chain([Format::F16]).flat_map(|f| [(5, f, ids[0]), (0, f, ids[0]), (5, f, ids[1])]);
        for (first, format, ids) in cases {
            let dim = if format.block() == 2 { 270 } else { 384 };
            let out = View { offset: 2, row: dim + 1, ..View::rows(dim) };
            let next =
                dim.is_multiple_of(32).then_some(Rounded { columns: dim, precision: Precision::High, gain: true });
            let spec = Embedding { rows: step::TOKENS, ids, first, count, total, dim, format, scale: 1.5, out, next };
            let table = Matrix::random(format, count as usize, dim as usize, 7);
            let rows = tokens.len() as u32;
            let mut step = vec![rows, 0, 0, 0, 0, 0, 0, 0];
            for token in tokens {
                step.push(token);
                step.extend([0; step::ROW_WORDS as usize - 1]);
            }
            let mut want = vec![UNTOUCHED; elements(&out, rows + 2)];
            let mut buffers = vec![step, sampled.to_vec()];
            if ids == Ids::Computed(view) {
                buffers.push(words(&computed.iter().flat_map(|id| [9.0, *id, 9.0]).collect::<Vec<f32>>()));
            }
            buffers.push(table.quants.clone());
            buffers.extend((!table.scales.is_empty()).then(|| table.scales.clone()));
            let gain = random(8, dim as usize);
            buffers.extend(next.map(|_| words(&gain)));
            let at = buffers.len();
            buffers.push(words(&want));
            let next_words = rounded::words(dim, Precision::High) as usize;
            buffers.extend(next.map(|_| vec![0; rows as usize * next_words]));
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
            let kernel = embedding(&spec, &gpu.caps);
            run(&gpu, &kernel, rows, 1, &mut buffers);
            assert_close(&kernel.name, &floats(&buffers[at]), &want, 1e-6);
            if next.is_none() {
                continue;
            }
            for (r, rounded) in
                buffers[at + 1].chunks(next_words).enumerate().filter(|(r, _)| want[index(&out, *r, 0)] != UNTOUCHED)
            {
                let (values, _) = read(rounded, dim as usize, Precision::High);
                let want: Vec<f32> = (0..dim as usize).map(|c| want[index(&out, r, c)] * gain[c]).collect();
                // Two planes hold 1/64,000 of the largest.
                let largest = want.iter().fold(1.0f32, |largest, v| largest.max(v.abs()));
                assert_close(&format!("{}, row {r} rounded", kernel.name), &values, &want, 2e-5 * largest);
            }
        }
    }
}
