//! Products of cooperative matrices, where there are some, and the halves that they read, anywhere.

use crate::case::{AFFINE4, Case, UNTOUCHED, elements, formats, fused, header, index, plain};
use half::f16;
use tamarack::gpu::Gpu;
use tamarack::reference::ops;
use tamarack_kernels::halves::{self, Halves};
use tamarack_kernels::matmul::{CooperativeTile, MatMul, Norm, cooperative_next_with, cooperative_with};
use tamarack_kernels::{Caps, Cooperative, Format, Post, View};
use tamarack_tests::gpu::{assert_close, floats, gpus, random, run, words};

/// What rounding both sides to f16 costs, relative to the largest result.
const HALVES: f32 = 2e-3;

/// Runs a product of cooperative matrices over rows that were made halves. Where the device has none, the
/// halves are all that is checked.
fn check(gpu: &Gpu, spec: &MatMul, tile: CooperativeTile, rows: u32, scale: f32) {
    let x = random(1, elements(&spec.x, rows)).iter().map(|v| v * scale).collect();
    let case = Case::new(spec, rows, x);
    let [halves, worths] = case.halves(gpu);
    let kernels = cooperative_with(spec, &gpu.caps, tile);
    assert_eq!(kernels.is_some(), gpu.caps.cooperative.is_some());
    let Some(kernels) = kernels else { return };
    let step = header(spec, rows);
    let out = match &kernels[..] {
        [kernel] => {
            let mut buffers = [vec![step, halves, worths], case.weights(), case.last()].concat();
            run(gpu, kernel, rows, 1, &mut buffers);
            buffers.pop()
        }
        [product, sum] => {
            let partial = vec![UNTOUCHED.to_bits(); (tile.splits * rows * spec.n) as usize * 2];
            let mut buffers = [vec![step.clone(), halves], case.weights(), vec![partial]].concat();
            run(gpu, product, rows, 1, &mut buffers);
            let partial = buffers.pop().expect("partial sums");
            let mut buffers = [vec![step, partial, worths], case.last()].concat();
            run(gpu, sum, rows, 1, &mut buffers);
            buffers.pop()
        }
        _ => panic!("{} kernels", kernels.len()),
    };
    case.check(HALVES, &kernels[0].name, &out.expect("an output"));
}

impl Case<'_> {
    /// The input as f16 and what its rows are worth, compared with the oracle.
    fn halves(&self, gpu: &Gpu) -> [Vec<u32>; 2] {
        let Case { spec, rows, x, .. } = self;
        let (k, padded) = (spec.k as usize, halves::padded(spec.k) as usize);
        let kernel = Halves { x: spec.x, k: spec.k, norm: spec.norm }.kernel(&gpu.caps);
        let mut buffers = vec![header(spec, *rows), words(x)];
        buffers.extend(spec.norm.is_some_and(|norm| norm.weight).then(|| words(&self.gain)));
        buffers.extend([vec![0; *rows as usize * padded / 2], vec![0; *rows as usize]]);
        run(gpu, &kernel, *rows, 1, &mut buffers);
        let [worths, halves] = [buffers.pop(), buffers.pop()].map(|words| words.expect("an output"));
        for r in 0..*rows as usize {
            let mut want: Vec<f32> = (0..k).map(|c| x[index(&View { dim: spec.k, ..spec.x }, r, c)]).collect();
            if let Some(norm) = spec.norm {
                want = ops::rms_norm(&want, k, norm.weight.then_some(&self.gain), norm.eps);
            }
            want.resize(padded, 0.0);
            let worth = f32::from_bits(worths[r]);
            check_halves(&format!("{}, row {r}", kernel.name), &halves[r * padded / 2..][..padded / 2], worth, &want);
        }
        [halves, worths]
    }
}

/// Whether a row of halves, each worth so much, is what it should be.
#[track_caller]
fn check_halves(name: &str, row: &[u32], worth: f32, want: &[f32]) {
    let half = |w: u32| f16::from_bits(w as u16).to_f32() * worth;
    let got: Vec<f32> = row.iter().flat_map(|w| [half(*w), half(w >> 16)]).collect();
    let largest = want.iter().fold(1e-30f32, |max, v| max.max(v.abs()));
    assert_close(name, &got, want, largest * 5e-4);
}

