//! Norm, rope, scaling and the cache write against the oracle.

use half::f16;
use tamarack::{exec::pack, reference::ops};
use tamarack_kernels::prepare::{HeadStep, Heads, Prepare};
use tamarack_kernels::{CacheFormat, Kernel, View};
use tamarack_tests::gpu::{assert_close, both_ways, floats, gather, random, run, spread, words};
use tamarack_tests::step::{Sequence, Step};

const NORM: HeadStep = HeadStep::Norm { eps: 1e-6, weight: true };
const BARE_NORM: HeadStep = HeadStep::Norm { eps: 1e-5, weight: false };

fn rope(table: u32, pairs: u32, half: bool) -> HeadStep {
    HeadStep::Rope { table, half, pairs }
}

/// What all cases share: five sequences, and rope tables of 20 and of 9 pairs.
struct Fixture {
    step: Step,
    tables: [Vec<[f32; 2]>; 2],
    tokens: usize,
}

const PAIRS: [u32; 2] = [20, 9];

fn fixture() -> Fixture {
    let sequences = [(1, 1), (40, 3), (17, 1), (5, 5), (100, 2)].map(|(context, rows)| Sequence { context, rows });
    let step = Step::new(&sequences, 1, 0);
    let tokens = step.rows.len();
    let table = |pairs: u32| {
        let angles = random(u64::from(pairs), tokens * pairs as usize);
        angles.iter().map(|a| [(3.0 * a).cos(), (3.0 * a).sin()]).collect()
    };
    let tables = PAIRS.map(table);
    Fixture { step, tables, tokens }
}

/// The dense heads of one role: its input, its norm weights, and what its steps make of it.
fn want(f: &Fixture, heads: &Heads, seed: u64) -> (Vec<f32>, Vec<Vec<f32>>, Vec<f32>) {
    let (n, dim) = (heads.view.heads as usize, heads.view.dim as usize);
    let input = random(seed, f.tokens * n * dim);
    let (mut x, mut weights) = (input.clone(), Vec::new());
    for step in &heads.steps {
        x = match *step {
            HeadStep::Norm { eps, weight } => {
                let w = random(seed + 50 + weights.len() as u64, dim);
                let normed = ops::rms_norm(&x, dim, weight.then_some(&w[..]), eps);
                weights.extend(weight.then_some(w));
                normed
            }
            HeadStep::Scale(c) => x.iter().map(|v| v * c).collect(),
            HeadStep::Rope { table, half, pairs } => {
                let all = PAIRS[table as usize] as usize;
                let used: Vec<[f32; 2]> =
                    f.tables[table as usize].chunks(all).flat_map(|row| &row[..pairs as usize]).copied().collect();
                ops::rope(&x, n, dim, &used, pairs as usize, half)
            }
        };
    }
    (input, weights, x)
}

/// Runs a kernel on inputs, weights, tables and the buffers that it writes.
fn check(prepare: &Prepare, f: &Fixture, packed: &[Vec<f32>], parts: &[(Vec<Vec<f32>>, Vec<f32>)]) {
    let tokens = f.tokens as u32;
    let run_on = |gpu: &_, kernel: &Kernel| {
        let mut buffers = vec![f.step.words.clone()];
        buffers.extend(packed.iter().map(|x| words(x)));
        buffers.extend(parts.iter().flat_map(|(weights, _)| weights).map(|w| words(w)));
        buffers.extend(f.tables.iter().take(prepare.tables.len()).map(|t| words(t.as_flattened())));
        let mut parts = parts.iter().map(|(_, want)| want);
        let name = kernel.name.clone();
        let q = prepare.q.as_ref().map(|_| {
            buffers.push(vec![0; (tokens * prepare.out.row + prepare.out.offset) as usize]);
            (buffers.len() - 1, parts.next().expect("q"))
        });
        let values = |v: &Option<Heads>| v.as_ref().map_or(0, |v| v.view.width());
        let slot = prepare.kv.as_ref().map(|(k, v)| (k.view.width() + values(v)) as usize / 2);
        let cache = slot.map(|slot| {
            buffers.push(vec![0x7e00_7e00; f.step.slots as usize * slot]);
            (buffers.len() - 1, slot)
        });
        run(gpu, kernel, tokens, 1, &mut buffers);
        if let Some((i, want)) = q {
            assert_close(&format!("{name}: q"), &gather(&prepare.out, &floats(&buffers[i]), tokens), want, 1e-5);
        }
        if let Some((i, slot)) = cache {
            let k = parts.next().expect("k");
            check_cache(&name, f, &buffers[i], slot, k, parts.next().map_or(&[], |v| v));
        }
    };
    both_ways(|gpu, caps| run_on(gpu, &prepare.kernel(caps)));
}

