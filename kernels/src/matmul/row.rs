//! A quantized matrix times one to eight rows that the kernel before has rounded, see [`crate::rounded`]. This is
//! where decoding spends its time: nothing is left here but to read weights and to multiply. Each weight is
//! read and unpacked once for all rows.

use super::integer::zero;
use super::vector::{distinct, flag, reduction, usable_subgroups};
use super::{Candidate, MatMul, Precision, values};
use crate::rounded::{Rounded, UNIT, words};
use crate::template::{Bindings, float, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Format, Kernel, Post, Scales, post};

/// A product with rounded rows.
///
/// Bindings: step, the rounded rows, quants, scales, bias, one for each `Post::Add` and `Post::Mul` in
/// order, the next norm's weight if `next` has one, out if `store`, the next rounded rows if there are some.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What is computed. `x` is not looked at, and neither is whether a norm has a weight:
    /// it is in the rounded row.
    pub matmul: MatMul,
    /// Rows of a step at most, 1 to 8.
    pub rows: u32,
    /// To how many bits they are rounded.
    pub precision: Precision,
    /// Whether the results are stored in f32.
    pub store: bool,
    /// The results, rounded.
    pub next: Option<Rounded>,
}

/// How a kernel shares out its work. Any values give right results: what a device or a format cannot do
/// is replaced by the nearest that it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RowTuning {
    /// Rows of the weight that a team goes through together: half as many outputs if each has a gate. A
    /// power of two.
    pub outputs: u32,
    /// Invocations in a team, which share out the columns; a power of two, no less than a subgroup.
    pub lanes: u32,
    /// Teams in a workgroup; a power of two.
    pub teams: u32,
    /// How often a workgroup takes the next outputs.
    pub batches: u32,
    /// Units of columns that an invocation loads at a time.
    pub chunk: u32,
}

const fn tuning(outputs: u32, lanes: u32, teams: u32, batches: u32, chunk: u32) -> RowTuning {
    RowTuning { outputs, lanes, teams, batches, chunk }
}

/// What a search tries: what was the best for some matrix.
const CANDIDATES: [RowTuning; 12] = [
    tuning(8, 32, 8, 1, 1),
    tuning(8, 32, 8, 1, 4),
    tuning(4, 32, 16, 1, 2),
    tuning(4, 32, 4, 1, 2),
    tuning(2, 32, 16, 1, 2),
    tuning(1, 32, 16, 1, 1),
    tuning(1, 32, 8, 1, 4),
    tuning(2, 64, 16, 1, 1),
    tuning(2, 64, 16, 1, 2),
    tuning(2, 64, 2, 1, 2),
    tuning(8, 64, 1, 1, 2),
    tuning(4, 128, 8, 1, 1),
];

/// Sums that an invocation has at most.
const SUMS: u32 = 32;

impl Row {
    /// Whether there is such a kernel for a weight of this format and so many columns.
    pub fn serves(format: Format, k: u32, precision: Precision) -> bool {
        precision != Precision::Full
            && matches!(format, Format::Affine { .. })
            && k.is_multiple_of(UNIT)
            && [16, 32].contains(&units(format, k).columns())
    }

    /// Rows of a step at most. Where subgroups may be far smaller than largest, a team leaves so many parts of its sums
    /// that those of several rows do not fit into workgroup memory.
    pub fn most(caps: &Caps) -> u32 {
        if usable_subgroups(caps).is_some_and(|(min, max)| max > 4 * min) { 1 } else { 8 }
    }

