//! Rows of a table.

use crate::common::Lanes;
use crate::rounded::Rounded;
use crate::template::{Bindings, consts, float, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Format, Kernel, View, post, step};

/// `out[r] = scale * table[id of r]`.
///
/// Bindings: 0 the step, the sampled tokens (`array<u32>`, one a slot), the ids where they are [`Ids::Computed`], quants,
/// scales (an affine format), the next norm's weight if `next` has one, out, the rounded rows if there is a `next`. A token
/// word with [`step::SAMPLED`] set is the slot whose token is meant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Embedding {
    /// The header word of the step buffer that holds the number of rows.
    pub rows: u32,
    /// Where it says which row of the table.
    pub ids: Ids,
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
    /// The rows, rounded.
    pub next: Option<Rounded>,
}

/// Where ids are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Ids {
    /// In this word of a row's record: [`step::ROW_TOKEN`] or [`step::ROW_ADAPTER`].
    Step(u32),
    /// In an f32 of each row: whole numbers up to 2^24.
    Computed(View),
}

/// Invocations of a workgroup: four rows.
const THREADS: u32 = 256;

/// The kernel of a lookup.
pub fn embedding(spec: &Embedding, caps: &Caps) -> Kernel {
    let weights = Weights::new(spec.format, spec.dim, 16);
    let mut bindings = Bindings::step();
    bindings.read("sampled", "u32");
    let id = match &spec.ids {
        Ids::Step(word) => {
            let (rows_at, words) = (step::HEADER_WORDS, step::ROW_WORDS);
            format!("step[{rows_at}u + at * {words}u + {word}u]")
        }
        Ids::Computed(view) => {
            bindings.read("ids", "f32");
            format!("u32(clamp(ids[{}], 0.0, 16777216.0))", post::element(view, "at", "0u"))
        }
    };
    weights.bind(&mut bindings);
    let next = spec.next.as_ref().map(|next| next.functions(&mut bindings, caps, THREADS)).unwrap_or_default();
    bindings.write("out", "f32");
    if spec.next.is_some() {
        Rounded::bind_out(&mut bindings);
    }
    let gained = if spec.next.is_some_and(|next| next.gain) { " * next_gain(0u, quad)" } else { "" };
    let quads = spec.dim.div_ceil(4);
    let mut values = Lanes { threads: THREADS, lanes: 1, element: "f32" }.values(caps);
    values.extend([
        ("SIZES", consts(&[("QUADS", quads), ("FIRST", spec.first), ("COUNT", spec.count), ("TOTAL", spec.total)])),
        ("BINDINGS", bindings.declarations()),
        ("FUNCTIONS", weights.source() + &next),
        ("NEXT", u32::from(spec.next.is_some()).to_string()),
        ("GAINED", gained.to_string()),
        ("ROWS", format!("{}u", spec.rows)),
        ("ID", id),
        ("SAMPLED", step::SAMPLED.to_string()),
        ("SCALE", float(spec.scale)),
        ("OUT", post::element(&spec.out, "row", "column")),
    ]);
    let source = render(include_str!("../wgsl/embedding.wgsl"), &values);
    let name = format!("embedding {} {}x{}", spec.format, spec.count, spec.dim);
    bindings.kernel(name, source, [Extent::Rows(4), Extent::Const(quads.div_ceil(64)), Extent::Const(1)])
}
