//! The kernels of mixtures of experts against the oracle, on every adapter.

use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Executor},
    gpu::{Gpu, WgpuExecutor},
    program::{Program, RULES},
    reference::{Reference, moe, ops},
};
use tamarack_api as api;
use tamarack_kernels::experts::{Combine, Experts, Gate, Groups, Route, Scoring, Sort, TILE};
use tamarack_kernels::{Activation, Caps, Format, Kernel, Post, Scales, View, step};
use tamarack_tests::canonical::Matrix;
use tamarack_tests::gpu::{assert_close, at, both_ways, floats, gather, gpus, random, run, spread, words};
use tamarack_tests::model::{Run, rewritten};

/// What no kernel may touch.
const UNTOUCHED: f32 = 12345.0;

/// The device as it is, and as if it had no subgroups.
fn variants(gpu: &Gpu) -> [Caps; 2] {
    [gpu.caps, Caps { subgroups: None, ..gpu.caps }]
}

fn header(rows: u32) -> Vec<u32> {
    let mut header = vec![0; step::HEADER_WORDS as usize];
    header[step::TOKENS as usize] = rows;
    header
}

/// What the oracle calls a route of the kernels.
fn recorded(route: &Route) -> api::RouteSpec {
    let scoring = match route.scoring {
        Scoring::Softmax => api::Scoring::Softmax,
        Scoring::Sigmoid => api::Scoring::Sigmoid,
        Scoring::SoftmaxAfterTopK => api::Scoring::SoftmaxAfterTopK,
        Scoring::SparseMixer { near } => api::Scoring::SparseMixer { jitter: near / 2.0 },
    };
    api::RouteSpec {
        normalize: route.normalize.is_some(),
        eps: route.normalize.unwrap_or(0.0),
        scale: route.scale,
        groups: route.groups.map(|g| api::Groups {
            count: g.count as usize,
            keep: g.keep as usize,
            score: if g.two { api::GroupScore::Top2Sum } else { api::GroupScore::Max },
            others: if g.zero { api::Others::Zero } else { api::Others::NegInf },
        }),
        ..api::RouteSpec::new(route.top_k as usize, scoring)
    }
}

fn routes() -> Vec<Route> {
    let plain = |experts, top_k: u32, scoring| Route {
        logits: View::rows(experts),
        top_k,
        scoring,
        normalize: None,
        scale: 1.0,
        bias: false,
        groups: None,
        out: View::heads(2, top_k),
    };
    let groups = |count, keep, two, zero| Some(Groups { count, keep, two, zero });
    vec![
        plain(128, 8, Scoring::Softmax),
        Route { normalize: Some(0.0), ..plain(7, 3, Scoring::Softmax) },
        Route { logits: View { offset: 5, row: 64, ..View::rows(60) }, ..plain(60, 4, Scoring::Softmax) },
        plain(32, 4, Scoring::SoftmaxAfterTopK),
        plain(1, 1, Scoring::SoftmaxAfterTopK),
        Route {
            bias: true,
            normalize: Some(1e-20),
            scale: 2.5,
            groups: groups(8, 4, true, false),
            ..plain(256, 8, Scoring::Sigmoid)
        },
        Route { scale: 16.0, groups: groups(5, 2, false, true), ..plain(300, 6, Scoring::Softmax) },
        Route { bias: true, groups: groups(4, 1, true, true), ..plain(4, 1, Scoring::Sigmoid) },
        plain(16, 2, Scoring::SparseMixer { near: 0.4 }),
        plain(1024, 64, Scoring::Softmax),
    ]
}

