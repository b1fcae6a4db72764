//! What every quantized format is taken apart into, a few hundred columns at a time.

/// A run of columns of one row: value = scale * q + bias, a (scale, bias) for each group.
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

    /// The values, `out.len()` of them.
    pub fn values(&self, group: usize, out: &mut [f32]) {
        for (g, (out, q)) in out.chunks_mut(group).zip(self.q.chunks(group)).enumerate() {
            for (out, &q) in out.iter_mut().zip(q) {
                *out = self.scale[g] * f32::from(q) + self.bias[g];
            }
        }
    }
}
