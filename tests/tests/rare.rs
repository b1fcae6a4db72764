//! The kernels that few architectures need, against the oracle: odd shapes, strided views, shuffled pages.

use half::f16;
use tamarack::reference::ops;
use tamarack_kernels::conv::Conv;
use tamarack_kernels::elementwise::{Elementwise, Op};
use tamarack_kernels::heads::HeadLinear;
use tamarack_kernels::small::{Mean, RowMatMul};
use tamarack_kernels::{Format, Post, Scales, View, step};
use tamarack_tests::canonical::Matrix;
use tamarack_tests::gpu::{assert_close, both_ways, floats, gather, random, run, spread, words};
use tamarack_tests::step::{Sequence, Step};

const ROWS: u32 = 5;

/// A view with gaps between rows and between heads.
fn strided(heads: u32, dim: u32) -> View {
    View { offset: 3, row: heads * (dim + 2) + 5, heads, head: dim + 2, dim }
}

/// A buffer for a view of `rows` rows.
fn room(view: &View, rows: u32) -> Vec<u32> {
    vec![0; (view.offset + rows * view.row) as usize]
}

#[test]
fn means() {
    for (heads, dim) in [(1, 1), (1, 37), (3, 80), (1, 2049)] {
        let x: Vec<f32> = random(1, (ROWS * heads * dim) as usize).iter().map(|v| v + 0.3).collect();
        let mean = Mean { x: strided(heads, dim), out: strided(heads, 1) };
        both_ways(|gpu, caps| {
            let mut buffers = [vec![0; 8], words(&spread(&mean.x, &x)), room(&mean.out, ROWS)];
            run(gpu, &mean.kernel(caps), ROWS, 1, &mut buffers);
            let got = gather(&mean.out, &floats(&buffers[2]), ROWS);
            assert_close(&format!("{mean:?}"), &got, &ops::mean(&x, dim as usize), 1e-6);
        });
    }
}

#[test]
fn products_of_small_matrices() {
    for (m, k, n) in [(1, 1, 1), (4, 4, 130), (4, 1, 33), (3, 7, 5)] {
        let (a, b) = (random(1, (ROWS * m * k) as usize), random(2, (ROWS * k * n) as usize));
        let spec = RowMatMul { a: strided(m, k), b: strided(k, n), out: strided(m, n) };
        let want = ops::row_matmul(&a, &b, m as usize, k as usize, n as usize);
        both_ways(|gpu, caps| {
            let inputs = [words(&spread(&spec.a, &a)), words(&spread(&spec.b, &b))];
            let mut buffers = vec![vec![0; 8]];
            buffers.extend(inputs);
            buffers.push(room(&spec.out, ROWS));
            run(gpu, &spec.kernel(caps), ROWS, 1, &mut buffers);
            assert_close(&format!("{spec:?}"), &gather(&spec.out, &floats(&buffers[3]), ROWS), &want, 1e-5);
        });
    }
}

#[test]
fn xielu_is_its_formula() {
    let parameters = [0.3, -1.2, 0.4, -1e-6];
    let x: Vec<f32> = random(1, (ROWS * 75) as usize).iter().map(|v| 6.0 * v).collect();
    let want: Vec<f32> = x.iter().map(|v| 2.0 * ops::xielu(*v, parameters)).collect();
    let (view, out) = (strided(3, 25), View::heads(3, 25));
    let inputs = vec![view, View::rows(4)];
    let spec = Elementwise { op: Op::Xielu, inputs, gather: false, post: vec![Post::Scale(2.0)], out };
    both_ways(|gpu, caps| {
        let mut buffers = [vec![0; 8], words(&spread(&view, &x)), words(&parameters), room(&out, ROWS)];
        run(gpu, &spec.kernel(caps), ROWS, 1, &mut buffers);
        assert_close("xielu", &floats(&buffers[3]), &want, 1e-4);
    });
}

#[test]
fn roots_and_vectors_that_all_rows_share() {
    let x: Vec<f32> = random(1, (ROWS * 12) as usize).iter().map(|v| v.abs()).collect();
    let factors = random(2, 4);
    let want: Vec<f32> = x.iter().enumerate().map(|(i, v)| (v * factors[i % 4].abs()).sqrt()).collect();
    let factors: Vec<f32> = factors.iter().map(|f| f.abs()).collect();
    let vector = View { offset: 0, row: 0, heads: 3, head: 0, dim: 4 };
    let (view, out) = (strided(3, 4), View::heads(3, 4));
    let spec = Elementwise { op: Op::Mul, inputs: vec![view, vector], gather: false, post: vec![Post::Sqrt], out };
    both_ways(|gpu, caps| {
        let mut buffers = [vec![0; 8], words(&spread(&view, &x)), words(&factors), room(&out, ROWS)];
        run(gpu, &spec.kernel(caps), ROWS, 1, &mut buffers);
        assert_close("roots", &floats(&buffers[3]), &want, 1e-5);
    });
}

/// What a convolution gives for one channel of a row, from the sequence's inputs up to it.
fn convolved(inputs: &[f32], taps: &[f32], bias: f32) -> f32 {
    inputs.iter().rev().zip(taps.iter().rev()).map(|(x, w)| x * w).sum::<f32>() + bias
}

