//! Every plugin of this repository built as a library: a directory of them serves what the linked ones serve.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tamarack::plugins::{Found, Registry};
use tamarack_api::{
    API, Config, Graph,
    plugin::{RecordRequest, call, record_graph},
    registered, tensors,
};
use tamarack_plugins as _;
use tamarack_tests::{
    allocations::{Counting, allocations},
    plugins::library,
};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `tamarack plugins --json` prints: the model types of each architecture, by package and name.
fn listed(registry: &Registry) -> BTreeMap<String, Value> {
    let listing = serde_json::to_value(registry.list()).expect("a listing is JSON");
    assert_eq!(listing["failures"], json!([]));
    let plugins = listing["plugins"].as_array().expect("a list").clone();
    let key = |p: &Value| format!("{} of {}", p["name"].as_str().unwrap_or("?"), p["package"].as_str().unwrap_or("?"));
    plugins.into_iter().map(|p| (key(&p), p["model_types"].clone())).collect()
}

/// Every shipped plugin's library, by package.
fn libraries(linked: &Registry) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let packages: BTreeSet<String> = linked.list().plugins.into_iter().map(|p| p.package).collect();
    for package in packages {
        let path = library(&package);
        let to = directory.path().join(path.file_name().expect("a name"));
        fs::copy(&path, &to).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    directory
}

#[test]
fn a_directory_of_libraries_lists_what_is_linked() {
    let linked = Registry::linked();
    let expected = listed(&linked);
    assert!(expected.len() >= tamarack_plugins::LINKED, "{expected:?}");
    let directory = libraries(&linked);
    let mut loaded = Registry::default();
    loaded.load_dir(directory.path());
    assert_eq!(listed(&loaded), expected);
}

#[test]
fn five_hundred_bad_files_among_all_libraries_take_less_than_a_second() {
    let linked = Registry::linked();
    let directory = libraries(&linked);
    let timed = |directory: &Path| {
        let (start, mut registry) = (Instant::now(), Registry::default());
        registry.load_dir(directory);
        (registry, start.elapsed())
    };
    let alone = timed(directory.path()).1;
    let good = fs::read(library("tamarack-llama")).expect("a library");
    let bad = |i: usize| match i % 4 {
        0 => format!("no library, number {i}").into_bytes(),
        1 => good[..64 + 8 * i].to_vec(),
        2 => [&good[..18], &[243, 0], &good[20..4096]].concat(), // for RISC-V
        _ => Vec::new(),
    };
    let bad_alone = tempfile::tempdir().expect("a directory");
    for i in 0..500 {
        let name = format!("{DLL_PREFIX}bad_{i}{DLL_SUFFIX}");
        [&directory, &bad_alone].iter().for_each(|d| fs::write(d.path().join(&name), bad(i)).expect("a file"));
    }
    let ((loaded, with_bad), (_, of_bad)) = (timed(directory.path()), timed(bad_alone.path()));
    println!("libraries in {alone:?}, among 500 bad files in {with_bad:?}, these alone in {of_bad:?}");
    let found = loaded.list();
    assert_eq!(found.plugins.len(), linked.list().plugins.len());
    let paths: BTreeSet<_> = found.failures.iter().map(|f| &f.path).collect();
    assert_eq!(paths.len(), 500);
    let unexplained = found.failures.iter().find(|f| f.reason.len() < 20);
    assert_eq!(unexplained, None);
    // Unstripped, as they are in the development profile, libraries are ten megabytes each to copy, which no file is
    // blamed for.
    assert!(of_bad < Duration::from_secs(1), "{of_bad:?}");
    assert!(cfg!(debug_assertions) || with_bad < Duration::from_secs(1), "{with_bad:?}");
}

/// DeepSeek-V3, which has more tensors than any other model here: 45 thousand names cross the boundary.
fn deepseek() -> Value {
    json!({
        "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "vocab_size": 129280,
        "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
        "n_group": 8, "topk_group": 4, "max_position_embeddings": 4096,
    })
}

/// Beside that of its 2,600 operations, which are decoded one by one.
#[test]
fn tensors_cross_the_boundary_without_an_allocation_each() {
    let config = deepseek();
    let plugin = registered().into_iter().find(|r| r.package == "tamarack-deepseek").expect("linked").architecture;
    let index = tensors(plugin, &Config::from(config.clone())).expect("tensors");
    let (here, there) = (index.clone(), index.clone());
    let (recorded, linked) = allocations(|| {
        let mut graph = record_graph(plugin, "text", &Config::from(config.clone()), here).expect("a graph");
        graph.check().expect("sound");
        graph
    });
    let ((request, reply, loaded), crossing) = allocations(|| {
        let (architecture, graph, config) = (plugin.declaration().name, "text".to_owned(), config.clone());
        let request = RecordRequest { architecture, graph, config, index: &there, api: Some(API) };
        let request = serde_json::to_vec(&request).expect("a request");
        let reply = call("record", &request).expect("a reply");
        let loaded = Graph::decode_for(&reply, there).expect("a graph");
        (request.len(), reply.len(), loaded)
    });
    assert!(recorded == loaded);
    let more = crossing.saturating_sub(linked);
    println!("{request} bytes out, {reply} in; {linked} allocations linked, {more} more across the boundary");
    assert!(linked > index.len(), "nothing is counted");
    assert!(more < index.len() / 4, "{more} allocations more, for {} tensors", index.len());
    assert!(reply < 40 * index.len(), "{reply} bytes");
}

/// As many layers as Llama 3.1 405B has, and as many tensors as any.
#[test]
fn the_largest_models_are_recorded_by_a_library_in_no_time() {
    let llama = json!({
        "model_type": "llama", "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
        "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 4096,
    });
    for (package, config, tensors, most) in
        [("tamarack-llama", llama, 1_100, 50), ("tamarack-deepseek", deepseek(), 45_000, 500)]
    {
        let model_type = config["model_type"].as_str().expect("a name");
        let linked = Registry::linked().find(model_type).expect("linked");
        let mut registry = Registry::default();
        let start = Instant::now();
        registry.load_file(&library(package)).expect("a plugin");
        let loading = start.elapsed();
        let library = registry.find(model_type).expect("served");
        let index = linked.tensors(&config).expect("tensors");
        assert!(index.len() > tensors, "{}", index.len());
        let best = |plugin: &Found| {
            let time = |_| {
                let (start, index) = (Instant::now(), index.clone());
                let graph = plugin.record("text", &config, index).expect("a graph");
                (start.elapsed(), graph)
            };
            (0..5).map(time).min_by_key(|(took, _)| *took).expect("five")
        };
        let ((here, recorded), (there, loaded)) = (best(&linked), best(&library));
        println!("{model_type}: linked {here:?}, by a library {there:?}, which loads in {loading:?}");
        // The same graph, line numbers and all: so the same runs.
        assert!(loaded == recorded);
        assert!(there < here + Duration::from_millis(most), "{model_type}: {here:?}, by a library {there:?}");
    }
}
