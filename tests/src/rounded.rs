//! Rows of activations rounded to 8-bit planes, written and read by the words of
//! [`tamarack_kernels::rounded`] and nothing else.

use tamarack_kernels::{matmul::Precision, rounded::UNIT};

const UNIT_COLUMNS: usize = UNIT as usize;

fn planes(precision: Precision) -> usize {
    if precision == Precision::Fast { 1 } else { 2 }
}

/// The words of a row whose values were `before` a norm's weight made them `x`.
pub fn round(x: &[f32], before: &[f32], precision: Precision) -> Vec<u32> {
    let (units, planes) = (x.len() / UNIT_COLUMNS, planes(precision));
    let mut words = vec![0u32; units * 4 * (2 * planes + 1)];
    for (unit, (x, before)) in x.chunks(UNIT_COLUMNS).zip(before.chunks(UNIT_COLUMNS)).enumerate() {
        let worth = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        let mut sums = [0.0; 2];
        for (j, v) in x.iter().enumerate() {
            let scaled = if worth > 0.0 { v / worth } else { 0.0 };
            let coarse = scaled.round();
            let fine = ((scaled - coarse) * 254.0).round();
            for (plane, q) in [coarse, fine].into_iter().take(planes).enumerate() {
                let at = ((2 * plane + j / 16) * units + unit) * 4 + j % 16 / 4;
                words[at] |= u32::from(q as i8 as u8) << (8 * (j % 4));
                sums[j / 16] += q / if plane == 0 { 1.0 } else { 254.0 };
            }
        }
        let squares: f32 = before.iter().map(|v| v * v).sum();
        let record = [worth, worth * sums[0], worth * sums[1], squares].map(f32::to_bits);
        words[(2 * planes * units + unit) * 4..][..4].copy_from_slice(&record);
    }
    words
}

/// What a row of `columns` holds: its values, and per unit the sums of its halves and of the squares.
pub fn read(words: &[u32], columns: usize, precision: Precision) -> (Vec<f32>, Vec<[f32; 3]>) {
    let (units, planes) = (columns / UNIT_COLUMNS, planes(precision));
    let record = |unit: usize| -> [f32; 4] {
        std::array::from_fn(|i| f32::from_bits(words[(2 * planes * units + unit) * 4 + i]))
    };
    let value = |c: usize| {
        let (unit, j) = (c / UNIT_COLUMNS, c % UNIT_COLUMNS);
        let q = |plane: usize| {
            let word = words[((2 * plane + j / 16) * units + unit) * 4 + j % 16 / 4];
            f32::from((word >> (8 * (j % 4))) as u8 as i8)
        };
        record(unit)[0] * (q(0) + if planes == 2 { q(1) / 254.0 } else { 0.0 })
    };
    ((0..columns).map(value).collect(), (0..units).map(|unit| [1, 2, 3].map(|i| record(unit)[i])).collect())
}
