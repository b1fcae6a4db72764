//! Many rows, sorted by expert: every matrix is read once, and serves a tile of rows at a time.

use super::{Experts, TILE};
use crate::template::{consts, render};
use crate::weights::Weights;
use crate::{Caps, Extent, Kernel, matmul::Tile};

impl Experts {
    /// For steps of any number of rows, whose choices are not summed here. Bindings: step, x, quants, scales, the
    /// tiles and the choices that [`super::Sort`] made, bias, out.
    pub fn tiled(&self, _: &Caps) -> Kernel {
        let weights = Weights::new(self.format, self.k, 16);
        let (mut bindings, mut functions) = self.inputs(&weights);
        bindings.read("tiles", "vec4<u32>");
        bindings.read("sorted", "u32");
        functions += &self.outputs(&mut bindings, "tile_expert");
        let source = if self.x.width() == self.k { "sorted[i] / TOP_K" } else { "sorted[i]" };
        functions += &render(include_str!("../../wgsl/experts/rows.wgsl"), &[("SOURCE", source.to_string())]);
        let sizes = [
            ("OUTPUTS", self.n),
            ("QUADS", self.k.div_ceil(4)),
            ("TOP_K", self.top_k),
            ("FIRST_EXPERT", self.first_expert),
            ("HELD", self.held),
        ];
        let tile = Tile { rows: TILE / 16, outputs: 4 };
        let mut values = vec![
            ("SIZES", consts(&sizes)),
            ("BINDINGS", bindings.declarations()),
            ("FUNCTIONS", functions),
            ("MATRICES", self.matrices().to_string()),
        ];
        values.extend(tile.values(self.matrices()));
        values.extend(tile.stages());
        let text = render(include_str!("../../wgsl/matmul.wgsl"), &values);
        // As many tiles as there can be: an expert's last one may have a single row.
        let tiles = Extent::Choices { each: self.top_k, per: TILE, more: self.experts };
        let grid = [tiles, Extent::Const(self.n.div_ceil(16 * tile.outputs)), Extent::Const(1)];
        bindings.kernel(self.name("matmul"), text, grid)
    }
}
