//! Matrices as quantizers write them: codes, scales and offsets, each a tensor of its own.
//!
//! Every layout is described, not programmed: where the code of a column lies ([`Codes`]), where its
//! scale ([`Grid`]) and what is subtracted ([`Offset`]). One decoder serves all. The modules beside
//! this one each know the names, shapes and configuration of one quantizer.

mod awq;
mod bitsandbytes;
mod codes;
mod compressed;
pub(super) mod elsewhere;
pub(super) mod foreign;
mod gptq;
mod grid;
pub(super) mod mlx;
mod scaled_bytes;

use std::path::Path;
use std::sync::OnceLock;

use half::f16;
use tamarack_kernels::{Format, Scales, Values};

use super::block::Block;
use super::mapping::Slice;
use super::tensor::{Data, Kind, Tensor, View};
pub(super) use codes::{Codes, Order, Zeros};
pub(super) use grid::{Grid, Nested, Number};

/// One stored part: its dimensions and bytes.
pub(super) struct Part {
    /// The dimensions, slowest first.
    pub shape: Vec<usize>,
    /// The type's name in safetensors.
    pub dtype: safetensors::Dtype,
    /// As many bytes as shape and type demand.
    pub bytes: Slice,
}

/// One quantized matrix.
pub(super) struct Quantized {
    /// Whose layout, for people.
    pub method: &'static str,
    /// Bits of a code.
    pub bits: u8,
    /// What codes stand for; none for whole numbers, which an offset belongs to.
    pub values: Option<Values>,
    /// The codes.
    pub codes: Codes,
    /// The scales.
    pub scales: Grid,
    /// All scales are multiplied by this: one number, or one for each of as many runs of rows.
    pub factors: Vec<f32>,
    /// Added to the scaled codes.
    pub offset: Offset,
    /// Columns per scale in the file.
    pub group: usize,
    /// The group of each column, where columns do not lie group after group.
    pub order: Option<Vec<u32>>,
    /// What is found out once, by reading all scales (an eighth of the tensor or less, which loading
    /// reads anyway).
    pub stored: OnceLock<Scales>,
}

/// What is added to the scaled codes of a group.
pub(super) enum Offset {
    /// Nothing.
    None,
    /// A bias of its own.
    Biases(Grid),
    /// The scale times minus this.
    Centre(f32),
    /// The scale times minus a stored whole number.
    Zeros(Zeros),
}

impl Quantized {
    /// Without a factor, columns in order.
    pub fn new(
        method: &'static str,
        codes: Codes,
        values: Option<Values>,
        scales: Grid,
        offset: Offset,
        group: usize,
    ) -> Quantized {
        let (factors, stored) = (vec![1.0], OnceLock::new());
        Quantized { method, bits: codes.bits, values, codes, scales, factors, offset, group, order: None, stored }
    }

    /// Checks that all parts are as large as the others need them, and names the tensor.
    pub fn named(self, name: &str, shape: Vec<usize>) -> Result<Tensor, String> {
        let (rows, cols) = (self.codes.rows, self.codes.cols);
        let size = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let groups = cols.div_ceil(self.group.max(1));
        let fits = match &self.offset {
            Offset::None | Offset::Centre(_) => true,
            Offset::Biases(grid) => grid.fits(rows, cols),
            Offset::Zeros(Zeros { codes, by_group, run, .. }) => {
                let (a, b) = if *by_group { (codes.cols, codes.rows) } else { (codes.rows, codes.cols) };
                codes.fit() && *run > 0 && a >= rows.div_ceil(*run) && b >= groups
            }
        };
        let ordered = self.order.iter().flatten().all(|g| (*g as usize) < groups);
        let factors = !self.factors.is_empty() && rows.is_multiple_of(self.factors.len());
        let whole = self.group > 0 && size.is_some() && size == rows.checked_mul(cols);
        if !(fits && ordered && factors && whole && self.codes.fit() && self.scales.fits(rows, cols)) {
            let Quantized { method, bits, group, .. } = self;
            return Err(format!(
                "{name}: the parts of {shape:?} in {method} {bits}-bit g{group} do not fit each other"
            ));
        }
        Tensor::new(name, shape, Data::Quantized(self.into()), View::default())
    }

    /// What the scales of a row are multiplied by.
    pub fn factor(&self, row: usize) -> f32 {
        self.factors[row / (self.codes.rows / self.factors.len())]
    }

