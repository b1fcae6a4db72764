//! Cosines and sines of a step's rows. The host computes them, in f64: a shader's sine is inexact for
//! large angles, and here every kind of scaling is one table.

use super::Row;
use tamarack_api::RopeSpec;

/// The lengths of a sequence at which a model's ropes take other frequencies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RopeLengths(Vec<usize>);

impl RopeLengths {
    /// Those of a program's ropes.
    pub fn new(ropes: &[RopeSpec]) -> RopeLengths {
        RopeLengths(ropes.iter().filter_map(|r| Some(r.long.as_ref()?.after)).collect())
    }

    /// How long a sequence may become whose keys were made for `length`, before all of them have to be computed anew, as
    /// `transformers` does (modeling_phi3.py, `prepare_inputs_for_generation`).
    pub fn longest(&self, length: usize) -> usize {
        self.0.iter().copied().filter(|after| *after >= length).min().unwrap_or(usize::MAX)
    }

    /// Whether keys that were made for one of these lengths serve the other.
    pub fn is_same(&self, a: usize, b: usize) -> bool {
        self.longest(a) == self.longest(b)
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
    use tamarack_api::LongRope;

    #[test]
    fn keys_serve_lengths_of_the_same_frequencies() {
        let plain = RopeLengths::new(&[RopeSpec::new(8, 1e4)]);
        assert_eq!(plain.longest(7), usize::MAX);
        assert!(plain.is_same(1, 1000));

        let inv_freq = vec![1.0; 4];
        let long = |after| RopeSpec {
            long: Some(LongRope { after, inv_freq: inv_freq.clone(), scale: None }),
            ..RopeSpec::new(8, 1e4)
        };
        let two = RopeLengths::new(&[long(24), RopeSpec::new(8, 1e4), long(48)]);
        assert_eq!([0, 24, 25, 48, 49].map(|n| two.longest(n)), [24, 24, 48, 48, usize::MAX]);
        assert!(two.is_same(3, 24) && two.is_same(25, 48));
        assert!(!two.is_same(24, 25) && !two.is_same(49, 24), "either way");
    }
}