#[test]
fn routes_as_the_oracle() {
    both_ways(|gpu, caps| {
        for (seed, route) in routes().into_iter().enumerate() {
            let (rows, n) = (5, route.logits.width() as usize);
            let mut logits: Vec<f32> = random(seed as u64 + 1, rows * n).iter().map(|l| l * 3.0).collect();
            // A row of ties.
            logits[..n].fill(0.25);
            let bias = random(99, n);
            let mut buffers = vec![header(rows as u32), words(&spread(&route.logits, &logits))];
            buffers.extend(route.bias.then(|| words(&bias)));
            buffers.push(words(&vec![UNTOUCHED; (rows + 1) * 2 * route.top_k as usize]));
            run(gpu, &route.kernel(caps), rows as u32, 1, &mut buffers);
            let got = floats(buffers.last().expect("an output"));
            let mut want = moe::route(&logits, n, &recorded(&route), route.bias.then_some(&bias[..]));
            want.resize(got.len(), UNTOUCHED);
            assert_close(&format!("{route:?}"), &got, &want, 2e-5);
        }
    });
}

/// A route of `rows` rows; some choose what is no expert.
fn random_route(spec: &Experts, rows: u32) -> Vec<f32> {
    let k = spec.top_k as usize;
    let (numbers, weights) = (random(11, rows as usize * k), random(12, rows as usize * k));
    let number = |x: &f32| ((x + 1.0) / 2.0 * spec.experts as f32).floor();
    let mut route: Vec<f32> = Vec::new();
    for (numbers, weights) in numbers.chunks(k).zip(weights.chunks(k)) {
        route.extend(numbers.iter().map(number));
        route.extend(weights);
    }
    if rows > 1 {
        route[2 * k] = spec.experts as f32;
        route[2 * k + k - 1] = -1.0;
    }
    route
}

/// Random inputs of a product, and what it gives.
struct Data {
    x: Vec<f32>,
    weight: Matrix,
    bias: Vec<f32>,
    route: Vec<f32>,
    posts: Vec<Vec<f32>>,
}

impl Data {
    fn random(spec: &Experts, rows: u32) -> Data {
        let (halves, k) = (if spec.gate.is_some() { 2 } else { 1 }, spec.k as usize);
        let width = spec.out.width() as usize / if spec.sum { 1 } else { spec.top_k as usize };
        let inputs = spec.post.iter().zip(20..).filter(|(post, _)| matches!(post, Post::Add(_) | Post::Mul(_)));
        Data {
            x: random(1, rows as usize * spec.x.width() as usize),
            weight: Matrix::random(spec.format, (spec.held * spec.n * halves) as usize, k, 2),
            bias: random(4, spec.experts as usize * width * halves as usize),
            route: random_route(spec, rows),
            posts: inputs.map(|(_, seed)| random(seed, rows as usize * width)).collect(),
        }
    }

    /// The outputs of choice `c`; none if its expert is not here.
    fn choice(&self, spec: &Experts, c: usize) -> Option<Vec<f32>> {
        let (top_k, n, k) = (spec.top_k as usize, spec.n as usize, spec.k as usize);
        let expert = self.route[c / top_k * 2 * top_k + c % top_k];
        let held = (expert - spec.first_expert as f32).floor();
        if held < 0.0 || held >= spec.held as f32 {
            return None;
        }
        let x = if spec.x.width() == spec.k { c / top_k } else { c };
        let x = &self.x[x * k..][..k];
        let halves = if spec.gate.is_some() { 2 } else { 1 };
        let width = self.bias.len() / spec.experts as usize / halves;
        let sum = |g: usize, i: usize| {
            let row = if spec.interleaved { 2 * i + g } else { g * n + i };
            let column = spec.first as usize + i;
            let at = if spec.interleaved { 2 * column + g } else { g * width + column };
            let bias = if spec.bias { self.bias[expert as usize * width * halves + at] } else { 0.0 };
            ops::dot(x, &self.weight.row(held as usize * n * halves + row)) + bias
        };
        let one = |i: usize| match spec.gate {
            None => sum(0, i),
            Some(Gate::Act(Activation::Silu)) => moe::gate(api::Gate::Act(api::Activation::Silu), sum(0, i), sum(1, i)),
            Some(Gate::OaiSwiglu { alpha, limit }) => {
                moe::gate(api::Gate::OaiSwiglu { alpha, limit }, sum(0, i), sum(1, i))
            }
            Some(gate) => panic!("{gate:?}"),
        };
        Some((0..n).map(one).collect())
    }

