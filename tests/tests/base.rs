//! Models that were saved without their head: the names of their tensors lack the prefix that the class with a head puts before
//! them, as those of Qwen3-Embedding do. `transformers` finds either, for any architecture.

use safetensors::{SafeTensors, tensor::TensorView};
use std::{fs, path::Path};
use tamarack::{checkpoint::Checkpoint, plugins::Registry};
use tamarack_api::{Graph, WeightExpr};
use tamarack_tests::models;

/// Writes the model in `from` with other names.
fn rename(from: &Path, to: &Path, name: impl Fn(&str) -> String) {
    fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<(String, TensorView<'_>)> = file.tensors().into_iter().map(|(n, view)| (name(&n), view)).collect();
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
}

fn recorded(folder: &Path) -> Result<Graph, String> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let found = Registry::linked().find(checkpoint.config()["model_type"].as_str().unwrap()).unwrap();
    Ok(found.record_text(&checkpoint, true).map_err(|e| e.to_string())?.0)
}

#[test]
fn names_without_the_prefix_are_found_in_every_architecture() {
    let types = models::types().collect::<Vec<_>>();
    let folders = types.iter().flat_map(|t| models::tiny(&format!("architectures/{t}"))).chain(models::tiny("llama"));
    let mut seen = 0;
    for folder in folders.filter(|f| f.join("model.safetensors").is_file()) {
        let base = tempfile::tempdir().unwrap();
        rename(&folder, base.path(), |name| name.strip_prefix("model.").unwrap_or(name).to_owned());
        let mut graph = recorded(&folder).unwrap_or_else(|e| panic!("{e}"));
        let found = recorded(base.path()).unwrap_or_else(|e| panic!("{e}"));
        for weight in &mut graph.weights {
            if let WeightExpr::Tensor(name) = &mut weight.expr {
                *name = name.strip_prefix("model.").unwrap_or(name).to_owned();
            }
        }
        assert_eq!(found, graph, "{}", folder.display());
        seen += 1;
    }
    assert!(seen > 80, "{seen}");
}

/// Nothing is guessed where a tensor has the prefix, or none is known without it.
#[test]
fn names_of_another_kind_are_not_taken_for_such() {
    let folder = models::tiny("llama").into_iter().find(|f| f.ends_with("relu")).unwrap();
    let base = tempfile::tempdir().unwrap();
    let mixed = |name: &str| if name.contains("layers") { name.replace("model.", "") } else { name.to_owned() };
    for name in [&mixed as &dyn Fn(&str) -> String, &|name: &str| name.replace("model.", "transformer.")] {
        rename(&folder, base.path(), name);
        let e = recorded(base.path()).unwrap_err();
        let expected = "model.layers.0.input_layernorm.weight: expected [32] by config.json, absent from the file";
        assert!(e.contains(expected), "{e}");
    }
}
