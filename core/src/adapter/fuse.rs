//! An adapter's weights, added to the model's.

use super::{
    Adapter,
    modules::{self, Adaptable},
    rows_of,
};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, Tensor},
    program::{Node, Op, Program},
};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tamarack_api::WeightId;

/// The weights that a model has with `adapter` in them: those that [`super::apply`] puts its products beside, and no others.
/// They are dense, whatever the model's were.
///
/// # Errors
/// [`Error::Request`] if one of them is used for something else, too, which an adapter does not change: an embedding, mostly.
pub(crate) fn fused<'a>(
    programs: impl Iterator<Item = &'a Program> + Clone,
    checkpoint: &Checkpoint,
    adapter: &Adapter,
) -> Result<BTreeMap<String, Tensor>> {
    let others: BTreeSet<String> = programs.clone().flat_map(|program| uses(program).1).collect();
    let mut all = BTreeMap::new();
    for (name, module) in modules::assign(adapter, &adaptable(programs))? {
        if others.contains(&name) {
            let message = format!(
                "adapter `{}` cannot be fused: the model uses {name} elsewhere, too (tied embeddings), where the adapter \
                 changes nothing; generations can run with it: GenerateParameters::adapter",
                adapter.name
            );
            return Err(Error::Request(message));
        }
        let (Some(low), Some(base)) = (adapter.modules.get(module), checkpoint.get(&name)) else { continue };
        let cols = base.cols();
        let mut values = vec![0.0; base.rows() * cols];
        values.par_chunks_exact_mut(cols).enumerate().for_each(|(i, row)| {
            base.row(i, row);
            let factor = low.adapt(i, row);
            row.iter_mut().for_each(|w| *w *= factor);
        });
        let fused = Tensor::from_values(&name, base.shape(), &values)?;
        all.insert(name, fused);
    }
    Ok(all)
}

/// The weights of a model that adapters may change.
pub(super) fn adaptable<'a>(programs: impl Iterator<Item = &'a Program>) -> Adaptable {
    let mut all = Adaptable::default();
    for program in programs {
        let (products, _) = uses(program);
        all.tied.extend(products.intersection(&tables(program)).cloned());
        if program.tower.is_some() {
            all.tower.extend(products.iter().cloned());
        }
        all.products.extend(products);
    }
    all
}

/// The tensors that products multiply by, and those that are used in other ways.
fn uses(program: &Program) -> (BTreeSet<String>, BTreeSet<String>) {
    let (matrices, vectors) = program.used_weights();
    let factor = |op: &Op| if let Op::MatMul(m) = op { Some(m.weight) } else { None };
    let factors: BTreeSet<WeightId> = program.nodes.iter().filter_map(|n| factor(&n.op)).collect();
    let is_product = |weight: &&WeightId| factors.contains(weight) && rows_of(program, **weight).is_some();
    let products = matrices.iter().filter(is_product).filter_map(|w| Some(rows_of(program, *w)?.0)).collect();
    let others = matrices.iter().filter(|w| !is_product(w)).chain(&vectors);
    let others = others.flat_map(|w| program.weight_names(*w)).map(str::to_owned).chain(tables(program)).collect();
    (products, others)
}

/// The tensors that rows are looked up in. A tied head multiplies by the same weight.
fn tables(program: &Program) -> BTreeSet<String> {
    let table = |node: &Node| if let Op::Embedding { weight, .. } = node.op { Some(weight) } else { None };
    let tables = program.nodes.iter().filter_map(table).flat_map(|w| program.weight_names(w));
    tables.map(str::to_owned).collect()
}
