//! The step before attention: norm, rope and scaling of queries and keys, and the cache write.

use crate::common::{Lanes, step_functions};
use crate::template::{Bindings, float, render};
use crate::{CacheFormat, Caps, Extent, Kernel, View, step};

/// Makes queries, keys and values out of projections, in one dispatch.
///
/// Bindings: step, the inputs, the norm weights in order of appearance (of q, of k, of v), the
/// rope tables, `out` if there is q, the cache if there is kv.
///
/// A layer's cache is `array<u32>`, slot after slot; a slot holds the keys of all heads and then the values, each in
/// the form of `cache`.
#[derive(Clone, PartialEq, Debug)]
pub struct Prepare {
    /// Queries; `None` if only keys and values are wanted.
    pub q: Option<Heads>,
    /// Keys and values, which are written to the row's cache slot; `None` for a layer that looks at
    /// another layer's cache. As many heads of the one as of the other, or no values: those of a latent cache are
    /// the beginnings of its keys.
    pub kv: Option<(Heads, Option<Heads>)>,
    /// How many distinct input buffers are bound.
    pub inputs: u32,
    /// For each rope table that is bound, its pairs: the table is `array<vec2<f32>>` of (cos, sin),
    /// [tokens, pairs].
    pub tables: Vec<u32>,
    /// How keys and values lie in the cache.
    pub cache: CacheFormat,
    /// Where the queries go.
    pub out: View,
}

/// Where heads come from and what happens to each.
#[derive(Clone, PartialEq, Debug)]
pub struct Heads {
    /// Which of the input buffers.
    pub input: u32,
    /// Where in it.
    pub view: View,
    /// In order.
    pub steps: Vec<HeadStep>,
}

/// A change of one head.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum HeadStep {
    /// RMS norm over the head's elements.
    Norm {
        /// Added to the mean square.
        eps: f32,
        /// Whether a weight of `dim` f32 is bound.
        weight: bool,
    },
    /// Rotation of the first `2 * pairs` elements.
    Rope {
        /// Which of the tables.
        table: u32,
        /// Pairs are (i, i + pairs), otherwise (2i, 2i + 1).
        half: bool,
        /// How many pairs turn; at most those of the table.
        pairs: u32,
    },
    /// Multiplication.
    Scale(f32),
}

