//! How a kernel reads a matrix of any format.
//!
//! The snippet of a format gives a kernel these functions, over `row` of the matrix:
//!
//! - `words(row, unit) -> Words`: the words of a unit, the columns that are loaded together;
//! - `run(words, j) -> vec4<f32>`: columns `4j .. 4j+4` of a unit, for an affine format as `q`;
//! - `bytes(words, j) -> u32`: affine only, the same `q` as bytes;
//! - `scale(row, unit) -> vec2<f32>`: affine only, the scale and bias of a unit;
//! - `weight(row, c) -> vec4<f32>`: columns `4c .. 4c+4` of the row, ready to use.

use crate::template::{Bindings, consts, render};
use crate::{Format, Scales};

/// A matrix of `k` columns, as kernels see it.
pub(crate) struct Weights {
    format: Format,
    k: u32,
    /// Columns of a unit.
    columns: u32,
    /// Words of a unit, where the snippet leaves that open.
    vec: u32,
}

impl Weights {
    /// Units of `columns` columns, or of what the format has nearest to that.
    pub fn new(format: Format, k: u32, columns: u32) -> Weights {
        let per_word = match format {
            Format::F16 | Format::Bf16 => 2,
            Format::Affine { bits: bits @ (2 | 4 | 8), .. } => 32 / u32::from(bits),
            Format::Affine { .. } => return Weights { format, k, columns: 16, vec: 0 },
            Format::F32 => return Weights { format, k, columns: 4, vec: 0 },
        };
        // A unit lies within one group, and holds whole runs.
        let within = if let Format::Affine { group, .. } = format { u32::from(group) } else { k };
        let possible = |vec: &u32| (vec * per_word).is_multiple_of(4) && within.is_multiple_of(vec * per_word);
        let mut vecs = [4, 2, 1].into_iter().filter(possible);
        match vecs.clone().find(|vec| vec * per_word <= columns).or(vecs.next_back()) {
            Some(vec) => Weights { format, k, columns: vec * per_word, vec },
            None => Weights { format, k, columns: 4, vec: 0 },
        }
    }

    /// Runs of four columns in a unit.
    pub fn runs(&self) -> u32 {
        self.columns / 4
    }

    /// Columns of a unit.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// Units in a row.
    pub fn units(&self) -> u32 {
        self.k.div_ceil(self.columns)
    }

    /// Whether a run is `q`, to be scaled.
    pub fn is_affine(&self) -> bool {
        matches!(self.format, Format::Affine { .. })
    }

    /// The bindings `quants` and, for an affine format, `scales`.
    pub fn bind(&self, bindings: &mut Bindings) {
        let element = match (self.format, self.vec) {
            (Format::F32, _) if self.is_aligned() => "vec4<f32>".to_string(),
            (Format::Affine { bits: 6, .. }, _) => "vec2<u32>".to_string(),
            _ => self.words(),
        };
        bindings.read("quants", &element);
        match self.format {
            Format::Affine { scales: Scales::F16 | Scales::Centered, .. } => bindings.read("scales", "u32"),
            Format::Affine { scales: Scales::F32, .. } => bindings.read("scales", "vec2<f32>"),
            _ => {}
        }
    }

    /// The functions listed above, with the constants they use.
    pub fn source(&self) -> String {
        let mut sizes = vec![("K", self.k), ("UNITS", self.units()), ("RUNS", self.runs())];
        let (mut bits, mut place, mut pair) = (1, "", String::new());
        if let Format::Affine { bits: b, group, scales } = self.format {
            let group = u32::from(group);
            sizes.extend([("GROUPS", self.k / group), ("GROUP_UNITS", group / self.columns)]);
            (place, pair) = match scales {
                Scales::F16 => ("group", "unpack2x16float(pair)".to_string()),
                Scales::F32 => ("group", "pair".to_string()),
                // One half of the word, and from where the quants count.
                Scales::Centered => {
                    let one = "unpack2x16float(pair >> (16u * (group % 2u))).x";
                    ("group / 2u", format!("{one} * vec2<f32>(1.0, -{}.0)", 1 << (b - 1)))
                }
            };
            bits = u32::from(b);
        }
        let weight = match self.is_affine() {
            true => include_str!("../wgsl/weights/scale.wgsl"),
            false => include_str!("../wgsl/weights/dense.wgsl"),
        };
        let values = [
            ("WORD", if self.vec > 1 { "q[j / {{WORD_RUNS}}u]" } else { "q" }.to_string()),
            ("WORD_RUNS", (8 / bits).to_string()),
            ("MASK", (((1 << bits) - 1) * 0x0101_0101u32).to_string()),
            ("BITS", bits.to_string()),
            ("WORDS", self.words()),
            ("VEC", self.vec.to_string()),
            ("ELEMENT", self.element().to_string()),
            ("PAIR", pair),
            ("PLACE", place.to_string()),
        ];
        consts(&sizes) + &render(&[self.snippet(), weight].concat(), &values)
    }

    /// The type of the words of a unit.
    fn words(&self) -> String {
        if self.vec > 1 { format!("vec{}<u32>", self.vec) } else { "u32".to_string() }
    }

    /// Whether every row of a dense matrix begins and ends with a whole vector.
    fn is_aligned(&self) -> bool {
        self.k.is_multiple_of(4)
    }

    fn snippet(&self) -> &'static str {
        match self.format {
            Format::F32 | Format::F16 | Format::Bf16 if !self.is_aligned() => {
                include_str!("../wgsl/weights/unaligned.wgsl")
            }
            Format::F32 => include_str!("../wgsl/weights/f32.wgsl"),
            Format::F16 => include_str!("../wgsl/weights/f16.wgsl"),
            Format::Bf16 => include_str!("../wgsl/weights/bf16.wgsl"),
            Format::Affine { bits: 3, .. } => include_str!("../wgsl/weights/affine3.wgsl"),
            Format::Affine { bits: 5, .. } => include_str!("../wgsl/weights/affine5.wgsl"),
            Format::Affine { bits: 6, .. } => include_str!("../wgsl/weights/affine6.wgsl"),
            Format::Affine { .. } => include_str!("../wgsl/weights/affine248.wgsl"),
        }
    }

    /// Element `i` of a dense matrix of single words.
    fn element(&self) -> &'static str {
        match self.format {
            Format::F16 => "unpack2x16float(quants[i / 2u])[i % 2u]",
            Format::Bf16 => "bitcast<f32>((quants[i / 2u] >> (16u * (i % 2u))) << 16u)",
            _ => "bitcast<f32>(quants[i])",
        }
    }
}

/// A function `name(row, c) -> vec4<f32>`: columns `4c .. 4c+4` of a row of a buffer of f32, whose
/// rows of `columns` elements lie `row` elements apart. Binds that buffer, too.
pub(crate) fn columns(bindings: &mut Bindings, name: &str, offset: u32, row: u32, columns: u32) -> String {
    let aligned = [offset, row, columns].iter().all(|n| n.is_multiple_of(4));
    let buffer = format!("{name}_values");
    bindings.read(&buffer, if aligned { "vec4<f32>" } else { "f32" });
    let source = match aligned {
        true => include_str!("../wgsl/columns.wgsl"),
        false => include_str!("../wgsl/columns_unaligned.wgsl"),
    };
    let values = [
        ("NAME", name.to_string()),
        ("BUFFER", buffer),
        ("OFFSET", offset.to_string()),
        ("ROW", row.to_string()),
        ("COLUMNS", columns.to_string()),
    ];
    render(source, &values)
}
