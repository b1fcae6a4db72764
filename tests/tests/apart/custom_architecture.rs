//! examples/custom_architecture: a crate out of the workspace, whose model needs an op of its own.

use std::path::Path;
use tamarack::{
    conformance::{Case, Check, check},
    gpu::{Gpu, WgpuExecutor, adapters},
    plugins::{Found, Registry, foreign_imports},
    program::lower,
};
use tamarack_tests::apart::{build, dylib};

fn plugin() -> Found {
    let path = dylib(&build("examples/custom_architecture", "release", &[]), "custom_architecture");
    assert_eq!(foreign_imports(&path).unwrap(), [""; 0]);
    let mut registry = Registry::default();
    registry.load_file(&path).unwrap_or_else(|e| panic!("{e}"));
    registry.find("partial_norm").unwrap()
}

fn config(case: &str) -> serde_json::Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/custom_architecture/check");
    serde_json::from_str(&std::fs::read_to_string(folder.join(case).join("config.json")).unwrap()).unwrap()
}

#[test]
fn it_conforms_on_the_oracle_and_on_every_adapter() {
    let plugin = plugin();
    for name in ["tiny", "wide"] {
        let case = Case::made_up(name, &plugin, &config(name)).unwrap_or_else(|e| panic!("{e}"));
        let checks = check(&plugin, &case);
        let failed: Vec<&Check> = checks.iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{name}: {failed:#?}");
        // Recording, repeating, misfits; and on the oracle and each adapter: whole, two kinds of pieces, a batch.
        assert_eq!(checks.len(), 3 + 4 * (2 + adapters().len()), "{checks:#?}");
    }
}

#[test]
fn its_op_runs_on_the_gpu_and_means_something() {
    let plugin = plugin();
    let config = config("tiny");
    let index = plugin.tensors(&config).unwrap();
    assert_eq!(index["model.layers.1.post_attention_layernorm.weight"], [48]);
    let checkpoint =
        tamarack::checkpoint::Checkpoint::synthetic(config.clone(), index.clone(), tamarack_kernels::Format::F32)
            .unwrap();
    let graph = plugin.record("text", &config, index.clone()).unwrap();
    let capacity = tamarack::exec::Capacity { rows: 4, outputs: 4, pages: 1, slots: 1 };
    let gpu = Gpu::open(&adapters()[0]).unwrap();
    let mut executor = WgpuExecutor::load(gpu, lower(&graph), &checkpoint, capacity).unwrap();
    let names = executor.dispatches(1, 1, 1).unwrap();
    assert_eq!(names.iter().filter(|n| *n == "custom partial_norm").count(), 5, "{names:?}");

    let mut whole = config;
    whole["partial_norm_factor"] = 1.0.into();
    let other = plugin.record("text", &whole, index).unwrap();
    assert_ne!(graph.custom, other.custom, "the share of the row is in the op");
}