/// Every row's slot holds its keys and values, and nothing else was touched.
fn check_cache(name: &str, f: &Fixture, cache: &[u32], slot: usize, k: &[f32], v: &[f32]) {
    let mut expected = vec![f32::NAN; cache.len() * 2];
    let (keys, values) = (k.len() / f.tokens, v.len() / f.tokens);
    for (r, row) in f.step.rows.iter().enumerate() {
        let at = f.step.slot(row.sequence, row.position) as usize * slot * 2;
        expected[at..at + keys].copy_from_slice(&k[r * keys..][..keys]);
        expected[at + keys..at + keys + values].copy_from_slice(&v[r * values..][..values]);
    }
    for (i, want) in expected.iter().enumerate() {
        let got = f16::from_bits((cache[i / 2] >> (i % 2 * 16)) as u16).to_f32();
        // One f16 may round either way from what f32 leaves open.
        let want = want.clamp(-65504.0, 65504.0);
        let close = got.is_nan() && want.is_nan() || (got - want).abs() <= want.abs() / 1024.0 + 1e-6;
        assert!(close, "{name}: cache element {i}: got {got}, want {want}");
    }
}

#[test]
fn packed_projections_become_queries_and_cache() {
    let f = fixture();
    // dk, dv, heads, kv heads, steps of q, k and v.
    let cases = [
        (80, 80, 6, 2, vec![NORM, rope(0, 20, true)], vec![NORM, rope(0, 20, true)], vec![]),
        (64, 64, 3, 3, vec![rope(0, 20, false)], vec![rope(0, 20, false)], vec![]),
        (40, 72, 7, 1, vec![rope(1, 9, true), NORM, HeadStep::Scale(0.3)], vec![rope(0, 20, false)], vec![BARE_NORM]),
        (256, 96, 2, 2, vec![], vec![HeadStep::Scale(1e6)], vec![NORM, BARE_NORM]),
    ];
    for (dk, dv, heads, kv_heads, q, k, v) in cases {
        // One buffer with q, k and v beside each other, as one matmul leaves them.
        let row = heads * dk + kv_heads * (dk + dv);
        let at = |offset, heads, dim| View { offset, row, heads, head: dim, dim };
        let part = |view, steps| Heads { input: 0, view, steps };
        let q = part(at(0, heads, dk), q);
        let k = part(at(heads * dk, kv_heads, dk), k);
        let v = part(at((heads + kv_heads) * dk, kv_heads, dv), v);
        let mut packed = vec![0.0; f.tokens * row as usize];
        let mut parts = Vec::new();
        for (i, part) in [&q, &k, &v].into_iter().enumerate() {
            let (input, weights, want) = want(&f, part, i as u64);
            let spread = spread(&part.view, &input);
            spread.iter().zip(&mut packed).filter(|(x, _)| !x.is_nan()).for_each(|(x, p)| *p = *x);
            parts.push((weights, want));
        }
        let out = View { offset: 4, row: heads * (dk + 1) + 3, heads, head: dk + 1, dim: dk };
        let prepare = Prepare {
            q: Some(q),
            kv: Some((k, Some(v))),
            inputs: 1,
            tables: PAIRS.to_vec(),
            cache: CacheFormat::F16,
            out,
        };
        check(&prepare, &f, &[packed], &parts);
    }
}

