//! An architecture that no paper describes: it uses every op, so that every rule and every kernel
//! has something to do. Its weights are random.

use crate::gpu::random;
use safetensors::{Dtype, tensor::TensorView};
use std::{collections::BTreeMap, path::Path};
use tamarack::checkpoint::{Checkpoint, Mapping};
use tamarack_api::*;

/// Hidden size.
pub const D: usize = 48;
/// Vocabulary.
pub const VOCAB: usize = 83;
const HEADS: usize = 6;
const GROUPS: usize = 2;
const DK: usize = 20;
const DV: usize = 12;
const FF: usize = 40;
const EXPERTS: usize = 6;
const ROPE: usize = 8;
const RANK: usize = 30;
const ODD: usize = 33;

/// See the module's text.
pub struct Zoo;

impl Architecture for Zoo {
    fn declaration(&self) -> Declaration {
        Declaration::llm("zoo", &["zoo"])
    }

    fn text(&self, _: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let embed = w.embedding("embed", [VOCAB, D]);
        let x = embed.forward(step.tokens()) * 3.0;
        let (h, shared) = llama_like(&w.at("a"), x);
        let h = sandwich(&w.at("b"), h);
        let h = parallel(&w.at("c"), h, &shared);
        let h = odds_and_ends(&w.at("d"), h);
        let h = latent(&w.at("e"), h);
        let h = streams(&w.at("f"), h);
        let h = mixture(&w.at("g"), h);
        let x = w.rms_norm("norm", D, 1e-5).plus_one().forward(step.outputs(h));
        let logits = embed.as_linear().forward(x) * 0.2;
        Ok(logits.tanh() * 5.0)
    }
}

/// Pre-norm, biased projections, a window, sinks; its cache is lent to another layer.
fn llama_like(w: &Weights, x: Tensor) -> (Tensor, Kv) {
    let n = w.rms_norm("norm1", D, 1e-5).forward(x);
    let rope = RopeSpec::new(16, 100.0);
    let heads = |name, n: usize, d: usize, x| w.linear(name, [n * d, D]).forward(x).split_heads(d);
    let cache = kv(heads("k", GROUPS, DK, n).rope(&rope), heads("v", GROUPS, DV, n), CacheSpec::default());
    let sinks = w.tensor("sinks", &[HEADS]).id();
    let spec = AttentionSpec { sinks: Some(sinks), ..AttentionSpec::causal(DK).window(Some(5)) };
    let seen = attention(heads("q", HEADS, DK, n).rope(&rope), &cache, &spec).merge_heads();
    let h = x + w.linear("o", [D, HEADS * DV]).forward(seen);
    let n = w.rms_norm("norm2", D, 1e-5).forward(h);
    let gate = w.linear("gate", [FF, D]).forward(n).silu();
    let h = h + w.linear("down", [D, FF]).forward(gate * w.linear("up", [FF, D]).forward(n));
    (h, cache)
}

/// Norms on both sides, head norms, adjacent pairs, a softcap, an odd gate.
fn sandwich(w: &Weights, x: Tensor) -> Tensor {
    let norm = |name, dim, x: Tensor| w.rms_norm(name, dim, 1e-6).forward(x);
    let rope = RopeSpec::new(DK, 1000.0).pairing(Pairing::Adjacent);
    let n = norm("norm1", D, x);
    let [q, k, v] =
        w.linear("qkv", [HEADS * DK + GROUPS * (DK + DV), D]).forward(n).split([HEADS * DK, GROUPS * DK, GROUPS * DV]);
    let q = norm("q_norm", DK, q.split_heads(DK)).rope(&rope) * 0.3;
    let k = norm("k_norm", DK, k.split_heads(DK)).rope(&rope);
    let cache = kv(k, v.split_heads(DV), CacheSpec::default());
    let spec = AttentionSpec { scale: 1.0, window: None, softcap: Some(2.0), sinks: None };
    let seen = attention(q, &cache, &spec).merge_heads();
    let h = x + norm("norm2", D, w.linear("o", [D, HEADS * DV]).forward(seen));
    let n = norm("norm3", D, h);
    let gate = w.linear("gate", [FF, D]).forward(n);
    let out = w.linear("down", [D, FF]).forward(w.linear("up", [FF, D]).forward(n) * gate.gelu_tanh());
    h + norm("norm4", D, out)
}

