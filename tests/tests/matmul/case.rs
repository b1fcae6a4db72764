//! Random products, and what the oracle makes of them.

use tamarack::reference::ops;
use tamarack_kernels::matmul::{MatMul, Norm};
use tamarack_kernels::{Activation, Format, Post, Scales, Values, View, step};
use tamarack_tests::canonical::Matrix;
use tamarack_tests::gpu::{assert_close, floats, random, words};

/// What no kernel may touch.
pub const UNTOUCHED: f32 = 12345.0;

pub const fn affine(bits: u8, group: u16, scales: Scales) -> Format {
    Format::Affine { bits, group, scales }
}

pub const AFFINE4: Format = affine(4, 32, Scales::F16);
pub const MXFP4: Format = Format::Scaled { values: Values::E2m1, group: 32, scales: Scales::E8m0 };
pub const NVFP4: Format = Format::Scaled { values: Values::E2m1, group: 16, scales: Scales::E4m3 };

pub fn formats() -> Vec<Format> {
    let mut list = vec![Format::F32, Format::F16, Format::Bf16];
    list.extend([2, 3, 6].map(|bits| affine(bits, 16, Scales::F16)));
    for bits in [2, 3, 4, 5, 6, 8] {
        list.extend([(32, Scales::F16), (64, Scales::F32), (128, Scales::F16)].map(|(g, s)| affine(bits, g, s)));
    }
    list.extend([3, 4, 5, 6, 8].map(|bits| affine(bits, if bits == 6 { 16 } else { 32 }, Scales::Centered)));
    list.extend([affine(4, 64, Scales::F16), affine(4, 16, Scales::F32), affine(8, 32, Scales::F32)]);
    list.extend(scaled());
    list
}

/// Those that files have, and others.
fn scaled() -> Vec<Format> {
    let with = |values, group, scales| Format::Scaled { values, group, scales };
    let mut list = vec![MXFP4, NVFP4, with(Values::E4m3, 32, Scales::E8m0)];
    list.extend([(128, Scales::F32), (16, Scales::F16)].map(|(group, scales)| with(Values::E4m3, group, scales)));
    for values in [Values::Nf4, Values::BnbFp4, Values::Iq4, Values::E2m1] {
        list.extend([(32, Scales::F16), (64, Scales::F32)].map(|(group, scales)| with(values, group, scales)));
    }
    list
}

/// Whether there are kernels that multiply it in integers.
pub fn has_bytes(format: Format) -> bool {
    match format {
        Format::Affine { .. } => true,
        Format::Scaled { values, .. } => matches!(values, Values::E2m1 | Values::Iq4),
        _ => false,
    }
}

