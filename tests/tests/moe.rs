//! Mixtures of experts: what the oracle computes, and what cannot be recorded.

use tamarack::reference::moe;
use tamarack_api::*;

fn spec(top_k: usize, scoring: Scoring) -> RouteSpec {
    RouteSpec::new(top_k, scoring)
}

#[track_caller]
fn assert_route(logits: &[f32], spec: &RouteSpec, bias: Option<&[f32]>, want: &[f32]) {
    let got = moe::route(logits, logits.len(), spec, bias);
    assert_eq!(got.len(), want.len());
    let close = got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close, "{spec:?}: {got:?}, want {want:?}");
}

#[test]
fn routes() {
    // Softmax: 1/8, 5/8, 2/8.
    let logits = [1.0f32.ln(), 5.0f32.ln(), 2.0f32.ln()];
    assert_route(&logits, &spec(2, Scoring::Softmax), None, &[1.0, 2.0, 0.625, 0.25]);
    assert_route(&logits, &spec(2, Scoring::Softmax).normalize(true), None, &[1.0, 2.0, 5.0 / 7.0, 2.0 / 7.0]);
    assert_route(&logits, &spec(2, Scoring::SoftmaxAfterTopK), None, &[1.0, 2.0, 5.0 / 7.0, 2.0 / 7.0]);
    // The bias chooses and does not weigh; the scale comes last.
    let scaled = RouteSpec { scale: 2.0, normalize: true, eps: 0.5, ..spec(1, Scoring::Sigmoid) };
    assert_route(&logits, &scaled, Some(&[9.0, 0.0, 0.0]), &[0.0, 2.0 * 0.5 / (0.5 + 0.5)]);
    // Of equal ones the first.
    assert_route(&[3.0, 3.0, 3.0], &spec(2, Scoring::Sigmoid), None, &[0.0, 1.0, 0.952_574_1, 0.952_574_1]);
}

#[test]
fn routes_within_groups() {
    let logits = [0.9, 0.0, 0.6, 0.5, 0.8, 0.1];
    let groups = |score, keep, others| Some(Groups { count: 3, keep, score, others });
    let choose = |groups, scoring, k| {
        let spec = RouteSpec { groups, ..spec(k, scoring) };
        moe::route(&logits, 6, &spec, None)[..k].to_vec()
    };
    let after = Scoring::SoftmaxAfterTopK;
    assert_eq!(choose(groups(GroupScore::Max, 2, Others::NegInf), after, 3), [0.0, 4.0, 5.0]);
    assert_eq!(choose(groups(GroupScore::Top2Sum, 1, Others::NegInf), after, 2), [2.0, 3.0]);
    // Zero beats what is negative.
    let negative = [-1.0, -2.0, -3.0, -4.0];
    let spec = RouteSpec {
        groups: Some(Groups { count: 2, keep: 1, score: GroupScore::Max, others: Others::Zero }),
        ..spec(2, after)
    };
    assert_eq!(moe::route(&negative, 4, &spec, None)[..2], [2.0, 3.0]);
}

#[test]
fn the_sparse_mixer_masks_what_is_far_from_the_best() {
    // (2 - 1.99) / 2 is within 2 * 0.01, (2 - 1.9) / 2 is not; then (1.99 - 1.9) / 1.99 is not either.
    let logits = [1.9, 2.0, 1.99];
    let near = 1.0 / (1.0 + (-0.01f32).exp());
    assert_route(&logits, &spec(2, Scoring::SparseMixer { jitter: 0.01 }), None, &[1.0, 2.0, near, 1.0]);
}

/// Records one mixture of 4 experts with these settings.
struct One(RouteSpec, usize);

impl Architecture for One {
    fn declaration(&self) -> Declaration {
        Declaration::llm("one", &["one"])
    }
    fn text(&self, _: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
        let embed = w.embedding("embed", [16, 8]);
        let x = embed.forward(step.outputs(step.tokens()));
        let route = moe_route(x, &w.linear("gate", [4, 8]), &self.0);
        let experts = w.experts(self.1, [6, 8], ["w1", "w3", "w2"]);
        Ok(embed.as_linear().forward(moe_experts(x, route, &experts, Activation::Silu)))
    }
}

