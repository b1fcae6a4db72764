//! Attention of many rows, by matrices that subgroups multiply together.

use super::Attend;
use crate::template::{Bindings, render};
use crate::{CacheFormat, Caps, Cooperative, Extent, Kernel};

/// Rows that a subgroup has: two invocations see each.
const SUB_ROWS: u32 = 16;
/// Keys of a block.
const BLOCK_KEYS: u32 = 32;
/// Tiles of rows, best first.
const TILES: [u32; 2] = [64, 32];
/// Elements of a value for which sums stay in registers.
const MOST_DIMS: u32 = 256;
/// Loads of a thread that are under way together.
const AT_A_TIME: u32 = 8;

/// Widths of what lies in workgroup memory, padded to spread rows over its banks.
struct Sizes {
    key_dims: u32,
    value_dims: u32,
    query_stride: u32,
    block_stride: u32,
    score_stride: u32,
    weight_stride: u32,
}

impl Sizes {
    fn of(attend: &Attend, side: u32) -> Sizes {
        let [key_dims, value_dims] = [attend.dk, attend.dv].map(|dim| dim.next_multiple_of(side.max(8)));
        Sizes {
            key_dims,
            value_dims,
            query_stride: key_dims + 8,
            block_stride: key_dims.max(value_dims) + 8,
            score_stride: BLOCK_KEYS + 4,
            weight_stride: BLOCK_KEYS + 8,
        }
    }

    /// Bytes of workgroup memory with tiles of so many rows.
    fn memory(&self, rows: u32) -> u32 {
        let row = 2 * self.query_stride + 4 * self.score_stride + 2 * self.weight_stride;
        rows * row + 2 * BLOCK_KEYS * self.block_stride
    }
}

impl Attend {
    /// [`Attend::tiled`] with cooperative matrices; none where the device has none, heads are too large
    /// or of no whole vectors, or the cache is not of f16.
    pub fn cooperative(&self, caps: &Caps) -> Option<Kernel> {
        let units = caps.cooperative?;
        let Cooperative { side, subgroup } = units;
        let sizes = Sizes::of(self, side);
        let threads = |rows: u32| rows / SUB_ROWS * subgroup;
        let fits = |rows: &u32| sizes.memory(*rows) <= caps.workgroup_memory && threads(*rows) <= caps.workgroup_size;
        let whole = self.dk.is_multiple_of(4) && self.dv.is_multiple_of(4) && self.dv <= MOST_DIMS;
        if self.cache != CacheFormat::F16 || !caps.f16 || caps.subgroups.is_none() || !whole || subgroup != 2 * SUB_ROWS
        {
            return None;
        }
        let rows = TILES.into_iter().find(fits)?;

        let mut bindings = Bindings::step();
        let aligned = [self.q.offset, self.q.row, self.q.head].iter().all(|n| n.is_multiple_of(4));
        bindings.read("q", if aligned { "vec4<f32>" } else { "f32" });
        bindings.read("cache", "vec4<f16>");
        if self.sinks {
            bindings.read("sinks", "f32");
        }
        bindings.write("out", "f32");
        let stages = |dims: u32| (BLOCK_KEYS * dims / 4).div_ceil(threads(rows));
        let [key_stages, value_stages] = [sizes.key_dims, sizes.value_dims].map(stages);
        // Where they take few registers, the next keys and values are on their way while others are multiplied.
        let early = key_stages.max(value_stages) <= AT_A_TIME;
        let constants = [
            ("THREADS", threads(rows)),
            ("SUBGROUPS", rows / SUB_ROWS),
            ("TILE_ROWS", rows),
            ("SUB_ROWS", SUB_ROWS),
            ("SIDE", side),
            ("BLOCK_KEYS", BLOCK_KEYS),
            ("KEY_DIMS", sizes.key_dims),
            ("VALUE_DIMS", sizes.value_dims),
            ("SLOT_QUADS", self.kv_heads * (self.dk + if self.latent { 0 } else { self.dv }) / 4),
            ("QUERY_STRIDE", sizes.query_stride),
            ("QUERY_TILE", rows * sizes.query_stride / units.width()),
            ("BLOCK_STRIDE", sizes.block_stride),
            ("BLOCK_TILE", BLOCK_KEYS * sizes.block_stride / units.width()),
            ("SCORE_STRIDE", sizes.score_stride),
            ("SCORE_TILE", rows * sizes.score_stride),
            ("WEIGHT_STRIDE", sizes.weight_stride),
            ("WEIGHT_TILE", rows * sizes.weight_stride / units.width()),
            ("WIDTH", units.width()),
        ];
        // Of keys and of values: the functions that load and store a vector, and the loop that stages a block of them.
        let staged = |source: &str, role: &str, dim: &str, head_at: &str| {
            let values = [
                ("ROLE", role.to_string()),
                ("DIMS", format!("{}_DIMS", role.to_uppercase())),
                ("DIM", dim.to_string()),
                ("HEAD_AT", head_at.to_string()),
                ("V", role[..1].to_string()),
                ("AT_A_TIME", AT_A_TIME.to_string()),
            ];
            render(source, &values)
        };
        let keys = |source: &str| staged(source, "key", "DK", "head * (DK / 4u)");
        let of_values = |source: &str| staged(source, "value", "DV", "VALUES_AT / 2u + head * (DV / 4u)");
        let functions = include_str!("../../wgsl/attend/cooperative_staged.wgsl");
        let stage = include_str!("../../wgsl/attend/cooperative_stage.wgsl");
        let mut values = vec![
            ("KEY_FUNCTIONS", keys(functions)),
            ("VALUE_FUNCTIONS", of_values(functions)),
            ("STAGE_KEYS", keys(stage)),
            ("STAGE_VALUES", of_values(stage)),
            ("CACHE", include_str!("../../wgsl/attend/cache.wgsl").to_string()),
            ("SCORE", include_str!("../../wgsl/attend/cooperative_score.wgsl").to_string()),
            ("COOP", format!("coop_mat{side}x{side}")),
            ("SUB_I", (SUB_ROWS / side).to_string()),
            ("KEY_TILES", (BLOCK_KEYS / side).to_string()),
            ("QUERY_TILES", (sizes.key_dims / side).to_string()),
            ("VALUE_TILES", (sizes.value_dims / side).to_string()),
            ("FOURS", (BLOCK_KEYS / 8).to_string()),
            ("QUERY_QUADS", (sizes.key_dims / 8).to_string()),
            ("KEY_STAGES", key_stages.to_string()),
            ("VALUE_STAGES", value_stages.to_string()),
            ("AT_A_TIME", AT_A_TIME.to_string()),
            ("EARLY", u32::from(early).to_string()),
            ("LATE", u32::from(!early).to_string()),
            ("ALIGNED", u32::from(aligned).to_string()),
            ("UNALIGNED", u32::from(!aligned).to_string()),
            ("HALF", units.half().to_string()),
            ("PUTS", units.puts(&["queries", "block", "weights"])),
            ("QUERY_COOP", (sizes.query_stride / units.width()).to_string()),
            ("BLOCK_COOP", (sizes.block_stride / units.width()).to_string()),
            ("WEIGHT_COOP", (sizes.weight_stride / units.width()).to_string()),
        ];
        values.extend(self.values(&bindings, &constants));
        values.extend(self.sink(true, "WEIGHT"));
        let source = render(include_str!("../../wgsl/attend/cooperative.wgsl"), &values);
        let grid = [Extent::Const(self.heads), Extent::Rows(rows), Extent::Const(1)];
        Some(bindings.kernel(self.name("coop"), source, grid))
    }
}
