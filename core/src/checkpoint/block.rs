//! What every quantized format is taken apart into, a few hundred columns at a time.

use tamarack_kernels::Format;

/// A run of columns of one row: value = scale * q + bias, a (scale, bias) for each group; of a scaled
/// format scale * value of the code q.
///
/// Kept in f32 this is exact for every format read here: products of an f16 and a small integer
/// fit, so that decoding rounds once, where the formats' own decoders do.
pub(super) struct Block {
    /// One quant a column; as many are used as the format has columns in a block.
    pub q: [u8; 256],
    /// One a group.
    pub scale: [f32; 16],
    /// One a group.
    pub bias: [f32; 16],
}

impl Block {
    /// A block to decode into.
    pub fn new() -> Block {
        Block { q: [0; 256], scale: [0.0; 16], bias: [0.0; 16] }
    }

    /// Sets the pair of `group`.
    pub fn set(&mut self, group: usize, scale: f32, bias: f32) {
        self.scale[group] = scale;
        self.bias[group] = bias;
    }

    /// The values in `format`, `out.len()` of them.
    pub fn values(&self, format: Format, out: &mut [f32]) {
        match format {
            Format::Affine { group, .. } => self.each(group, out, |q, scale, bias| scale * f32::from(q) + bias),
            Format::Scaled { values, group, .. } => self.each(group, out, |q, scale, _| scale * values.value(q)),
            Format::F32 | Format::F16 | Format::Bf16 => {}
        }
    }

    fn each(&self, group: u16, out: &mut [f32], value: impl Fn(u8, f32, f32) -> f32) {
        let group = usize::from(group);
        for (g, (out, q)) in out.chunks_mut(group).zip(self.q.chunks(group)).enumerate() {
            out.iter_mut().zip(q).for_each(|(out, &q)| *out = value(q, self.scale[g], self.bias[g]));
        }
    }
}
