//! Attention over the paged cache, for rows of any number of sequences.

mod cooperative;

use crate::common::{Lanes, power_of_two, step_functions};
use crate::prepare::{Heads, Prepare};
use crate::rounded::Rounded;
use crate::template::{Bindings, consts, float, render};
use crate::{CacheFormat, Caps, Extent, Kernel, View};

/// Each row's queries against the keys and values `[lo, end)` of its sequence, where `end` is the
/// row's ROW_END, and `lo` 0 or, with a window and no ROW_WHOLE, `ROW_POSITION + 1 - window`. The cache is laid out as
/// [`crate::prepare::Prepare`] says; query head `h` looks at key head `h / (heads / kv_heads)`.
///
/// Bindings: step, q, the cache, the sinks (f32 \[heads\]) if there are some, out.
#[derive(Clone, PartialEq, Debug)]
pub struct Attend {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a query and of a key; even.
    pub dk: u32,
    /// Elements of a value; even.
    pub dv: u32,
    /// Factor on each score.
    pub scale: f32,
    /// A key is seen if the query's position minus its own is less than this.
    pub window: Option<u32>,
    /// Scores become `c * tanh(score / c)`.
    pub softcap: Option<f32>,
    /// One more logit per head that takes probability and gives no value.
    pub sinks: bool,
    /// Whether a value is the beginning of its key, and a slot holds keys only.
    pub latent: bool,
    /// How keys and values lie in the cache.
    pub cache: CacheFormat,
    /// Queries, [rows, heads, dk].
    pub q: View,
    /// Results, [rows, heads, dv].
    pub out: View,
}

/// What a decoding step has attention do besides.
#[derive(Clone, PartialEq, Debug)]
pub struct Besides {
    /// The step before it: q, and the key and value of each row, are made on the way, of which all
    /// attend to earlier ones only. With queries, keys and values, in a cache of f16; what it says of `out` is not looked at.
    pub prepare: Option<Prepare>,
    /// Whether the step has one row, whose pages are then where no word says.
    pub alone: bool,
    /// Whether the results are stored in f32.
    pub store: bool,
    /// The results of the only row, rounded.
    pub next: Option<Rounded>,
}

impl Default for Besides {
    fn default() -> Besides {
        Besides { prepare: None, alone: false, store: true, next: None }
    }
}

/// Registers of a thread of the vector kernel that hold queries and sums.
const REGISTERS: u32 = 128;
/// Workgroup memory of the vector kernel, where there is as much: several workgroups are to fit.
const VECTOR_MEMORY: u32 = 24 << 10;
/// Most parts into which keys are split.
pub const MAX_SPLITS: u32 = 32;
/// Rows of a tile and keys of a block, best first.
const TILES: [(u32, u32); 8] = [(64, 32), (32, 32), (32, 16), (16, 16), (8, 16), (8, 8), (4, 8), (4, 4)];

/// How many keys a row sees, as far as the choice of a kernel depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Keys {
    /// So few that latency is what counts: query heads that share keys are computed apart.
    Few,
    /// So many that each key is to be read once for all its query heads.
    Many,
    /// Likewise, and several workgroups have a part of the keys each; [`Attend::reduce`] follows.
    Split,
}

impl Attend {
    /// For steps with few rows per sequence: a workgroup for each row and each group of query heads
    /// that share keys.
    ///
    /// With [`Keys::Split`], also for each of the step's parts, and `out` becomes f32
    /// [rows, heads, MAX_SPLITS, dv + 2] for [`Attend::reduce`]: the sum of values, not yet divided,
    /// the largest score, and the sum of exponentials relative to it. A part without visible keys
    /// has the sum 0. Sinks are then bound by `reduce` only.
    pub fn vector(&self, caps: &Caps, keys: Keys) -> Kernel {
        self.vector_with(caps, keys, &Besides::default())
    }

    /// [`Attend::vector`], and more in the same dispatch. With [`Keys::Split`], `store` and `next` are up to
    /// [`Attend::reduce_with`].
    ///
    /// Bindings: step; q, or what [`Prepare`] reads; the cache; the sinks, if there are some; the next
    /// norm's weight; out, if stored; the rounded row, if there is one.
    pub fn vector_with(&self, caps: &Caps, keys: Keys, besides: &Besides) -> Kernel {
        self.vector_sized(caps, keys, besides, if keys == Keys::Split { 128 } else { 256 })
    }

