//! Attention kernels against the oracle: odd heads, ragged rows, shuffled pages, windows, parts.

use half::f16;
use tamarack::{program::Cache, reference::ops};
use tamarack_kernels::attend::{Attend, Keys, MAX_SPLITS};
use tamarack_kernels::{CacheFormat, Caps, View, step};
use tamarack_tests::gpu::{assert_close, both_ways, floats, gather, random, run, spread, words};
use tamarack_tests::step::{Sequence, Step};

/// heads, kv heads, dk, dv
type Shape = (u32, u32, u32, u32);

const SHAPES: [Shape; 9] = [
    (2, 2, 64, 64),
    (6, 2, 80, 80),
    (7, 1, 96, 96),
    (3, 3, 72, 72),
    (4, 2, 256, 256),
    (4, 4, 192, 128),
    (16, 1, 128, 64),
    (3, 1, 10, 6),
    (2, 1, 40, 512),
];

fn spec((heads, kv_heads, dk, dv): Shape) -> Attend {
    Attend {
        heads,
        kv_heads,
        dk,
        dv,
        scale: 1.0 / (dk as f32).sqrt(),
        window: None,
        softcap: None,
        sinks: false,
        latent: false,
        cache: CacheFormat::F16,
        q: View { offset: 5, row: heads * (dk + 3) + 2, heads, head: dk + 3, dim: dk },
        out: View::heads(heads, dv),
    }
}

/// One step's numbers and what the oracle makes of them.
struct Case {
    attend: Attend,
    step: Step,
    q: Vec<f32>,
    cache: Vec<u32>,
    sinks: Vec<f32>,
    want: Vec<f32>,
}

impl Case {
    fn new(attend: Attend, step: Step) -> Case {
        let [heads, groups, dk, dv] = [attend.heads, attend.kv_heads, attend.dk, attend.dv].map(|n| n as usize);
        let q = random(1, step.rows.len() * heads * dk).iter().map(|v| 4.0 * v).collect::<Vec<_>>();
        let sinks = random(2, heads);
        // What no sequence wrote, and every slot past a sequence's end, is NaN: it must not be read.
        let values_at = if attend.latent { 0 } else { groups * dk };
        let slot_elements = groups * (dk + if attend.latent { 0 } else { dv });
        let mut kv = vec![f32::NAN; step.slots as usize * slot_elements];
        for (i, sequence) in step.sequences.iter().enumerate() {
            for position in 0..sequence.context {
                let at = (step.slot(i, position) % step::FULL_SLOT) as usize * slot_elements;
                let values = random((i * 100_000) as u64 + u64::from(position) + 3, slot_elements);
                kv[at..][..slot_elements].copy_from_slice(&values);
            }
        }
        let sizes = Cache { groups, dk, dv, latent: attend.latent, format: attend.cache, ..Cache::default() };
        let mut cache = vec![u32::MAX; step.slots as usize * sizes.words()];
        for (i, sequence) in step.sequences.iter().enumerate() {
            for slot in (0..sequence.context).map(|position| step.slot(i, position)) {
                let values = &mut kv[(slot % step::FULL_SLOT) as usize * slot_elements..][..slot_elements];
                let (place, form) = sizes.place(slot as usize);
                form.pack(values, &mut cache[place.clone()]);
                form.unpack(&cache[place], values);
                // Kernels see values of any cache as f16.
                values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
            }
        }

        let mut want = Vec::new();
        let spec = ops::Attend {
            heads,
            groups,
            dv,
            scale: attend.scale,
            softcap: attend.softcap,
            sinks: attend.sinks.then_some(&sinks[..]),
        };
        for (r, row) in step.rows.iter().enumerate() {
            let window = attend.window.filter(|_| step.word(r, step::ROW_WHOLE) == 0);
            let lo = window.map_or(0, |w| (row.position + 1).saturating_sub(w));
            let at = |p: usize| (step.slot(row.sequence, p as u32) % step::FULL_SLOT) as usize * slot_elements;
            let key = |p, g| &kv[at(p) + g * dk..][..dk];
            let value = |p, g| &kv[at(p) + values_at + g * dv..][..dv];
            let q = &q[r * heads * dk..][..heads * dk];
            want.extend(ops::attend(q, &spec, lo as usize..step.end(r) as usize, key, value));
        }
        Case { attend, step, q, cache, sinks, want }
    }

    fn rows(&self) -> u32 {
        self.step.rows.len() as u32
    }

