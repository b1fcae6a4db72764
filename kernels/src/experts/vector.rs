//! Few rows: each reads the matrices of its experts, and bandwidth is what counts.

use super::{Experts, route_functions};
use crate::matmul::{reduction, usable_subgroups};
use crate::template::{consts, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Kernel};

/// Columns that an invocation loads together.
const COLUMNS: u32 = 8;
/// Invocations in a workgroup.
const SIZE: u32 = 128;

impl Experts {
    /// For steps of any number of rows, but best for few. Bindings: step, x, quants, scales, the route, bias,
    /// what `post` takes, out.
    pub fn vector(&self, caps: &Caps) -> Kernel {
        let weights = Weights::new(self.format, self.k, COLUMNS);
        let (mut bindings, mut functions) = self.inputs(&weights);
        let route = route_functions(&mut bindings, &self.route);
        functions += &self.outputs(&mut bindings, "expert_of(row, c % TOP_K)");
        let subgroup = usable_subgroups(caps);
        let size = (1 << caps.workgroup_size.max(1).ilog2()).min(SIZE);
        let choices = if self.sum { self.top_k } else { 1 };
        // A lane without a unit has nothing to do.
        let wanted = (choices * weights.units()).next_power_of_two().clamp(32, size);
        let lanes = subgroup.map_or(wanted, |(_, max)| max.max(wanted)).min(size);
        let teams = size / lanes;
        let outputs = if self.gate.is_some() { 1 } else { 2 };
        let sums = outputs * self.matrices();
        let parts = subgroup.map_or(teams, |(min, _)| size / min);
        let groups = self.n.div_ceil(outputs * teams);
        let grid = groups.min(32_768);
        let sizes = [
            ("N", self.n),
            ("TOP_K", self.top_k),
            ("CHOICES", choices),
            ("FIRST_EXPERT", self.first_expert),
            ("HELD", self.held),
            ("LANES", lanes),
            ("TEAMS", teams),
            ("VALUES", sums),
            ("PARTIALS", parts * sums),
            ("GRID", grid),
        ];
        let by_choice = self.x.width() != self.k;
        let quantized = weights.is_affine();
        let term =
            if quantized { "fma(s{{g}}_{{r}}.x, dot{{g}}_{{r}}, s{{g}}_{{r}}.y * all)" } else { "dot{{g}}_{{r}}" };
        let flag = |on: bool| u32::from(on).to_string();
        let mut values = vec![
            ("SIZES", consts(&sizes)),
            ("BINDINGS", bindings.declarations()),
            ("ROUTE", route),
            ("FUNCTIONS", functions),
            ("MATRICES", self.matrices().to_string()),
        ];
        values.extend(reduction(caps));
        values.extend([
            ("SIZE", size.to_string()),
            ("OUTPUTS", outputs.to_string()),
            ("RUNS", weights.runs().to_string()),
            ("X_ROW", if by_choice { "row * TOP_K + slot" } else { "row" }.to_string()),
            ("TERM", if self.sum { format!("weight * {term}") } else { term.to_string() }),
            ("HOLDS", if self.sum { "true" } else { "expert_of(row, slot0) - FIRST_EXPERT < HELD" }.to_string()),
            ("SUM", flag(self.sum)),
            ("SCALED", flag(quantized)),
            ("GATE", flag(self.gate.is_some())),
        ]);
        let source = render(include_str!("../../wgsl/experts/vector.wgsl"), &values);
        let rows = if self.sum { Extent::Rows(1) } else { Extent::Choices { each: self.top_k, per: 1, more: 0 } };
        bindings.kernel(self.name("matvec"), source, [Extent::Const(grid), Extent::Const(groups.div_ceil(grid)), rows])
    }
}
