//! Weight expressions, folded: which rows of which tensors a device's matrix is made of. The bytes
//! stay in the checkpoint until they are decoded (the oracle) or packed (a device).

use crate::{
    Error, Result,
    checkpoint::{Checkpoint, Quantize, Tensor, pack_dense},
};
use std::{ops::Range, sync::Arc};
use tamarack_api::{WeightExpr, WeightId, WeightNode};
use tamarack_kernels::Format;

/// A matrix [rows, cols] that a weight expression stands for. A tensor of more dimensions has the
/// product of all but the last as rows; a vector is one row.
#[derive(Clone)]
pub enum Matrix {
    /// Rows of a tensor as they lie in the file.
    Stored {
        /// Whose.
        tensor: Tensor,
        /// Which.
        rows: Range<usize>,
    },
    /// Matrices one below the other.
    Below(Arc<[Matrix]>),
    /// Vectors one behind the other.
    Beside(Arc<[Matrix]>),
    /// Every value times `scale` plus `shift`.
    Scaled {
        /// The values.
        of: Arc<Matrix>,
        /// First.
        scale: f32,
        /// Then.
        shift: f32,
    },
    /// Some columns.
    Columns {
        /// The matrix.
        of: Arc<Matrix>,
        /// Which.
        columns: Range<usize>,
    },
    /// The last two dimensions exchanged, or the same values under another width.
    Dense {
        /// Columns.
        cols: usize,
        /// Row-major.
        values: Arc<[f32]>,
    },
}

/// Folds weight `id`.
pub fn fold(weights: &[WeightNode], id: WeightId, checkpoint: &Checkpoint) -> Result<Matrix> {
    let node = &weights[id as usize];
    let part = |p: WeightId| fold(weights, p, checkpoint);
    let shape = |p: WeightId| &weights[p as usize].shape[..];
    match &node.expr {
        WeightExpr::Tensor(name) => {
            let tensor = checkpoint.get(name).ok_or_else(|| absent(checkpoint, name))?;
            if tensor.shape() != node.shape {
                let (want, found) = (&node.shape, tensor.shape());
                return Err(Error::Model(format!("{name}: expected {want:?}, file has {found:?}")));
            }
            Ok(Matrix::Stored { tensor: tensor.clone(), rows: 0..tensor.rows() })
        }
        WeightExpr::Concat(parts) | WeightExpr::Stack(parts) => {
            let matrices = parts.iter().map(|p| part(*p)).collect::<Result<Vec<_>>>()?;
            let vectors = matches!(node.expr, WeightExpr::Concat(_)) && node.shape.len() == 1;
            Ok(if vectors { Matrix::Beside(matrices.into()) } else { Matrix::Below(matrices.into()) })
        }
        WeightExpr::Slice { of, dim, start } => Ok(slice(part(*of)?, shape(*of), *dim, *start, node.shape[*dim])),
        // The last dimension stays, and with it every row.
        WeightExpr::Reshape(of) => part(*of),
        WeightExpr::Transpose(of) => Ok(transpose(&part(*of)?, shape(*of))),
        WeightExpr::AddScalar(of, by) => Ok(Matrix::Scaled { of: Arc::new(part(*of)?), scale: 1.0, shift: *by }),
        WeightExpr::MulScalar(of, by) => Ok(Matrix::Scaled { of: Arc::new(part(*of)?), scale: *by, shift: 0.0 }),
    }
}

fn absent(checkpoint: &Checkpoint, name: &str) -> Error {
    match checkpoint.unreadable(name) {
        Some(why) => Error::Model(format!("{name}: {why}")),
        None => Error::Model(format!("{name}: absent from {}", checkpoint.path().display())),
    }
}