impl Prepare {
    /// One workgroup for each row and head.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let parts = self.parts();
        let mut bindings = Bindings::step();
        self.bind(&mut bindings);
        if self.q.is_some() {
            bindings.write("q_out", "f32");
        }
        if self.kv.is_some() {
            bindings.write("cache", "u32");
        }
        // Few threads: a head is short, and there are many.
        let longest = parts.iter().map(|(_, part, _)| part.view.dim).max().unwrap_or(1);
        let mut values = vec![
            ("BINDINGS", bindings.declarations()),
            (
                "STEP",
                step_functions() + if self.has_codes() { include_str!("../wgsl/prepare/as_half.wgsl") } else { "" },
            ),
            ("HEADS", parts.iter().map(|(role, part, store)| self.function(role, part, store)).collect()),
            ("CALLS", calls(&parts)),
            ("LONGEST", longest.to_string()),
            ("ONE", String::new()),
        ];
        values.extend(Lanes { threads: 32, lanes: 32, element: "f32" }.values(caps));
        let heads = parts.iter().map(|(_, part, _)| part.view.heads).sum();
        let name = format!("prepare {}", parts.iter().map(|p| p.0).collect::<String>());
        let source = render(include_str!("../wgsl/prepare/main.wgsl"), &values);
        bindings.kernel(name, source, [Extent::Rows(1), Extent::Const(heads), Extent::Const(1)])
    }

    /// Whether what is kept is made of codes.
    fn has_codes(&self) -> bool {
        self.kv.is_some() && self.cache != CacheFormat::F16
    }

    /// Binds the inputs, the norm weights and the rope tables.
    pub(crate) fn bind(&self, bindings: &mut Bindings) {
        (0..self.inputs).for_each(|i| bindings.read(&format!("input{i}"), "f32"));
        let kv = self.kv.iter().flat_map(|(k, v)| [("k", Some(k)), ("v", v.as_ref())]);
        let kv = kv.filter_map(|(role, part)| Some((role, part?)));
        for (role, part) in self.q.iter().map(|q| ("q", q)).chain(kv) {
            for (i, step) in part.steps.iter().enumerate() {
                if matches!(step, HeadStep::Norm { weight: true, .. }) {
                    bindings.read(&format!("{role}_weight{i}"), "f32");
                }
            }
        }
        (0..self.tables.len()).for_each(|i| bindings.read(&format!("table{i}"), "vec2<f32>"));
    }

    /// Each part's role, its heads and the statements that store one.
    fn parts(&self) -> Vec<(&'static str, &Heads, String)> {
        let mut parts = Vec::new();
        if let Some(q) = &self.q {
            let View { offset, row, head, .. } = self.out;
            let at = format!("{offset}u + row * {row}u + head * {head}u");
            parts.push(("q", q, render(include_str!("../wgsl/prepare/store_q.wgsl"), &[("OUT_AT", at)])));
        }
        if let Some((k, v)) = &self.kv {
            let slot = format!("row_word(row, ROW_SLOT) * {}u", words_of(self.cache, k, v.as_ref()));
            parts.push(("k", k, self.store(k, None, &slot)));
            parts.extend(v.as_ref().map(|v| ("v", v, self.store(v, Some(k), &slot))));
        }
        parts
    }

    /// The statements that store a head of a key, or of a value behind the `keys` of its slot.
    fn store(&self, part: &Heads, keys: Option<&Heads>, slot: &str) -> String {
        let in_form = |form: CacheFormat, slot: &str| {
            let (store, bits, group) = match form {
                CacheFormat::F16 => (include_str!("../wgsl/prepare/store_cache.wgsl"), 16, 1),
                CacheFormat::Affine { bits, group, .. } => {
                    (include_str!("../wgsl/prepare/store_affine.wgsl"), bits, group)
                }
            };
            let first = keys.map_or(0, |k| words_of(form, k, None));
            let values = [
                ("SLOT_AT", slot.to_string()),
                ("FIRST_WORD", first.to_string()),
                ("HEAD_WORDS", form.words(part.view.dim).to_string()),
                ("DIM", part.view.dim.to_string()),
                ("BITS", bits.to_string()),
                ("GROUP", group.to_string()),
            ];
            render(store, &values)
        };
        let CacheFormat::Affine { mixed: true, .. } = self.cache else { return in_form(self.cache, slot) };
        let Some((k, v)) = &self.kv else { return String::new() };
        let [page, full] = [self.cache, CacheFormat::F16].map(|form| words_of(form, k, v.as_ref()));
        let full_slot = format!(
            "(row_word(row, ROW_SLOT) - FULL_SLOT) / PAGE * {}u + row_word(row, ROW_SLOT) % PAGE * {full}u",
            step::PAGE * page
        );
        let (full, rest) = (in_form(CacheFormat::F16, &full_slot), in_form(self.cache, slot));
        format!("if (row_word(row, ROW_SLOT) >= FULL_SLOT) {{\n{full}}} else {{\n{rest}}}\n")
    }

    fn function(&self, role: &str, part: &Heads, store: &str) -> String {
        let View { offset, row, head, dim, .. } = part.view;
        let values = [
            ("STEPS", self.steps(&[(role, part, 0)], false)),
            ("STORE", store.to_string()),
            ("ROLE", role.to_string()),
            ("INPUT", format!("input{}", part.input)),
            ("AT", format!("{offset}u + row * {row}u + head * {head}u")),
            ("DIM", dim.to_string()),
        ];
        render(include_str!("../wgsl/prepare/heads.wgsl"), &values)
    }

    /// The steps of heads that begin at their bases in `x`. All heads take a step together, since a barrier takes as long for
    /// one as for all. With `ahead`, each thread has what it takes from buffers in [`Prepare::ahead`]'s variables.
    pub(crate) fn steps(&self, heads: &[(&str, &Heads, u32)], ahead: bool) -> String {
        const BARRIER: &str = "workgroupBarrier();\n";
        let rounds = heads.iter().map(|(_, part, _)| part.steps.len()).max().unwrap_or(0);
        let mut source = String::new();
        for i in 0..rounds {
            let with = heads.iter().filter(|(_, part, _)| i < part.steps.len());
            let (sums, steps): (Vec<_>, Vec<_>) =
                with.map(|(role, part, base)| self.step(role, part, i, *base, ahead)).unzip();
            let sums = sums.concat();
            source += &sums;
            // A head changes when it was summed up.
            source += if sums.is_empty() { "" } else { BARRIER };
            source += &steps.concat();
            source += BARRIER;
        }
        source
    }

    /// Step `i` of a head: what is summed up before, and the step itself.
    fn step(&self, role: &str, part: &Heads, i: usize, base: u32, ahead: bool) -> (String, String) {
        let weight = if ahead { format!("{role}_gain{i}") } else { format!("{role}_weight{i}[j]") };
        let mut values =
            vec![("SIZE", format!("size{i}_{base}")), ("BASE", base.to_string()), ("DIM", part.view.dim.to_string())];
        let (sum, step) = match part.steps[i] {
            HeadStep::Norm { eps, weight: weighs } => {
                let weight = if weighs { format!(" * {weight}") } else { String::new() };
                values.extend([("EPS", float(eps)), ("WEIGHT", weight)]);
                (include_str!("../wgsl/prepare/norm_size.wgsl"), include_str!("../wgsl/prepare/norm.wgsl"))
            }
            HeadStep::Scale(c) => {
                values.push(("SCALE", float(c)));
                ("", include_str!("../wgsl/prepare/scale.wgsl"))
            }
            HeadStep::Rope { table, half, pairs } => {
                let pair = if half { format!("i, i + {pairs}u") } else { "2u * i, 2u * i + 1u".to_string() };
                let turn = format!("table{table}[row * {}u + i]", self.pairs(table, pairs));
                let turn = if ahead { format!("turn{table}") } else { turn };
                values.extend([("PAIRS", pairs.to_string()), ("TURN", turn), ("PAIR", pair)]);
                ("", include_str!("../wgsl/prepare/rope.wgsl"))
            }
        };
        (render(sum, &values), render(step, &values))
    }

    /// Loads what the steps of a head take from buffers, for workgroups of no fewer threads than a head
    /// has elements: memory answers once for all of it.
    pub(crate) fn ahead(&self, role: &str, part: &Heads) -> String {
        let gain = |(i, step): (usize, &HeadStep)| match step {
            HeadStep::Norm { weight: true, .. } => {
                Some(format!("let {role}_gain{i} = {role}_weight{i}[min(thread, {}u)];\n", part.view.dim - 1))
            }
            _ => None,
        };
        part.steps.iter().enumerate().filter_map(gain).collect()
    }

    /// The same for the rope tables.
    pub(crate) fn turns(&self) -> String {
        let turn = |(i, pairs): (usize, &u32)| {
            format!("let turn{i} = table{i}[row * {pairs}u + min(thread, {}u)];\n", pairs.max(&1) - 1)
        };
        self.tables.iter().enumerate().map(turn).collect()
    }

    /// Pairs of a row of a table.
    fn pairs(&self, table: u32, pairs: u32) -> u32 {
        self.tables.get(table as usize).copied().unwrap_or(pairs)
    }
}

/// Heads count through the parts: calls the part that each belongs to.
fn calls(parts: &[(&'static str, &Heads, String)]) -> String {
    let mut first = 0;
    let call = |(role, part, _): &(&str, &Heads, String)| {
        let end = first + part.view.heads;
        let text = format!(
            "if (head >= {first}u && head < {end}u) {{\n    prepare_{role}(row, head - {first}u, thread);\n}}\n"
        );
        first = end;
        text
    };
    parts.iter().map(call).collect()
}

/// Words of a slot, or of its keys.
fn words_of(form: CacheFormat, keys: &Heads, values: Option<&Heads>) -> u32 {
    std::iter::once(keys).chain(values).map(|part| part.view.heads * form.words(part.view.dim)).sum()
}
