//! Cosines and sines of a step's rows. The host computes them, in f64: a shader's sine is inexact for
//! large angles, and here every kind of scaling is one table.

use super::Row;
use tamarack_api::RopeSpec;

/// The lengths of a sequence at which a model's ropes take other frequencies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RopeLengths {
    /// LongRoPE's: beyond one of them all keys are rotated otherwise, those of earlier positions, too.
    long: Vec<usize>,
    /// That of dynamic scaling: beyond it frequencies follow the length.
    dynamic: Option<usize>,
}

impl RopeLengths {
    /// Those of a program's ropes.
    pub fn new(ropes: &[RopeSpec]) -> RopeLengths {
        RopeLengths {
            long: ropes.iter().filter_map(|r| Some(r.long.as_ref()?.after)).collect(),
            dynamic: ropes.iter().filter_map(|r| Some(r.dynamic.as_ref()?.max)).min(),
        }
    }

    /// How long a sequence may become whose keys were made for `length`, before all of them have to be computed anew.
    /// `transformers` does that for LongRoPE (modeling_phi3.py, `prepare_inputs_for_generation`), and not for dynamic scaling,
    /// where each key keeps the frequencies that it was made with.
    pub fn longest(&self, length: usize) -> usize {
        self.long.iter().copied().filter(|after| *after >= length).min().unwrap_or(usize::MAX)
    }

    /// Whether keys that were made for one of these lengths serve the other.
    pub fn is_same(&self, a: usize, b: usize) -> bool {
        self.longest(a) == self.longest(b)
    }

    /// Whether the first `kept` keys of a sequence that was admitted with the length `made` are what a prompt of `length`
    /// would get.
    pub fn serves(&self, made: usize, kept: usize, length: usize) -> bool {
        let is_plain = |max: usize| made.max(kept).max(length) <= max;
        self.is_same(made, length) && self.dynamic.is_none_or(|max| made == length || is_plain(max))
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
    use tamarack_api::{DynamicRope, LongRope};

    #[test]
    fn keys_serve_lengths_of_the_same_frequencies() {
        let plain = RopeLengths::new(&[RopeSpec::new(8, 1e4)]);
        assert_eq!(plain.longest(7), usize::MAX);
        assert!(plain.serves(1, 5, 1000));

        let inv_freq = vec![1.0; 4];
        let long = |after| RopeSpec {
            long: Some(LongRope { after, inv_freq: inv_freq.clone(), scale: None }),
            ..RopeSpec::new(8, 1e4)
        };
        let two = RopeLengths::new(&[long(24), RopeSpec::new(8, 1e4), long(48)]);
        assert_eq!([0, 24, 25, 48, 49].map(|n| two.longest(n)), [24, 24, 48, 48, usize::MAX]);
        assert!(two.serves(3, 20, 24) && two.serves(25, 3, 48));
        assert!(!two.serves(24, 20, 25) && !two.serves(49, 3, 24), "either way");

        let dynamic = Some(DynamicRope { base: 1e4, factor: 2.0, max: 24 });
        let dynamic = RopeLengths::new(&[RopeSpec { dynamic, ..RopeSpec::new(8, 1e4) }]);
        assert_eq!(dynamic.longest(7), usize::MAX, "nothing is computed anew while it generates");
        assert!(dynamic.serves(3, 20, 24) && dynamic.serves(30, 29, 30));
        assert!(!dynamic.serves(30, 20, 31) && !dynamic.serves(30, 20, 24) && !dynamic.serves(20, 26, 28));
    }
}