    /// Bindings of a kernel that reads q and the cache and writes `out` f32.
    fn buffers(&self, sinks: bool, out: usize) -> Vec<Vec<u32>> {
        let mut buffers = vec![self.step.words.clone(), words(&spread(&self.attend.q, &self.q)), self.cache.clone()];
        buffers.extend((sinks && self.attend.sinks).then(|| words(&self.sinks)));
        buffers.push(vec![0; out]);
        buffers
    }

    fn check(&self, what: &str, caps: &Caps, buffers: &[Vec<u32>]) {
        // Drivers may round to either f16 that is next.
        let tolerance = if self.attend.cache == CacheFormat::F16 { 1e-5 } else { 2e-3 };
        self.check_within(tolerance, what, caps, buffers);
    }

    fn check_within(&self, tolerance: f32, what: &str, caps: &Caps, buffers: &[Vec<u32>]) {
        let out = floats(&buffers[buffers.len() - 1]);
        let what = format!("{what}, {caps:?}, {:?}", self.attend);
        assert_close(&what, &gather(&self.attend.out, &out, self.rows()), &self.want, tolerance);
    }

    fn check_vector(&self) {
        both_ways(|gpu, caps| {
            for keys in [Keys::Few, Keys::Many] {
                let mut buffers = self.buffers(true, self.want.len());
                run(gpu, &self.attend.vector(caps, keys), self.rows(), 1, &mut buffers);
                self.check("vector", caps, &buffers);
            }
        });
    }

    fn check_tiled(&self, caps_of: impl Fn(&Caps) -> Caps) {
        both_ways(|gpu, caps| {
            let caps = &caps_of(caps);
            let mut buffers = self.buffers(true, self.want.len());
            run(gpu, &self.attend.tiled(caps), self.rows(), 1, &mut buffers);
            self.check("tiled", caps, &buffers);
            // Where there are cooperative matrices: queries and weights are rounded to f16.
            if let Some(kernel) = self.attend.cooperative(caps) {
                let mut buffers = self.buffers(true, self.want.len());
                run(gpu, &kernel, self.rows(), 1, &mut buffers);
                let Attend { scale, dk, .. } = self.attend;
                // By as much as scores are larger, so is what rounding makes of them.
                let tolerance = 2e-3 * (scale * (dk as f32).sqrt()).max(1.0);
                self.check_within(tolerance, "cooperative", caps, &buffers);
            }
        });
    }

    fn check_split(&self) {
        let splits = self.step.words[step::SPLITS as usize];
        both_ways(|gpu, caps| {
            let parts = (self.rows() * self.attend.heads * MAX_SPLITS * (self.attend.dv + 2)) as usize;
            let mut buffers = self.buffers(false, parts);
            run(gpu, &self.attend.vector(caps, Keys::Split), self.rows(), splits, &mut buffers);
            let mut reduced = vec![self.step.words.clone()];
            reduced.extend(buffers.pop());
            reduced.extend(self.attend.sinks.then(|| words(&self.sinks)));
            reduced.push(vec![0; self.want.len()]);
            run(gpu, &self.attend.reduce(caps), self.rows(), splits, &mut reduced);
            self.check("split", caps, &reduced);
        });
    }
}

/// (context, rows) of each sequence.
fn step(sequences: &[(u32, u32)], splits: u32, split_keys: u32) -> Step {
    let sequences: Vec<_> =
        sequences.iter().map(|(context, rows)| Sequence { context: *context, rows: *rows }).collect();
    Step::new(&sequences, splits, split_keys)
}

#[test]
fn every_shape() {
    for shape in SHAPES {
        let plain = Case::new(spec(shape), step(&[(1, 1), (37, 1), (130, 1)], 3, 48));
        plain.check_vector();
        plain.check_split();
        Case::new(spec(shape), step(&[(70, 41), (3, 3)], 1, 0)).check_tiled(|caps| *caps);
    }
}

#[test]
fn values_that_are_the_beginnings_of_keys() {
    for shape in [(6, 1, 48, 40), (5, 1, 26, 18), (16, 1, 576, 512)] {
        let latent = Attend { latent: true, ..spec(shape) };
        let case = Case::new(latent.clone(), step(&[(1, 1), (37, 1), (130, 1)], 3, 48));
        case.check_vector();
        case.check_split();
        Case::new(latent, step(&[(40, 21), (3, 3)], 1, 0)).check_tiled(|caps| *caps);
    }
}

