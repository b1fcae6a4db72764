//! Cosines and sines of a step's rows. The host computes them, in f64: a shader's sine is inexact for
//! large angles, and here every kind of scaling is one table.

use super::Row;
use tamarack_api::RopeSpec;

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