/// Nothing fused.
pub fn plain(format: Format, n: u32, k: u32) -> MatMul {
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

/// A step whose header says how many rows there are.
pub fn header(spec: &MatMul, rows: u32) -> Vec<u32> {
    let mut header = vec![0; step::HEADER_WORDS as usize];
    header[spec.rows as usize] = rows;
    header
}

/// Elements of a buffer that holds `rows` rows of a view.
pub fn elements(view: &View, rows: u32) -> usize {
    (view.offset + rows * view.row.max(view.heads * view.head)) as usize
}

pub fn index(view: &View, row: usize, column: usize) -> usize {
    let (head, j) = (column / view.dim as usize, column % view.dim as usize);
    view.offset as usize + row * view.row as usize + head * view.head as usize + j
}

/// Fusions, alone and together.
pub fn fused() -> Vec<MatMul> {
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

/// Random inputs of a product of some rows.
pub struct Case<'a> {
    pub spec: &'a MatMul,
    pub rows: u32,
    pub x: Vec<f32>,
    pub weight: Matrix,
    pub gain: Vec<f32>,
    pub bias: Vec<f32>,
    pub inputs: Vec<Vec<f32>>,
    pub before: Vec<f32>,
}

impl Case<'_> {
    pub fn new(spec: &MatMul, rows: u32, x: Vec<f32>) -> Case<'_> {
        let matrices = if spec.glu.is_some() { 2 } else { 1 };
        let inputs = (spec.post.iter().zip(5..))
            .filter_map(|(post, seed)| match post {
                Post::Add(view) | Post::Mul(view) => Some(random(seed, elements(view, rows))),
                _ => None,
            })
            .collect();
        Case {
            spec,
            rows,
            x,
            weight: Matrix::random(spec.format, spec.n as usize * matrices, spec.k as usize, 2),
            gain: random(3, spec.k as usize),
            bias: random(4, spec.out.width() as usize * matrices),
            inputs,
            // More rows than the step has.
            before: vec![UNTOUCHED; elements(&spec.out, rows + 3)],
        }
    }

    /// The bindings of the weight.
    pub fn weights(&self) -> Vec<Vec<u32>> {
        let scales = (!self.weight.scales.is_empty()).then(|| self.weight.scales.clone());
        std::iter::once(self.weight.quants.clone()).chain(scales).collect()
    }

    /// The bindings of what sums meet, and of the output.
    pub fn last(&self) -> Vec<Vec<u32>> {
        let bias = self.spec.bias.then(|| words(&self.bias));
        let inputs = self.inputs.iter().map(|input| words(input));
        bias.into_iter().chain(inputs).chain([words(&self.before)]).collect()
    }

    #[track_caller]
    pub fn check(&self, tolerance: f32, name: &str, out: &[u32]) {
        let Case { spec, rows, x, weight, bias, inputs, .. } = self;
        let got = floats(out);
        let width = spec.out.width() as usize;
        let matrices = if spec.glu.is_some() { 2 } else { 1 };
        let mut dense: Vec<f32> = Vec::new();
        for r in 0..*rows as usize {
            dense.extend((0..spec.k as usize).map(|c| x[index(&View { dim: spec.k, ..spec.x }, r, c)]));
        }
        if let Some(norm) = spec.norm {
            dense = ops::rms_norm(&dense, spec.k as usize, norm.weight.then_some(&self.gain), norm.eps);
        }
        let sums =
            ops::linear(&dense, spec.k as usize, spec.n as usize * matrices, |i, w| w.copy_from_slice(&weight.row(i)));
        let mut want = self.before.clone();
        for r in 0..*rows as usize {
            let sums = &sums[r * spec.n as usize * matrices..];
            for i in 0..spec.n as usize {
                let column = spec.first as usize + i;
                let biased = |part: usize| {
                    let bias = if spec.bias { bias[part * width + column] } else { 0.0 };
                    sums[part * spec.n as usize + i] + bias
                };
                let v = spec.glu.map_or_else(|| biased(0), |f| activate(f, biased(0)) * biased(1));
                want[index(&spec.out, r, column)] = finish(&spec.post, v, r, column, inputs);
            }
        }
        if spec.norm.is_none() && spec.glu.is_none() && spec.post.is_empty() && !spec.bias {
            println!("{name}: off by {:.1e} at most", error(spec, &got, &dense, weight));
        }
        let largest = want.iter().filter(|v| **v != UNTOUCHED).fold(1.0f32, |max, v| max.max(v.abs()));
        assert_close(&format!("{name} of {rows} rows"), &got, &want, tolerance * largest);
    }
}

/// The largest difference from sums in f64.
pub fn error(spec: &MatMul, got: &[f32], x: &[f32], weight: &Matrix) -> f64 {
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

pub fn finish(posts: &[Post], mut v: f32, row: usize, column: usize, inputs: &[Vec<f32>]) -> f32 {
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

pub fn activate(f: Activation, v: f32) -> f32 {
    use tamarack_api::Activation as Named;
    let f = match f {
        Activation::Silu => Named::Silu,
        Activation::Gelu => Named::Gelu,
        Activation::GeluTanh => Named::GeluTanh,
        Activation::Relu => Named::Relu,
        Activation::Sigmoid => Named::Sigmoid,
        Activation::Tanh => Named::Tanh,
        Activation::QuickGelu => Named::QuickGelu,
    };
    ops::activation(f, v)
}
