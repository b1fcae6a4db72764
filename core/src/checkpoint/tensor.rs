//! One logical tensor, however its file stores it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tamarack_kernels::{Format, Scales, Values};

use super::block::Block;
use super::canonical::{pack_dense, pack_pair, pack_quants, pack_scales};
use super::dense::Dtype;
use super::gguf::BlockType;
use super::mapping::{Mapping, Slice};
use super::quantize::Quantize;
use super::quantized::Quantized;
use super::synthetic::Synthetic;
use crate::{Error, Result};

/// One tensor of a checkpoint. Cheap to clone: the bytes stay in the mapped file.
///
/// As a matrix its rows are the product of all dimensions but the last.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    name: String,
    shape: Vec<usize>,
    data: Data,
    view: View,
}

/// The stored bytes.
#[derive(Clone)]
pub(super) enum Data {
    /// Floats, row-major.
    Dense(Dtype, Slice),
    /// Blocks of a GGUF type, row by row.
    Ggml(&'static BlockType, Slice),
    /// What a quantizer wrote: codes, scales and more, each a tensor of its own.
    Quantized(Arc<Quantized>),
    /// A dense tensor that is quantized when it is read.
    Rounded(Tensor, Quantize),
    /// None: the words are made when they are asked for.
    Synthetic(Synthetic),
}

impl Data {
    /// Part `i` of `n` equal ones, of what lies in a file as it is.
    pub fn part(&self, i: usize, n: usize) -> Option<Data> {
        let of = |slice: &Slice| {
            let len = slice.len().checked_div(n).filter(|len| len * n == slice.len())?;
            slice.part(i * len..(i + 1) * len)
        };
        match self {
            Data::Dense(dtype, slice) => Some(Data::Dense(*dtype, of(slice)?)),
            Data::Ggml(ty, slice) => Some(Data::Ggml(ty, of(slice)?)),
            _ => None,
        }
    }
}

/// What a GGUF writer did to a tensor, to be undone when it is read.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct View {
    /// Rows of a head (elements, in a vector) whose rotary pairs are stored side by side: stored
    /// row `2i + r` of a head is row `r * D/2 + i` for us. `None`: rows are where they belong.
    pub adjacent_pairs: Option<usize>,
    /// All values are multiplied by this: one number, or one for each of as many runs of rows. Empty: by nothing.
    pub factors: Vec<f32>,
    /// Then added to every value.
    pub offset: f32,
}

/// How a tensor is stored, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Plain floats.
    Dense(Dtype),
    /// A GGUF block type, by its name there.
    Ggml(&'static str),
    /// Codes that scales belong to.
    Quantized {
        /// Whose layout.
        method: &'static str,
        /// Bits a weight.
        bits: u8,
        /// Columns per scale.
        group: usize,
    },
    /// Random, in this form.
    Synthetic(Format),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Dense(dtype) => write!(f, "{dtype}"),
            Kind::Ggml(name) => write!(f, "{name}"),
            Kind::Quantized { method, bits, group } => write!(f, "{method} {bits}-bit g{group}"),
            Kind::Synthetic(format) => write!(f, "random {format}"),
        }
    }
}

