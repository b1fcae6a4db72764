//! A custom op in plain Rust: what the host runs where it has no GPU, and compares the op's WGSL with.

use crate::Constant;
use serde::{Deserialize, Serialize};

/// Computes one row of a custom op's result.
pub type Plain = fn(&PlainRow<'_>) -> Vec<f32>;

/// One row of what a custom op takes.
pub struct PlainRow<'a> {
    /// The inputs' values in this row.
    pub inputs: Vec<&'a [f32]>,
    /// The weights, whole.
    pub weights: Vec<&'a [f32]>,
    /// The op's constants.
    pub constants: &'a [(String, Constant)],
}

impl PlainRow<'_> {
    /// A constant of the type u32.
    ///
    /// # Panics
    /// There is none of this name: the author's mistake, reported as such.
    pub fn size(&self, name: &str) -> usize {
        match self.constant(name) {
            Constant::U32(n) => n as usize,
            Constant::F32(x) => panic!("the constant {name} is the f32 {x}"),
        }
    }

    /// A constant of the type f32.
    ///
    /// # Panics
    /// Likewise.
    pub fn float(&self, name: &str) -> f32 {
        match self.constant(name) {
            Constant::F32(x) => x,
            Constant::U32(n) => panic!("the constant {name} is the u32 {n}"),
        }
    }

    fn constant(&self, name: &str) -> Constant {
        let found = self.constants.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("the op has no constant {name}")).1
    }
}

/// Asks an architecture for some rows of a custom op. It crosses the boundary as this, in JSON, a line feed, and the
/// values of every input and every weight, f32 in little-endian order. The reply is values alone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlainRequest {
    /// The architecture's name in its library.
    pub architecture: String,
    /// The op's name.
    pub op: String,
    /// Its constants.
    pub constants: Vec<(String, Constant)>,
    /// How many rows.
    pub rows: usize,
    /// The width of a row of each input.
    pub inputs: Vec<usize>,
    /// The size of each weight.
    pub weights: Vec<usize>,
}

impl PlainRequest {
    /// The request as it crosses the boundary. `values` are those of the inputs and then of the weights.
    pub fn encode(&self, values: &[&[f32]]) -> Result<Vec<u8>, String> {
        let mut bytes = serde_json::to_vec(self).map_err(|e| format!("the request cannot be encoded: {e}"))?;
        bytes.push(b'\n');
        values.iter().for_each(|v| bytes.extend(to_bytes(v)));
        Ok(bytes)
    }

    /// What [`PlainRequest::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<(PlainRequest, Vec<f32>), String> {
        let end = bytes.iter().position(|b| *b == b'\n').ok_or("request: has no values")?;
        let request: PlainRequest = serde_json::from_slice(&bytes[..end]).map_err(|e| format!("request: {e}"))?;
        let values = from_bytes(&bytes[end + 1..]);
        let row = request.inputs.iter().try_fold(0usize, |n, w| n.checked_add(*w));
        let all = row.and_then(|n| n.checked_mul(request.rows));
        match request.weights.iter().try_fold(all.unwrap_or(usize::MAX), |n, w| n.checked_add(*w)) {
            Some(n) if n == values.len() => Ok((request, values)),
            n => Err(format!("request: {n:?} values are announced, {} are there", values.len())),
        }
    }

    /// Computes every row.
    pub fn run(&self, plain: Plain, values: &[&[f32]]) -> Vec<f32> {
        let (inputs, weights) = values.split_at(self.inputs.len());
        let row = |r: usize| PlainRow {
            inputs: inputs.iter().zip(&self.inputs).map(|(x, n)| &x[r * n..][..*n]).collect(),
            weights: weights.to_vec(),
            constants: &self.constants,
        };
        (0..self.rows).flat_map(|r| plain(&row(r))).collect()
    }

    /// Values one after the other, cut into those of each input and of each weight.
    pub(crate) fn cut<'a>(&self, mut values: &'a [f32]) -> Vec<&'a [f32]> {
        let sizes = self.inputs.iter().map(|n| n * self.rows).chain(self.weights.iter().copied());
        let cut = |n: usize| {
            let (head, tail) = values.split_at(n);
            values = tail;
            head
        };
        sizes.map(cut).collect()
    }
}

/// f32 in little-endian order.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The values of little-endian bytes.
pub fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
