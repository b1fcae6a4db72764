//! Norms against the oracle.

use tamarack::reference::ops;
use tamarack_kernels::norm::{Norm, NormKind};
use tamarack_kernels::{Activation, Post, View};
use tamarack_tests::gpu::{assert_close, both_ways, floats, random, run, spread, words};

/// Rows, heads, dim, whether the weight spans the heads.
const SHAPES: [(u32, u32, u32, bool); 7] = [
    (1, 1, 1, false),
    (3, 1, 72, false),
    (2, 5, 80, false),
    (5, 3, 96, true),
    (1, 2, 256, true),
    (2, 1, 1000, false),
    (3, 1, 8192, false),
];

#[test]
fn norms_are_the_oracles() {
    for (case, (rows, heads, dim, spans)) in SHAPES.into_iter().enumerate() {
        let n = (rows * heads * dim) as usize;
        let x = random(case as u64, n);
        let weight = random(100 + case as u64, if spans { (heads * dim) as usize } else { dim as usize });
        let bias = random(200 + case as u64, dim as usize);
        let residual = random(300 + case as u64, n);
        // Input heads with gaps, as in the packed output of one matmul for q, k and v.
        let view = View { offset: 3, row: heads * (dim + 2) + 5, heads, head: dim + 2, dim };
        let packed = spread(&view, &x);
        for (kind, weighted, biased) in [
            (NormKind::Rms, true, false),
            (NormKind::Rms, false, false),
            (NormKind::Layer, true, true),
            (NormKind::Layer, false, false),
        ] {
            let norm = Norm {
                x: view,
                kind,
                eps: 1e-6,
                weight: if weighted { weight.len() as u32 } else { 0 },
                bias: biased,
                post: vec![Post::Scale(0.5), Post::Activation(Activation::Silu), Post::Add(View::heads(heads, dim))],
                out: View::heads(heads, dim),
            };
            let weight = weighted.then_some(&weight[..]);
            let normed = match kind {
                NormKind::Rms => ops::rms_norm(&x, dim as usize, weight, 1e-6),
                NormKind::Layer => ops::layer_norm(&x, dim as usize, weight, biased.then_some(&bias[..]), 1e-6),
            };
            let silu = |v: f32| ops::activation(tamarack_api::Activation::Silu, 0.5 * v);
            let want: Vec<f32> = normed.iter().zip(&residual).map(|(v, r)| silu(*v) + r).collect();
            both_ways(|gpu, caps| {
                let mut buffers = vec![vec![0; 8], words(&packed)];
                buffers.extend(weight.map(words));
                buffers.extend(biased.then(|| words(&bias)));
                buffers.extend([words(&residual), vec![0; n]]);
                let kernel = norm.kernel(caps);
                run(gpu, &kernel, rows, 1, &mut buffers);
                assert_close(&kernel.name, &floats(&buffers[buffers.len() - 1]), &want, 1e-5);
            });
        }
    }
}
