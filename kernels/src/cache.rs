//! How keys and values lie in a cache.

/// The form of one head's key or value in a slot of a cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CacheFormat {
    /// f16, two in a word; an even number of them.
    #[default]
    F16,
    /// Codes of 2, 4 or 8 bits, value = scale * code + bias for each group of adjacent elements: all codes, the first
    /// in the lowest bits, and then for each group scale and bias as f16 in one word. That is KIVI's arithmetic, per
    /// token (arXiv:2402.02750), in MLX's groups.
    Affine {
        /// Of a code.
        bits: u32,
        /// Elements that share a scale; a multiple of 32.
        group: u32,
        /// Whether pages with [`crate::step::FULL_PAGE`] are f16: the first ones of each sequence.
        mixed: bool,
    },
}

impl CacheFormat {
    /// Words of a head of `dim` elements.
    pub fn words(self, dim: u32) -> u32 {
        match self {
            CacheFormat::F16 => dim / 2,
            CacheFormat::Affine { bits, group, .. } => dim * bits / 32 + dim / group,
        }
    }

    /// Whether heads of `dim` elements can be so.
    pub fn fits(self, dim: u32) -> bool {
        match self {
            CacheFormat::F16 => dim.is_multiple_of(2),
            CacheFormat::Affine { bits, group, .. } => {
                [2, 4, 8].contains(&bits) && group > 0 && group.is_multiple_of(32) && dim.is_multiple_of(group)
            }
        }
    }
}