    /// The device's form of a matrix with so many columns.
    pub fn format(&self, cols: usize) -> Format {
        let divides = |g: &u16| self.group.is_multiple_of(usize::from(*g)) && cols.is_multiple_of(usize::from(*g));
        let group = [128, 64, 32, 16].into_iter().find(divides);
        let dense = if self.scales.number == Number::F16 && cols.is_multiple_of(2) { Format::F16 } else { Format::F32 };
        match (group, self.order.is_some() || self.scales.flat.is_some()) {
            // The reference decodes these to the type of their scales.
            (_, true) => dense,
            (Some(group), false) if cols.is_multiple_of(32) => {
                let scales = *self.stored.get_or_init(|| self.stored());
                match self.values {
                    None => Format::Affine { bits: self.bits, group, scales },
                    Some(values) => Format::Scaled { values, group, scales },
                }
            }
            _ => Format::F32,
        }
    }

    /// How the device stores the scales: bytes as bytes, f16 if every scale and bias survives the
    /// rounding, else f32.
    fn stored(&self) -> Scales {
        if self.values.is_some() && self.scales.nested.is_none() {
            match self.scales.number {
                Number::E8m0 => return Scales::E8m0,
                Number::E4m3 => return Scales::E4m3,
                _ => {}
            }
        }
        let fits = self.scales.places().all(|(row, col)| {
            let (scale, bias) = self.pair(row, col);
            survives_f16(scale) && survives_f16(bias)
        });
        if fits { Scales::F16 } else { Scales::F32 }
    }

    /// The scale and the bias of a column.
    fn pair(&self, row: usize, col: usize) -> (f32, f32) {
        let scale = self.scales.get(row, col);
        let scale = if self.scales.number == Number::E4m3 { scale } else { scale * self.factor(row) };
        let bias = match &self.offset {
            Offset::None => 0.0,
            Offset::Biases(grid) => grid.get(row, col),
            Offset::Centre(centre) => -centre * scale,
            Offset::Zeros(zeros) => -f32::from(zeros.get(row, col / self.group)) * scale,
        };
        (scale, bias)
    }

    /// Decodes block `i` of `row`, of as many columns as [`Quantized::format`] says. The scales of
    /// E4M3 are without the factor.
    pub fn decode(&self, row: usize, i: usize, block: &mut Block) {
        let cols = self.codes.cols;
        let (columns, group) = match self.format(cols) {
            format @ (Format::Affine { group, .. } | Format::Scaled { group, .. }) => {
                (format.block(), usize::from(group))
            }
            _ => return,
        };
        let first = i * columns;
        self.codes.read(row, first, &mut block.q[..columns]);
        for g in 0..columns / group {
            let (scale, bias) = self.pair(row, first + g * group);
            block.set(g, scale, bias);
        }
    }

    /// Decodes a row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let mut codes = [0; 32];
        for (i, out) in out.chunks_mut(32).enumerate() {
            let first = 32 * i;
            let codes = &mut codes[..out.len()];
            self.codes.read(row, first, codes);
            let (mut last, mut pair) = (usize::MAX, (0.0, 0.0));
            for (j, (out, code)) in out.iter_mut().zip(codes).enumerate() {
                let group = match (&self.order, self.scales.flat) {
                    (Some(order), _) => order[first + j] as usize,
                    (None, Some(cols)) => (row * cols + first + j) / self.group,
                    (None, None) => (first + j) / self.group,
                };
                if group != last {
                    let col = if self.order.is_some() { group * self.group } else { first + j };
                    (last, pair) = (group, self.pair(row, col));
                    // E4M3 is kept apart from its factor for the device.
                    pair.0 *= if self.scales.number == Number::E4m3 { self.factor(row) } else { 1.0 };
                }
                let value = self.values.map_or(f32::from(*code), |values| values.value(*code));
                *out = pair.0 * value + pair.1;
            }
        }
    }

    /// For people.
    pub fn kind(&self) -> Kind {
        Kind::Quantized { method: self.method, bits: self.bits, group: self.group }
    }

    /// Stored bytes.
    pub fn bytes(&self) -> u64 {
        let offset = match &self.offset {
            Offset::Biases(grid) => grid.bytes.len(),
            Offset::Zeros(zeros) => zeros.codes.bytes.len(),
            Offset::None | Offset::Centre(_) => 0,
        };
        (self.codes.bytes.len() + self.scales.bytes.len() + offset) as u64
    }

    /// The file of the codes.
    pub fn path(&self) -> &Path {
        self.codes.bytes.path()
    }
}

/// Whether f16 holds `v` exactly, as it does what was bf16 or f16 before: at 8 bits a bias is some
/// hundred scales, and rounding it would move every weight of its group the same way. The scales that
/// MLX writes for groups of equal weights (1e-7, its smallest) pass: they multiply nothing of size.
fn survives_f16(v: f32) -> bool {
    v.is_finite() && (v.abs() <= 1.01e-7 || f16::from_f32(v).to_f32() == v)
}

#[cfg(test)]
mod tests;