impl Tensor {
    /// A tensor named `name`; the message of an error says what does not fit.
    pub(super) fn new(name: &str, shape: Vec<usize>, data: Data, view: View) -> Result<Tensor, String> {
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let elements = elements.filter(|n| n.checked_mul(4).is_some());
        let elements = elements.ok_or_else(|| format!("{name}: shape {shape:?} is larger than memory"))?;
        if elements == 0 {
            return Err(format!("{name}: shape {shape:?} has no elements"));
        }
        let inner = Inner { name: name.to_owned(), shape, data, view };
        let cols = inner.cols();
        let (unit, bytes, found) = match &inner.data {
            Data::Dense(dtype, slice) => (1, elements.checked_mul(dtype.size()), slice.len()),
            Data::Ggml(ty, slice) => (ty.elements, (elements / ty.elements).checked_mul(ty.bytes), slice.len()),
            Data::Quantized(_) | Data::Rounded(..) => (1, Some(0), 0),
            Data::Synthetic(made) => (made.format.block(), Some(0), 0),
        };
        if !cols.is_multiple_of(unit) {
            let kind = inner.kind();
            return Err(format!("{name}: expected a last dimension divisible by {unit} for {kind}, found {cols}"));
        }
        if bytes != Some(found) {
            let (shape, kind) = (&inner.shape, inner.kind());
            return Err(format!("{name}: expected {bytes:?} bytes for {shape:?} of {kind}, file has {found}"));
        }
        let permuted = if inner.shape.len() > 1 { inner.rows() } else { cols };
        if let Some(d) = inner.view.adjacent_pairs
            && (d == 0 || d % 2 != 0 || permuted % d != 0)
        {
            return Err(format!("{name}: {permuted} rows are not heads of {d} rows, an even number"));
        }
        let factors = &inner.view.factors;
        if !factors.is_empty() && !inner.rows().is_multiple_of(factors.len()) {
            return Err(format!("{name}: {} factors do not fit {} rows", factors.len(), inner.rows()));
        }
        Ok(Tensor(Arc::new(inner)))
    }

    /// The same, quantized when it is read; itself where that does not apply.
    pub(super) fn rounded(&self, quantize: Quantize) -> Result<Tensor, String> {
        if !quantize.applies(self) {
            return Ok(self.clone());
        }
        let data = Data::Rounded(self.clone(), quantize);
        Tensor::new(self.name(), self.shape().to_vec(), data, View::default())
    }

    /// What is quantized when it is read, and how.
    pub(crate) fn dense(&self) -> Option<(&Tensor, Quantize)> {
        match &self.0.data {
            Data::Rounded(dense, quantize) => Some((dense, *quantize)),
            _ => None,
        }
    }

    /// The stored bytes of a row, where they are plain floats.
    pub(super) fn dense_row(&self, row: usize) -> Option<&[u8]> {
        let Data::Dense(dtype, slice) = &self.0.data else { return None };
        let bytes = self.cols() * dtype.size();
        slice.get(row * bytes..(row + 1) * bytes)
    }

