//! A quantized matrix times many rows, in integers: [`tiled`](super::tiled) with four products and sums an
//! instruction, for devices without cooperative matrices.

use super::integer::{round_unit, units, zero};
use super::vector::flag;
use super::{MatMul, Precision, Tile, values};
use crate::template::{float, render};
use crate::{Caps, Extent, Kernel};

/// For steps of so many rows; `None` where the weights are not quantized, or nothing is to be rounded. The host
/// runs a norm apart: `spec.norm` is none.
pub fn tiled_integer(spec: &MatMul, caps: &Caps, rows: u32, precision: Precision) -> Option<Kernel> {
    let tile = if rows > 64 { Tile::TALL } else { Tile::SMALL };
    tiled_integer_with(spec, caps, precision, tile)
}

/// [`tiled_integer`] with tiles of a given size, or of the nearest for which there is room.
pub fn tiled_integer_with(spec: &MatMul, caps: &Caps, precision: Precision, tile: Tile) -> Option<Kernel> {
    let weights = units(spec);
    if !weights.are_integers() || precision == Precision::Full || !weights.columns().is_multiple_of(16) {
        return None;
    }
    let (planes, parts) = (precision.planes(), weights.columns() / 16);
    let bytes = |tile: Tile, staged: u32| {
        let x = 16 * tile.rows * (16 * planes * parts + 8);
        let w = 16 * tile.outputs * spec.matrices() * (16 * parts + 8);
        staged * (x + w)
    };
    let choices = [(tile.whole(), 2), (Tile::SMALL, 2), (Tile::SMALL, 1)];
    let (tile, staged) = choices.into_iter().find(|(tile, staged)| bytes(*tile, *staged) <= caps.workgroup_memory)?;
    let spec = &MatMul { norm: None, ..spec.clone() };
    let (bindings, mut functions) = spec.parts(&weights);
    functions += include_str!("../../wgsl/matmul_rows.wgsl");
    functions += include_str!("../../wgsl/rounding.wgsl");
    let (flip, zero, _) = zero(spec.format);
    let sizes = [("OUTPUTS", spec.n), ("STAGED", staged), ("PARTS", parts)];
    let mut values = values(spec, &bindings, functions, &sizes);
    values[0].1 += &format!("const ZERO: f32 = {};\n", float(zero));
    values.extend(tile.values(spec.matrices()));
    values.extend(round_unit("(slot * PARTS + {{j}}u / 4u) * X_ROWS + i"));
    values.extend([
        ("RUNS", weights.runs().to_string()),
        ("UNIT_PARTS", parts.to_string()),
        ("PLANES", planes.to_string()),
        ("SECOND", flag(planes == 2)),
        ("LARGEST", if planes == 2 { "(127.0 * FINE)" } else { "127.0" }.to_string()),
        ("FLIP", flip.to_string()),
    ]);
    let source = render(include_str!("../../wgsl/matmul_integer.wgsl"), &values);
    let grid = [Extent::Rows(16 * tile.rows), Extent::Const(spec.n.div_ceil(16 * tile.outputs)), Extent::Const(1)];
    Some(bindings.kernel(spec.name("matmul int"), source, grid))
}
