//! The kernels of decoding against the oracle: products with rounded rows, rows that are rounded on the
//! way, and attention that makes its own query, key and value.

use half::f16;
use tamarack::{
    gpu::{Settings, WgpuExecutor},
    program::RULES,
    reference::{Reference, ops},
};
use tamarack_kernels::{
    Activation, CacheFormat, Caps, Format, Kernel, Post, Scales, View,
    attend::{Attend, Besides, Keys, MAX_SPLITS},
    matmul::{MatMul, Norm, Precision, Row, RowTuning},
    prepare::{HeadStep, Heads, Prepare},
    rounded::Rounded,
    step,
};
use tamarack_tests::{
    canonical::Matrix,
    gpu::{assert_close, both_ways, floats, gpus, random, run, words},
    model::{Run, capacity, program, rewritten},
    rounded,
    step::{Sequence, Step},
    synthetic::{Sizes, llama},
};

/// What rounding costs, relative to the largest result, and of a value relative to the largest of its unit.
const ROUNDED: [(Precision, f32, f32); 2] = [(Precision::High, 1e-4, 2e-5), (Precision::Fast, 2e-2, 5e-3)];

const fn affine(bits: u8, group: u16, scales: Scales) -> Format {
    Format::Affine { bits, group, scales }
}

fn formats() -> Vec<Format> {
    let scales = [(16, Scales::Centered), (32, Scales::F16), (64, Scales::F32), (128, Scales::F16)];
    [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| scales.map(|(group, scales)| affine(bits, group, scales))).collect()
}

