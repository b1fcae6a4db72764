//! The operations on rows of plain f32.

use rayon::prelude::*;
use tamarack_api::Activation;

/// `x` is [rows, k]; `row(i, w)` writes row `i` of the weight [n, k]. The result is [rows, n].
/// The sums of one row run in order; rows of the weight are shared out among threads.
pub fn linear(x: &[f32], k: usize, n: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let rows = x.len() / k;
    let columns: Vec<Vec<f32>> = (0..n)
        .into_par_iter()
        .map_init(
            || vec![0.0; k],
            |w, i| {
                row(i, w);
                x.chunks_exact(k).map(|x| dot(x, w)).collect()
            },
        )
        .collect();
    let mut out = vec![0.0; rows * n];
    for (i, column) in columns.iter().enumerate() {
        for (r, y) in column.iter().enumerate() {
            out[r * n + i] = *y;
        }
    }
    out
}

/// The sum of products, in eight lanes so that the compiler can vectorise it.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Root-mean-square norm of each row of `dim` values, arXiv:1910.07467. `weight` holds a multiple of
/// `dim` values and repeats over the rows.
pub fn rms_norm(x: &[f32], dim: usize, weight: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    for (r, row) in out.chunks_exact_mut(dim).enumerate() {
        let mean = dot(row, row) / dim as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        row.iter_mut().for_each(|v| *v *= scale);
        multiply_row(row, weight, r);
    }
    out
}

/// Layer norm of each row of `dim` values, arXiv:1607.06450.
pub fn layer_norm(x: &[f32], dim: usize, weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    for (r, row) in out.chunks_exact_mut(dim).enumerate() {
        let mean = row.iter().sum::<f32>() / dim as f32;
        row.iter_mut().for_each(|v| *v -= mean);
        let scale = 1.0 / (dot(row, row) / dim as f32 + eps).sqrt();
        row.iter_mut().for_each(|v| *v *= scale);
        multiply_row(row, weight, r);
        if let Some(b) = bias {
            row.iter_mut().zip(b).for_each(|(v, b)| *v += b);
        }
    }
    out
}

fn multiply_row(row: &mut [f32], weight: Option<&[f32]>, r: usize) {
    if let Some(w) = weight {
        let w = &w[r % (w.len() / row.len()) * row.len()..][..row.len()];
        row.iter_mut().zip(w).for_each(|(v, w)| *v *= w);
    }
}

/// Rotary embedding of each head, arXiv:2104.09864, with the cosines and sines of each token:
/// `table` is [tokens, pairs, 2]. `x` is [tokens, heads, dim]; dimensions past `2 * pairs` stay.
/// Half pairs (i, i + pairs), otherwise (2i, 2i + 1).
pub fn rope(x: &[f32], heads: usize, dim: usize, table: &[[f32; 2]], pairs: usize, half: bool) -> Vec<f32> {
    let mut out = x.to_vec();
    for (i, v) in out.chunks_exact_mut(dim).enumerate() {
        let table = &table[i / heads * pairs..][..pairs];
        for (j, [cos, sin]) in table.iter().enumerate() {
            let (a, b) = if half { (j, j + pairs) } else { (2 * j, 2 * j + 1) };
            (v[a], v[b]) = (v[a] * cos - v[b] * sin, v[b] * cos + v[a] * sin);
        }
    }
    out
}