    /// The kernel with the work shared out as is best for most devices.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        self.kernel_with(caps, self.default_tuning())
    }

    /// The kernel in several ways, for a search over what a device does best; the default is the first.
    pub fn candidates(&self, caps: &Caps) -> Vec<Candidate> {
        let candidate = |t: RowTuning| Candidate { tuning: format!("{t:?}"), kernel: self.fitted(caps, t) };
        let all = std::iter::once(self.default_tuning()).chain(CANDIDATES);
        distinct(all.map(|tuning| self.fit(tuning, caps))).into_iter().map(candidate).collect()
    }

    /// What did best over the shapes of common models on an H100, see docs/performance.md.
    fn default_tuning(&self) -> RowTuning {
        const MANY: u32 = 1 << 16;
        match (&self.next, self.matmul.glu) {
            (Some(_), Some(_)) => tuning(8, 32, 8, 1, 1),
            (Some(_), None) => tuning(2, 64, 16, 1, 1),
            (None, _) if self.matmul.n >= MANY => tuning(4, 32, 4, 1, 2),
            (None, _) => tuning(1, 32, 8, 1, 4),
        }
    }

    fn fit(&self, t: RowTuning, caps: &Caps) -> RowTuning {
        let spec = &self.matmul;
        let subgroup = usable_subgroups(caps).map_or(1, |(_, max)| max);
        let size = 1 << caps.workgroup_size.max(1).ilog2();
        let lanes = t.lanes.clamp(1, size).next_power_of_two().max(subgroup);
        // Eight invocations round a unit.
        let least = if self.next.is_some() { 8u32.div_ceil(lanes) } else { 1 };
        let teams = 1 << t.teams.clamp(least, size / lanes).ilog2();
        // Sums for each output and row are in registers.
        let most = (SUMS / (self.rows * spec.matrices())).clamp(1, 8);
        let outputs = 1 << (t.outputs / spec.matrices()).clamp(1, most).ilog2();
        let chunk = t.chunk.clamp(1, units(spec.format, spec.k).units().div_ceil(lanes).min(8));
        let batches = t.batches.clamp(1, spec.n.div_ceil(outputs * teams).max(1));
        // What is rounded together has to be made together.
        let whole = if self.next.is_some() { UNIT.div_ceil(outputs * teams) } else { 1 };
        RowTuning { outputs, lanes, teams, batches: batches.next_multiple_of(whole), chunk }
    }

    /// The kernel with its work shared out in a given way.
    pub fn kernel_with(&self, caps: &Caps, tuning: RowTuning) -> Kernel {
        self.fitted(caps, self.fit(tuning, caps))
    }

    /// The kernel with its work shared out in a way that [`Row::fit`] gave.
    fn fitted(&self, caps: &Caps, tuning: RowTuning) -> Kernel {
        let spec = &self.matmul;
        let RowTuning { outputs, lanes, teams, batches, chunk } = tuning;
        let weights = units(spec.format, spec.k);
        let (size, per_group) = (lanes * teams, outputs * teams * batches);
        let sums = outputs * spec.matrices();
        let values_each = (sums + u32::from(spec.norm.is_some())) * self.rows;
        let parts = usable_subgroups(caps).map_or(teams, |(min, _)| size / min);
        let (bindings, functions) = self.parts(caps, &weights, size);
        let groups = spec.n.div_ceil(per_group);
        let grid = groups.min(32_768);
        let sizes = [
            ("N", spec.n),
            ("LANES", lanes),
            ("TEAMS", teams),
            ("BATCHES", batches),
            ("VALUES", values_each),
            ("SQUARES", sums * self.rows),
            ("ALL_PARTS", parts),
            ("PARTIALS", batches * parts * values_each),
            ("PER_GROUP", per_group),
            ("QUADS", per_group.div_ceil(4)),
            ("FIRST", spec.first),
            ("GRID", grid),
            ("X_UNITS", spec.k / UNIT),
            ("X_ROW", words(spec.k, self.precision) / 4),
            ("X_PER", UNIT / weights.columns()),
            ("X_RECORDS", 2 * self.precision.planes() * (spec.k / UNIT)),
        ];
        let (flip, zero, middle) = zero(spec.format);
        let second = self.precision.planes() == 2;
        // A unit of the weights is a unit of x, or one half of it.
        let (half, sum, square) = match weights.columns() {
            32 => ("{{p}}u", "record.y + record.z", "record.w"),
            _ => ("(unit{{c}} % 2u)", "select(record.y, record.z, unit{{c}} % 2u == 1u)", "0.5 * record.w"),
        };
        let acc = match spec.format {
            Format::Affine { scales: Scales::Centered, .. } => {
                format!(
                    "fma(s.x, fma(record.x, products, {} * sum), acc{{{{g}}}}_{{{{r}}}}_{{{{m}}}})",
                    float(zero - middle)
                )
            }
            _ => format!(
                "fma(s.x * record.x, products, fma(fma({}, s.x, s.y), sum, acc{{{{g}}}}_{{{{r}}}}_{{{{m}}}}))",
                float(zero)
            ),
        };
        // What an output takes besides its sum is loaded before the sum is there, by those who finish it.
        let early = per_group.div_ceil(4) * self.rows <= size;
        let (loads, lines) = self.besides();
        let gained = if self.next.is_some_and(|next| next.gain) { " * early_gain" } else { "" };
        let parts_each = match usable_subgroups(caps) {
            Some((min, max)) if min == max => format!("{}u", lanes / min),
            _ => "place.parts".to_string(),
        };
        let dot = if second { "float_of(dot) + float_of(fine_dot) / FINE" } else { "float_of(dot)" };
        let mut values = values(spec, &bindings, functions, &sizes);
        values.extend(reduction(caps));
        values.extend([
            ("LOADS", loads),
            ("LINES", lines),
            ("EARLY", flag(early)),
            ("LATE", flag(!early)),
            ("GAINED", gained.to_string()),
            ("SIZED", if spec.norm.is_some() { " * size" } else { "" }.to_string()),
            ("STORES", flag(self.store)),
            ("OUT", post::element(&spec.out, "row", "column")),
            ("PARTS_EACH", parts_each),
            ("SUM", sum.to_string()),
            ("SQUARE", square.to_string()),
            ("HALF", half.to_string()),
            ("ACC", acc),
            ("DOT", dot.to_string()),
            ("FLIP", flip.to_string()),
            ("SIZE", size.to_string()),
            ("EPS", float(spec.norm.map_or(0.0, |norm| norm.eps))),
            ("OUTPUTS", outputs.to_string()),
            ("TOKENS", self.rows.to_string()),
            ("CHUNK", chunk.to_string()),
            ("RAGGED", flag(!weights.units().is_multiple_of(lanes * chunk))),
            ("PARTS", (weights.columns() / 16).to_string()),
            ("FOUR", "4".to_string()),
            ("SECOND", flag(second)),
            ("NORM", flag(spec.norm.is_some())),
            ("GLU", flag(spec.glu.is_some())),
            ("NEXT", flag(self.next.is_some())),
        ]);
        let name = spec.name(&self.kind()) + if self.next.is_some() { " next" } else { "" };
        let source = render(include_str!("../../wgsl/matvec_row.wgsl"), &values);
        let grid = [Extent::Const(grid), Extent::Const(groups.div_ceil(grid)), Extent::Const(1)];
        bindings.kernel(name, source, grid)
    }

    fn kind(&self) -> String {
        if self.rows == 1 { "matvec row".to_string() } else { format!("matvec {} rows", self.rows) }
    }

    /// The bindings, and the functions of `weights` and `round_quad`.
    fn parts(&self, caps: &Caps, weights: &Weights, threads: u32) -> (Bindings, String) {
        let spec = &self.matmul;
        let mut bindings = Bindings::step();
        bindings.read("x", "vec4<u32>");
        weights.bind(&mut bindings);
        let mut functions = weights.source();
        if spec.bias {
            bindings.read("bias", "f32");
        }
        post::bind(&spec.post, &mut bindings);
        match &self.next {
            Some(next) => functions += &next.functions(&mut bindings, caps, threads),
            None => functions += include_str!("../../wgsl/rounding.wgsl"),
        }
        if self.store {
            bindings.write("out", "f32");
        }
        if self.next.is_some() {
            Rounded::bind_out(&mut bindings);
        }
        (bindings, functions + post::FUNCTIONS)
    }

    /// Lines that load what an output takes besides its sum, for each of four outputs, and lines that
    /// finish one of them.
    fn besides(&self) -> (String, String) {
        let spec = &self.matmul;
        let mut loads = String::new();
        let mut lines = String::new();
        let mut load = |name: &str, element: &dyn Fn(&str) -> String| {
            let column = |c: u32| format!("(FIRST + min(group_first + 4u * early_quad + {c}u, N - 1u))");
            let values = [0, 1, 2, 3].map(|c| element(&column(c))).join(", ");
            loads += &format!("let early_{name} = vec4<f32>({values});\n");
        };
        if spec.bias {
            load("bias", &|column| format!("bias[{column}]"));
            lines += "v += early_bias[{{c}}];\n";
        }
        if let Some(f) = spec.glu {
            let mut b = "b";
            if spec.bias {
                load("second_bias", &|column| format!("bias[{}u + {column}]", spec.out.width()));
                b = "(b + early_second_bias[{{c}}])";
            }
            lines += &format!("v = {} * {b};\n", post::activation(f, "v"));
        }
        for (i, step) in spec.post.iter().enumerate() {
            if let Post::Add(view) | Post::Mul(view) = step {
                load(&format!("post{i}"), &|column| format!("post{i}[{}]", post::element(view, "early_row", column)));
            }
        }
        lines += &post::lines_of(&spec.post, |i, _| format!("early_post{i}[{{{{c}}}}]"));
        if self.next.is_some_and(|next| next.gain) {
            loads += "let early_gain = next_gain(0u, min(group_first / 4u + early_quad, N / 4u - 1u));\n";
        }
        (loads, lines)
    }
}

/// A unit's integer sums are scaled together: a unit of x, or half of one.
fn units(format: Format, k: u32) -> Weights {
    Weights::new(format, k, UNIT)
}
