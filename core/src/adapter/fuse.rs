//! An adapter's weights, added to the model's.

use super::{Adapter, is_of};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, Tensor},
};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The weights that a model has with `adapter` in them. What was quantized is so no more.
pub(crate) fn fused(checkpoint: &Checkpoint, adapter: &Adapter) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    for (module, low) in &adapter.modules {
        let found = checkpoint.tensors().find(|(name, _)| is_of(name, module));
        let (name, base) = found.ok_or_else(|| Error::Model(format!("{module}: the model has no such weight")))?;
        let cols = base.cols();
        let mut values = vec![0.0; base.rows() * cols];
        values.par_chunks_exact_mut(cols).enumerate().for_each(|(i, row)| {
            base.row(i, row);
            let factor = low.adapt(i, row);
            row.iter_mut().for_each(|w| *w *= factor);
        });
        all.insert(name.to_owned(), Tensor::from_values(name, base.shape(), &values)?);
    }
    Ok(all)
}
