//! How a kernel reads a matrix of any format.
//!
//! The snippet of a format gives a kernel these functions, over `row` of the matrix:
//!
//! - `words(row, unit) -> Words`: the words of a unit, the columns that are loaded together;
//! - `run(words, j) -> vec4<f32>`: columns `4j .. 4j+4` of a unit, for a quantized format before they
//!   are scaled;
//! - `bytes(words, j) -> u32`: the same as bytes, where they are whole numbers: `q` of an affine format,
//!   without a sign, or signed bytes of a scaled one;
//! - `scale(row, unit) -> vec2<f32>`: quantized only, the scale and bias of a unit;
//! - `weight(row, c) -> vec4<f32>`: columns `4c .. 4c+4` of the row, ready to use.

use crate::template::{Bindings, consts, float, render};
use crate::{Format, Scales, Values};

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
            Format::Scaled { values, .. } => 32 / u32::from(values.bits()),
            Format::Affine { .. } => return Weights { format, k, columns: 16, vec: 0 },
            Format::F32 => return Weights { format, k, columns: 4, vec: 0 },
        };
        // A unit lies within one group, and holds whole runs.
        let within = match format {
            Format::Affine { group, .. } | Format::Scaled { group, .. } => u32::from(group),
            _ => k,
        };
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

    /// Whether a run is to be scaled.
    pub fn is_quantized(&self) -> bool {
        matches!(self.format, Format::Affine { .. } | Format::Scaled { .. })
    }

    /// Whether there are `bytes`.
    pub fn are_integers(&self) -> bool {
        match self.format {
            Format::Affine { .. } => true,
            Format::Scaled { values, .. } => values.are_integers(),
            _ => false,
        }
    }

    /// The bindings `quants` and, for a quantized format, `scales`.
    pub fn bind(&self, bindings: &mut Bindings) {
        let element = match (self.format, self.vec) {
            (Format::F32, _) if self.is_aligned() => "vec4<f32>".to_string(),
            (Format::Affine { bits: 6, .. }, _) => "vec2<u32>".to_string(),
            _ => self.words(),
        };
        bindings.read("quants", &element);
        match self.format {
            Format::Affine { scales: Scales::F32, .. } => bindings.read("scales", "vec2<f32>"),
            Format::Affine { .. } | Format::Scaled { .. } => bindings.read("scales", "u32"),
            _ => {}
        }
    }

    /// The functions listed above, with the constants they use.
    pub fn source(&self) -> String {
        let mut sizes = vec![("K", self.k), ("UNITS", self.units()), ("RUNS", self.runs())];
        let (mut bits, mut place, mut scale) = (1, "", String::new());
        match self.format {
            Format::Affine { bits: b, group, scales } => {
                let group = u32::from(group);
                sizes.extend([("GROUPS", self.k / group), ("GROUP_UNITS", group / self.columns)]);
                (place, scale) = match scales {
                    // One half of the word, and from where the quants count.
                    Scales::Centered => {
                        let one = "unpack2x16float(pair >> (16u * (group % 2u))).x";
                        ("group / 2u", format!("{one} * vec2<f32>(1.0, -{}.0)", 1 << (b - 1)))
                    }
                    Scales::F32 => ("group", "pair".to_string()),
                    _ => ("group", "unpack2x16float(pair)".to_string()),
                };
                bits = u32::from(b);
            }
            Format::Scaled { values, group, scales } => {
                let row = self.format.row_scale_words(self.k as usize) as u32;
                sizes.extend([("ROW_SCALES", row), ("GROUP_UNITS", u32::from(group) / self.columns)]);
                scale = scale_of(scales, values.unit());
                bits = u32::from(values.bits());
            }
            _ => {}
        }
        let values = [
            ("CODES", if matches!(self.format, Format::Scaled { .. }) { "codes" } else { "bytes" }.to_string()),
            ("WORD", if self.vec > 1 { "q[j / {{WORD_RUNS}}u]" } else { "q" }.to_string()),
            ("WORD_RUNS", (8 / bits).to_string()),
            ("MASK", (((1 << bits) - 1) * 0x0101_0101u32).to_string()),
            ("BITS", bits.to_string()),
            ("WORDS", self.words()),
            ("VEC", self.vec.to_string()),
            ("ELEMENT", self.element().to_string()),
            ("SCALE_OF", scale),
            ("PLACE", place.to_string()),
        ];
        consts(&sizes) + &render(&[self.snippet(), &self.values(), self.weight()].concat(), &values)
    }

    /// `run` from what `snippet` gives, and `scale`, `weight`.
    fn weight(&self) -> &'static str {
        match self.format {
            Format::Affine { .. } => include_str!("../wgsl/weights/scale.wgsl"),
            Format::Scaled { .. } => include_str!("../wgsl/weights/scaled.wgsl"),
            _ => include_str!("../wgsl/weights/dense.wgsl"),
        }
    }

    /// For a scaled format, from codes to numbers.
    fn values(&self) -> String {
        let Format::Scaled { values, .. } = self.format else { return String::new() };
        let level: fn(f32) -> String = match values {
            Values::E2m1 => return include_str!("../wgsl/weights/e2m1.wgsl").to_string(),
            Values::E4m3 => return include_str!("../wgsl/weights/e4m3.wgsl").to_string(),
            Values::Nf4 | Values::BnbFp4 => |v| format!("vec4<f32>({})", float(v)),
            // The same signed byte four times.
            Values::Iq4 => |v| format!("{}u", u32::from(v as i8 as u8) * 0x0101_0101),
        };
        let source = match values.are_integers() {
            true => include_str!("../wgsl/weights/table_bytes.wgsl"),
            false => include_str!("../wgsl/weights/table_floats.wgsl"),
        };
        let levels = values.table().map(level);
        // From the 16 levels the halves that one bit of the code decides between, four times.
        let chosen = (0..4).fold(levels.to_vec(), |levels, bit| {
            levels.chunks_exact(2).map(|pair| format!("choose({}, {}, bit{bit})", pair[0], pair[1])).collect()
        });
        render(source, &[("CHOSEN", chosen.concat())])
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
            Format::Affine { .. } | Format::Scaled { .. } => include_str!("../wgsl/weights/affine248.wgsl"),
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

/// The WGSL expression of the scale of `group`, times `unit`.
fn scale_of(scales: Scales, unit: f32) -> String {
    let byte = |first: u32| format!("scale_byte(row * ROW_SCALES + {first}u, group)");
    let scale = match scales {
        Scales::F32 => "bitcast<f32>(scales[row * ROW_SCALES + group])".to_string(),
        Scales::F16 | Scales::Centered => {
            "unpack2x16float(scales[row * ROW_SCALES + group / 2u])[group % 2u]".to_string()
        }
        Scales::E8m0 => format!("bitcast<f32>({} << 23u)", byte(0)),
        Scales::E4m3 => format!("bitcast<f32>(scales[row * ROW_SCALES]) * e4m3_256th({})", byte(1)),
    };
    let unit = if scales == Scales::E4m3 { unit * 256.0 } else { unit };
    if unit == 1.0 { scale } else { format!("{} * {scale}", float(unit)) }
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