    /// The same, in workgroups of at most so many threads.
    pub fn vector_sized(&self, caps: &Caps, keys: Keys, besides: &Besides, most_threads: u32) -> Kernel {
        let split = keys == Keys::Split;
        let most = caps.subgroups.map_or(8, |(min, _)| min.min(16));
        let lanes = power_of_two(self.key_pieces().max(self.value_pieces())).min(most);
        let (keys_each, values_each) = (self.key_pieces().div_ceil(lanes), self.value_pieces().div_ceil(lanes));
        let group = self.heads / self.kv_heads;
        let memory = |fold: u32, threads: u32| {
            // Out, maxima and sums of each team and head, and what summing over lanes takes.
            let teams = fold * (threads / lanes) * (self.value_pieces() * 32 + 8) + threads * 16;
            let own = besides.prepare.as_ref().map_or(0, |_| 6 * (self.dk + self.dv) + 4 * fold * self.dk + 32);
            let rounded = besides.next.filter(|_| !split).map_or(0, |_| fold * self.dv * 4 + threads * 16);
            teams + own + rounded
        };
        let size = |fold: u32| {
            let fits = |threads: &u32| {
                *threads <= caps.workgroup_size.min(most_threads)
                    && memory(fold, *threads) <= VECTOR_MEMORY.min(caps.workgroup_memory)
            };
            [256, 128, 64, 32].into_iter().filter(|threads| *threads >= lanes).find(fits)
        };
        let most_folds = if keys == Keys::Few { 1 } else { 8 };
        let folds = |fold: &u32| {
            let registers = fold * (keys_each + values_each) * 8;
            group.is_multiple_of(*fold) && registers <= REGISTERS && size(*fold).is_some_and(|threads| threads >= 64)
        };
        let fold = (1..=most_folds).rev().find(folds).unwrap_or(1);
        let threads = size(fold).unwrap_or(lanes);
        let teams = threads / lanes;

        let mut bindings = Bindings::step();
        match &besides.prepare {
            Some(prepare) => prepare.bind(&mut bindings),
            None => bindings.read("q", "f32"),
        }
        match &besides.prepare {
            Some(_) => bindings.write("cache", self.element()),
            None => bindings.read("cache", self.element()),
        }
        if self.sinks && !split {
            bindings.read("sinks", "f32");
        }
        let next = besides.next.as_ref().filter(|_| !split);
        let next_functions = next.map(|next| next.tile_functions(&mut bindings, caps, threads, fold * self.dv));
        if split || besides.store {
            bindings.write("out", "f32");
        }
        if next.is_some() {
            Rounded::bind_out(&mut bindings);
        }
        let mut store = String::new();
        if split {
            store += "out[{{PART_AT}} + d] = v;\n";
        } else if besides.store {
            store += "out[{{OUT_AT}} + d] = v / total;\n";
        }
        if next.is_some() {
            store += "keep((head - first_head) * DV + d, v / total);\n";
        }
        let query = match &besides.prepare {
            Some(_) => "x[fold * DK + min(dim, DK - 1u)]",
            None => "q[{{Q_AT}} + min(dim, DK - 1u)]",
        };
        let mut values = self.own(besides.prepare.as_ref(), threads, fold);
        values.extend([
            ("NEXT_FUNCTIONS", next_functions.unwrap_or_default()),
            ("NEXT", u32::from(next.is_some()).to_string()),
            ("STORE", store),
            ("QUERY", query.to_string()),
            (
                "PAGES",
                if besides.alone { "HEADER_WORDS + ROW_WORDS" } else { "step[PAGES_AT] + row_word(row, ROW_TABLE)" }
                    .to_string(),
            ),
            ("LOAD", include_str!("../wgsl/attend/load.wgsl").to_string()),
        ]);
        values.extend(self.values(
            &bindings,
            &[
                ("TEAMS", teams),
                ("TEAMS_ALL", fold * teams),
                ("TEAMS_OUT", fold * teams * self.value_pieces() * 2),
                ("QUADS", self.value_pieces() * 2),
                ("FOLD", fold),
            ],
        ));
        values.extend(self.sink(!split, "exp(sinks[head] - largest)"));
        values.extend([
            ("PART_AT", "((row * HEADS + head) * MAX_SPLITS + group.z) * (DV + 2u)".to_string()),
            ("SPLIT", u32::from(split).to_string()),
            ("KEY_PIECES_EACH", keys_each.to_string()),
            ("VALUE_PIECES_EACH", values_each.to_string()),
            ("ONE", ".x".to_string()),
        ]);
        values.extend(Lanes { threads, lanes, element: "vec4<f32>" }.values(caps));
        let source = render(include_str!("../wgsl/attend/vector.wgsl"), &values);
        let parts = if split { Extent::Splits } else { Extent::Const(1) };
        let own = if besides.prepare.is_some() { "own " } else { "" };
        let name = self.name(&format!("{own}{}", if split { "split" } else { "vector" }));
        bindings.kernel(name, source, [Extent::Const(self.heads / fold), Extent::Rows(1), parts])
    }