fn plain(format: Format, n: u32, k: u32) -> MatMul {
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

fn row(matmul: MatMul, precision: Precision) -> Row {
    Row { matmul, rows: 1, precision, store: true, next: None }
}

/// Runs a kernel of `row` on random numbers and compares what it stores, and what it rounds. Of more than two
/// rows the last is not there.
#[track_caller]
fn check(gpu: &tamarack::gpu::Gpu, row: &Row, kernel: &Kernel) {
    let spec = &row.matmul;
    let (_, tolerance, of_unit) = ROUNDED.into_iter().find(|r| r.0 == row.precision).expect("rounded");
    let (n, k, most) = (spec.n as usize, spec.k as usize, row.rows as usize);
    let tokens = most - usize::from(most > 2);
    let matrices = if spec.glu.is_some() { 2 } else { 1 };
    let (before, gain) = (random(1, tokens * k), random(3, k));
    let x: Vec<f32> = match spec.norm {
        Some(_) => before.iter().zip(gain.iter().cycle()).map(|(v, g)| v * g).collect(),
        None => before.clone(),
    };
    let weight = Matrix::random(spec.format, n * matrices, k, 2);
    let (bias, added, next_gain) = (random(4, n * matrices), random(5, tokens * n), random(6, n));

    let mut header = vec![0; step::HEADER_WORDS as usize];
    header[spec.rows as usize] = tokens as u32;
    let rows = x.chunks(k).zip(before.chunks(k)).map(|(x, before)| rounded::round(x, before, row.precision));
    let mut rows = rows.collect::<Vec<_>>().concat();
    // Not a number in a row that is not there is nobody's trouble.
    rows.resize(most * rows.len() / tokens, u32::MAX);
    let mut buffers = vec![header, rows, weight.quants.clone()];
    buffers.push(weight.scales.clone());
    buffers.extend(spec.bias.then(|| words(&bias)));
    buffers.extend(spec.post.iter().filter(|p| matches!(p, Post::Add(_))).map(|_| words(&added)));
    buffers.extend(row.next.filter(|next| next.gain).map(|_| words(&next_gain)));
    let out = buffers.len();
    buffers.extend(row.store.then(|| vec![0; tokens * n]));
    let next_words = row.next.map_or(0, |next| tamarack_kernels::rounded::words(next.columns, next.precision) as usize);
    buffers.extend(row.next.map(|_| vec![0x7f7f_7f7f; most * next_words]));
    run(gpu, kernel, tokens as u32, 1, &mut buffers);

    for t in 0..tokens {
        let before = &before[t * k..(t + 1) * k];
        let dense = match spec.norm {
            Some(norm) => ops::rms_norm(before, k, Some(&gain), norm.eps),
            None => before.to_vec(),
        };
        let sums = ops::linear(&dense, k, n * matrices, |i, w| w.copy_from_slice(&weight.row(i)));
        let want: Vec<f32> = (0..n)
            .map(|i| {
                let biased = |i: usize| sums[i] + if spec.bias { bias[i] } else { 0.0 };
                let mut v = biased(i);
                if spec.glu.is_some() {
                    v = ops::activation(tamarack_api::Activation::Silu, v) * biased(n + i);
                }
                if spec.post.is_empty() { v } else { v + added[t * n + i] }
            })
            .collect();
        let name = format!("{}, row {t}", kernel.name);
        let largest = want.iter().fold(1.0f32, |max, v| max.max(v.abs()));
        let mut got = want.clone();
        if row.store {
            got = floats(&buffers[out])[t * n..(t + 1) * n].to_vec();
            assert_close(&name, &got, &want, tolerance * largest);
            if spec.norm.is_none() && spec.glu.is_none() && spec.post.is_empty() && !spec.bias {
                let error = |(i, got): (usize, &f32)| {
                    let sum: f64 = weight.row(i).iter().zip(&dense).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    (sum - f64::from(*got)).abs()
                };
                println!("{name}: off by {:.1e} at most", got.iter().enumerate().map(error).fold(0.0, f64::max));
            }
        }
        let Some(next) = row.next else { continue };
        let gained: Vec<f32> = got.iter().zip(&next_gain).map(|(v, g)| if next.gain { v * g } else { *v }).collect();
        let rounded = &buffers.last().expect("rounded")[t * next_words..];
        let (values, records) = rounded::read(rounded, n, next.precision);
        let slack = if row.store { 0.0 } else { tolerance * largest };
        for (unit, [a, b, squares]) in records.into_iter().enumerate() {
            let at = 32 * unit..32 * unit + 32;
            let most = gained[at.clone()].iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let what = format!("{name}, unit {unit}");
            assert_close(&what, &values[at.clone()], &gained[at.clone()], of_unit * most + slack);
            let sums = [&values[at.clone()][..16], &values[at.clone()][16..]].map(|half| half.iter().sum::<f32>());
            assert_close(&format!("{what}: sums"), &[a, b], &sums, 1e-5 * most * 32.0);
            let want: f32 = got[at].iter().map(|v| v * v).sum();
            assert_close(&format!("{what}: squares"), &[squares], &[want], (1e-5 + slack) * want.max(1.0) * 8.0);
        }
    }
}

#[test]
fn every_format_times_a_rounded_row() {
    both_ways(|gpu, caps| {
        for format in formats() {
            for (precision, ..) in ROUNDED {
                assert!(Row::serves(format, 384, precision));
                let row = row(plain(format, 37, 384), precision);
                check(gpu, &row, &row.kernel(caps));
            }
        }
    });
    assert!(!Row::serves(Format::F16, 384, Precision::High));
    assert!(!Row::serves(affine(4, 32, Scales::F16), 384, Precision::Full));
}

#[test]
fn every_fusion_and_every_way_of_sharing_out() {
    let ways = [(1, 1, 1, 1, 1), (2, 64, 4, 3, 1), (4, 32, 4, 1, 8), (8, 1024, 1024, 9, 2), (1, 32, 32, 1, 4)];
    let norm = Some(Norm { eps: 1e-5, weight: false });
    let centered = affine(4, 32, Scales::Centered);
    let next = |n, gain, precision| Some(Rounded { columns: n, gain, precision });
    let rows = [
        row(MatMul { norm, bias: true, ..plain(affine(6, 16, Scales::Centered), 45, 320) }, Precision::High),
        Row {
            next: next(96, true, Precision::High),
            ..row(MatMul { norm, post: vec![Post::Add(View::rows(96))], ..plain(centered, 96, 192) }, Precision::High)
        },
        Row {
            store: false,
            next: next(160, false, Precision::Fast),
            ..row(MatMul { norm, glu: Some(Activation::Silu), ..plain(centered, 160, 832) }, Precision::Fast)
        },
        Row {
            next: next(2080, false, Precision::High),
            ..row(
                MatMul { glu: Some(Activation::Silu), bias: true, ..plain(affine(8, 64, Scales::F16), 2080, 128) },
                Precision::High,
            )
        },
    ];
    both_ways(|gpu, caps| {
        for row in &rows {
            for (outputs, lanes, teams, batches, chunk) in ways {
                let tuning = RowTuning { outputs, lanes, teams, batches, chunk };
                check(gpu, row, &row.kernel_with(caps, tuning));
            }
        }
    });
}

/// Each weight serves several rows, whose results meet bias, residual and norm of their own.
#[test]
fn several_rounded_rows() {
    let norm = Some(Norm { eps: 1e-5, weight: false });
    let next = Some(Rounded { columns: 96, gain: true, precision: Precision::High });
    let post = vec![Post::Add(View::rows(96))];
    let added = MatMul { norm, post, ..plain(affine(4, 32, Scales::Centered), 96, 192) };
    let glu = MatMul { norm, glu: Some(Activation::Silu), bias: true, ..plain(affine(8, 64, Scales::F16), 160, 128) };
    both_ways(|gpu, caps| {
        for rows in [2, 4, 8] {
            let with_next = Row { rows, next, ..row(added.clone(), Precision::High) };
            check(gpu, &with_next, &with_next.kernel(caps));
            let alone = Row { rows, ..row(glu.clone(), Precision::Fast) };
            check(gpu, &alone, &alone.kernel(caps));
        }
        let plain = Row { rows: 4, ..row(plain(affine(3, 16, Scales::Centered), 37, 384), Precision::High) };
        let tuning = RowTuning { outputs: 2, lanes: 64, teams: 2, batches: 2, chunk: 2 };
        check(gpu, &plain, &plain.kernel_with(caps, tuning));
    });
}

/// The same halves, where one may round either way from what f32 leaves open.
#[track_caller]
fn assert_cache(what: &str, got: &[u32], want: &[u32]) {
    let [got, want]: [Vec<f16>; 2] = [got, want].map(bytemuck::pod_collect_to_vec);
    for (i, (got, want)) in got.iter().zip(&want).map(|(a, b)| (a.to_f32(), b.to_f32())).enumerate() {
        let close = got.is_nan() && want.is_nan() || (got - want).abs() <= want.abs() / 1024.0 + 1e-6;
        assert!(close, "{what}: cache element {i}: got {got}, want {want}");
    }
}

/// One dispatch stores and rounds what two would: rows of several sequences, and of one.
fn check_besides(
    caps: &Caps,
    gpu: &tamarack::gpu::Gpu,
    contexts: &[u32],
    shape: [u32; 4],
    steps: [Vec<HeadStep>; 3],
    sinks: bool,
) {
    let [heads, kv_heads, dk, dv] = shape;
    let sequences: Vec<Sequence> = contexts.iter().map(|c| Sequence { context: *c, rows: 1 }).collect();
    let (splits, split_keys) = (3, 64);
    let step = Step::new(&sequences, splits, split_keys);
    let tokens = sequences.len() as u32;
    let width = heads * dk + kv_heads * (dk + dv) + 4;
    let packed = random(7, (tokens * width) as usize);
    let at = |offset, heads, dim| View { offset, row: width, heads, head: dim, dim };
    let [q, k, v] = steps;
    let mut weights = Vec::new();
    for (part, dim) in [(&q, dk), (&k, dk), (&v, dv)] {
        let norms = part.iter().filter(|s| matches!(s, HeadStep::Norm { weight: true, .. }));
        weights.extend(
            norms.map(|_| words(&random(u64::from(dim) + weights.len() as u64, dim as usize))).collect::<Vec<_>>(),
        );
    }
    let part = |view, steps| Heads { input: 0, view, steps };
    let prepare = Prepare {
        q: Some(part(at(0, heads, dk), q)),
        kv: Some((part(at(heads * dk, kv_heads, dk), k), Some(part(at((heads + kv_heads) * dk, kv_heads, dv), v)))),
        inputs: 1,
        tables: vec![5],
        cache: CacheFormat::F16,
        out: View::heads(heads, dk),
    };
    let table = words(&random(8, (tokens * 5 * 2) as usize));
    let attend = Attend {
        heads,
        kv_heads,
        dk,
        dv,
        scale: 1.0 / (dk as f32).sqrt(),
        window: None,
        softcap: None,
        sinks,
        latent: false,
        cache: CacheFormat::F16,
        q: View::heads(heads, dk),
        out: View::heads(heads, dv),
    };
    let sink = sinks.then(|| words(&random(9, heads as usize)));
    // What the step writes is NaN before.
    let slot = (kv_heads * (dk + dv)) as usize;
    let mut cache: Vec<f16> = vec![f16::NAN; step.slots as usize * slot];
    for (i, context) in contexts.iter().enumerate() {
        for position in 0..context - 1 {
            let values = random(u64::from(position) + 1000 * i as u64, slot);
            let to = step.slot(i, position) as usize * slot;
            cache[to..to + slot].iter_mut().zip(values).for_each(|(c, v)| *c = f16::from_f32(v));
        }
    }
    let cache: Vec<u32> = bytemuck::pod_collect_to_vec(&cache);

    let before: Vec<Vec<u32>> =
        [&[step.words.clone(), words(&packed)][..], &weights, std::slice::from_ref(&table)].concat();
    let mut buffers = [&before[..], &[vec![0; (tokens * heads * dk) as usize], cache.clone()]].concat();
    run(gpu, &prepare.kernel(caps), tokens, 1, &mut buffers);
    let (want_cache, q) = (buffers.pop().expect("the cache"), buffers.pop().expect("q"));
    let mut buffers = vec![step.words.clone(), q, want_cache.clone()];
    buffers.extend(sink.clone());
    buffers.push(vec![0; (tokens * heads * dv) as usize]);
    run(gpu, &attend.vector(caps, Keys::Many), tokens, 1, &mut buffers);
    let want = floats(&buffers.pop().expect("out"));

    let next = dv.is_multiple_of(32).then(|| Rounded { columns: heads * dv, gain: false, precision: Precision::High });
    let besides = Besides { prepare: Some(prepare), alone: tokens == 1, store: true, next };
    for keys in [Keys::Few, Keys::Many, Keys::Split] {
        let mut buffers = [&before[..], std::slice::from_ref(&cache)].concat();
        let at = buffers.len() - 1;
        let mut end: Vec<Vec<u32>> = sink.clone().into_iter().collect();
        end.push(vec![0; want.len()]);
        let words = next.map_or(0, |next| tamarack_kernels::rounded::words(next.columns, next.precision) as usize);
        end.extend(next.map(|_| vec![0; tokens as usize * words]));
        let kernel = attend.vector_with(caps, keys, &besides);
        if keys == Keys::Split {
            buffers.push(vec![0; (tokens * heads * MAX_SPLITS * (dv + 2)) as usize]);
            run(gpu, &kernel, tokens, splits, &mut buffers);
            end.insert(0, buffers.pop().expect("parts"));
            end.insert(0, step.words.clone());
            run(gpu, &attend.reduce_with(caps, &besides), tokens, splits, &mut end);
        } else {
            buffers.extend(end);
            run(gpu, &kernel, tokens, 1, &mut buffers);
            end = buffers.split_off(at);
            buffers.push(end[0].clone());
        }
        let what = format!("{} {keys:?} of {contexts:?}, {caps:?}", kernel.name);
        assert_cache(&what, &buffers[at], &want_cache);
        let out = end.len() - 1 - usize::from(next.is_some());
        assert_close(&what, &floats(&end[out]), &want, 1e-5);
        if let Some(next) = next {
            for (rounded, want) in end.last().expect("rounded").chunks(words).zip(want.chunks((heads * dv) as usize)) {
                let (values, _) = rounded::read(rounded, next.columns as usize, next.precision);
                assert_close(&format!("{what}, rounded"), &values, want, 2e-5);
            }
        }
    }
}

/// Rows go rounded from kernel to kernel through a whole model, and what comes out is the oracle's.
#[test]
fn a_quantized_model_decodes() {
    let sizes =
        Sizes { hidden: 128, layers: 2, heads: 4, kv_heads: 2, head_dim: 32, feed_forward: 192, vocabulary: 80 };
    for format in [affine(4, 32, Scales::Centered), affine(6, 64, Scales::F16)] {
        let checkpoint = llama(sizes, format);
        let program = rewritten(program(&checkpoint), RULES, &checkpoint);
        let tokens: Vec<u32> = (0..40).map(|i| i * i % 80).collect();
        let mut oracle = Reference::load(program.clone(), &checkpoint, capacity(64)).unwrap_or_else(|e| panic!("{e}"));
        let want = Run::new(&mut oracle, 40).feed(&tokens, 40, 10).concat();
        for gpu in gpus() {
            let loaded = WgpuExecutor::load(gpu, program.clone(), &checkpoint, capacity(64));
            let mut wgpu = loaded.unwrap_or_else(|e| panic!("{e}"));
            let names = wgpu.dispatches(1, 1, 40).unwrap_or_else(|e| panic!("{e}"));
            let rounded = names.iter().filter(|name| name.starts_with("matvec row")).count();
            assert_eq!((names.len(), rounded), (2 * 5 + 4, 2 * 4 + 1), "{names:?}");
            for rows in [1, 2, 5] {
                let mut run = Run::new(&mut wgpu, 40);
                run.feed(&tokens[..30], 30, 1);
                let got = run.feed(&tokens[30..], rows, 10).concat();
                assert_close(&format!("{format}, {rows} rows"), &got, &want, 0.02);
            }
        }
    }
}

/// A prompt in tiles of integers, in plain ones, and in those that are found to be faster here.
#[test]
fn a_prompt_goes_through_tiles_of_either_kind() {
    let sizes =
        Sizes { hidden: 128, layers: 2, heads: 4, kv_heads: 2, head_dim: 32, feed_forward: 192, vocabulary: 80 };
    let checkpoint = llama(sizes, affine(4, 32, Scales::F16));
    let program = rewritten(program(&checkpoint), RULES, &checkpoint);
    let tokens: Vec<u32> = (0..90).map(|i| i * i % 80).collect();
    let mut oracle = Reference::load(program.clone(), &checkpoint, capacity(96)).unwrap_or_else(|e| panic!("{e}"));
    let want = Run::new(&mut oracle, 90).feed(&tokens, 90, 10).concat();
    for gpu in gpus() {
        for (precision, tune) in [(Precision::High, false), (Precision::Full, false), (Precision::High, true)] {
            let mut gpu = gpu.clone().with(Settings { precision, tune });
            gpu.caps.cooperative = None;
            let mut wgpu = WgpuExecutor::load(gpu, program.clone(), &checkpoint, capacity(96)).expect("it loads");
            let names = wgpu.dispatches(90, 1, 90).expect("dispatches");
            let integers = names.iter().filter(|name| name.starts_with("matmul int")).count();
            if !tune {
                assert_eq!(integers, if precision == Precision::High { 2 * 4 } else { 0 }, "{names:?}");
            }
            let got = Run::new(&mut wgpu, 90).feed(&tokens, 90, 10).concat();
            assert_close(&format!("{precision:?}, {integers} products in integers"), &got, &want, 0.02);
        }
    }
}

#[test]
fn attention_makes_its_own_query_key_and_value() {
    let norm = HeadStep::Norm { eps: 1e-6, weight: true };
    let rope = |half| HeadStep::Rope { table: 0, half, pairs: 5 };
    both_ways(|gpu, caps| {
        let llama = [vec![rope(true)], vec![rope(true)], vec![]];
        check_besides(caps, gpu, &[1], [4, 2, 64, 64], llama.clone(), false);
        check_besides(caps, gpu, &[150], [4, 1, 128, 128], llama.clone(), true);
        check_besides(caps, gpu, &[64, 1, 129, 17], [3, 1, 80, 40], llama, false);
        let qwen = [vec![norm, rope(true)], vec![norm, rope(true)], vec![]];
        check_besides(caps, gpu, &[65], [6, 3, 96, 64], qwen, false);
        let odd = [vec![HeadStep::Scale(0.5), rope(false)], vec![rope(false), norm], vec![norm, HeadStep::Scale(2.0)]];
        check_besides(caps, gpu, &[70, 33], [4, 4, 10, 6], odd, true);
    });
}
