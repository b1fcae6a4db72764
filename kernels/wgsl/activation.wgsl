// Activation functions, under PyTorch's names.

// Some drivers compute tanh by exponentials that overflow; past 10 it is 1 in f32.
fn bounded_tanh(x: f32) -> f32 {
    return tanh(clamp(x, -10.0, 10.0));
}

// The error function to 1.5e-7, Abramowitz and Stegun 7.1.26.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - poly * exp(-x * x));
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(-x));
}

fn silu(x: f32) -> f32 {
    return x / (1.0 + exp(-x));
}

fn quick_gelu(x: f32) -> f32 {
    return x / (1.0 + exp(-1.702 * x));
}

fn gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
}

fn gelu_tanh(x: f32) -> f32 {
    return 0.5 * x * (1.0 + bounded_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

fn softplus(x: f32) -> f32 {
    return max(x, 0.0) + log(1.0 + exp(-abs(x)));
}

// `p` is alpha_p, alpha_n, beta and eps, arXiv:2411.13010.
fn xielu(x: f32, p: vec4<f32>) -> f32 {
    let above = softplus(p.x) * x * x;
    let below = (p.z + softplus(p.y)) * (exp(min(x, p.w)) - 1.0 - x);
    return select(below, above, x > 0.0) + p.z * x;
}