#[test]
fn convolutions_over_sequences_on_shuffled_pages() {
    let sequences = [(1, 1), (40, 3), (17, 1), (5, 5), (100, 2), (2, 1)];
    let sequences = sequences.map(|(context, rows)| Sequence { context, rows });
    for (channels, kernel, gated) in [(64, 3, true), (75, 4, false), (1, 1, false), (130, 3, false), (6, 20, true)] {
        let (step, slot) = (Step::new(&sequences, 1, 0), (channels as usize).div_ceil(2));
        let rows = step.rows.len() as u32;
        let (weight, bias) = (random(1, (channels * kernel) as usize), random(2, channels as usize));
        // Each sequence's inputs from its beginning; what the cache holds of them is f16.
        let round = |v: f32| f16::from_f32(v).to_f32();
        let texts: Vec<Vec<f32>> =
            (0..).zip(&sequences).map(|(i, s)| random(10 + i, (s.context * channels) as usize)).collect();
        let texts: Vec<Vec<f32>> = texts.into_iter().map(|t| t.into_iter().map(round).collect()).collect();
        let input =
            |sequence: usize, position: u32, c: usize| texts[sequence][position as usize * channels as usize + c];
        // What nobody wrote is NaN, the step's own rows among it.
        let mut cache = vec![0x7e00_7e00; step.slots as usize * slot];
        for (i, s) in sequences.iter().enumerate() {
            for position in 0..s.context - s.rows {
                for c in 0..channels as usize {
                    let word = &mut cache[step.slot(i, position) as usize * slot + c / 2];
                    let bits = u32::from(f16::from_f32(input(i, position, c)).to_bits()) << (c % 2 * 16);
                    *word = *word & !(0xffff << (c % 2 * 16)) | bits;
                }
            }
        }
        let cells = || step.rows.iter().flat_map(|row| (0..channels as usize).map(move |c| (row, c)));
        let want: Vec<f32> = cells()
            .map(|(row, c)| {
                let seen: Vec<f32> = (0..=row.position).map(|p| input(row.sequence, p, c)).collect();
                -0.5 * convolved(&seen, &weight[c * kernel as usize..][..kernel as usize], bias[c])
            })
            .collect();
        let own: Vec<f32> = cells().map(|(row, c)| input(row.sequence, row.position, c)).collect();
        let (view, out) = (strided(1, channels), View::rows(channels));
        // The product of both inputs is what is convolved.
        let halves: Vec<Vec<f32>> =
            if gated { vec![own.iter().map(|v| v * 4.0).collect(), vec![0.25; own.len()]] } else { vec![own.clone()] };
        let spec = Conv { inputs: vec![view; halves.len()], kernel, bias: true, post: vec![Post::Scale(-0.5)], out };
        both_ways(|gpu, caps| {
            let mut buffers = vec![step.words.clone()];
            buffers.extend(halves.iter().map(|x| words(&spread(&view, x))));
            buffers.extend([words(&weight), words(&bias), cache.clone(), room(&out, rows)]);
            run(gpu, &spec.kernel(caps), rows, 1, &mut buffers);
            let what = format!("{spec:?}");
            assert_close(&what, &floats(&buffers[buffers.len() - 1]), &want, 1e-5);
            let cache = &buffers[buffers.len() - 2];
            let kept = step.rows.iter().flat_map(|row| {
                let at = step.slot(row.sequence, row.position) as usize * slot;
                let half = move |c: usize| f16::from_bits((cache[at + c / 2] >> (c % 2 * 16)) as u16).to_f32();
                (0..channels as usize).map(half)
            });
            assert_close(&format!("{what}: what is kept"), &kept.collect::<Vec<f32>>(), &own, 1e-6);
        });
    }
}

#[test]
fn a_matrix_for_each_head() {
    let affine = |bits, group, scales| Format::Affine { bits, group, scales };
    let formats = [Format::F32, Format::F16, Format::Bf16, affine(4, 32, Scales::F16), affine(3, 64, Scales::F32)];
    for format in formats {
        // Rows of a head's matrix, and columns, which quantized ones have in groups.
        let dense = !matches!(format, Format::Affine { .. });
        let odd = if format == Format::F32 { 37 } else { 38 };
        for (heads, a, b) in [(3, 5, if dense { odd } else { 64 }), (2, 70, 128)] {
            let matrix = Matrix::random(format, (heads * a) as usize, b as usize, 7);
            for transposed in [false, true] {
                let (k, n) = if transposed { (a, b) } else { (b, a) };
                let spec =
                    HeadLinear { rows: step::TOKENS, format, transposed, x: strided(heads, k), out: strided(heads, n) };
                let x = random(3, (ROWS * heads * k) as usize);
                let all: Vec<Vec<f32>> = (0..heads * a).map(|r| matrix.row(r as usize)).collect();
                let cells = (0..ROWS).flat_map(|r| (0..heads).flat_map(move |h| (0..n).map(move |i| (r, h, i))));
                let want: Vec<f32> = cells
                    .map(|(r, h, i)| {
                        let x = &x[((r * heads + h) * k) as usize..][..k as usize];
                        let w = |j: u32| if transposed { (j, i) } else { (i, j) };
                        let w = |j: u32| all[(h * a + w(j).0) as usize][w(j).1 as usize];
                        (0..k).map(|j| x[j as usize] * w(j)).sum()
                    })
                    .collect();
                both_ways(|gpu, caps| {
                    for tile in [1, 8] {
                        let mut step = vec![0; 8];
                        step[step::TOKENS as usize] = ROWS;
                        let mut buffers = vec![step, matrix.quants.clone()];
                        buffers.extend((!matrix.scales.is_empty()).then(|| matrix.scales.clone()));
                        buffers.extend([words(&spread(&spec.x, &x)), room(&spec.out, ROWS)]);
                        run(gpu, &spec.kernel(caps, tile), ROWS, 1, &mut buffers);
                        let got = gather(&spec.out, &floats(&buffers[buffers.len() - 1]), ROWS);
                        assert_close(&format!("{spec:?}, {tile} rows"), &got, &want, 1e-4);
                    }
                });
            }
        }
    }
}
