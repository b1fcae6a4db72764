//! AltUp, arXiv:2301.13310: several streams of hidden states, of which a layer computes one, and moves the others along
//! with it. Streams are [tokens, streams, hidden], one of them [tokens, hidden].

use crate::Gemma3nConfig;
use tamarack_api::*;

/// Stream `i`.
pub fn stream(streams: Tensor, i: usize) -> Tensor {
    streams.slice(1, i, 1).merge_heads()
}

/// The root of the mean square of each row.
pub fn magnitude(x: Tensor, least: Option<f32>) -> Tensor {
    (x * x).mean().clamp(least, None).sqrt()
}

/// `x` as large as `target` says.
fn rescaled(x: Tensor, target: Tensor) -> Tensor {
    x * (target / magnitude(x, Some(1e-5)))
}

/// Projection `i` of those outside the layers.
fn projection(c: &Gemma3nConfig, w: &Weights, name: &str, i: usize) -> Linear {
    w.at(name).linear(&i.to_string(), [c.hidden_size, c.hidden_size])
}

/// All streams, from the embeddings: the first is `x`, the others as large.
pub fn spread(c: &Gemma3nConfig, w: &Weights, x: Tensor) -> Tensor {
    let other = |i| rescaled(projection(c, w, "altup_projections", i).forward(x), magnitude(x, None));
    let others = (0..c.altup_num_inputs - 1).map(other);
    concat(&std::iter::once(x).chain(others).collect::<Vec<Tensor>>()).split_heads(c.hidden_size)
}

/// What the head sees: the mean of all streams, each as large as the first.
pub fn gather(c: &Gemma3nConfig, w: &Weights, streams: Tensor) -> Tensor {
    let first = stream(streams, 0);
    let target = magnitude(first, None);
    let other = |i| projection(c, w, "altup_unembed_projections", i).forward(stream(streams, i + 1));
    let sum = (0..c.altup_num_inputs - 1).fold(first, |sum, i| sum + rescaled(other(i), target));
    sum / c.altup_num_inputs as f32
}

/// What a layer might make of each stream. `w` are the layer's weights.
pub fn predict(c: &Gemma3nConfig, w: &Weights, streams: Tensor) -> Tensor {
    let n = c.altup_num_inputs;
    let mix = w.linear("prediction_coefs", [n * n, n]).forward(modalities(c, w, stream(streams, c.active)));
    streams + mix.split_heads(n).matmul(streams)
}

/// Each stream moves by a share of what the active one's prediction was wrong by. `out` is what the layer made of it.
pub fn correct(c: &Gemma3nConfig, w: &Weights, predicted: Tensor, out: Tensor) -> Tensor {
    let n = c.altup_num_inputs;
    let shares = w.linear("correction_coefs", [n, n]).forward(modalities(c, w, out)) + 1.0;
    let wrong = out - stream(predicted, c.active);
    predicted + shares.split_heads(1) * wrong.split_heads(c.hidden_size)
}

fn modalities(c: &Gemma3nConfig, w: &Weights, x: Tensor) -> Tensor {
    let (n, d) = (c.altup_num_inputs, c.hidden_size);
    let normed = w.rms_norm("router_norm", d, c.rms_norm_eps).forward(x);
    w.linear("modality_router", [n, d]).forward(normed / d as f32).tanh()
}
