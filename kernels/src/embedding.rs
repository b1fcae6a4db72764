//! Rows of a table.

use crate::template::{Bindings, consts, float, render};
use crate::weights::Weights;
use crate::{Extent, Format, Kernel, View, post, step};

/// `out[r] = scale * table[token of r]`.
///
/// Bindings: 0 the step, the sampled tokens (`array<u32>`, one a slot), quants, scales (an affine
/// format), out. A token word with [`step::SAMPLED`] set is the slot whose token is meant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Embedding {
    /// The header word of the step buffer that holds the number of rows.
    pub rows: u32,
    /// The word of a row's record that says which row of the table: [`step::ROW_TOKEN`] or [`step::ROW_ADAPTER`].
    pub index: u32,
    /// First table row that this dispatch's buffer holds.
    pub first: u32,
    /// Table rows that it holds. A token outside leaves its row of `out` as it is.
    pub count: u32,
    /// Rows of the whole table. Tokens beyond it take row 0.
    pub total: u32,
    /// Columns of the table, a multiple of [`Format::block`].
    pub dim: u32,
    /// How the table is stored.
    pub format: Format,
    /// Factor on every element.
    pub scale: f32,
    /// Where the rows go.
    pub out: View,
}

/// The kernel of a lookup.
pub fn embedding(spec: &Embedding) -> Kernel {
    let weights = Weights::new(spec.format, spec.dim, 16);
    let mut bindings = Bindings::step();
    bindings.read("sampled", "u32");
    weights.bind(&mut bindings);
    bindings.write("out", "f32");
    let quads = spec.dim.div_ceil(4);
    let values = [
        ("SIZES", consts(&[("QUADS", quads), ("FIRST", spec.first), ("COUNT", spec.count), ("TOTAL", spec.total)])),
        ("BINDINGS", bindings.declarations()),
        ("FUNCTIONS", weights.source()),
        ("ROWS", format!("{}u", spec.rows)),
        ("ROWS_AT", format!("{}u", step::HEADER_WORDS)),
        ("ROW_WORDS", step::ROW_WORDS.to_string()),
        ("ROW_TOKEN", spec.index.to_string()),
        ("SAMPLED", step::SAMPLED.to_string()),
        ("SCALE", float(spec.scale)),
        ("OUT", post::element(&spec.out, "row", "column")),
    ];
    let source = render(include_str!("../wgsl/embedding.wgsl"), &values);
    let name = format!("embedding {} {}x{}", spec.format, spec.count, spec.dim);
    bindings.kernel(name, source, [Extent::Rows(4), Extent::Const(quads.div_ceil(64)), Extent::Const(1)])
}
