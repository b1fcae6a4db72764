//! A matrix times one to eight rows: every weight is read once, and bandwidth is what counts.

use super::{MatMul, values};
use crate::template::{float, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Kernel};

/// How a matrix-vector kernel shares out its work. Any values give right results: what a device or
/// a format cannot do is replaced by the nearest that it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuning {
    /// Outputs that a team computes together: each activation it loads serves so many weights.
    pub outputs: u32,
    /// Invocations in a team, which share out the columns; a power of two, no less than a subgroup.
    pub lanes: u32,
    /// Teams in a workgroup.
    pub teams: u32,
    /// Columns that an invocation loads together, in one vector of 1, 2 or 4 words: 16 to 64 at 2
    /// bits, 8 to 32 at 4 bits, 4 to 16 at 8 bits, 4 or 8 in half floats; other formats have one way.
    pub columns: u32,
}

impl Tuning {
    /// What did best over the shapes of common models on an H100, see docs/performance.md: few columns
    /// at a time, so that neighbours read adjacent words, two outputs a team, and two subgroups of 32 a
    /// team. Long or few rows take more lanes; a vocabulary takes more outputs.
    pub fn default_for(spec: &MatMul, caps: &Caps, rows: u32) -> Tuning {
        const FEW: u32 = 6144;
        const LONG: u32 = 8192;
        const MANY: u32 = 1 << 16;
        let outputs = if spec.n >= MANY { 4 } else { 2 };
        let outputs = (outputs / spec.matrices()).min(16 / (rows.max(1) * spec.matrices())).max(1);
        let lanes = if spec.n < FEW || spec.k >= LONG { 128 } else { 64 };
        let lanes = usable_subgroups(caps).map_or(lanes, |(_, max)| max.max(lanes));
        Tuning { outputs, lanes, teams: (256 / lanes).max(1), columns: 8 }
    }

    /// What a search over this device's possibilities tries, the default first.
    pub(super) fn candidates(spec: &MatMul, caps: &Caps, rows: u32) -> Vec<Tuning> {
        let default = Tuning::default_for(spec, caps, rows);
        let others = [1, 2, 4].into_iter().flat_map(|outputs| {
            [32, 64, 128].map(|lanes| Tuning { outputs, lanes, teams: (256 / lanes).max(1), ..default })
        });
        distinct(std::iter::once(default).chain(others).map(|t| t.fit(spec, caps, rows)))
    }

    /// The nearest that the device can do.
    fn fit(self, spec: &MatMul, caps: &Caps, rows: u32) -> Tuning {
        let subgroup = usable_subgroups(caps).map_or(1, |(_, max)| max);
        let size = 1 << caps.workgroup_size.max(1).ilog2();
        let lanes = self.lanes.clamp(1, size).next_power_of_two().max(subgroup);
        let teams = self.teams.clamp(1, size / lanes);
        // More sums than this do not stay in registers.
        let outputs = self.outputs.clamp(1, (64 / (rows * spec.matrices())).clamp(1, 8));
        let mut tuning = Tuning { outputs, lanes, teams, ..self };
        while tuning.memory(spec, caps, rows) > caps.workgroup_memory {
            match tuning {
                Tuning { outputs: 2.., .. } => tuning.outputs /= 2,
                Tuning { teams: 2.., .. } => tuning.teams /= 2,
                _ if tuning.lanes > subgroup => tuning.lanes /= 2,
                _ => break,
            }
        }
        tuning
    }

    fn size(&self) -> u32 {
        self.lanes * self.teams
    }

    /// Values that a team sums: every output of every row, and the squares of every row.
    fn values(&self, spec: &MatMul, rows: u32) -> u32 {
        self.outputs * rows * spec.matrices() + if spec.norm.is_some() { rows } else { 0 }
    }

    /// Places for partial sums: one for each value of each subgroup, or of each team.
    fn partials(&self, spec: &MatMul, caps: &Caps, rows: u32) -> u32 {
        let parts = usable_subgroups(caps).map_or(self.teams, |(min, _)| self.size() / min);
        parts * self.values(spec, rows)
    }

    /// Bytes of workgroup memory.
    fn memory(&self, spec: &MatMul, caps: &Caps, rows: u32) -> u32 {
        let terms = if usable_subgroups(caps).is_some() { 0 } else { self.size() };
        4 * (terms + self.partials(spec, caps, rows))
    }
}

/// Without repetitions, in order.
pub(super) fn distinct<T: PartialEq>(list: impl Iterator<Item = T>) -> Vec<T> {
    list.fold(Vec::new(), |mut kept, item| {
        if !kept.contains(&item) {
            kept.push(item);
        }
        kept
    })
}

/// The subgroup sizes, where a workgroup can be made of whole subgroups.
pub(crate) fn usable_subgroups(caps: &Caps) -> Option<(u32, u32)> {
    caps.subgroups.filter(|(min, max)| *min > 0 && *max <= caps.workgroup_size)
}

