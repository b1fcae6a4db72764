//! A matrix times many rows, by matrices that subgroups multiply together: tensor cores and their like.
//!
//! Weights of every format become f16 while they are staged, x lies ready as f16
//! ([`crate::halves::Halves`]); sums are f32.

use super::vector::flag;
use super::{MatMul, Norm, values};
use crate::halves::{PADDING, made, padded};
use crate::post;
use crate::template::{Bindings, consts, render};
use crate::weights::Weights;
use crate::{Caps, Cooperative, Extent, Kernel};

/// How cooperative matrices share out a product. Sizes are powers of two, and any give right results: what
/// a device cannot do is replaced by the nearest that it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CooperativeTile {
    /// Rows of x in a workgroup's tile.
    pub rows: u32,
    /// Rows of the weight in it; with a glu half of them are gates.
    pub weights: u32,
    /// Columns that are staged at a time, 16 to 64.
    pub depth: u32,
    /// Rows of x that one subgroup multiplies.
    pub sub_rows: u32,
    /// Rows of the weight that one subgroup multiplies.
    pub sub_weights: u32,
    /// Subgroups that have the same rows and share out the staged columns.
    pub shares: u32,
    /// Workgroups that have the same tile and share out all columns; a second kernel adds up.
    pub splits: u32,
    /// Whether the next columns are loaded before these are multiplied.
    pub early: bool,
}

/// Words of a row of partial sums at most: scratch stays small.
const PARTIALS: u32 = 1 << 15;

impl CooperativeTile {
    /// For steps of up to `rows` rows, see docs/performance.md.
    pub fn default_for(spec: &MatMul, rows: u32) -> CooperativeTile {
        CooperativeTile::of(spec.n, spec.k, spec.matrices(), rows)
    }

    /// For a weight of [n * matrices, k].
    fn of(n: u32, k: u32, matrices: u32, rows: u32) -> CooperativeTile {
        let large = CooperativeTile {
            rows: 128,
            weights: 128,
            depth: 32,
            sub_rows: 64,
            sub_weights: 64,
            shares: 1,
            splits: 1,
            early: false,
        };
        let small = CooperativeTile { weights: 32, depth: 64, sub_weights: 32, early: true, ..large };
        let tile = match rows {
            0..=16 => CooperativeTile { rows: 16, sub_rows: 16, shares: 4, ..small },
            17..=32 if matrices > 1 => CooperativeTile { rows: 32, weights: 64, sub_rows: 32, shares: 2, ..small },
            17..=32 => CooperativeTile { rows: 32, sub_rows: 32, shares: 4, ..small },
            33..=64 => CooperativeTile { rows: 64, weights: 64, sub_rows: 32, ..small },
            // Two sums for each output leave fewer registers.
            _ if matrices > 1 => CooperativeTile { sub_weights: 32, early: true, ..large },
            _ => large,
        };
        // Workgroups that fill a large GPU of some 130 processors: two large ones on each, or three small ones.
        let enough = if rows > 32 { 256 } else { 384 };
        let total = n * matrices;
        let groups = rows.div_ceil(tile.rows) * total.div_ceil(tile.weights);
        let most = (k / 512).min(PARTIALS / total.max(1)).clamp(1, 8);
        let splits = (enough / groups.max(1)).clamp(1, most);
        CooperativeTile { splits: 1 << splits.ilog2(), ..tile }
    }

    /// The nearest that there can be.
    fn fit(self, spec: &MatMul, caps: &Caps, units: Cooperative) -> CooperativeTile {
        let side = units.side;
        let matrices = spec.matrices();
        let mut tile = CooperativeTile {
            rows: self.rows.max(side),
            weights: self.weights.max(side * matrices),
            depth: self.depth.clamp(16, PADDING),
            sub_rows: self.sub_rows.clamp(side, self.rows.max(side)),
            sub_weights: self.sub_weights.clamp(side * matrices, self.weights.max(side * matrices)),
            splits: self.splits.clamp(1, spec.k.div_ceil(64)),
            ..self
        };
        // Sixteen sums of 16 by 16 a subgroup are what registers hold.
        while tile.sub_rows * tile.sub_weights > 64 * 64 {
            if tile.sub_rows > side { tile.sub_rows /= 2 } else { tile.sub_weights /= 2 }
        }
        tile.shares = self.shares.clamp(1, tile.depth / side);
        while tile.threads(units) > caps.workgroup_size || tile.memory(matrices, units) > caps.workgroup_memory {
            match tile {
                CooperativeTile { shares: 2.., .. } => tile.shares /= 2,
                _ if tile.weights > tile.sub_weights => tile.weights /= 2,
                _ if tile.rows > tile.sub_rows => tile.rows /= 2,
                _ if tile.depth > side.max(16) => tile.depth /= 2,
                _ => break,
            }
        }
        tile
    }