/// One query row against the keys and values that it sees: `q` is [heads, dk]; `key(p, g)` and
/// `value(p, g)` are those of position `p` in group `g`, for `p` in `range`. The result is [heads, dv].
pub fn attend<'a>(
    q: &[f32],
    spec: &Attend<'_>,
    range: std::ops::Range<usize>,
    key: impl Fn(usize, usize) -> &'a [f32],
    value: impl Fn(usize, usize) -> &'a [f32],
) -> Vec<f32> {
    let dk = q.len() / spec.heads;
    let mut out = vec![0.0; spec.heads * spec.dv];
    for (h, (q, out)) in q.chunks_exact(dk).zip(out.chunks_exact_mut(spec.dv)).enumerate() {
        let group = h / (spec.heads / spec.groups);
        let scores: Vec<f32> = range
            .clone()
            .map(|p| {
                let s = dot(q, key(p, group)) * spec.scale;
                spec.softcap.map_or(s, |c| (s / c).tanh() * c)
            })
            .collect();
        // A sink is one more logit that takes probability and gives no value, arXiv:2309.17453.
        let sink = spec.sinks.map(|s| s[h]);
        let max = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
        let total = weights.iter().sum::<f32>() + sink.map_or(0.0, |s| (s - max).exp());
        for (w, p) in weights.iter().zip(range.clone()) {
            out.iter_mut().zip(value(p, group)).for_each(|(o, v)| *o += w / total * v);
        }
    }
    out
}

/// What [`attend`] needs to know beside the numbers.
pub struct Attend<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub groups: usize,
    /// Values per head.
    pub dv: usize,
    /// Factor on each score.
    pub scale: f32,
    /// Scores become `c * tanh(score / c)`.
    pub softcap: Option<f32>,
    /// One extra logit per head.
    pub sinks: Option<&'a [f32]>,
}

/// An activation function of one value.
pub fn activation(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044715 * x * x * x)).tanh()),
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// xIELU with the parameters alpha_p, alpha_n, beta and eps, arXiv:2411.13010.
pub fn xielu(x: f32, [alpha_p, alpha_n, beta, eps]: [f32; 4]) -> f32 {
    let softplus = |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p();
    if x > 0.0 {
        softplus(alpha_p) * x * x + beta * x
    } else {
        (beta + softplus(alpha_n)) * (x.min(eps).exp_m1() - x) + beta * x
    }
}

/// The mean of each row of `dim` values.
pub fn mean(x: &[f32], dim: usize) -> Vec<f32> {
    x.chunks_exact(dim).map(|row| row.iter().sum::<f32>() / dim as f32).collect()
}

/// Row by row, [m, k] times [k, n].
pub fn row_matmul(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let one = |(a, b): (&[f32], &[f32])| {
        let element = |i: usize| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum();
        (0..m * n).map(element).collect::<Vec<f32>>()
    };
    a.chunks_exact(m * k).zip(b.chunks_exact(k * n)).flat_map(one).collect()
}

/// The error function to 1.2e-7, by the rational Chebyshev fit of Numerical Recipes, section 6.2.
pub fn erf(x: f32) -> f32 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let z = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.5 * z);
    let poly = C.iter().rev().fold(0.0, |acc, c| acc * t + c);
    let complement = t * (-z * z + poly).exp();
    (if x < 0.0 { complement - 1.0 } else { 1.0 - complement }) as f32
}

/// A uniform number in (0, 1) that depends on nothing but its arguments, so that every executor
/// draws the same: two rounds of the PCG hash, <https://jcgt.org/published/0009/03/02/>.
pub fn uniform(seed: u32, counter: u32, index: u32) -> f32 {
    let h = pcg(pcg(pcg(seed) ^ counter) ^ index);
    // 23 bits: with one more, adding a half rounds up to 1 now and then, whose Gumbel noise is infinite.
    ((h >> 9) as f32 + 0.5) / 8_388_608.0
}

fn pcg(x: u32) -> u32 {
    let s = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let w = ((s >> ((s >> 28) + 4)) ^ s).wrapping_mul(277_803_737);
    (w >> 22) ^ w
}

/// The token of one row of logits: the largest, or, with a temperature, a draw from the softmax of
/// `logits * inv_temperature` by the Gumbel-max trick, arXiv:1411.0030. Ties go to the lowest id.
pub fn sample(logits: &[f32], inv_temperature: f32, seed: u32, counter: u32) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (i, l) in logits.iter().enumerate() {
        let v = if inv_temperature == 0.0 {
            *l
        } else {
            l * inv_temperature - (-uniform(seed, counter, i as u32).ln()).ln()
        };
        if v > best.0 {
            best = (v, i as u32);
        }
    }
    best.1
}