/// For steps of up to `rows` rows, 1 to 8.
pub fn vector(spec: &MatMul, caps: &Caps, rows: u32) -> Kernel {
    vector_with(spec, caps, rows, Tuning::default_for(spec, caps, rows))
}

/// [`vector`] with its work shared out in a given way.
pub fn vector_with(spec: &MatMul, caps: &Caps, rows: u32, tuning: Tuning) -> Kernel {
    let rows = rows.clamp(1, 8);
    let tuning = tuning.fit(spec, caps, rows);
    let weights = Weights::new(spec.format, spec.k, tuning.columns);
    let (bindings, functions) = spec.parts(&weights);
    let groups = spec.n.div_ceil(tuning.outputs * tuning.teams);
    let grid = groups.min(32_768);
    let sizes = [
        ("N", spec.n),
        ("LANES", tuning.lanes),
        ("TEAMS", tuning.teams),
        ("VALUES", tuning.values(spec, rows)),
        ("SQUARES", tuning.outputs * rows * spec.matrices()),
        ("PARTIALS", tuning.partials(spec, caps, rows)),
        ("GRID", grid),
    ];
    // With one row, scaling sums is cheaper than scaling weights; with several, the scaled weight
    // serves them all.
    let late = weights.is_affine() && rows == 1;
    let weight = if weights.is_affine() {
        "s{{g}}_{{r}}.x * run(q{{g}}_{{r}}, {{j}}u) + s{{g}}_{{r}}.y"
    } else {
        "run(q{{g}}_{{r}}, {{j}}u)"
    };
    let gain =
        if spec.norm.is_some_and(|norm| norm.weight) { "gain(0u, unit * RUNS + {{j}}u)" } else { "vec4<f32>(1.0)" };
    let mut values = values(spec, &bindings, functions, &sizes);
    values.extend(reduction(caps));
    values.extend([
        ("SIZE", tuning.size().to_string()),
        ("WEIGHT", weight.to_string()),
        ("GAIN", gain.to_string()),
        ("EPS", float(spec.norm.map_or(0.0, |norm| norm.eps))),
        ("OUTPUTS", tuning.outputs.to_string()),
        ("TOKENS", rows.to_string()),
        ("RUNS", weights.runs().to_string()),
        ("NORM", flag(spec.norm.is_some())),
        ("GLU", flag(spec.glu.is_some())),
        ("AFFINE", flag(weights.is_affine())),
        ("LATE", flag(late)),
        ("EARLY", flag(!late)),
    ]);
    let name = spec.name(if rows == 1 { "matvec".to_string() } else { format!("matvec{rows}") }.as_str());
    let source = render(include_str!("../../wgsl/matvec.wgsl"), &values);
    bindings.kernel(name, source, [Extent::Const(grid), Extent::Const(groups.div_ceil(grid)), Extent::Const(1)])
}

/// How a team's sums come together.
pub(crate) fn reduction(caps: &Caps) -> [(&'static str, String); 3] {
    let [reduce, parameters, place] = match usable_subgroups(caps) {
        Some(_) => [
            include_str!("../../wgsl/reduce_subgroups.wgsl"),
            "@builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, \
             @builtin(subgroup_invocation_id) lane: u32",
            "place_of(subgroup, subgroups, lane)",
        ],
        None => [
            include_str!("../../wgsl/reduce_tree.wgsl"),
            "@builtin(local_invocation_index) thread: u32",
            "place_of(thread)",
        ],
    };
    [("REDUCE", reduce.to_string()), ("PARAMETERS", parameters.to_string()), ("PLACE", place.to_string())]
}

pub(super) fn flag(on: bool) -> String {
    u32::from(on).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Scales, View};

    #[test]
    fn narrow_and_long_matrices_get_more_lanes() {
        let caps = Caps {
            subgroups: Some((32, 32)),
            f16: true,
            workgroup_memory: 48 << 10,
            workgroup_size: 1024,
            binding_size: 1 << 30,
        };
        // n, k, then outputs and lanes.
        let cases = [(28_672, 4096, 2, 64), (4096, 14_336, 2, 128), (2560, 2560, 2, 128), (128_256, 2048, 4, 64)];
        for (n, k, outputs, lanes) in cases {
            let spec = MatMul {
                rows: 0,
                n,
                k,
                format: Format::Affine { bits: 4, group: 32, scales: Scales::F16 },
                x: View::rows(k),
                norm: None,
                bias: false,
                glu: None,
                post: Vec::new(),
                first: 0,
                out: View::rows(n),
            };
            let tuning = Tuning::default_for(&spec, &caps, 1);
            assert_eq!((tuning.outputs, tuning.lanes), (outputs, lanes), "{n}x{k}");
        }
    }
}
