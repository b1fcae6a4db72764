use crate::{DEVICES, matmul::formats};
use tamarack_kernels::experts::{Combine, Experts, Gate, Groups, Route, Scoring, Sort};
use tamarack_kernels::{Activation, Caps, Format, Kernel, Post, View, step};

/// Every way to route, and every format in every way to multiply.
pub fn kernels() -> Vec<(Caps, Kernel)> {
    let mut list = Vec::new();
    for caps in DEVICES {
        list.extend(routes().into_iter().map(|route| (caps, route.kernel(&caps))));
        let route = View { offset: 3, row: 11, ..View::heads(2, 4) };
        list.push((caps, Sort { rows: step::TOKENS, top_k: 4, experts: 1024, route }.kernel(&caps)));
        let post = vec![Post::Scale(0.5), Post::Add(View::rows(70))];
        list.push((caps, Combine { top_k: 4, experts: 60, route, post, out: View::rows(70) }.kernel(&caps)));
        for format in formats() {
            for spec in products(format, route) {
                list.push((caps, spec.vector(&caps)));
                list.push((caps, Experts { sum: false, ..spec }.tiled(&caps)));
            }
        }
    }
    list
}

fn routes() -> Vec<Route> {
    let plain = Route {
        logits: View { offset: 2, row: 1027, ..View::rows(1024) },
        top_k: 8,
        scoring: Scoring::Softmax,
        normalize: None,
        scale: 1.0,
        bias: false,
        groups: None,
        out: View::heads(2, 8),
    };
    let groups = Some(Groups { count: 64, keep: 4, two: true, zero: false });
    vec![
        plain.clone(),
        Route { scoring: Scoring::Sigmoid, normalize: Some(1e-20), scale: 2.5, bias: true, groups, ..plain.clone() },
        Route { scoring: Scoring::SoftmaxAfterTopK, ..plain.clone() },
        Route { scoring: Scoring::SparseMixer { near: 0.02 }, logits: View::rows(3), top_k: 2, ..plain },
    ]
}

/// The first products with every gate, and the second.
fn products(format: Format, route: View) -> Vec<Experts> {
    let k = if format.block() < 32 { 64 } else { 256 };
    let up = Experts {
        rows: step::TOKENS,
        top_k: 4,
        route,
        experts: 9,
        first_expert: 2,
        held: 5,
        n: 37,
        k,
        format,
        x: View { offset: 4, row: k + 8, ..View::rows(k) },
        bias: true,
        gate: Some(Gate::Act(Activation::Silu)),
        interleaved: false,
        sum: false,
        post: Vec::new(),
        first: 3,
        out: View::heads(4, 40),
    };
    let down = Experts { gate: None, x: View::heads(4, k), sum: true, out: View::rows(40), ..up.clone() };
    let post = vec![Post::Add(View::rows(40))];
    vec![
        Experts { gate: Some(Gate::OaiSwiglu { alpha: 1.702, limit: 7.0 }), interleaved: true, ..up.clone() },
        up,
        Experts { post, ..down.clone() },
        Experts { bias: false, ..down },
    ]
}