fn index(tensors: &[(&str, &[usize])]) -> Index {
    let all = [("embed.weight", &[16, 8][..]), ("gate.weight", &[4, 8])];
    all.iter().chain(tensors).map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
}

fn stacked() -> Index {
    index(&[
        ("switch_mlp.gate_proj.weight", &[4, 6, 8]),
        ("switch_mlp.up_proj.weight", &[4, 6, 8]),
        ("switch_mlp.down_proj.weight", &[4, 8, 6]),
    ])
}

fn each() -> Index {
    let names: Vec<(String, [usize; 2])> = (0..4)
        .flat_map(|e| {
            [("w1", [6, 8]), ("w3", [6, 8]), ("w2", [8, 6])].map(|(n, s)| (format!("experts.{e}.{n}.weight"), s))
        })
        .collect();
    index(&names.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect::<Vec<_>>())
}

fn packed() -> Index {
    index(&[("experts.gate_up_proj", &[4, 12, 8]), ("experts.down_proj", &[4, 8, 6])])
}

#[test]
fn experts_are_found_in_every_layout() {
    for index in [stacked(), each(), packed()] {
        let config = Config::from(serde_json::Value::Null);
        let graph = record(&One(spec(2, Scoring::Softmax), 4), &config, index).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(graph.api, tamarack_api::API, "the version that it was recorded with");
        let back = Graph::decode(&graph.encode().unwrap()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(format!("{:?}", back.shape(back.output)), "[outputs, 16]");
        let Some(Op::MoeExperts { gate_up, down, .. }) =
            back.nodes.iter().map(|n| &n.op).find(|op| matches!(op, Op::MoeExperts { .. }))
        else {
            panic!("no experts")
        };
        assert_eq!((back.weight_shape(*gate_up), back.weight_shape(*down)), (&[4, 12, 8][..], &[4, 8, 6][..]));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let groups = |count, keep| Some(Groups { count, keep, score: GroupScore::Max, others: Others::Zero });
    let plain = spec(2, Scoring::Softmax);
    let cases = [
        (spec(5, Scoring::Softmax), 4, "5 of 4 experts cannot be chosen"),
        (spec(0, Scoring::Softmax), 4, "0 of 4 experts cannot be chosen"),
        (
            RouteSpec { groups: groups(3, 1), ..plain.clone() },
            4,
            "2 of 4 experts cannot be chosen by Some(Groups { count: 3",
        ),
        (RouteSpec { groups: groups(4, 1), ..plain.clone() }, 4, "2 of 4 experts cannot be chosen"),
        (RouteSpec { scale: f32::NAN, ..plain.clone() }, 4, "scale NaN"),
        (spec(1, Scoring::SparseMixer { jitter: f32::INFINITY }), 4, "is not finite"),
        (plain.clone(), 0, "experts: expected 1 to 1024, found 0"),
        (plain, usize::MAX, "experts: expected 1 to 1024"),
    ];
    for (spec, n, message) in cases {
        let e = record(&One(spec, n), &Config::from(serde_json::Value::Null), stacked()).unwrap_err().0;
        assert!(e.contains(message) && e.contains("moe.rs:"), "{e}");
    }
}

#[test]
fn a_host_believes_no_mixture_that_a_library_sends() {
    let config = Config::from(serde_json::Value::Null);
    let graph = record(&One(spec(2, Scoring::Softmax), 4), &config, packed()).unwrap_or_else(|e| panic!("{e}"));
    let json: serde_json::Value = serde_json::from_slice(&graph.encode().unwrap()).unwrap();
    for (from, to, message) in [
        ("\"top_k\":2", "\"top_k\":9", "9 of 4 experts"),
        ("\"scoring\":\"softmax\"", "\"scoring\":\"best\"", "unknown variant `best`"),
        ("[4,8,6]", "[4,6,8]", "are not of the same experts"),
        ("\"scale\":1.0", "\"scale\":null", "scale"),
    ] {
        let text = json.to_string();
        assert!(text.contains(from), "{from} in {text}");
        let e = Graph::decode(text.replace(from, to).as_bytes()).unwrap_err().0;
        assert!(e.contains(message), "{e}");
    }
}
