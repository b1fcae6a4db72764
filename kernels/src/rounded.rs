//! Activations rounded to planes of 8 bits, by the kernel that makes them: products with quantized
//! weights take them as they are, and none of their workgroups has to round anything.
//!
//! Rows lie one after the other, [`words`] words each. One of `k` columns, a multiple of 32, is made of units of
//! 32 columns. In vectors of four words:
//!
//! - from `(2 * plane + half) * units`, for each unit its first or second 16 columns in that plane, a
//!   signed byte each;
//! - from `2 * planes * units`, a record for each unit: as f32 what 1 in the first plane is worth, the
//!   sum of the first 16 columns as rounded, that of the others, and the sum of squares of the values
//!   as they were before the norm's weight.
//!
//! The second plane is what rounding left of the first, in parts of 254. A norm's weight is multiplied
//! in before rounding; its division by the root mean square is left to the product's end, for which
//! the squares are there.

use crate::Caps;
use crate::matmul::Precision;
use crate::template::{Bindings, consts, render};
use crate::weights::columns;

/// Columns that are rounded together.
pub const UNIT: u32 = 32;

/// What a kernel does for the products that follow: it also stores its results rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rounded {
    /// Columns of the whole row; a multiple of [`UNIT`].
    pub columns: u32,
    /// To how many bits; not [`Precision::Full`].
    pub precision: Precision,
    /// Whether the weight of a norm is multiplied in, f32 \[columns\].
    pub gain: bool,
}

/// Words of a rounded row.
pub fn words(columns: u32, precision: Precision) -> u32 {
    columns / UNIT * 4 * (2 * precision.planes() + 1)
}

impl Rounded {
    /// The binding of the norm's weight if there is one, and the function `round_quad` for a workgroup of
    /// `threads`. [`Rounded::bind_out`] follows.
    pub(crate) fn functions(&self, bindings: &mut Bindings, caps: &Caps, threads: u32) -> String {
        let gain = if self.gain { columns(bindings, "next_gain", 0, 0, self.columns) } else { String::new() };
        let units = self.columns / UNIT;
        let records = 2 * self.precision.planes() * units;
        let words = words(self.columns, self.precision);
        let sizes = consts(&[
            ("NEXT_THREADS", threads),
            ("NEXT_UNITS", units),
            ("NEXT_RECORDS", records),
            ("NEXT_WORDS", words),
        ]);
        let shuffles = caps.subgroups.is_some_and(|(min, _)| min >= 8);
        let values = [
            ("SECOND", u32::from(self.precision.planes() == 2).to_string()),
            ("EIGHT", "8".to_string()),
            ("EIGHT_SHUFFLES", if shuffles { "3" } else { "0" }.to_string()),
            ("EIGHT_SCRATCH", u32::from(!shuffles).to_string()),
        ];
        let round = render(include_str!("../wgsl/rounded.wgsl"), &values);
        [&gain, include_str!("../wgsl/rounding.wgsl"), &sizes, &round].concat()
    }

    /// The functions `keep` and `round_tile` besides, for a workgroup that makes `tile` columns.
    pub(crate) fn tile_functions(&self, bindings: &mut Bindings, caps: &Caps, threads: u32, tile: u32) -> String {
        let gained = if self.gain { " * next_gain(0u, min(first_quad + quad, NEXT_UNITS * 8u - 1u))" } else { "" };
        let tile_source = render(include_str!("../wgsl/rounded_tile.wgsl"), &[("GAINED", gained.to_string())]);
        self.functions(bindings, caps, threads) + &consts(&[("TILE_QUADS", tile / 4)]) + &tile_source
    }

    /// The binding of the rounded row.
    pub(crate) fn bind_out(bindings: &mut Bindings) {
        bindings.write("next", "u32");
    }
}
