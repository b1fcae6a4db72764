//! Cosines and sines of a step's rows. The host computes them, in f64: a shader's sine is inexact for
//! large angles, and here every kind of scaling is one table.

use super::Row;
use tamarack_api::RopeSpec;

/// The lengths beyond which a model's ropes turn by other frequencies (LongRoPE, arXiv:2402.13753).
///
/// They count for all positions of a sequence, so keys that were cached before a sequence became that long are of no use after:
/// as in `transformers` (`modeling_phi3.py`, `prepare_inputs_for_generation`), they are computed anew then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RopeLimits(Vec<usize>);

impl RopeLimits {
    /// Those of these ropes.
    pub fn of(ropes: &[RopeSpec]) -> RopeLimits {
        let mut limits: Vec<usize> = ropes.iter().filter_map(|rope| Some(rope.long.as_ref()?.after)).collect();
        limits.sort_unstable();
        RopeLimits(limits)
    }

    /// The longest that a sequence may become whose keys were computed for `length`.
    pub fn longest(&self, length: usize) -> usize {
        self.0.iter().copied().find(|limit| *limit >= length).unwrap_or(usize::MAX)
    }

    /// Whether both lengths have the same frequencies.
    pub fn agree(&self, one: usize, other: usize) -> bool {
        self.longest(one) == self.longest(other)
    }
}

/// (cos, sin) for each row and pair: [rows, pairs].
pub fn rope_table(rope: &RopeSpec, rows: &[Row]) -> Vec<[f32; 2]> {
    let mut table = Vec::with_capacity(rows.len() * rope.inv_freq.len());
    let mut length = None;
    let (mut inv_freq, mut scale) = (rope.frequencies_at(0), rope.scale);
    for row in rows {
        if length != Some(row.length) {
            length = Some(row.length);
            (inv_freq, scale) = (rope.frequencies_at(row.length as usize), rope.scale_at(row.length as usize));
        }
        table.extend(inv_freq.iter().enumerate().map(|(i, f)| {
            let axis = rope.axis.as_ref().map_or(0, |axis| usize::from(axis[i]));
            // The angle is rounded to f32 first, as the reference implementations do.
            let (sin, cos) = f64::from(row.position[axis] as f32 * f).sin_cos();
            [cos as f32 * scale, sin as f32 * scale]
        }));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_agree_between_limits() {
        let limits = RopeLimits(vec![4, 9]);
        for (length, longest) in [(0, 4), (4, 4), (5, 9), (9, 9), (10, usize::MAX)] {
            assert_eq!(limits.longest(length), longest);
        }
        assert!(limits.agree(1, 4) && !limits.agree(4, 5) && limits.agree(10, 99));
        assert!(RopeLimits::of(&[]).agree(1, usize::MAX));
    }
}
