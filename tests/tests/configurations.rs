//! What plugins make of config.json, in every model type. Fields that it leaves out, or has null in, mean what `transformers`'
//! configuration class makes of that (`goldens/defaults.py`); and activations that it names are computed, or refused by name.

use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};
use tamarack::{checkpoint::Checkpoint, plugins::Registry};
use tamarack_api::{Activation, Gate, Graph, Index, Kind, Op};
use tamarack_tests as _;

/// What the class reads of one configuration, and what changes once a field is absent or null.
#[derive(serde::Deserialize)]
struct Row {
    /// The configuration itself, where no folder has it.
    config: Option<Value>,
    read: Map<String, Value>,
    absent: BTreeMap<String, Map<String, Value>>,
    null: BTreeMap<String, Map<String, Value>>,
}

fn goldens() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/goldens"))
}

fn table() -> BTreeMap<String, Row> {
    serde_json::from_str(&std::fs::read_to_string(goldens().join("defaults.json")).unwrap()).unwrap()
}

/// The field at `text_config.x` or `x`.
fn place<'a>(config: &'a mut Value, path: &'a str) -> (&'a mut Map<String, Value>, &'a str) {
    match path.split_once('.') {
        Some((outer, key)) => (config[outer].as_object_mut().unwrap(), key),
        None => (config.as_object_mut().unwrap(), path),
    }
}

fn with(mut config: Value, changes: &Map<String, Value>) -> Value {
    for (path, value) in changes {
        let (fields, key) = place(&mut config, path);
        fields.insert(key.to_owned(), value.clone());
    }
    config
}

/// All graphs of a configuration: of each text model with the tensors that it asks for, and of a tower with those of a
/// checkpoint.
fn graphs(registry: &Registry, config: &Value, index: &Index) -> Vec<Result<Graph, String>> {
    let model_type = config["model_type"].as_str().unwrap();
    let text = |found: tamarack::plugins::Found, config: &Value| {
        let index = found.tensors(config).map_err(|e| e.to_string())?;
        found.record("text", config, index).map_err(|e| e.to_string())
    };
    let mut graphs = Vec::new();
    if let Ok(found) = registry.find_kind(model_type, Kind::Llm) {
        graphs.push(text(found, config));
    }
    if let Ok(found) = registry.find_kind(model_type, Kind::Vlm) {
        match found.text_model(config) {
            Ok(Some(model)) => {
                graphs.push(text(registry.find(&model.model_type).unwrap(), &model.config));
                let rest = index.iter().filter(|(name, _)| model.name(name).is_none());
                let rest = rest.map(|(name, shape)| (name.clone(), shape.clone())).collect();
                graphs.push(found.record("tower", config, rest).map_err(|e| e.to_string()));
            }
            other => graphs.push(Err(format!("{other:?}"))),
        }
    }
    assert!(!graphs.is_empty(), "nothing serves {model_type}");
    graphs
}

/// What differs, if anything does.
fn differs(ours: &[Result<Graph, String>], theirs: &[Result<Graph, String>]) -> Option<String> {
    let differs = |(a, b): (&Result<Graph, String>, &Result<Graph, String>)| match (a, b) {
        (Ok(a), Ok(b)) if a == b => None,
        (Ok(a), Ok(b)) => {
            let node = a.nodes.iter().zip(&b.nodes).find(|(a, b)| a != b);
            let weight = a.weights.iter().zip(&b.weights).find(|(a, b)| a != b);
            let rope = a.ropes.iter().zip(&b.ropes).find(|(a, b)| a != b);
            Some(format!("{node:?} {weight:?} {rope:?}").chars().take(600).collect())
        }
        // Classes read the older spelling as the newer one.
        (Err(a), Err(b)) if a.replace("rope_scaling", "rope_parameters") == *b => None,
        (a, b) => Some(format!("{:?}, expected {:?}", a.as_ref().err(), b.as_ref().err())),
    };
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).find_map(differs)
}

/// A configuration of the table, and the tensors of its checkpoint if it has one.
fn of(name: &str, row: &Row) -> (Value, Index) {
    if let Some(config) = &row.config {
        return (config.clone(), Index::new());
    }
    let checkpoint = Checkpoint::open(&goldens().join(name)).unwrap();
    let index = checkpoint.tensors().map(|(name, t)| (name.to_owned(), t.shape().to_vec())).collect();
    (checkpoint.config().clone(), index)
}

