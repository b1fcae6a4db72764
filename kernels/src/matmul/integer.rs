//! A quantized matrix times one to eight rows, in integers: four products and sums an instruction.
//!
//! Unpacking weights to floats costs more instructions than multiplying them, so that wide memories
//! wait for arithmetic. Here x is rounded instead, once in each workgroup.

use super::vector::{distinct, flag, reduction, usable_subgroups};
use super::{MatMul, values};
use crate::template::{float, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Format, Kernel};

/// To how many bits activations are rounded for products with quantized weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Precision {
    /// Not at all: f32.
    Full,
    /// Two planes of 8 bits, about 1/64,000 of the largest of 32 neighbours: f32's results.
    #[default]
    High,
    /// One plane of 8 bits.
    Fast,
}

impl std::str::FromStr for Precision {
    type Err = String;

    /// `full`, `high` or `fast`.
    fn from_str(name: &str) -> Result<Precision, String> {
        match name {
            "full" => Ok(Precision::Full),
            "high" => Ok(Precision::High),
            "fast" => Ok(Precision::Fast),
            _ => Err(format!("expected full, high or fast, found `{name}`")),
        }
    }
}

impl Precision {
    /// Planes of 8 bits.
    pub(crate) fn planes(self) -> u32 {
        if self == Precision::Fast { 1 } else { 2 }
    }
}

/// How an integer kernel shares out its work. Any values give right results: what a device or a
/// format cannot do is replaced by the nearest that it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IntegerTuning {
    /// Outputs that a team computes together.
    pub outputs: u32,
    /// Invocations in a team, which share out the columns; a power of two, no less than a subgroup.
    pub lanes: u32,
    /// Teams in a workgroup.
    pub teams: u32,
    /// How often a workgroup takes the next outputs: x is rounded once for all of them.
    pub batches: u32,
}

impl IntegerTuning {
    /// What did best over the shapes of common models on an H100, see docs/performance.md: every
    /// workgroup rounds x anew, so that large ones pay where x is long or outputs are few; elsewhere
    /// several outputs share each load of x.
    pub fn default_for(spec: &MatMul, caps: &Caps, rows: u32) -> IntegerTuning {
        const LONG: u32 = 8192;
        const MANY: u32 = 6144;
        let (outputs, lanes, size) = match () {
            _ if spec.k >= LONG => (2, 64, 1024),
            _ if spec.n >= MANY => (4, 32, 256),
            _ => (1, 32, 1024),
        };
        let outputs = outputs.min(16 / (rows.max(1) * spec.matrices())).max(1);
        let lanes = usable_subgroups(caps).map_or(lanes, |(_, max)| max.max(lanes));
        IntegerTuning { outputs, lanes, teams: (size / lanes).max(1), batches: 1 }
    }

    /// What a search over this device's possibilities tries, the default first: of all combinations
    /// those that were the best for some matrix.
    pub(super) fn candidates(spec: &MatMul, caps: &Caps, rows: u32) -> Vec<IntegerTuning> {
        let others = [
            (4, 32, 8, 1),
            (4, 32, 8, 2),
            (2, 32, 8, 2),
            (2, 32, 16, 1),
            (1, 32, 16, 1),
            (1, 32, 32, 1),
            (2, 64, 16, 1),
            (1, 64, 16, 1),
            (2, 64, 8, 4),
            (4, 128, 4, 2),
        ];
        let others = others.map(|(outputs, lanes, teams, batches)| IntegerTuning { outputs, lanes, teams, batches });
        let default = IntegerTuning::default_for(spec, caps, rows);
        distinct(std::iter::once(default).chain(others).map(|t| t.fit(spec, caps, rows)))
    }

    fn fit(self, spec: &MatMul, caps: &Caps, rows: u32) -> IntegerTuning {
        let subgroup = usable_subgroups(caps).map_or(1, |(_, max)| max);
        let size = 1 << caps.workgroup_size.max(1).ilog2();
        let lanes = self.lanes.clamp(1, size).next_power_of_two().max(subgroup);
        let teams = self.teams.clamp(1, size / lanes);
        let outputs = self.outputs.clamp(1, (64 / (rows * spec.matrices())).clamp(1, 8));
        let batches = self.batches.clamp(1, spec.n.div_ceil(outputs * teams).max(1));
        IntegerTuning { outputs, lanes, teams, batches }
    }

    fn size(&self) -> u32 {
        self.lanes * self.teams
    }

    fn values(&self, spec: &MatMul, rows: u32) -> u32 {
        self.outputs * rows * spec.matrices() + if spec.norm.is_some() { rows } else { 0 }
    }

    fn partials(&self, spec: &MatMul, caps: &Caps, rows: u32) -> u32 {
        let parts = usable_subgroups(caps).map_or(self.teams, |(min, _)| self.size() / min);
        parts * self.values(spec, rows)
    }

