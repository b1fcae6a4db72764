//! Pieces of WGSL that several kernels hold.

use crate::template::{consts, render};
use crate::{Caps, Cooperative, step};

/// The step buffer's constants and accessors.
pub(crate) fn step_functions() -> String {
    let names = [
        ("TOKENS", step::TOKENS),
        ("OUTPUTS", step::OUTPUTS),
        ("SPLITS", step::SPLITS),
        ("SPLIT_KEYS", step::SPLIT_KEYS),
        ("HEADER_WORDS", step::HEADER_WORDS),
        ("OUTPUTS_AT", step::OUTPUTS_AT),
        ("PAGES_AT", step::PAGES_AT),
        ("ROW_WORDS", step::ROW_WORDS),
        ("ROW_POSITION", step::ROW_POSITION),
        ("ROW_SLOT", step::ROW_SLOT),
        ("ROW_TABLE", step::ROW_TABLE),
        ("ROW_END", step::ROW_END),
        ("ROW_FIRST", step::ROW_FIRST),
        ("ROW_WHOLE", step::ROW_WHOLE),
        ("OUTPUT_WORDS", step::OUTPUT_WORDS),
        ("OUTPUT_ROW", step::OUTPUT_ROW),
        ("OUTPUT_SLOT", step::OUTPUT_SLOT),
        ("OUTPUT_INV_TEMPERATURE", step::OUTPUT_INV_TEMPERATURE),
        ("OUTPUT_SEED", step::OUTPUT_SEED),
        ("OUTPUT_COUNTER", step::OUTPUT_COUNTER),
        ("PAGE", step::PAGE),
        ("FULL_SLOT", step::FULL_SLOT),
    ];
    consts(&names) + include_str!("../wgsl/step.wgsl")
}

/// Groups of adjacent threads that sum and compare among themselves.
pub(crate) struct Lanes {
    /// Threads in a workgroup: a power of two.
    pub threads: u32,
    /// Threads in a group: a power of two, at most `threads`.
    pub lanes: u32,
    /// WGSL type of what is summed: `f32` or a vector of it.
    pub element: &'static str,
}

impl Lanes {
    /// How many adjacent threads shuffles reach, with this device's smallest subgroup.
    fn block(&self, caps: &Caps) -> u32 {
        caps.subgroups.map_or(1, |(min, _)| min.min(self.lanes))
    }

    /// Whether groups need workgroup memory beyond shuffles: one element per thread.
    pub fn needs_scratch(&self, caps: &Caps) -> bool {
        self.lanes > self.block(caps)
    }

    /// Template values: `LANE_FUNCTIONS` declares `THREADS`, `LANES`, `lanes_sum` and `lanes_max`;
    /// `THREAD_INPUTS` and `THREAD` are the entry point's parameters and the thread's number, such
    /// that groups are adjacent inside subgroups.
    pub fn values(&self, caps: &Caps) -> Vec<(&'static str, String)> {
        let block = self.block(caps);
        let sizes = consts(&[("THREADS", self.threads), ("LANES", self.lanes), ("BLOCK", block)]);
        let (inputs, thread) = match caps.subgroups {
            // Not `subgroup_size`: what that says is not always what the hardware runs.
            Some(_) => (
                "@builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32, \
                 @builtin(subgroup_invocation_id) member: u32",
                "subgroup * (THREADS / subgroups) + member",
            ),
            None => ("@builtin(local_invocation_index) index: u32", "index"),
        };
        vec![
            ("LANE_FUNCTIONS", sizes + include_str!("../wgsl/lanes.wgsl")),
            ("ELEMENT", self.element.to_string()),
            ("SHUFFLES", block.ilog2().to_string()),
            ("SCRATCH", u32::from(self.needs_scratch(caps)).to_string()),
            ("THREAD_INPUTS", inputs.to_string()),
            ("THREAD", thread.to_string()),
        ]
    }
}

impl Cooperative {
    /// Elements of what matrices are loaded from: Metal loads them from arrays of scalars, others run as fast from
    /// vectors and store them faster.
    pub(crate) fn width(&self) -> u32 {
        if self.side == 16 { 4 } else { 1 }
    }

    /// The WGSL type of so many halves.
    pub(crate) fn half(&self) -> &'static str {
        if self.width() == 1 { "f16" } else { "vec4<f16>" }
    }

    /// For each tile in workgroup memory a function `put_tile(at, v)` that stores four halves from element `at` on.
    pub(crate) fn puts(&self, tiles: &[&str]) -> String {
        let put = match self.width() {
            1 => include_str!("../wgsl/cooperative/put_scalars.wgsl"),
            _ => include_str!("../wgsl/cooperative/put_vectors.wgsl"),
        };
        tiles.iter().map(|tile| render(put, &[("TILE", tile.to_string())])).collect()
    }
}

/// The largest power of two that is at most `n`; 1 for 0.
pub(crate) fn power_of_two(n: u32) -> u32 {
    1 << n.max(1).ilog2()
}