    /// The output buffer before and after.
    fn outputs(&self, spec: &Experts, rows: u32) -> (Vec<f32>, Vec<f32>) {
        let (top_k, n) = (spec.top_k as usize, spec.n as usize);
        let before = vec![UNTOUCHED; at(&spec.out, ((rows + 2) * spec.out.width()) as usize)];
        let mut after = before.clone();
        let width = spec.out.width() as usize;
        for row in 0..rows as usize {
            let choices: Vec<Option<Vec<f32>>> = (0..top_k).map(|s| self.choice(spec, row * top_k + s)).collect();
            if spec.sum {
                for i in 0..n {
                    let weight = |slot: usize| self.route[(2 * row + 1) * top_k + slot];
                    let terms = choices.iter().enumerate().filter_map(|(s, y)| Some(weight(s) * y.as_ref()?[i]));
                    let mut v = terms.sum::<f32>();
                    let column = spec.first as usize + i;
                    for post in &spec.post {
                        v = match post {
                            Post::Scale(c) => v * c,
                            Post::Add(_) => v + self.posts[0][row * width + column],
                            other => panic!("{other:?}"),
                        };
                    }
                    after[at(&spec.out, row * width + column)] = v;
                }
            } else {
                for (slot, y) in choices.iter().enumerate() {
                    for (i, v) in y.iter().flatten().enumerate() {
                        after[at(&spec.out, row * width + slot * (width / top_k) + spec.first as usize + i)] = *v;
                    }
                }
            }
        }
        (before, after)
    }
}

#[track_caller]
fn check(gpu: &Gpu, spec: &Experts, kernel: &Kernel, choices: Option<&[Vec<u32>]>, rows: u32) {
    let data = Data::random(spec, rows);
    let (before, want) = data.outputs(spec, rows);
    let mut buffers = vec![header(rows), words(&spread(&spec.x, &data.x)), data.weight.quants.clone()];
    buffers.extend((!data.weight.scales.is_empty()).then(|| data.weight.scales.clone()));
    match choices {
        Some(choices) => buffers.extend(choices.to_vec()),
        None => buffers.push(words(&spread(&spec.route, &data.route))),
    }
    buffers.extend(spec.bias.then(|| words(&data.bias)));
    if spec.sum {
        let views = spec.post.iter().filter_map(|p| if let Post::Add(view) = p { Some(view) } else { None });
        buffers.extend(views.zip(&data.posts).map(|(view, x)| words(&spread(view, x))));
    }
    buffers.push(words(&before));
    run(gpu, kernel, rows, 1, &mut buffers);
    let got = floats(buffers.last().expect("an output"));
    let largest = want.iter().filter(|v| **v != UNTOUCHED).fold(1.0f32, |max, v| max.max(v.abs()));
    assert_close(&format!("{} of {rows} rows", kernel.name), &got, &want, 1e-5 * largest);
}

/// The tiles and choices of a route, as the device sorts them; checks that they are what they have to be.
fn sorted(gpu: &Gpu, caps: &Caps, spec: &Experts, rows: u32) -> [Vec<u32>; 2] {
    let sort = Sort { rows: step::TOKENS, top_k: spec.top_k, experts: spec.experts, route: spec.route };
    let route = random_route(spec, rows);
    let choices = (rows * spec.top_k) as usize;
    let mut buffers = vec![
        header(rows),
        words(&spread(&spec.route, &route)),
        vec![77; sort.tiles_words(rows) as usize],
        vec![u32::MAX; choices],
    ];
    run(gpu, &sort.kernel(caps), rows, 1, &mut buffers);
    let [sorted, tiles] = [buffers.remove(3), buffers.remove(2)];
    let k = spec.top_k as usize;
    let expert = |c: usize| route[c / k * 2 * k + c % k];
    let is_expert = |c: &usize| (0.0..spec.experts as f32).contains(&expert(*c));
    let mut want: Vec<usize> = (0..choices).filter(is_expert).collect();
    want.sort_by_key(|c| expert(*c) as u32);
    let mut in_order = sorted[..want.len()].to_vec();
    in_order.sort_by_key(|c| (expert(*c as usize) as u32, *c));
    assert_eq!(in_order, want.iter().map(|c| *c as u32).collect::<Vec<_>>());
    let mut seen = Vec::new();
    for tile in tiles[4..].chunks_exact(4).take(tiles[0] as usize) {
        assert!(tile[2] - tile[1] <= TILE && tile[1] < tile[2], "{tile:?}");
        assert!((tile[1]..tile[2]).all(|i| expert(sorted[i as usize] as usize) == tile[0] as f32), "{tile:?}");
        seen.extend(tile[1]..tile[2]);
    }
    assert_eq!(seen, (0..want.len() as u32).collect::<Vec<_>>());
    [tiles, sorted]
}