#[test]
fn quantized_caches() {
    let shapes = [
        (6, 2, 64, 96, 8, 32, false),
        (4, 1, 128, 128, 4, 64, false),
        (2, 2, 128, 128, 2, 128, false),
        (4, 2, 64, 32, 4, 32, true),
    ];
    for (heads, kv_heads, dk, dv, bits, group, mixed) in shapes {
        let cache = CacheFormat::Affine { bits, group, mixed };
        let attend = Attend { cache, ..spec((heads, kv_heads, dk, dv)) };
        let begin = |step: Step| if mixed { step.with_full(2, 16 / bits) } else { step };
        let case = Case::new(attend, begin(step(&[(1, 1), (70, 1)], 2, 48)));
        case.check_vector();
        case.check_split();
        Case::new(case.attend, begin(step(&[(40, 21), (3, 3)], 1, 0))).check_tiled(|caps| *caps);
    }
    for mixed in [false, true] {
        let cache = CacheFormat::Affine { bits: 8, group: 64, mixed };
        let latent = Attend { latent: true, cache, ..spec((4, 1, 192, 128)) };
        let step = step(&[(1, 1), (70, 1)], 2, 48);
        let case = Case::new(latent, if mixed { step.with_full(1, 2) } else { step });
        case.check_vector();
        case.check_split();
    }
}

#[test]
fn five_sequences_in_one_step() {
    let case = Case::new(spec((6, 2, 64, 64)), step(&[(300, 1), (21, 21), (1, 1), (90, 30), (33, 2)], 5, 64));
    case.check_vector();
    case.check_split();
    case.check_tiled(|caps| *caps);
}

#[test]
fn long_contexts_in_any_number_of_parts() {
    for splits in 1..=7u32 {
        let split_keys = 700u32.div_ceil(splits).next_multiple_of(step::PAGE);
        let sequences = [(700, 1), (1, 1), (split_keys.min(700), 1), (split_keys + 1, 1)];
        Case::new(spec((3, 1, 64, 64)), step(&sequences[..if splits == 1 { 3 } else { 4 }], splits, split_keys))
            .check_split();
    }
    Case::new(spec((2, 2, 80, 80)), step(&[(700, 65)], 1, 0)).check_tiled(|caps| *caps);
}

#[test]
fn windows_caps_and_sinks() {
    let cases =
        [(None, None, true), (Some(1), None, false), (Some(20), Some(3.0), true), (Some(1000), Some(0.01), false)];
    for (window, softcap, sinks) in cases {
        let attend = Attend { window, softcap, sinks, ..spec((4, 2, 64, 64)) };
        let case = Case::new(attend, step(&[(200, 3), (5, 2), (90, 40)], 4, 64));
        case.check_vector();
        case.check_split();
        case.check_tiled(|caps| *caps);
    }
}

/// Weights of cooperative matrices are relative to a score that later ones may pass by far; and queries that begin at whole
/// vectors are read as such.
#[test]
fn later_scores_are_far_larger() {
    for (heads, kv_heads, dk, dv) in [(4, 2, 128, 128), (2, 1, 256, 256), (3, 3, 64, 96)] {
        let (scale, q) = (0.5, View::heads(heads, dk));
        let attend = Attend { scale, q, ..spec((heads, kv_heads, dk, dv)) };
        Case::new(attend, step(&[(300, 70), (40, 3)], 1, 0)).check_tiled(|caps| *caps);
    }
}

#[test]
fn spans_see_past_their_own_position() {
    let mut step = step(&[(60, 40), (9, 9)], 2, 32);
    // Rows 4 to 29 are an image, whose rows all see each other.
    for row in 4..30 {
        step.set(row, step::ROW_END, 50);
    }
    let case = Case::new(spec((2, 1, 64, 64)), step);
    case.check_vector();
    case.check_split();
    case.check_tiled(|caps| *caps);
}

#[test]
fn prefixes_see_past_windows() {
    let mut step = step(&[(70, 70), (60, 5), (33, 33)], 2, 48);
    // A prompt of 50 tokens and what was generated after it, what follows a prompt, and a prompt alone.
    for (row, end) in (0..50).map(|row| (row, 50)).chain((75..108).map(|row| (row, 33))) {
        step.set(row, step::ROW_END, end);
        step.set(row, step::ROW_WHOLE, 1);
    }
    for window in [None, Some(16), Some(1)] {
        let case = Case::new(Attend { window, ..spec((4, 2, 64, 64)) }, step.clone());
        case.check_vector();
        case.check_split();
        case.check_tiled(|caps| *caps);
    }
}

#[test]
fn tiles_fit_the_least_workgroup_memory() {
    for shape in SHAPES.into_iter().step_by(2) {
        let case = Case::new(spec(shape), step(&[(40, 11), (3, 3)], 1, 0));
        case.check_tiled(|caps| Caps { workgroup_memory: 16 << 10, workgroup_size: 256, ..*caps });
    }
}