fn slice(matrix: Matrix, shape: &[usize], dim: usize, start: usize, len: usize) -> Matrix {
    if dim + 1 == shape.len() {
        return Matrix::Columns { of: Arc::new(matrix), columns: start..start + len };
    }
    // Each index of the outer dimensions has its own run of rows.
    let inner: usize = shape[dim + 1..shape.len() - 1].iter().product();
    let outer: usize = shape[..dim].iter().product();
    let runs = (0..outer).map(|o| (o * shape[dim] + start) * inner..(o * shape[dim] + start + len) * inner);
    let parts: Vec<Matrix> = runs.flat_map(|rows| matrix.some_rows(rows)).collect();
    if let [only] = &parts[..] { only.clone() } else { Matrix::Below(parts.into()) }
}

fn transpose(matrix: &Matrix, shape: &[usize]) -> Matrix {
    let [.., a, b] = *shape else { return matrix.clone() };
    let (rows, mut row) = (matrix.rows(), vec![0.0; b]);
    let mut values = vec![0.0; rows * b];
    for r in 0..rows {
        matrix.row(r, &mut row);
        let (outer, i) = (r / a, r % a);
        row.iter().enumerate().for_each(|(j, v)| values[(outer * b + j) * a + i] = *v);
    }
    Matrix::Dense { cols: a, values: values.into() }
}

impl Matrix {
    /// How many rows.
    pub fn rows(&self) -> usize {
        match self {
            Matrix::Stored { rows, .. } => rows.len(),
            Matrix::Below(parts) => parts.iter().map(Matrix::rows).sum(),
            Matrix::Beside(_) => 1,
            Matrix::Scaled { of, .. } | Matrix::Columns { of, .. } => of.rows(),
            Matrix::Dense { cols, values } => values.len() / cols.max(&1),
        }
    }

    /// How many columns.
    pub fn cols(&self) -> usize {
        match self {
            Matrix::Stored { tensor, .. } => tensor.cols(),
            Matrix::Below(parts) => parts.first().map_or(0, Matrix::cols),
            Matrix::Beside(parts) => parts.iter().map(Matrix::cols).sum(),
            Matrix::Scaled { of, .. } => of.cols(),
            Matrix::Columns { columns, .. } => columns.len(),
            Matrix::Dense { cols, .. } => *cols,
        }
    }