#[test]
fn queries_alone_and_keys_and_values_alone() {
    let f = fixture();
    let heads = |input, heads, dim, steps| Heads { input, view: View::heads(heads, dim), steps };
    let q = heads(0, 5, 96, vec![NORM, rope(0, 20, true)]);
    let (k, v) = (heads(1, 2, 96, vec![rope(0, 20, true)]), heads(0, 2, 80, vec![]));
    let [for_q, for_k, for_v] = [&q, &k, &v].map(|part| want(&f, part, u64::from(part.view.dim + part.input)));
    let out = View::heads(5, 96);
    let prepare = Prepare { q: Some(q), kv: None, inputs: 1, tables: vec![PAIRS[0]], cache: CacheFormat::F16, out };
    check(&prepare, &f, &[for_q.0], &[(for_q.1, for_q.2)]);
    // The values come from the first buffer, the keys from the second.
    let prepare =
        Prepare { q: None, kv: Some((k, Some(v))), inputs: 2, tables: vec![PAIRS[0]], cache: CacheFormat::F16, out };
    check(&prepare, &f, &[for_v.0, for_k.0], &[(for_k.1, for_k.2), (for_v.1, for_v.2)]);
    // A latent cache has keys only.
    let k = heads(0, 1, 88, vec![rope(0, 20, true)]);
    let latent = want(&f, &k, 9);
    let prepare =
        Prepare { q: None, kv: Some((k, None)), inputs: 1, tables: vec![PAIRS[0]], cache: CacheFormat::F16, out };
    check(&prepare, &f, &[latent.0], &[(latent.1, latent.2)]);
}

/// What a device keeps in codes is what the host does. Its divisions may be off by a little, so that of two codes as near
/// it may take the other, rarely; half floats are to be rounded the same everywhere.
#[test]
fn keys_and_values_in_codes() {
    let f = fixture();
    let (heads, dim) = (3, 128);
    for (bits, group) in [(8, 32), (4, 64), (2, 128)] {
        let cache = CacheFormat::Affine { bits, group, mixed: false };
        let part = |input| Heads { input, view: View::heads(heads, dim), steps: vec![] };
        let inputs = [1, 2].map(|seed| random(seed, f.tokens * (heads * dim) as usize));
        let prepare = Prepare {
            q: None,
            kv: Some((part(0), Some(part(1)))),
            inputs: 2,
            tables: vec![],
            cache,
            out: View::heads(heads, dim),
        };
        let words_of_head = cache.words(dim) as usize;
        let slot = 2 * heads as usize * words_of_head;
        let mut want = vec![0; f.step.slots as usize * slot];
        for (r, row) in f.step.rows.iter().enumerate() {
            let to = &mut want[f.step.slot(row.sequence, row.position) as usize * slot..][..slot];
            let rows = inputs
                .iter()
                .flat_map(|input| input.chunks((heads * dim) as usize).nth(r).expect("a row").chunks(dim as usize));
            to.chunks_mut(words_of_head).zip(rows).for_each(|(words, head)| pack(cache, head, words));
        }
        both_ways(|gpu, caps| {
            let kernel = prepare.kernel(caps);
            let mut buffers = vec![f.step.words.clone(), words(&inputs[0]), words(&inputs[1]), vec![0; want.len()]];
            run(gpu, &kernel, f.tokens as u32, 1, &mut buffers);
            let others = buffers[3].iter().zip(&want).filter(|(got, want)| got != want).count();
            println!("{bits} bits, groups of {group}: {others} other words");
            assert!(others <= 2, "{bits} bits, groups of {group}: {others} of {} words are others", want.len());
        });
    }
}