    /// Merges what [`Attend::vector`] left in parts.
    ///
    /// Bindings: step, the parts, the sinks if there are some, out.
    pub fn reduce(&self, caps: &Caps) -> Kernel {
        self.reduce_with(caps, &Besides::default())
    }

    /// [`Attend::reduce`], which also rounds, or rounds instead.
    ///
    /// Bindings: step, the parts, the sinks if there are some, the next norm's weight, out if stored, the
    /// rounded row if there is one.
    pub fn reduce_with(&self, caps: &Caps, besides: &Besides) -> Kernel {
        let threads = 256.min(1 << caps.workgroup_size.max(1).ilog2());
        let wide = self.dv.next_power_of_two().clamp(32, 128).min(threads);
        let mut bindings = Bindings::step();
        bindings.read("parts", "f32");
        if self.sinks {
            bindings.read("sinks", "f32");
        }
        let next = besides.next.as_ref();
        let next_functions = next.map(|next| next.tile_functions(&mut bindings, caps, threads, self.dv));
        let mut store = String::new();
        if besides.store {
            bindings.write("out", "f32");
            store += "out[{{OUT_AT}} + d] = v / total;\n";
        }
        if next.is_some() {
            Rounded::bind_out(&mut bindings);
            store += "keep(d, v / total);\n";
        }
        let mut values = vec![
            ("NEXT_FUNCTIONS", next_functions.unwrap_or_default()),
            ("NEXT", u32::from(next.is_some()).to_string()),
            ("STORE", store),
        ];
        let sizes = [
            ("THREADS", threads),
            ("WIDE", wide),
            ("GROUPS", threads / wide),
            ("EACH", MAX_SPLITS.div_ceil(threads / wide)),
            ("CHUNKS", self.dv.div_ceil(wide)),
        ];
        values.extend(self.values(&bindings, &sizes));
        values.extend(self.sink(true, "exp(sinks[head] - largest)"));
        let source = render(include_str!("../wgsl/attend/reduce.wgsl"), &values);
        let grid = [Extent::Const(self.heads), Extent::Rows(1), Extent::Const(1)];
        bindings.kernel(self.name("reduce"), source, grid)
    }

    /// For steps with many rows per sequence: a workgroup for each head and tile of rows.
    ///
    /// A sequence's rows are adjacent, and neither their positions nor their ends decrease.
    pub fn tiled(&self, caps: &Caps) -> Kernel {
        let lanes_of = |keys: u32| if self.value_pieces() <= 8 { 8 } else { 16 }.min(keys);
        let stride = self.key_pieces().max(self.value_pieces()) | 1;
        let fits = |(rows, keys): &(u32, u32)| {
            let threads = rows / 4 * lanes_of(*keys);
            let memory = rows * self.key_pieces() * 32 + keys * stride * 16 + keys * rows * 4 + threads * 16;
            threads <= caps.workgroup_size && memory <= caps.workgroup_memory
        };
        let (rows, keys) = TILES.into_iter().find(fits).unwrap_or((4, 4));
        let lanes = lanes_of(keys);
        let fours = rows / 4;

        let bindings = self.bindings(self.sinks);
        let sizes = [
            ("TILE_ROWS", rows),
            ("FOURS", fours),
            ("BLOCK_KEYS", keys),
            ("QUERY_TILE", self.key_pieces() * 8 * fours),
            ("PIECE_STRIDE", stride),
            ("PIECE_TILE", keys * stride),
            ("WEIGHT_TILE", keys * fours),
        ];
        let mut values = self.values(&bindings, &sizes);
        values.extend(self.sink(true, "1.0"));
        values.extend([
            ("KEYS_EACH", (keys / lanes).to_string()),
            ("VALUE_PIECES_EACH", self.value_pieces().div_ceil(lanes).to_string()),
            ("EIGHT", "8".to_string()),
        ]);
        values.extend(Lanes { threads: fours * lanes, lanes, element: "vec4<f32>" }.values(caps));
        let source = render(include_str!("../wgsl/attend/tiled.wgsl"), &values);
        bindings.kernel(self.name("tiled"), source, [Extent::Const(self.heads), Extent::Rows(rows), Extent::Const(1)])
    }