    fn subgroups(&self) -> u32 {
        self.rows / self.sub_rows * (self.weights / self.sub_weights) * self.shares
    }

    fn threads(&self, units: Cooperative) -> u32 {
        self.subgroups() * units.subgroup
    }

    /// From one staged row to the next; eight more than staged, which spreads rows over the memory's banks.
    fn stride(&self) -> u32 {
        self.depth + 8
    }

    /// Bytes of workgroup memory.
    fn memory(&self, matrices: u32, units: Cooperative) -> u32 {
        let tiles = (self.rows + self.weights) * self.stride() * 2;
        tiles + self.subgroups() * matrices * units.side * units.side * 4
    }
}

/// For steps of up to `rows` rows; none without cooperative matrices. The host runs a norm apart, into
/// halves: `spec.norm` and `spec.x` do not count. With two kernels, the first one leaves
/// f32 \[splits, rows, outputs\] (with a glu gates and then ups) for the second.
///
/// Bindings of one: step, halves and worths as [`crate::halves::Halves`] writes them, quants, scales, bias, one for
/// each `Post::Add` and `Post::Mul`, out. Of two: step, halves, quants, scales, partial sums; then step,
/// partial sums, worths, bias, posts, out.
pub fn cooperative(spec: &MatMul, caps: &Caps, rows: u32) -> Option<Vec<Kernel>> {
    cooperative_with(spec, caps, CooperativeTile::default_for(spec, rows))
}

/// [`cooperative`] with tiles of a given size.
pub fn cooperative_with(spec: &MatMul, caps: &Caps, tile: CooperativeTile) -> Option<Vec<Kernel>> {
    let units = caps.cooperative.filter(|_| caps.f16 && caps.subgroups.is_some())?;
    let spec = &MatMul { norm: None, ..spec.clone() };
    let tile = tile.fit(spec, caps, units);
    let product = product(spec, tile, units);
    Some(if tile.splits > 1 { vec![product, sum(spec, caps, tile.splits)] } else { vec![product] })
}

/// [`cooperative`], whose second kernel also makes halves of the results, after a norm, for the product that follows:
/// none where there is no second kernel. Its bindings: step, partial sums, worths (read, and then written), bias, posts,
/// out, the norm's weight if it has one, halves.
pub fn cooperative_next(spec: &MatMul, caps: &Caps, rows: u32, next: Option<Norm>) -> Option<[Kernel; 2]> {
    cooperative_next_with(spec, caps, CooperativeTile::default_for(spec, rows), next)
}

/// [`cooperative_next`] with tiles of a given size.
pub fn cooperative_next_with(
    spec: &MatMul,
    caps: &Caps,
    tile: CooperativeTile,
    next: Option<Norm>,
) -> Option<[Kernel; 2]> {
    let units = caps.cooperative.filter(|_| caps.f16 && caps.subgroups.is_some())?;
    let spec = &MatMul { norm: None, ..spec.clone() };
    let tile = tile.fit(spec, caps, units);
    let possible = tile.splits > 1 && spec.n.is_multiple_of(4) && spec.n == spec.out.width();
    possible.then(|| [product(spec, tile, units), sum_next(spec, caps, tile.splits, next)])
}

/// Words of partial sums that [`cooperative`] leaves for a weight of [n * matrices, k] in a step of `rows` rows,
/// with kernels for `most`.
pub fn partial_words(n: u32, k: u32, matrices: u32, most: u32, rows: u32) -> u64 {
    let splits = CooperativeTile::of(n, k, matrices, most).splits;
    if splits < 2 { 0 } else { u64::from(splits * matrices) * u64::from(rows) * u64::from(n) }
}

