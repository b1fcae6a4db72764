//! Resizing, bit for bit as Pillow's `Image.resize` up to version 12: a pass over columns, then one over rows, each of
//! which rounds to bytes, with weights in fixed point.

use super::Pixels;
use rayon::prelude::*;
use std::f64::consts::PI;
use tamarack_api::Filter;

/// Bits behind the point of a weight.
const BITS: u32 = 22;

/// An image of another size.
pub(super) fn resize(image: &Pixels, width: usize, height: usize, filter: Filter) -> Pixels {
    // Only the rows that the second pass looks at are computed in the first; those are all, if there is no crop.
    let wide =
        if width == image.width { image.clone() } else { columns(image, &Taps::new(image.width, width, filter)) };
    if height == image.height { wide } else { rows(&wide, &Taps::new(image.height, height, filter)) }
}

/// For each pixel of a line, where its source pixels begin, and their weights.
struct Taps {
    first: Vec<usize>,
    /// [pixels, each]
    weights: Vec<i32>,
    each: usize,
}

impl Taps {
    fn new(from: usize, to: usize, filter: Filter) -> Taps {
        let scale = from as f64 / to as f64;
        let wider = scale.max(1.0);
        let support = reach(filter) * wider;
        let each = support.ceil() as usize * 2 + 1;
        let mut taps = Taps { first: Vec::with_capacity(to), weights: Vec::with_capacity(to * each), each };
        for pixel in 0..to {
            let center = (pixel as f64 + 0.5) * scale;
            let first = ((center - support + 0.5).max(0.0)) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let mut weights: Vec<f64> =
                (first..end).map(|i| weight(filter, (i as f64 - center + 0.5) * (1.0 / wider))).collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            taps.first.push(first);
            let fixed = weights.iter().map(|w| (w * f64::from(1 << BITS) + 0.5f64.copysign(*w)) as i32);
            taps.weights.extend(fixed);
            taps.weights.resize((pixel + 1) * each, 0);
        }
        taps
    }

    /// Where a pixel's sources begin, and their weights.
    fn of(&self, pixel: usize) -> (usize, &[i32]) {
        (self.first[pixel], &self.weights[pixel * self.each..][..self.each])
    }
}

/// Half of the pixels that a filter looks at.
fn reach(filter: Filter) -> f64 {
    match filter {
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos3 => 3.0,
    }
}

fn weight(filter: Filter, x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    match filter {
        Filter::Bilinear => (1.0 - x.abs()).max(0.0),
        Filter::Bicubic => {
            const A: f64 = -0.5;
            match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            }
        }
        Filter::Lanczos3 if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        Filter::Lanczos3 => 0.0,
    }
}

fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

fn columns(image: &Pixels, taps: &Taps) -> Pixels {
    let width = taps.first.len();
    let mut rgb = vec![0; width * image.height * 3];
    let lines = rgb.par_chunks_exact_mut(width * 3).zip(image.rgb.par_chunks_exact(image.width * 3));
    lines.for_each(|(to, from)| {
        for (pixel, to) in to.chunks_exact_mut(3).enumerate() {
            let (first, weights) = taps.of(pixel);
            let mut sum = [1 << (BITS - 1); 3];
            for (from, weight) in from[first * 3..].chunks_exact(3).zip(weights) {
                sum.iter_mut().zip(from).for_each(|(sum, v)| *sum += i32::from(*v) * weight);
            }
            to.iter_mut().zip(sum).for_each(|(to, sum)| *to = byte(sum));
        }
    });
    Pixels { width, height: image.height, rgb }
}

fn rows(image: &Pixels, taps: &Taps) -> Pixels {
    let (height, line) = (taps.first.len(), image.width * 3);
    let mut rgb = vec![0; line * height];
    rgb.par_chunks_exact_mut(line).enumerate().for_each(|(row, to)| {
        let (first, weights) = taps.of(row);
        let mut sums = vec![1 << (BITS - 1); line];
        for (from, weight) in image.rgb[first * line..].chunks_exact(line).zip(weights) {
            sums.iter_mut().zip(from).for_each(|(sum, v)| *sum += i32::from(*v) * weight);
        }
        to.iter_mut().zip(sums).for_each(|(to, sum)| *to = byte(sum));
    });
    Pixels { width: image.width, height, rgb }
}