    /// Decodes row `r` into `out`, exactly.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        match self {
            Matrix::Stored { tensor, rows } => tensor.row(rows.start + r, out),
            Matrix::Below(parts) => {
                let (part, r) = find(parts, r);
                parts[part].row(r, out);
            }
            Matrix::Beside(parts) => {
                let mut rest = out;
                for part in parts.iter() {
                    let (head, tail) = rest.split_at_mut(part.cols());
                    part.row(0, head);
                    rest = tail;
                }
            }
            Matrix::Scaled { of, scale, shift } => {
                of.row(r, out);
                out.iter_mut().for_each(|v| *v = *v * scale + shift);
            }
            Matrix::Columns { of, columns } => {
                let mut whole = vec![0.0; of.cols()];
                of.row(r, &mut whole);
                out.copy_from_slice(&whole[columns.clone()]);
            }
            Matrix::Dense { cols, values } => out.copy_from_slice(&values[r * cols..][..*cols]),
        }
    }

    /// The same values, which a device keeps in f32.
    pub fn decoded(self) -> Matrix {
        Matrix::Scaled { of: Arc::new(self), scale: 1.0, shift: 0.0 }
    }

    /// All values, row-major: for vectors and small matrices.
    pub fn values(&self) -> Vec<f32> {
        let cols = self.cols();
        let mut values = vec![0.0; self.rows() * cols];
        for (r, row) in values.chunks_exact_mut(cols.max(1)).enumerate() {
            self.row(r, row);
        }
        values
    }

    /// Runs of rows that have the same device format.
    pub fn formats(&self) -> Vec<(Format, Range<usize>)> {
        let Matrix::Below(parts) = self else { return vec![(self.format(), 0..self.rows())] };
        let mut runs: Vec<(Format, Range<usize>)> = Vec::new();
        let mut start = 0;
        for (format, rows) in parts.iter().flat_map(Matrix::formats) {
            match runs.last_mut() {
                Some((last, run)) if *last == format => run.end += rows.len(),
                _ => runs.push((format, start..start + rows.len())),
            }
            start += rows.len();
        }
        runs
    }

    /// The device format, if all rows have the same.
    pub fn format_of_all(&self) -> Option<Format> {
        match self.formats()[..] {
            [(format, _)] => Some(format),
            _ => None,
        }
    }

    /// What is quantized when it is read, and how, if that is so of all rows and in the same way.
    pub fn dense(&self) -> Option<(Quantize, Matrix)> {
        match self {
            Matrix::Stored { tensor, rows } => {
                let (tensor, quantize) = tensor.dense()?;
                Some((quantize, Matrix::Stored { tensor: tensor.clone(), rows: rows.clone() }))
            }
            Matrix::Below(parts) => {
                let parts = parts.iter().map(Matrix::dense).collect::<Option<Vec<_>>>()?;
                let quantize = parts.first()?.0;
                let same = parts.iter().all(|part| part.0 == quantize);
                same.then(|| (quantize, Matrix::Below(parts.into_iter().map(|part| part.1).collect())))
            }
            _ => None,
        }
    }

    fn format(&self) -> Format {
        match self {
            Matrix::Stored { tensor, .. } => tensor.format(),
            // Values that arithmetic has touched are kept in full.
            _ => Format::F32,
        }
    }

    /// Appends rows of one run of [`Matrix::formats`] in its device format.
    pub fn pack(&self, rows: Range<usize>, quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> Result<()> {
        match self {
            Matrix::Stored { tensor, rows: own } => {
                tensor.pack(own.start + rows.start..own.start + rows.end, quants, scales)
            }
            Matrix::Below(parts) => {
                let mut start = 0;
                for part in parts.iter() {
                    let (from, to) = (rows.start.max(start), rows.end.min(start + part.rows()));
                    if from < to {
                        part.pack(from - start..to - start, quants, scales)?;
                    }
                    start += part.rows();
                }
                Ok(())
            }
            _ => {
                let mut row = vec![0.0; self.cols()];
                for r in rows {
                    self.row(r, &mut row);
                    pack_dense(Format::F32, &row, quants);
                }
                Ok(())
            }
        }
    }

    fn some_rows(&self, rows: Range<usize>) -> Vec<Matrix> {
        match self {
            Matrix::Stored { tensor, rows: own } => {
                vec![Matrix::Stored { tensor: tensor.clone(), rows: own.start + rows.start..own.start + rows.end }]
            }
            Matrix::Below(parts) => {
                let mut start = 0;
                let mut found = Vec::new();
                for part in parts.iter() {
                    let (from, to) = (rows.start.max(start), rows.end.min(start + part.rows()));
                    if from < to {
                        found.extend(part.some_rows(from - start..to - start));
                    }
                    start += part.rows();
                }
                found
            }
            Matrix::Scaled { of, scale, shift } => of
                .some_rows(rows)
                .into_iter()
                .map(|m| Matrix::Scaled { of: Arc::new(m), scale: *scale, shift: *shift })
                .collect(),
            _ => {
                let cols = self.cols();
                let mut values = vec![0.0; rows.len() * cols];
                values.chunks_exact_mut(cols.max(1)).zip(rows).for_each(|(out, r)| self.row(r, out));
                vec![Matrix::Dense { cols, values: values.into() }]
            }
        }
    }
}

/// The part that holds row `r`, and the row's number in it.
fn find(parts: &[Matrix], mut r: usize) -> (usize, usize) {
    for (i, part) in parts.iter().enumerate() {
        if r < part.rows() {
            return (i, r);
        }
        r -= part.rows();
    }
    (parts.len() - 1, r)
}