    /// Values that are in memory, row-major.
    ///
    /// # Errors
    /// [`Error::Model`] if there are not as many as the shape says.
    pub fn from_values(name: &str, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (all, file) = (0..bytes.len(), Mapping::from_bytes(name, bytes));
        let slice = Slice::new(&file, all).ok_or_else(|| Error::Model(format!("{name}: has no values")))?;
        Tensor::new(name, shape.to_vec(), Data::Dense(Dtype::F32, slice), View::default()).map_err(Error::Model)
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The logical dimensions, slowest first: `[.., O, I]`, also where the file stores packed words.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Product of all dimensions but the last; 1 for vectors and scalars.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// The last dimension; 1 for scalars.
    pub fn cols(&self) -> usize {
        self.0.cols()
    }

    /// How the file stores it.
    pub fn kind(&self) -> Kind {
        self.0.kind()
    }

    /// Stored bytes, scales and biases included.
    pub fn bytes(&self) -> u64 {
        match &self.0.data {
            Data::Dense(_, slice) | Data::Ggml(_, slice) => slice.len() as u64,
            Data::Quantized(quantized) => quantized.bytes(),
            Data::Rounded(_, quantize) => {
                let (format, cols) = (quantize.format(), self.cols());
                4 * (self.rows() * (format.row_words(cols) + format.row_scale_words(cols))) as u64
            }
            Data::Synthetic(made) => (self.rows() * made.row_bytes()) as u64,
        }
    }

    /// The canonical form that [`Tensor::pack`] writes.
    ///
    /// Dense tensors keep their type, in f32 if a row has an odd number of 16-bit elements or if
    /// its values had to be restored by arithmetic. The scales of GGUF blocks become f16 by type,
    /// and go without biases where those follow from them,
    /// without a look at the data: products with an f16 never underflow there, and overflow, which
    /// no sane file has, is an error of `pack`. The scales of other quantizers are looked at on the
    /// first call. What no quantized form can hold (groups that do not fit, columns in disorder)
    /// becomes dense. A factor beside a matrix is one of its scales, which are f32 then.
    pub fn format(&self) -> Format {
        if self.is_derived() {
            return Format::F32;
        }
        match (self.stored_format(), self.0.view.factors.is_empty()) {
            (Format::Affine { bits, group, .. }, false) => Format::Affine { bits, group, scales: Scales::F32 },
            (Format::Scaled { values, group, scales }, false) if scales != Scales::E4m3 => {
                Format::Scaled { values, group, scales: Scales::F32 }
            }
            (format, _) => format,
        }
    }

    fn stored_format(&self) -> Format {
        match &self.0.data {
            Data::Dense(dtype, _) if self.cols().is_multiple_of(2) => dtype.format(),
            Data::Dense(..) => Format::F32,
            Data::Ggml(ty, _) => match ty.format {
                Format::Affine { bits, group, .. }
                    if ty.is_centered() && (self.cols() / usize::from(group)).is_multiple_of(2) =>
                {
                    Format::Affine { bits, group, scales: Scales::Centered }
                }
                format => format,
            },
            Data::Quantized(quantized) => quantized.format(self.cols()),
            Data::Rounded(_, quantize) => quantize.format(),
            Data::Synthetic(made) => made.format,
        }
    }

    /// Decodes one logical row, exactly.
    ///
    /// # Panics
    /// If there is no such row, or `out` does not have [`Tensor::cols`] elements.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (rows, cols) = (self.rows(), self.cols());
        assert!(row < rows && out.len() == cols, "{}: row {row} of {rows}, {} of {cols}", self.name(), out.len());
        let stored = self.stored_row(row);
        match &self.0.data {
            Data::Dense(dtype, slice) => {
                let bytes = cols * dtype.size();
                dtype.decode(&slice[stored * bytes..(stored + 1) * bytes], out);
            }
            Data::Ggml(ty, slice) => {
                let mut block = Block::new();
                for (i, out) in out.chunks_mut(ty.elements).enumerate() {
                    let at = (stored * (cols / ty.elements) + i) * ty.bytes;
                    (ty.decode)(&slice[at..at + ty.bytes], &mut block);
                    block.values(ty.format, out);
                }
            }
            Data::Quantized(quantized) => quantized.row(stored, out),
            Data::Rounded(dense, quantize) => {
                dense.row(row, out);
                quantize.round(out);
            }
            Data::Synthetic(made) => made.row(stored, out),
        }
        if let (Some(d), true) = (self.0.view.adjacent_pairs, self.is_vector()) {
            let adjacent = out.to_vec();
            out.iter_mut().enumerate().for_each(|(i, v)| *v = adjacent[adjacent_pairs(i, d)]);
        }
        if !self.0.view.factors.is_empty() {
            let factor = self.factor(row);
            out.iter_mut().for_each(|v| *v *= factor);
        }
        if self.0.view.offset != 0.0 {
            out.iter_mut().for_each(|v| *v += self.0.view.offset);
        }
    }