/// Layer norm, both branches side by side, another layer's cache, no gate.
fn parallel(w: &Weights, x: Tensor, shared: &Kv) -> Tensor {
    let n = w.layer_norm("norm", D, 1e-5).forward(x);
    let q = w.layer_norm("q_norm", DK, 1e-5).forward(w.linear("q", [HEADS * DK, D]).forward(n).split_heads(DK));
    let seen = attention(q, shared, &AttentionSpec::causal(DK)).merge_heads();
    let mlp = w.linear("down", [D, FF]).forward(w.linear("up", [FF, D]).forward(n).gelu());
    x + w.linear("o", [D, HEADS * DV]).forward(seen) + mlp
}

/// What the others leave out.
fn odds_and_ends(w: &Weights, x: Tensor) -> Tensor {
    let heads = x.split_heads(12);
    let middle = heads.slice(1, 1, 2).merge_heads();
    let [left, right] = x.split([D / 4, 3 * D / 4]);
    let mixed = concat(&[middle, right.relu(), left - 0.5]);
    let gate = w.linear("one", [1, D]).forward(x).sigmoid();
    let clamped = w.linear("mix", [D, mixed.dim(-1)]).forward(mixed).clamp(Some(-0.7), Some(1.5));
    let scaled = head_norms(w, heads);
    x + clamped * gate - scaled.merge_heads() / 7.0 + (x * x) / (x * x + 1.0)
}

/// Experts in groups, with biases everywhere, and one that all rows take beside them.
fn mixture(w: &Weights, x: Tensor) -> Tensor {
    let n = w.rms_norm("norm", D, 1e-5).forward(x);
    let groups = Groups { count: 3, keep: 2, score: GroupScore::Top2Sum, others: Others::NegInf };
    let spec = RouteSpec {
        choice_bias: Some(w.tensor("choice", &[EXPERTS]).id()),
        groups: Some(groups),
        scale: 1.5,
        eps: 0.1,
        ..RouteSpec::new(2, Scoring::Sigmoid).normalize(true)
    };
    let route = moe_route(n, &w.linear("gate", [EXPERTS, D]), &spec);
    let experts = w.experts(EXPERTS, [FF, D], ["", "", ""]);
    let gate = Gate::OaiSwiglu { alpha: 1.7, limit: 1.0 };
    let shared = w.linear("shared", [D, D]).forward(n);
    x + (moe_experts(n, route, &experts, ExpertSpec { gate, interleaved: true }) + shared) * 0.5
}

/// Latent attention, then a convolution with gates on both sides.
fn latent(w: &Weights, x: Tensor) -> Tensor {
    let rope = RopeSpec::new(ROPE, 100.0).pairing(Pairing::Adjacent);
    let n = w.rms_norm("norm1", D, 1e-5).forward(x);
    let [q_nope, q_rope] = w.linear("q", [HEADS * (DK + ROPE), D]).forward(n).split_heads(DK + ROPE).split([DK, ROPE]);
    let [latent, k_rope] = w.linear("kv", [RANK + ROPE, D]).forward(n).split([RANK, ROPE]);
    let latent = w.rms_norm("latent_norm", RANK, 1e-6).forward(latent);
    let k_rope = k_rope.split_heads(ROPE).rope(&rope).merge_heads();
    let spec = AttentionSpec::causal(DK + ROPE).window(Some(9));
    let expand = w.latent_heads(HEADS, [DK, DV], RANK);
    let seen = latent_attention([q_nope, q_rope.rope(&rope)], [latent, k_rope], &expand, &spec).merge_heads();
    let h = x + w.linear("o", [D, HEADS * DV]).forward(seen);
    let n = w.rms_norm("norm2", D, 1e-5).forward(h);
    let [before, after, n] = w.linear("in", [3 * D, D]).forward(n).split([D, D, D]);
    h + w.linear("out", [D, D]).forward(after * w.conv1d("conv", D, 4).forward(before * n))
}

/// Products of small matrices, means and roots, a learned activation, and a convolution of an odd number of channels.
fn streams(w: &Weights, x: Tensor) -> Tensor {
    let streams = x.split_heads(D / 4);
    let mixed = w.linear("mix", [4 * 4, D]).forward(x).tanh().split_heads(4).matmul(streams) + streams;
    let apart = mixed - mixed.mean();
    let normed = apart / ((apart * apart).mean() + 0.1).sqrt();
    let shared = normed * 0.5 + normed.slice(1, 2, 1);
    let scaled = shared.merge_heads() * w.tensor("scale", &[D]);
    let odd = w.linear("odd", [ODD, D]).forward(w.xielu("act").forward(scaled));
    x + w.linear("even", [D, ODD]).forward(w.conv1d("conv", ODD, 3).forward(odd) * 0.5)
}

