//! How a matrix lies in device memory.

/// The canonical forms that every checkpoint format ends as.
///
/// A matrix is [rows, cols], row-major, rows without padding.
///
/// - `F32`: one word an element. `F16`, `Bf16`: two elements a word, the even one in the low half.
/// - `Affine`: value = scale * q + bias, one (scale, bias) per `group` consecutive columns of a row.
///   Two buffers:
///   - quants: each block of 32 columns is `bits` words: the planes of the block one after the
///     other, the wide plane first. 8 = 8; 6 = 4 + 2; 5 = 4 + 1; 4 = 4; 3 = 2 + 1; 2 = 2. A plane of
///     `b` bits holds its 32 elements in `b` words; in each word, byte `j` holds at bits
///     `b*p .. b*(p+1)` element `4*p + j`. So `(word >> (b*p)) & mask` is a run of four consecutive
///     elements, one a byte, ready for `unpack4xU8` and for `dot4I8Packed`. The low bits of `q` are
///     in the wide plane.
///   - scales: for each group the pair (scale, bias), as two f16 in one word (scale in the low half)
///     or as two f32; or the scales alone, two groups a word, the even one in the low half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
    /// scale * q + bias per group.
    Affine {
        /// 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Columns per (scale, bias): 16, 32, 64 or 128.
        group: u16,
        /// How the pairs are stored.
        scales: Scales,
    },
}

/// The type of an affine format's scales and biases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Scales {
    /// Where every scale and bias survives the rounding.
    F16,
    /// Otherwise.
    F32,
    /// As f16 and without biases: the quants count from their middle, value = scale * (q - 2^(bits - 1)).
    /// A row has an even number of groups.
    Centered,
}

impl Format {
    /// Columns that are stored together: a matrix's `cols` is a multiple of this.
    pub fn block(self) -> usize {
        match self {
            Format::F32 => 1,
            Format::F16 | Format::Bf16 => 2,
            Format::Affine { group, scales: Scales::Centered, .. } => 2 * (group as usize).max(16),
            Format::Affine { group, .. } => (group as usize).max(32),
        }
    }

    /// Words of the main buffer for a row of `cols` columns.
    pub fn row_words(self, cols: usize) -> usize {
        match self {
            Format::F32 => cols,
            Format::F16 | Format::Bf16 => cols / 2,
            Format::Affine { bits, .. } => cols / 32 * bits as usize,
        }
    }

    /// Words of the scales buffer for a row of `cols` columns; zero for dense formats.
    pub fn row_scale_words(self, cols: usize) -> usize {
        match self {
            Format::Affine { group, scales: Scales::F16, .. } => cols / group as usize,
            Format::Affine { group, scales: Scales::F32, .. } => cols / group as usize * 2,
            Format::Affine { group, scales: Scales::Centered, .. } => cols / group as usize / 2,
            _ => 0,
        }
    }

    /// The planes of an affine format, wide one first.
    pub fn planes(bits: u8) -> &'static [u8] {
        match bits {
            2 => &[2],
            3 => &[2, 1],
            4 => &[4],
            5 => &[4, 1],
            6 => &[4, 2],
            8 => &[8],
            _ => &[],
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Format::F32 => write!(f, "f32"),
            Format::F16 => write!(f, "f16"),
            Format::Bf16 => write!(f, "bf16"),
            Format::Affine { bits, group, scales: Scales::Centered } => write!(f, "centered{bits} g{group}"),
            Format::Affine { bits, group, .. } => write!(f, "affine{bits} g{group}"),
        }
    }
}