    /// Bytes of workgroup memory.
    fn memory(&self, spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> u32 {
        let terms = if usable_subgroups(caps).is_some() { 0 } else { self.size() };
        let x = rows * (spec.k * precision.planes() + 8 * units(spec).units());
        x + 4 * (terms + self.partials(spec, caps, rows))
    }
}

/// A unit's integer sums are scaled together: 32 columns where the format allows.
pub(super) fn units(spec: &MatMul) -> Weights {
    Weights::new(spec.format, spec.k, 32)
}

/// What q is changed by so that its bytes are signed, by how much that makes it too small, and the middle
/// of its range: eight bits are one too many for a signed byte, without the highest they count from -128.
pub(super) fn zero(format: Format) -> (&'static str, f32, f32) {
    match format {
        Format::Affine { bits: 8, .. } => ("0x80808080u", 128.0, 128.0),
        Format::Affine { bits, .. } => ("0u", 0.0, (1u32 << (bits - 1)) as f32),
        _ => ("0u", 0.0, 0.0),
    }
}

/// For steps of up to `rows` rows, 1 to 8; none where the weights are not quantized, or x does not
/// fit into workgroup memory.
pub fn integer(spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> Option<Kernel> {
    integer_with(spec, caps, rows, precision, IntegerTuning::default_for(spec, caps, rows))
}

/// [`integer`] with its work shared out in a given way.
pub fn integer_with(
    spec: &MatMul,
    caps: &Caps,
    rows: u32,
    precision: Precision,
    tuning: IntegerTuning,
) -> Option<Kernel> {
    let rows = rows.clamp(1, 8);
    let tuning = tuning.fit(spec, caps, rows);
    let weights = units(spec);
    let fits = tuning.memory(spec, caps, rows, precision) <= caps.workgroup_memory;
    if !weights.are_integers() || precision == Precision::Full || !fits || !weights.columns().is_multiple_of(16) {
        return None;
    }
    let (bindings, functions) = spec.parts(&weights);
    let groups = spec.n.div_ceil(tuning.outputs * tuning.teams * tuning.batches);
    let grid = groups.min(32_768);
    let parts = weights.columns() / 16;
    let sizes = [
        ("N", spec.n),
        ("LANES", tuning.lanes),
        ("TEAMS", tuning.teams),
        ("BATCHES", tuning.batches),
        ("PARTS", parts),
        ("PLANE", rows * parts * weights.units()),
        ("VALUES", tuning.values(spec, rows)),
        ("SQUARES", tuning.outputs * rows * spec.matrices()),
        ("PARTIALS", tuning.partials(spec, caps, rows)),
        ("GRID", grid),
    ];
    let gain = match spec.norm {
        Some(norm) if norm.weight => "gain(0u, unit * RUNS + {{j}}u)",
        _ => "vec4<f32>(1.0)",
    };
    let (flip, zero, _) = zero(spec.format);
    let second = precision.planes() == 2;
    let dot = if second { "f32(dot) + f32(fine_dot) / FINE" } else { "f32(dot)" };
    let mut values = values(spec, &bindings, functions, &sizes);
    values[0].1 += include_str!("../../wgsl/rounding.wgsl");
    values[0].1 += &format!("const ZERO: f32 = {};\n", float(zero));
    values.extend(reduction(caps));
    values.extend(round_unit("(token * PARTS + {{j}}u / 4u) * UNITS + unit"));
    values.extend([
        ("SIZE", tuning.size().to_string()),
        ("GAIN", gain.to_string()),
        ("EPS", float(spec.norm.map_or(0.0, |norm| norm.eps))),
        ("OUTPUTS", tuning.outputs.to_string()),
        ("TOKENS", rows.to_string()),
        ("BATCHES", tuning.batches.to_string()),
        ("RUNS", weights.runs().to_string()),
        ("UNIT_PARTS", parts.to_string()),
        ("FOUR", "4".to_string()),
        ("PLANES", precision.planes().to_string()),
        ("SECOND", flag(second)),
        ("NORM", flag(spec.norm.is_some())),
        ("GLU", flag(spec.glu.is_some())),
        ("FLIP", flip.to_string()),
        ("DOT", dot.to_string()),
        ("SUM", dot.replace("dot", "sum")),
    ]);
    let name = spec.name(if rows == 1 { "matvec int".to_string() } else { format!("matvec{rows} int") }.as_str());
    let source = render(include_str!("../../wgsl/matvec_integer.wgsl"), &values);
    Some(bindings.kernel(name, source, [Extent::Const(grid), Extent::Const(groups.div_ceil(grid)), Extent::Const(1)]))
}

/// How a unit is rounded, whose run `j` of four columns goes to place `at` of each plane.
pub(super) fn round_unit(at: &str) -> [(&'static str, String); 2] {
    [("ROUND_UNIT", include_str!("../../wgsl/round_unit.wgsl").to_string()), ("RUN_AT", at.to_string())]
}