/// A norm with a weight for each head.
fn head_norms(w: &Weights, heads: Tensor) -> Tensor {
    let weight = w.tensor("head_norms.weight", &[heads.dim(1), heads.dim(2)]);
    RmsNorm { weight: Some(weight), eps: 1e-5 }.forward(heads)
}

/// The zoo's tensors with random values.
pub fn checkpoint() -> Checkpoint {
    let mut tensors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        tensors.insert(name.to_owned(), shape.to_vec());
    };
    let (q, k, v) = (HEADS * DK, GROUPS * DK, GROUPS * DV);
    add("embed.weight", &[VOCAB, D]);
    add("norm.weight", &[D]);
    for (name, n, d) in [("a.q", q, D), ("a.k", k, D), ("a.v", v, D), ("a.gate", FF, D), ("a.up", FF, D)] {
        add(&format!("{name}.weight"), &[n, d]);
        add(&format!("{name}.bias"), &[n]);
    }
    add("a.sinks", &[HEADS]);
    for (name, n, d) in [
        ("a.o", D, HEADS * DV),
        ("a.down", D, FF),
        ("b.qkv", q + k + v, D),
        ("b.o", D, HEADS * DV),
        ("b.gate", FF, D),
        ("b.up", FF, D),
        ("b.down", D, FF),
        ("c.q", q, D),
        ("c.o", D, HEADS * DV),
        ("c.up", FF, D),
        ("c.down", D, FF),
        ("d.one", 1, D),
        ("d.mix", D, 24 + D),
        ("g.gate", EXPERTS, D),
        ("g.shared", D, D),
        ("e.q", HEADS * (DK + ROPE), D),
        ("e.kv", RANK + ROPE, D),
        ("e.kv_b_proj", HEADS * (DK + DV), RANK),
        ("e.o", D, HEADS * DV),
        ("e.in", 3 * D, D),
        ("e.out", D, D),
        ("f.mix", 16, D),
        ("f.odd", ODD, D),
        ("f.even", D, ODD),
    ] {
        add(&format!("{name}.weight"), &[n, d]);
    }
    for name in ["a.norm1", "a.norm2", "b.norm1", "b.norm2", "b.norm3", "b.norm4", "c.norm", "e.norm1", "e.norm2"] {
        add(&format!("{name}.weight"), &[D]);
    }
    for name in ["b.q_norm", "b.k_norm", "c.q_norm"] {
        add(&format!("{name}.weight"), &[DK]);
    }
    add("g.norm.weight", &[D]);
    add("g.gate.bias", &[EXPERTS]);
    add("g.choice", &[EXPERTS]);
    for (name, rows, cols) in [("gate_up_proj", 2 * FF, D), ("down_proj", D, FF)] {
        add(&format!("g.experts.{name}"), &[EXPERTS, rows, cols]);
        add(&format!("g.experts.{name}_bias"), &[EXPERTS, rows]);
    }
    add("c.norm.bias", &[D]);
    add("c.q_norm.bias", &[DK]);
    add("d.head_norms.weight", &[4, 12]);
    add("e.latent_norm.weight", &[RANK]);
    add("e.conv.weight", &[D, 1, 4]);
    add("f.conv.weight", &[ODD, 3, 1]);
    add("f.conv.bias", &[ODD]);
    add("f.scale", &[D]);
    for name in ["alpha_p", "alpha_n", "beta", "eps"] {
        add(&format!("f.act.{name}"), if name == "beta" { &[] } else { &[1] });
    }
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let values = random(i as u64 + 1, shape.iter().product());
            // Norm weights around one, matrices so that values keep their size.
            let (scale, shift) = match shape[..] {
                [.., _, k] if name != "embed.weight" => (1.7 / (k as f32).sqrt(), 0.0),
                _ if name.contains("norm") && !name.ends_with("bias") => (0.4, 1.0),
                _ => (0.5, 0.0),
            };
            let bytes = values.iter().flat_map(|x| (x * scale + shift).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("sizes agree"))
    });
    let file = safetensors::serialize(views, None).expect("serialises");
    let config = serde_json::json!({ "model_type": "zoo" });
    Checkpoint::from_safetensors(Path::new("zoo"), config, &[Mapping::from_bytes("zoo.safetensors", file)])
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The zoo, recorded.
pub fn program(checkpoint: &Checkpoint) -> tamarack::program::Program {
    let index = checkpoint.tensors().map(|(n, t)| (n.to_owned(), t.shape().to_vec())).collect();
    let config = Config::from(checkpoint.config().clone());
    tamarack::program::lower(&record(&Zoo, &config, index).unwrap_or_else(|e| panic!("{e}")))
}