const fn affine(bits: u8, group: u16, scales: Scales) -> Format {
    Format::Affine { bits, group, scales }
}

/// A first product of 6 experts, of which every row takes 3.
fn up(format: Format, n: u32, k: u32) -> Experts {
    Experts {
        rows: step::TOKENS,
        top_k: 3,
        route: View::heads(2, 3),
        experts: 6,
        first_expert: 0,
        held: 6,
        n,
        k,
        format,
        x: View::rows(k),
        bias: false,
        gate: Some(Gate::Act(Activation::Silu)),
        interleaved: false,
        sum: false,
        post: Vec::new(),
        first: 0,
        out: View::heads(3, n),
    }
}

/// And a second one.
fn down(format: Format, n: u32, k: u32) -> Experts {
    Experts { gate: None, sum: true, x: View::heads(3, k), out: View::rows(n), ..up(format, n, k) }
}

#[test]
fn every_format() {
    let mut formats = vec![Format::F32, Format::F16, Format::Bf16, affine(6, 16, Scales::F16)];
    for bits in [2, 3, 4, 5, 6, 8] {
        formats.extend([affine(bits, 32, Scales::F16), affine(bits, 64, Scales::F32)]);
    }
    let gpus = gpus();
    for gpu in &gpus {
        for (i, format) in formats.iter().copied().enumerate() {
            for (j, spec) in [up(format, 13, 192), down(format, 21, 128)].into_iter().enumerate() {
                let caps = &variants(gpu)[(i + j) % 2];
                check(gpu, &spec, &spec.vector(caps), None, 4);
                let spec = Experts { sum: false, out: View::heads(3, spec.n), ..spec };
                check(gpu, &spec, &spec.tiled(caps), Some(&sorted(gpu, caps, &spec, 11)), 11);
            }
        }
    }
}

/// Sizes, views, biases, gates, and matrices of which only some are here.
fn odd() -> Vec<Experts> {
    let oai = Some(Gate::OaiSwiglu { alpha: 1.702, limit: 0.8 });
    let part = |spec: Experts| Experts { first_expert: 2, held: 3, ..spec };
    vec![
        Experts { bias: true, gate: oai, interleaved: true, ..up(Format::F16, 35, 22) },
        part(Experts { bias: true, gate: oai, ..up(Format::F32, 9, 7) }),
        Experts {
            x: View { offset: 4, row: 44, ..View::rows(36) },
            route: View { offset: 3, row: 10, ..View::heads(2, 3) },
            first: 5,
            out: View::heads(3, 40),
            bias: true,
            ..up(Format::Bf16, 30, 36)
        },
        part(Experts { bias: true, interleaved: true, first: 4, out: View::heads(3, 16), ..up(Format::F32, 12, 8) }),
        Experts {
            bias: true,
            post: vec![Post::Scale(0.5), Post::Add(View { offset: 1, row: 70, ..View::rows(67) })],
            out: View { offset: 2, row: 71, ..View::rows(67) },
            ..down(Format::F16, 67, 10)
        },
        Experts { top_k: 1, route: View::heads(2, 1), x: View::rows(9), ..down(Format::F32, 5, 9) },
        Experts { sum: false, out: View::heads(3, 18), bias: true, ..part(down(Format::F32, 18, 12)) },
    ]
}

