//! A matrix times many rows: every weight serves all rows of a tile, and arithmetic is what counts.

use super::{MatMul, values};
use crate::template::render;
use crate::weights::Weights;
use crate::{Caps, Extent, Kernel};

/// What one invocation of the 16 by 16 of a workgroup computes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tile {
    /// Rows, 4 or 8: a workgroup takes 16 times as many.
    pub rows: u32,
    /// Outputs of each row, 4 or 8: a workgroup takes 16 times as many.
    pub outputs: u32,
}

impl Tile {
    /// The smallest: short prompts leave little of it empty, and it fits the 16 KiB of
    /// workgroup memory that WebGPU promises.
    pub const SMALL: Tile = Tile { rows: 4, outputs: 4 };

    /// Each weight serves twice the rows: best for many.
    pub const TALL: Tile = Tile { rows: 8, outputs: 4 };

    /// The nearest that there is.
    pub(super) fn whole(self) -> Tile {
        Tile { rows: if self.rows < 8 { 4 } else { 8 }, outputs: if self.outputs < 8 { 4 } else { 8 } }
    }

    fn fit(self, spec: &MatMul, caps: &Caps) -> Tile {
        let tile = self.whole();
        let vectors = 16 * 5 * (tile.rows + tile.outputs * spec.matrices());
        if vectors * 16 <= caps.workgroup_memory { tile } else { Tile::SMALL }
    }

    /// Its size, and what it ends with: with two matrices, the sums of the second are handed on, too.
    pub(crate) fn values(self, matrices: u32) -> [(&'static str, String); 4] {
        [
            ("FINISH_TILE", include_str!("../../wgsl/finish_tile.wgsl").to_string()),
            ("M", self.rows.to_string()),
            ("N", self.outputs.to_string()),
            ("OTHER", if matrices == 2 { "acc1_{{i}}_{{j}}" } else { "0.0" }.to_string()),
        ]
    }

    /// How often 64 rows of each side are loaded.
    pub(crate) fn stages(self) -> [(&'static str, String); 2] {
        [("STAGES_X", (self.rows / 4).to_string()), ("STAGES_W", (self.outputs / 4).to_string())]
    }
}

/// For any number of rows. The host runs a norm apart: `spec.norm` is none.
pub fn tiled(spec: &MatMul, caps: &Caps) -> Kernel {
    tiled_with(spec, caps, Tile::SMALL)
}

/// [`tiled`] for steps of so many rows, where many are more than 64.
pub fn tiled_for(spec: &MatMul, caps: &Caps, rows: u32) -> Kernel {
    tiled_with(spec, caps, if rows > 64 { Tile::TALL } else { Tile::SMALL })
}

/// [`tiled`] with tiles of a given size.
pub fn tiled_with(spec: &MatMul, caps: &Caps, tile: Tile) -> Kernel {
    let tile = tile.fit(spec, caps);
    let weights = Weights::new(spec.format, spec.k, 16);
    let spec = &MatMul { norm: None, ..spec.clone() };
    let (bindings, mut functions) = spec.parts(&weights);
    functions += include_str!("../../wgsl/matmul_rows.wgsl");
    let sizes = [("OUTPUTS", spec.n), ("QUADS", spec.k.div_ceil(4))];
    let mut values = values(spec, &bindings, functions, &sizes);
    values.extend(tile.values(spec.matrices()));
    values.extend(tile.stages());
    let source = render(include_str!("../../wgsl/matmul.wgsl"), &values);
    let grid = [Extent::Rows(16 * tile.rows), Extent::Const(spec.n.div_ceil(16 * tile.outputs)), Extent::Const(1)];
    bindings.kernel(spec.name("matmul"), source, grid)
}