fn product(spec: &MatMul, tile: CooperativeTile, units: Cooperative) -> Kernel {
    let Cooperative { side, subgroup } = units;
    let (matrices, threads) = (spec.matrices(), tile.subgroups() * subgroup);
    let split = tile.splits > 1;
    // As wide as it gets while every invocation has something to load.
    let weights = Weights::new(spec.format, spec.k, (tile.weights * tile.depth / threads).clamp(4, 32.min(tile.depth)));
    let mut bindings = Bindings::step();
    bindings.read("halves", "vec4<f16>");
    if !split {
        bindings.read("worths", "f32");
    }
    weights.bind(&mut bindings);
    let mut functions = weights.source();
    let store = if split {
        bindings.write("out", "f32");
        include_str!("../../wgsl/cooperative/store_partial.wgsl").to_string()
    } else {
        finishing(spec, &mut bindings);
        functions += post::FUNCTIONS;
        functions += &spec.common();
        include_str!("../../wgsl/cooperative/store.wgsl").to_string()
    };
    let step_units = tile.depth / weights.columns();
    let sub_outputs = tile.sub_weights / matrices;
    let steps = spec.k.div_ceil(tile.depth);
    let sizes = [
        ("THREADS", threads),
        ("OUTPUTS", spec.n),
        ("MATRICES", matrices),
        ("ROWS_TILE", tile.rows),
        ("WEIGHTS_TILE", tile.weights),
        ("OUTPUTS_TILE", tile.weights / matrices),
        ("DEPTH", tile.depth),
        ("SUB_ROWS", tile.sub_rows),
        ("SUB_WEIGHTS", tile.sub_weights),
        ("SUB_OUTPUTS", sub_outputs),
        ("ACROSS", tile.weights / tile.sub_weights),
        ("PARTS", tile.subgroups() / tile.shares),
        ("SHARES", tile.shares),
        ("SIDE", side),
        ("STRIDE", tile.stride()),
        ("WIDTH", units.width()),
        ("TILE_X", tile.rows * tile.stride() / units.width()),
        ("TILE_W", tile.weights * tile.stride() / units.width()),
        ("SUMS", tile.subgroups() * matrices * side * side),
        ("X_QUADS", padded(spec.k) / 4),
        ("STEP_UNITS", step_units),
        ("STEPS", steps),
        ("SPLIT_STEPS", steps.div_ceil(tile.splits)),
    ];
    let affine = weights.is_quantized();
    let weight = if affine { "scale{{s}}.x * run(w{{s}}, {{j}}u) + scale{{s}}.y" } else { "run(w{{s}}, {{j}}u)" };
    let mut values = values(spec, &bindings, functions, &sizes);
    values.extend([
        ("PUTS", units.puts(&["tile_x", "tile_w"])),
        ("LOAD", include_str!("../../wgsl/cooperative/load.wgsl").to_string()),
        ("STORE", store),
        ("HALF", units.half().to_string()),
        ("COOP", format!("coop_mat{side}x{side}")),
        ("COOP_STRIDE", (tile.stride() / units.width()).to_string()),
        ("SIDE", side.to_string()),
        ("SHARES", tile.shares.to_string()),
        ("SUB_I", (tile.sub_rows / side).to_string()),
        ("SUB_J", (sub_outputs / side).to_string()),
        ("SUB_K", (tile.depth / side / tile.shares).to_string()),
        ("STAGES_X", (tile.rows * tile.depth / 4).div_ceil(threads).to_string()),
        ("STAGES_W", (tile.weights * step_units).div_ceil(threads).to_string()),
        ("RUNS", weights.runs().to_string()),
        ("WEIGHT", weight.to_string()),
        ("AFFINE", flag(affine)),
        ("EARLY", flag(tile.early)),
        ("LATE", flag(!tile.early)),
    ]);
    let name = spec.name(&format!("matmul coop {}x{}/{}", tile.rows, tile.weights, tile.splits));
    let source = render(include_str!("../../wgsl/cooperative/matmul.wgsl"), &values);
    let across = spec.n.div_ceil(tile.weights / matrices);
    bindings.kernel(name, source, [Extent::Rows(tile.rows), Extent::Const(across), Extent::Const(tile.splits)])
}

fn sum(spec: &MatMul, caps: &Caps, splits: u32) -> Kernel {
    let threads = 256.min(caps.workgroup_size);
    let mut bindings = Bindings::step();
    bindings.read("partials", "f32");
    bindings.read("worths", "f32");
    finishing(spec, &mut bindings);
    let functions = post::FUNCTIONS.to_string() + &spec.common();
    let sizes = [("THREADS", threads), ("OUTPUTS", spec.n), ("MATRICES", spec.matrices()), ("SPLITS", splits)];
    let values = values(spec, &bindings, functions, &sizes);
    let source = render(include_str!("../../wgsl/cooperative/sum.wgsl"), &values);
    let grid = [Extent::Const(spec.n.div_ceil(threads)), Extent::Rows(1), Extent::Const(1)];
    bindings.kernel(spec.name("matmul sum"), source, grid)
}

fn sum_next(spec: &MatMul, caps: &Caps, splits: u32, next: Option<Norm>) -> Kernel {
    let mut bindings = Bindings::step();
    bindings.read("partials", "vec4<f32>");
    bindings.write("worths", "f32");
    finishing(spec, &mut bindings);
    let sizes = [("OUTPUT_QUADS", spec.n / 4), ("MATRICES", spec.matrices())];
    let mut values = values(spec, &bindings, String::new(), &sizes);
    values.push(("SPLITS", splits.to_string()));
    let x = render(include_str!("../../wgsl/cooperative/sum_quad.wgsl"), &values);
    let functions = consts(&sizes) + post::FUNCTIONS + &spec.common() + &x;
    made(caps, spec.name("matmul sum halves"), bindings, functions, spec.n, next, false)
}

/// What a finished sum meets, and where it goes.
fn finishing(spec: &MatMul, bindings: &mut Bindings) {
    if spec.bias {
        bindings.read("bias", "f32");
    }
    post::bind(&spec.post, bindings);
    bindings.write("out", "f32");
}
