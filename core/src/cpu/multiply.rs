//! Products of whole matrices, shared out among threads.

use super::{
    full::FullBlock,
    lanes::{Instructions, LANES},
    matrix::{CpuMatrix, Part, Store},
    product::{FloatBlock, IntegerBlock},
    rounding::{Input, Round, Rounded},
    tile::IntegerTile,
};
use rayon::prelude::*;
use std::cell::RefCell;
use tamarack_kernels::Format;

/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 17;
/// Elements that are worth a task of their own where little is done with each.
pub(super) const ELEMENTS: usize = 1 << 15;
/// Rows of x from which on products are computed in tiles.
const TILED: usize = 8;
/// Blocks in a tile.
const TILE: usize = 8;

/// How products are computed.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub instructions: Instructions,
    /// Whether x is rounded where weights are integers.
    pub rounded: bool,
}

/// Some rows of x times a part of a matrix.
pub(super) struct Job<'a> {
    pub part: &'a Part,
    pub rows: &'a [u32],
}

/// What a job gave: [blocks, rows, 16].
pub(super) struct Product {
    pub values: Vec<[f32; LANES]>,
    pub rows: usize,
    /// Of the part, without those that fill up its last block.
    pub outputs: usize,
}

impl Product {
    /// Row `r`, as many outputs as `out` has.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        for (block, out) in out.chunks_mut(LANES).enumerate() {
            out.copy_from_slice(&self.values[block * self.rows + r][..out.len()]);
        }
    }
}

impl How {
    /// Makes x ready for matrices.
    pub fn input(&self, mut x: Input, matrix: &CpuMatrix) -> Input {
        let integers = |p: &Part| matches!(p.store, Store::Integers(_));
        if !self.rounded || !matrix.parts.iter().any(integers) {
            return x;
        }
        let units = x.units();
        x.rounded = vec![Rounded::default(); x.rows() * units];
        if units > 0 {
            let rows = x.floats.par_chunks(x.k).zip(x.rounded.par_chunks_mut(units));
            let rows = rows.with_min_len(ELEMENTS.div_ceil(x.k));
            rows.for_each(|(x, rounded)| self.instructions.run(Round { x, rounded }));
        }
        x
    }

    /// Computes jobs, whose x is the same.
    pub fn products(&self, x: &Input, jobs: &[Job<'_>]) -> Vec<Product> {
        let empty = |job: &Job<'_>| {
            let values = vec![[0.0; LANES]; job.part.blocks() * job.rows.len()];
            Product { values, rows: job.rows.len(), outputs: job.part.rows.len() }
        };
        let mut products: Vec<Product> = jobs.iter().map(empty).collect();
        let mut tasks: Vec<(&Job<'_>, usize, &mut [[f32; LANES]])> = Vec::new();
        for (job, product) in jobs.iter().zip(&mut products) {
            let rows = job.rows.len();
            if rows == 0 {
                continue;
            }
            let blocks = match rows {
                ..TILED => (TASK / (LANES * x.k * rows).max(1)).max(1),
                _ => TILE,
            };
            let chunks = product.values.chunks_mut(blocks * rows).enumerate();
            tasks.extend(chunks.map(|(i, out)| (job, i * blocks, out)));
        }
        tasks.into_par_iter().with_min_len(1).for_each(|(job, block, out)| self.task(x, job, block, out));
        products
    }

    /// Blocks from `first` on.
    fn task(&self, x: &Input, job: &Job<'_>, first: usize, out: &mut [[f32; LANES]]) {
        let (part, rows) = (job.part, job.rows);
        match &part.store {
            Store::Integers(weight) if self.rounded && rows.len() >= TILED => {
                self.instructions.run(IntegerTile { weight, first, x, rows, out });
            }
            Store::Integers(weight) if self.rounded => {
                for (b, out) in out.chunks_mut(rows.len()).enumerate() {
                    self.instructions.run(IntegerBlock { weight, block: first + b, x, rows, out });
                }
            }
            Store::Integers(weight) => {
                for (b, out) in out.chunks_mut(rows.len()).enumerate() {
                    self.instructions.run(FullBlock { weight, block: first + b, x, rows, out });
                }
            }
            Store::Rows(weight)
                if rows.len() < TILED && !matches!(weight.format, Format::Affine { .. } | Format::Scaled { .. }) =>
            {
                for (b, out) in out.chunks_mut(rows.len()).enumerate() {
                    self.instructions.run(FloatBlock { weight, first: (first + b) * LANES, x, rows, out });
                }
            }
            _ => tile(x, job, first, out),
        }
    }
}

thread_local! {
    /// Weights, rows of x and results of a tile.
    static SCRATCH: RefCell<[Vec<f32>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// Blocks from `first` on, in floats.
fn tile(x: &Input, job: &Job<'_>, first: usize, out: &mut [[f32; LANES]]) {
    let (part, rows, k) = (job.part, job.rows, x.k);
    let start = first * LANES;
    let count = (part.rows.len() - start).min(out.len() / rows.len() * LANES);
    SCRATCH.with_borrow_mut(|[weights, inputs, results]| {
        weights.resize(count * k, 0.0);
        weights.chunks_exact_mut(k).enumerate().for_each(|(i, row)| part.row(start + i, row));
        let adjacent = rows.iter().enumerate().all(|(i, r)| *r as usize == i) && x.rows() == rows.len();
        if !adjacent {
            inputs.clear();
            rows.iter().for_each(|r| inputs.extend_from_slice(&x.floats[*r as usize * k..][..k]));
        }
        results.resize(rows.len() * count, 0.0);
        matmul(if adjacent { &x.floats } else { inputs }, weights, k, results);
        for (r, row) in results.chunks_exact(count).enumerate() {
            for (b, values) in row.chunks(LANES).enumerate() {
                out[b * rows.len() + r][..values.len()].copy_from_slice(values);
            }
        }
    });
}

/// `out` [m, n] = `a` [m, k] times `b` [n, k] transposed.
pub(super) fn matmul(a: &[f32], b: &[f32], k: usize, out: &mut [f32]) {
    let (m, n) = (a.len() / k, b.len() / k);
    assert!(a.len() == m * k && b.len() == n * k && out.len() == m * n, "[{m}, {k}] times [{n}, {k}]");
    // SAFETY: the assertion says that the three slices have what these sizes and strides reach.
    #[allow(unsafe_code)]
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.as_ptr(),
            k as isize,
            1,
            b.as_ptr(),
            1,
            k as isize,
            0.0,
            out.as_mut_ptr(),
            n as isize,
            1,
        );
    }
}