    /// The template values by which a row's own query, key and value are made in workgroups of `threads`
    /// and `fold` query heads.
    fn own(&self, prepare: Option<&Prepare>, threads: u32, fold: u32) -> Vec<(&'static str, String)> {
        let parts = prepare.and_then(|p| {
            let (k, v) = p.kv.as_ref()?;
            Some((p, p.q.as_ref()?, k, v.as_ref()?))
        });
        let Some((prepare, q, k, v)) = parts else {
            let nothing = ["OWN_FUNCTIONS", "OWN_AHEAD", "OWN_MAIN"].map(|name| (name, String::new()));
            return [vec![("OWN", "0".to_string())], nothing.to_vec()].concat();
        };
        let (key_base, value_base) = (fold * self.dk, (fold + 1) * self.dk);
        let queries = (0..fold).map(|g| ("q", q, g * self.dk, format!("first_head + {g}u")));
        let kv = [("k", k, key_base, "kv_head".to_string()), ("v", v, value_base, "kv_head".to_string())];
        let heads: Vec<_> = queries.chain(kv).collect();
        let wide = |part: &Heads| part.view.dim <= threads;
        let ahead = [q, k, v].into_iter().all(wide) && prepare.tables.iter().all(|pairs| *pairs <= threads);
        let (mut first, mut main) = (String::new(), String::new());
        if ahead {
            first += &prepare.turns();
            first += &[("q", q), ("k", k), ("v", v)].map(|(role, part)| prepare.ahead(role, part)).concat();
        }
        for (i, (_, part, base, head)) in heads.iter().enumerate() {
            let View { offset, row, head: stride, dim, .. } = part.view;
            let input = |j: &str| format!("input{}[{offset}u + row * {row}u + ({head}) * {stride}u + {j}]", part.input);
            if ahead {
                first += &format!("let own{i} = {};\n", input(&format!("min(thread, {}u)", dim - 1)));
                main += &format!("if (thread < {dim}u) {{\nx[{base}u + thread] = own{i};\n}}\n");
            } else {
                let each = input("j");
                main += &format!("for (var j = thread; j < {dim}u; j += THREADS) {{\nx[{base}u + j] = {each};\n}}\n");
            }
        }
        main += "workgroupBarrier();\n";
        let based: Vec<_> = heads.iter().map(|(role, part, base, _)| (*role, *part, *base)).collect();
        main += &prepare.steps(&based, ahead);
        main += include_str!("../wgsl/attend/own_main.wgsl");
        let store = match self.is_aligned() {
            true => include_str!("../wgsl/attend/store_pieces.wgsl"),
            false => include_str!("../wgsl/attend/store_pieces_unaligned.wgsl"),
        };
        vec![
            ("OWN", "1".to_string()),
            ("OWN_FUNCTIONS", include_str!("../wgsl/attend/own.wgsl").to_string() + store),
            ("OWN_AHEAD", first),
            ("OWN_MAIN", main),
            ("OWN_ELEMENTS", (value_base + self.dv).to_string()),
            ("KEY_BASE", key_base.to_string()),
            ("VALUE_BASE", value_base.to_string()),
        ]
    }

    /// Pieces of eight elements in a key.
    fn key_pieces(&self) -> u32 {
        self.dk.div_ceil(8)
    }

    /// Pieces of eight elements in a value.
    fn value_pieces(&self) -> u32 {
        self.dv.div_ceil(8)
    }

    /// Whether keys and values begin at whole pieces.
    fn is_aligned(&self) -> bool {
        self.dk.is_multiple_of(8) && self.dv.is_multiple_of(8)
    }