#[test]
fn cooperative_matrices() {
    let tile = CooperativeTile {
        rows: 128,
        weights: 128,
        depth: 32,
        sub_rows: 64,
        sub_weights: 64,
        shares: 1,
        splits: 1,
        early: false,
    };
    let tiles = [
        (tile, 130),
        (CooperativeTile { weights: 64, sub_weights: 32, splits: 2, early: true, ..tile }, 65),
        (CooperativeTile { rows: 16, sub_rows: 16, depth: 64, shares: 4, early: true, ..tile }, 7),
        (CooperativeTile { rows: 32, weights: 64, sub_weights: 16, sub_rows: 32, splits: 3, ..tile }, 40),
    ];
    for gpu in gpus() {
        let formats = formats();
        // Halves do not depend on the format.
        let count = if gpu.caps.cooperative.is_some() { formats.len() } else { 2 };
        for (i, format) in formats.into_iter().take(count).enumerate() {
            let (tile, rows) = tiles[i % tiles.len()];
            check(&gpu, &plain(format, 150, 384), tile, rows, 1.0);
        }
        for (i, spec) in fused().into_iter().enumerate() {
            for j in 0..2 {
                let (tile, rows) = tiles[(i + j) % tiles.len()];
                check(&gpu, &spec, tile, rows, 1.0);
            }
        }
        // Rows that end within a step of columns, and values that no f16 holds.
        for (format, k) in [(Format::F32, 7), (Format::F16, 26), (Format::Bf16, 36), (AFFINE4, 96)] {
            let x = View { offset: 5, row: k + 3, ..View::rows(k) };
            check(&gpu, &MatMul { x, ..plain(format, 70, k) }, tiles[3].0, 33, 1e8);
        }
    }
}

/// What adds up the parts of a split product also makes halves of it, which takes no cooperative matrices.
#[test]
fn sums_of_parts_become_halves() {
    let (n, rows, splits) = (156, 5, 3);
    let tile = CooperativeTile {
        rows: 16,
        weights: 32,
        depth: 64,
        sub_rows: 16,
        sub_weights: 32,
        shares: 4,
        splits,
        early: true,
    };
    let spec = MatMul { bias: true, post: vec![Post::Add(View::rows(n))], ..plain(AFFINE4, n, 384) };
    for gpu in gpus() {
        let caps = Caps { f16: true, cooperative: Some(Cooperative { side: 16, subgroup: 32 }), ..gpu.caps };
        for norm in [None, Some(Norm { eps: 1e-5, weight: true })] {
            let Some([_, kernel]) = cooperative_next_with(&spec, &caps, tile, norm) else { continue };
            let (n, rows, padded) = (n as usize, rows as usize, halves::padded(n) as usize);
            let (parts, added) = (random(1, splits as usize * rows * n), random(3, rows * n));
            let (bias, gain) = (random(2, n), random(4, n));
            let worths: Vec<f32> = (0..rows).map(|r| (r as f32 - 2.0).exp2()).collect();
            let mut buffers = vec![header(&spec, rows as u32), words(&parts), words(&worths), words(&bias)];
            buffers.extend([words(&added), vec![0; rows * n]]);
            buffers.extend(norm.map(|_| words(&gain)));
            buffers.push(vec![0; rows * padded / 2]);
            run(&gpu, &kernel, rows as u32, 1, &mut buffers);
            let got = buffers.pop().expect("halves");
            for r in 0..rows {
                let sum = |i: usize| (0..splits as usize).map(|s| parts[(s * rows + r) * n + i]).sum::<f32>();
                let want: Vec<f32> = (0..n).map(|i| sum(i) * worths[r] + bias[i] + added[r * n + i]).collect();
                let stored = &floats(&buffers[5])[r * n..(r + 1) * n];
                assert_close(&format!("{}, row {r}", kernel.name), stored, &want, 1e-5);
                let mut want = if norm.is_some() { ops::rms_norm(&want, n, Some(&gain), 1e-5) } else { want };
                want.resize(padded, 0.0);
                let worth = f32::from_bits(buffers[2][r]);
                check_halves(&kernel.name, &got[r * padded / 2..][..padded / 2], worth, &want);
            }
        }
    }
}