    /// Appends `rows` in the canonical form of [`Tensor::format`]: `row_words` words a row to
    /// `quants`, `row_scale_words` to `scales`.
    ///
    /// # Errors
    /// A scale is infinite, not a number, or too large for f16: the file is damaged.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn pack(&self, rows: Range<usize>, quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> Result<()> {
        assert!(rows.end <= self.rows(), "{}: rows {rows:?} of {}", self.name(), self.rows());
        let (format, cols) = (self.format(), self.cols());
        quants.reserve(rows.len().saturating_mul(format.row_words(cols)));
        scales.reserve(rows.len().saturating_mul(format.row_scale_words(cols)));
        match (format, &self.0.data) {
            (_, Data::Synthetic(made)) if !self.is_derived() => rows.for_each(|row| made.pack(row, quants, scales)),
            (_, Data::Rounded(..)) => self.pack_rounded(rows, quants, scales)?,
            (_, Data::Ggml(ty, slice)) if !self.is_derived() && ty.is_moved(format) => {
                self.pack_moved(rows, ty, slice, quants, scales)?;
            }
            (Format::Affine { .. } | Format::Scaled { .. }, _) => {
                for row in rows {
                    self.pack_quantized(row, format, quants, scales)?;
                }
            }
            // Same words in the file and on the device.
            (format, Data::Dense(dtype, slice)) if !self.is_derived() && format == dtype.format() => {
                let bytes = cols * dtype.size();
                for row in rows {
                    let stored = self.stored_row(row);
                    let words = slice[stored * bytes..(stored + 1) * bytes].chunks_exact(4);
                    quants.extend(words.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
                }
            }
            _ => {
                let mut values = vec![0.0; cols];
                for row in rows {
                    self.row(row, &mut values);
                    pack_dense(format, &values, quants);
                }
            }
        }
        Ok(())
    }