    /// What the cache is an array of.
    fn element(&self) -> &'static str {
        if self.is_aligned() && self.cache == CacheFormat::F16 { "vec4<u32>" } else { "u32" }
    }

    fn name(&self, kind: &str) -> String {
        format!("attend {kind} {}/{}x{}", self.heads, self.kv_heads, self.dk)
    }

    fn bindings(&self, sinks: bool) -> Bindings {
        let mut bindings = Bindings::step();
        bindings.read("q", "f32");
        bindings.read("cache", self.element());
        if sinks {
            bindings.read("sinks", "f32");
        }
        bindings.write("out", "f32");
        bindings
    }

    /// Where the softmax begins: with the sink of a head, or with nothing.
    fn sink(&self, counts: bool, total: &str) -> [(&'static str, String); 2] {
        match self.sinks && counts {
            true => [("LEAST", "sinks[head]".to_string()), ("TOTAL", total.to_string())],
            false => [("LEAST", "NEVER".to_string()), ("TOTAL", "0.0".to_string())],
        }
    }

    /// Template values that all kernels share; `sizes` become constants and loop counts.
    fn values(&self, bindings: &Bindings, sizes: &[(&'static str, u32)]) -> Vec<(&'static str, String)> {
        let [key, value] = [self.dk, self.dv].map(|dim| self.cache.words(dim));
        let shape = [
            ("HEADS", self.heads),
            ("KV_HEADS", self.kv_heads),
            ("DK", self.dk),
            ("DV", self.dv),
            ("KEY_PIECES", self.key_pieces()),
            ("VALUE_PIECES", self.value_pieces()),
            ("KEY_WORDS", key),
            ("VALUE_WORDS", value),
            ("SLOT_WORDS", self.kv_heads * (key + if self.latent { 0 } else { value })),
            ("VALUES_AT", if self.latent { 0 } else { self.kv_heads * key }),
            ("MAX_SPLITS", MAX_SPLITS),
        ];
        let pieces = match self.cache {
            CacheFormat::F16 if self.is_aligned() => include_str!("../wgsl/attend/pieces.wgsl").to_string(),
            CacheFormat::F16 => include_str!("../wgsl/attend/pieces_unaligned.wgsl").to_string(),
            CacheFormat::Affine { bits, group, mixed } => {
                let value_dim = if self.latent { self.dk } else { self.dv };
                let sizes = [("BITS", bits), ("GROUP", group), ("VALUE_DIM", value_dim), ("MIXED", mixed.into())];
                let sizes = sizes.map(|(name, n)| (name, n.to_string()));
                render(include_str!("../wgsl/attend/pieces_affine.wgsl"), &sizes)
            }
        };
        let places = match self.cache {
            CacheFormat::Affine { mixed: true, .. } => {
                let [key, value] = [self.dk, self.dv].map(|dim| self.kv_heads * CacheFormat::F16.words(dim));
                let (all, values_at) = if self.latent { (key, 0) } else { (key + value, key) };
                let sizes = [("FULL_WORDS", all.to_string()), ("FULL_VALUES_AT", values_at.to_string())];
                render(include_str!("../wgsl/attend/places_mixed.wgsl"), &sizes)
            }
            _ => include_str!("../wgsl/attend/places.wgsl").to_string(),
        };
        let at = |view: &View| format!("{}u + row * {}u + head * {}u", view.offset, view.row, view.head);
        let flag = |on: bool| u32::from(on).to_string();
        let mut values = vec![
            ("BINDINGS", bindings.declarations()),
            ("STEP", step_functions()),
            ("SIZES", consts(&shape) + &consts(sizes) + include_str!("../wgsl/attend/sizes.wgsl")),
            ("CACHE", include_str!("../wgsl/attend/cache.wgsl").to_string() + &pieces + &places),
            ("SEQUENCE_END", include_str!("../wgsl/attend/sequence_end.wgsl").to_string()),
            ("Q_AT", at(&self.q)),
            ("OUT_AT", at(&self.out)),
            ("SCALE", float(self.scale)),
            ("WINDOWED", flag(self.window.is_some())),
            ("UNLIMITED", flag(self.window.is_none())),
            ("WINDOW", self.window.unwrap_or(0).to_string()),
            ("CAPPED", flag(self.softcap.is_some())),
            ("UNCAPPED", flag(self.softcap.is_none())),
            ("CAP", float(self.softcap.unwrap_or(1.0))),
            ("FOUR", "4".to_string()),
        ];
        values.extend(sizes.iter().map(|(name, n)| (*name, n.to_string())));
        values
    }
}