#[test]
fn odd_shapes_and_parts() {
    let gpus = gpus();
    for gpu in &gpus {
        for (i, spec) in odd().into_iter().enumerate() {
            for (rows, caps) in [1, 7].into_iter().zip(variants(gpu)) {
                check(gpu, &spec, &spec.vector(&caps), None, rows);
            }
            if !spec.sum {
                let (rows, caps) = ([9, 150][i % 2], &variants(gpu)[i / 2 % 2]);
                check(gpu, &spec, &spec.tiled(caps), Some(&sorted(gpu, caps, &spec, rows)), rows);
            }
        }
    }
}

#[test]
fn sums_of_choices() {
    both_ways(|gpu, caps| {
        let (rows, width) = (9, 45);
        let spec = up(Format::F32, 1, 1);
        let route = random_route(&spec, rows);
        let each = random(5, (rows * 3 * width) as usize);
        let residual = random(6, (rows * width) as usize);
        let out = View { offset: 1, row: 50, ..View::rows(width) };
        let post = vec![Post::Add(View::rows(width))];
        let combine = Combine { top_k: 3, experts: 6, route: spec.route, post, out };
        let before = vec![UNTOUCHED; at(&out, (rows * width) as usize)];
        let mut buffers = vec![header(rows), words(&each), words(&route), words(&residual), words(&before)];
        run(gpu, &combine.kernel(caps), rows, 1, &mut buffers);
        let got = gather(&out, &floats(&buffers[4]), rows);
        let want = (0..(rows * width) as usize).map(|i| {
            let (row, column) = (i / width as usize, i % width as usize);
            let term = |slot: usize| match route[row * 6 + slot] {
                e if (0.0..6.0).contains(&e) => {
                    route[row * 6 + 3 + slot] * each[(row * 3 + slot) * width as usize + column]
                }
                _ => 0.0,
            };
            (0..3).map(term).sum::<f32>() + residual[i]
        });
        assert_close("combine", &got, &want.collect::<Vec<_>>(), 1e-5);
    });
}

/// A device whose largest binding holds a part of one expert: the same logits as the oracle's.
fn check_split(program: Program, checkpoint: &Checkpoint, limit: u64) {
    const PROMPT: [u32; 24] = [3, 14, 15, 9, 26, 5, 35, 8, 9, 79, 3, 23, 8, 46, 26, 4, 33, 8, 32, 7, 9, 50, 2, 8];
    let capacity = Capacity { rows: 12, outputs: 12, pages: 4, slots: 1 };
    let program = rewritten(program, RULES, checkpoint);
    let logits = |executor: &mut dyn Executor, chunk| Run::new(executor, 24).feed(&PROMPT, chunk, 24).concat();
    let mut reference = Reference::load(program.clone(), checkpoint, capacity).unwrap_or_else(|e| panic!("{e}"));
    let want = logits(&mut reference, 12);
    for mut gpu in gpus() {
        gpu.caps.binding_size = limit;
        let mut executor =
            WgpuExecutor::load(gpu, program.clone(), checkpoint, capacity).unwrap_or_else(|e| panic!("{e}"));
        let dispatches = executor.dispatches(1, 1, 1).unwrap_or_else(|e| panic!("{e}"));
        assert!(dispatches.iter().any(|name| name.starts_with("combine")), "nothing is split: {dispatches:?}");
        for chunk in [12, 5, 1] {
            assert_close(&format!("in chunks of {chunk}"), &logits(&mut executor, chunk), &want, 2e-2);
        }
    }
}

#[test]
fn matrices_beyond_a_binding_are_split() {
    // Gates and ups in halves, and alternating.
    for model in ["mixtral", "gpt_oss"] {
        let folders = tamarack_tests::models::tiny(&format!("architectures/{model}"));
        let plain = folders.iter().find(|f| f.ends_with("plain")).unwrap_or_else(|| panic!("{model}/plain"));
        let checkpoint = Checkpoint::open(plain).unwrap_or_else(|e| panic!("{e}"));
        check_split(tamarack_tests::model::program(&checkpoint), &checkpoint, 5_000);
    }
}