#[test]
fn fields_left_out_have_the_defaults_of_their_class() {
    let registry = Registry::linked();
    let (mut wrong, mut compared, mut recorded) = (Vec::new(), 0, 0);
    for (name, row) in table() {
        let (config, index) = of(&name, &row);
        // Packed weights have other names; nothing else is the file's own.
        let kept = |key: &&str| ["model_type", "quantization_config"].contains(key) && config.get(*key).is_some();
        let kept = config.as_object().unwrap().keys().map(String::as_str).filter(kept);
        let kept: Map<String, Value> = kept.map(|key| (key.to_owned(), config[key].clone())).collect();
        let read = with(Value::Object(kept), &row.read);
        let mut compare = |what: String, ours: &Value, theirs: &Value| {
            let [ours, theirs] = [ours, theirs].map(|config| graphs(&registry, config, &index));
            compared += 1;
            recorded += usize::from(theirs.iter().any(Result::is_ok));
            wrong.extend(differs(&ours, &theirs).map(|e| format!("{what}: {e}")));
        };
        compare(name.clone(), &config, &read);
        for (field, changes) in &row.absent {
            let mut ours = config.clone();
            let (fields, key) = place(&mut ours, field);
            fields.remove(key);
            compare(format!("{name} without {field}"), &ours, &with(read.clone(), changes));
        }
        for (field, changes) in &row.null {
            let mut ours = config.clone();
            let (fields, key) = place(&mut ours, field);
            fields.insert(key.to_owned(), Value::Null);
            compare(format!("{name} with {field} null"), &ours, &with(read.clone(), changes));
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(recorded > compared * 9 / 10 && compared > 1000, "{recorded} of {compared} configurations record");
}

/// Names of `transformers`' table of activations (`ACT2FN`), and what they are here.
const ACTIVATIONS: &[(&str, Option<Activation>)] = &[
    ("gelu", Some(Activation::Gelu)),
    ("gelu_10", None),
    ("gelu_accurate", Some(Activation::GeluTanh)),
    ("gelu_fast", Some(Activation::GeluTanh)),
    ("gelu_new", Some(Activation::GeluTanh)),
    ("gelu_python", Some(Activation::Gelu)),
    ("gelu_python_tanh", Some(Activation::GeluTanh)),
    ("gelu_pytorch_tanh", Some(Activation::GeluTanh)),
    ("hardswish", None),
    ("laplace", None),
    ("leaky_relu", None),
    ("linear", None),
    ("mish", None),
    ("prelu", None),
    ("quick_gelu", Some(Activation::QuickGelu)),
    ("relu", Some(Activation::Relu)),
    ("relu2", None),
    ("relu6", None),
    ("sigmoid", Some(Activation::Sigmoid)),
    ("silu", Some(Activation::Silu)),
    ("swish", Some(Activation::Silu)),
    ("tanh", Some(Activation::Tanh)),
];

fn functions(graph: &Graph) -> Vec<Activation> {
    let function = |op: &Op| match op {
        Op::Activation { function } => Some(*function),
        Op::MoeExperts { spec, .. } => {
            if let Gate::Act(function) = spec.gate {
                Some(function)
            } else {
                None
            }
        }
        _ => None,
    };
    graph.nodes.iter().filter_map(|node| function(&node.op)).collect()
}

#[test]
fn activations_are_computed_or_refused_by_name() {
    let registry = Registry::linked();
    let (mut computed, mut refused, mut seen) = (0, 0, HashSet::new());
    for (name, row) in table().into_iter().filter(|(_, row)| row.config.is_none()) {
        let (config, index) = of(&name, &row);
        let model_type = config["model_type"].as_str().unwrap().to_owned();
        let text = config["text_config"]["model_type"].as_str().unwrap_or(&model_type).to_owned();
        // Experts of the one do something else, whatever the field says; the other's activation has weights.
        if ["gpt_oss", "apertus"].contains(&&*model_type) || !seen.insert([&*model_type, &*text].concat()) {
            continue;
        }
        let is_act = |field: &&String| field.ends_with("_act") || field.ends_with("_activation");
        let top = row.read.keys().filter(is_act).cloned();
        let within = ["text_config", "vision_config"].into_iter().flat_map(|outer| {
            let fields = row.read.get(outer).and_then(Value::as_object).into_iter().flat_map(Map::keys).filter(is_act);
            fields.map(|field| format!("{outer}.{field}")).collect::<Vec<_>>()
        });
        // Gemma 3's text alone is without a tower, and the text of these without an activation of its own.
        for field in top.chain(within) {
            if index.keys().all(|tensor| !tensor.contains("vision")) && field.starts_with("vision_config") {
                continue;
            }
            for (function, expected) in ACTIVATIONS {
                let mut config = config.clone();
                let (fields, _) = place(&mut config, &field);
                let key = field.rsplit('.').next().unwrap_or_default();
                fields.insert(key.to_owned(), (*function).into());
                let what = format!("{name}: {field}: {function}");
                let graphs = graphs(&registry, &config, &index);
                let graphs: Result<Vec<Graph>, String> = graphs.into_iter().collect();
                match (expected, graphs) {
                    (Some(expected), Ok(graphs)) => {
                        let tanh = text == "gemma" && !field.starts_with("vision_config") && *function == "gelu";
                        let expected = if tanh { Activation::GeluTanh } else { *expected };
                        let found: Vec<Activation> = graphs.iter().flat_map(functions).collect();
                        assert!(found.contains(&expected), "{what}: computes {found:?}");
                        computed += 1;
                    }
                    (None, Err(e)) => {
                        let expected = format!("config.json: {key}: unknown variant `{function}`, expected one of");
                        assert!(e.contains(&expected), "{what}: {e}");
                        refused += 1;
                    }
                    (_, found) => panic!("{what}: {:?}", found.err()),
                }
            }
        }
    }
    assert!(computed > 400 && refused > 200, "{computed} computed, {refused} refused");
}