    fn pack_rounded(&self, rows: Range<usize>, quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> Result<()> {
        let Data::Rounded(dense, quantize) = &self.0.data else { return Ok(()) };
        let mut values = vec![0.0; self.cols()];
        for row in rows {
            dense.row(row, &mut values);
            if !quantize.pack(&values, quants, scales) {
                let message = format!("{}: row {row} has values that 16 bits do not hold", self.name());
                return Err(Error::file(self.0.path(), message));
            }
        }
        Ok(())
    }

    fn pack_moved(
        &self,
        rows: Range<usize>,
        ty: &BlockType,
        slice: &[u8],
        quants: &mut Vec<u32>,
        scales: &mut Vec<u32>,
    ) -> Result<()> {
        let bytes = self.cols() / ty.elements * ty.bytes;
        for row in rows {
            let stored = self.stored_row(row) * bytes;
            for (i, block) in slice[stored..stored + bytes].chunks_exact(ty.bytes).enumerate() {
                if !ty.moved(block, i, quants, scales) {
                    return Err(self.damaged(row, &format!("a scale out of range in block {i}")));
                }
            }
        }
        Ok(())
    }

    fn damaged(&self, row: usize, message: &str) -> Error {
        Error::file(self.0.path(), format!("{}: row {row} has {message}: is the file damaged?", self.name()))
    }

    fn pack_quantized(&self, row: usize, format: Format, quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> Result<()> {
        let (stored, cols) = (self.stored_row(row), self.cols());
        let fail = |message: String| self.damaged(row, &message);
        let elements = self.block_columns(format);
        // A division takes as long as many columns do.
        let (blocks, groups) = match format {
            Format::Affine { group, .. } | Format::Scaled { group, .. } => {
                (cols / elements, elements / usize::from(group))
            }
            Format::F32 | Format::F16 | Format::Bf16 => (0, 0),
        };
        let (mut block, mut of_row) = (Block::new(), Vec::new());
        let factor = self.factor(row);
        for i in 0..blocks {
            self.decode(stored, i, blocks, &mut block);
            let codes = &block.q[..elements];
            match format {
                Format::Affine { bits, scales: kind, .. } => {
                    pack_quants(bits, codes, quants);
                    for (j, (scale, bias)) in block.scale.iter().zip(&block.bias).take(groups).enumerate() {
                        let (scale, bias) = (scale * factor, bias * factor);
                        if !pack_pair(kind, i * groups + j, scale, bias, scales) {
                            return Err(fail(format!("scale {scale} and bias {bias}, out of range")));
                        }
                    }
                }
                Format::Scaled { values, scales: kind, .. } => {
                    if values == Values::E4m3 && codes.iter().any(|code| code & 0x7f == 0x7f) {
                        return Err(fail("a value that is no number".into()));
                    }
                    pack_quants(values.bits(), codes, quants);
                    let factor = if kind == Scales::E4m3 { 1.0 } else { factor };
                    of_row.extend(block.scale[..groups].iter().map(|scale| scale * factor));
                }
                Format::F32 | Format::F16 | Format::Bf16 => {}
            }
        }
        let factor = if let Data::Quantized(quantized) = &self.0.data { quantized.factor(stored) } else { factor };
        match format {
            Format::Scaled { scales: kind, .. } if !pack_scales(kind, &of_row, factor, scales) => {
                Err(fail(format!("scales out of range among {of_row:?} times {factor}")))
            }
            _ => Ok(()),
        }
    }

    /// Columns that [`Tensor::decode`] decodes together.
    fn block_columns(&self, format: Format) -> usize {
        match &self.0.data {
            Data::Ggml(ty, _) => ty.elements,
            _ => format.block(),
        }
    }

    /// Decodes block `i` of the `blocks` of stored row `row` of a quantized tensor.
    fn decode(&self, row: usize, i: usize, blocks: usize, block: &mut Block) {
        match &self.0.data {
            Data::Dense(..) | Data::Rounded(..) | Data::Synthetic(_) => {}
            Data::Ggml(ty, slice) => {
                let at = (row * blocks + i) * ty.bytes;
                (ty.decode)(&slice[at..at + ty.bytes], block);
            }
            Data::Quantized(quantized) => quantized.decode(row, i, block),
        }
    }

    fn stored_row(&self, row: usize) -> usize {
        match self.0.view.adjacent_pairs {
            Some(d) if !self.is_vector() => adjacent_pairs(row, d),
            _ => row,
        }
    }

    /// What a logical row is multiplied by.
    fn factor(&self, row: usize) -> f32 {
        let factors = &self.0.view.factors;
        let run = self.rows() / factors.len().max(1);
        factors.get(row / run.max(1)).copied().unwrap_or(1.0)
    }

    fn is_vector(&self) -> bool {
        self.shape().len() <= 1
    }

    /// Whether values are restored one by one, so that the stored words cannot be passed on.
    fn is_derived(&self) -> bool {
        let View { adjacent_pairs, factors, offset } = &self.0.view;
        let scaled = matches!(self.0.data, Data::Dense(..)) && !factors.is_empty();
        scaled || *offset != 0.0 || (self.is_vector() && adjacent_pairs.is_some())
    }
}

impl Inner {
    fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn kind(&self) -> Kind {
        match &self.data {
            Data::Dense(dtype, _) => Kind::Dense(*dtype),
            Data::Ggml(ty, _) => Kind::Ggml(ty.name),
            Data::Quantized(quantized) => quantized.kind(),
            Data::Rounded(_, Quantize { bits, group }) => {
                Kind::Quantized { method: "made here", bits: *bits, group: usize::from(*group) }
            }
            Data::Synthetic(made) => Kind::Synthetic(made.format),
        }
    }

    fn path(&self) -> &std::path::Path {
        match &self.data {
            Data::Dense(_, slice) | Data::Ggml(_, slice) => slice.path(),
            Data::Quantized(quantized) => quantized.path(),
            Data::Rounded(dense, _) => dense.0.path(),
            Data::Synthetic(_) => super::SYNTHETIC.as_ref(),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.name(), self.shape(), self.kind())
    }
}

/// Where the row that HuggingFace has at `row` lies among heads of `d` rows whose pairs are adjacent.
fn adjacent_pairs(row: usize, d: usize) -> usize {
    let (head, within) = (row / d, row % d);
    let (half, pair) = (within / (d / 2), within % (d / 2));
    head * d + 2 * pair + half
}
