//! Thousands of damaged graphs, made from one that uses every op: each is refused with a reason, or means something
//! that can be lowered, rewritten and run.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    program::{Program, RULES, custom, lower, rewrite},
    reference::Reference,
};
use tamarack_api::{Config, Graph, Index, record};
use tamarack_tests::zoo;

/// What a host sends along.
fn index(checkpoint: &Checkpoint) -> Index {
    checkpoint.tensors().map(|(n, t)| (n.to_owned(), t.shape().to_vec())).collect()
}

/// The zoo's graph, with an op of its own at the end, and half of its tensors as numbers.
fn good(checkpoint: &Checkpoint) -> Value {
    let (index, config) = (index(checkpoint), Config::from(checkpoint.config().clone()));
    let graph = record(&zoo::Zoo, &config, index.clone()).unwrap_or_else(|e| panic!("{e}"));
    let mut json: Value = serde_json::from_slice(&graph.encode().unwrap()).unwrap();
    for weight in json["weights"].as_array_mut().unwrap().iter_mut().step_by(2) {
        let number = weight["expr"]["tensor"].as_str().and_then(|name| index.keys().position(|n| n == name));
        *weight = number.map_or_else(|| weight.take(), |n| json!(n));
    }
    json["custom"] = json!([{ "name": "x", "wgsl": "fn main() {}", "constants": [["D", 1], ["E", 1.5]], "inputs": 1,
        "weights": 1, "dims": [zoo::VOCAB], "groups": 1 }]);
    let output = json["output"].clone();
    let nodes = json["nodes"].as_array_mut().unwrap();
    let op = json!({ "custom": { "custom": 0, "weights": [1], "decomposed": true } });
    nodes.push(json!({ "op": op, "inputs": [output, output], "at": 0 }));
    json["output"] = (json["nodes"].as_array().unwrap().len() - 1).into();
    json
}

/// Every place in a value.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| places(v, format!("{at}/{i}"), all)),
        Value::Object(fields) => fields.iter().for_each(|(k, v)| places(v, format!("{at}/{k}"), all)),
        _ => {}
    }
    all.push(at);
}

/// Something else in one place.
fn mutate(good: &Value, places: &[String], rng: &mut StdRng) -> Value {
    let mut json = good.clone();
    let place = |rng: &mut StdRng| places[rng.random_range(0..places.len())].clone();
    let other = good.pointer(&place(rng)).cloned().unwrap_or_default();
    let at = place(rng);
    let target = json.pointer_mut(&at).unwrap();
    let number = |n: i64| match target.as_i64() {
        Some(was) => json!(was.wrapping_add(n)),
        None => json!(n),
    };
    *target = match rng.random_range(0..16) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(u32::MAX),
        3 => json!(u64::MAX),
        4 => json!(1e39),
        5 => json!(["tokens", 3, 2]),
        6 => json!("outputs"),
        7 => json!([]),
        8 => json!({}),
        9 => number(1),
        10 => number(-1),
        11 => number(1 << 31),
        12 => match target.take() {
            Value::Array(mut items) => {
                items.truncate(items.len().saturating_sub(1));
                Value::Array(items)
            }
            Value::Object(fields) => Value::Object(fields.into_iter().skip(1).collect()),
            value => json!([value]),
        },
        _ => other,
    };
    json
}

/// Decodes and, if that succeeds, does all that a host does. Says whether it decoded.
fn survives(bytes: &[u8], checkpoint: &Checkpoint) -> bool {
    let graph = match Graph::decode_for(bytes, index(checkpoint)) {
        Ok(graph) => graph,
        Err(e) => {
            assert!(!e.0.is_empty() && e.0.len() < 4000, "{e}");
            return false;
        }
    };
    let _ = custom::validate_all(&graph);
    let recorded = lower(&graph);
    let (short, _) = rewrite(recorded.clone(), RULES, &|_, _| None);
    for program in [recorded, short] {
        // A host asks first whether there is memory.
        if (0..program.nodes.len()).all(|i| program.width(i) < 1 << 14) {
            let _ = run(program, checkpoint);
        }
    }
    true
}

fn run(program: Program, checkpoint: &Checkpoint) -> tamarack::Result<()> {
    let capacity = Capacity { rows: 4, outputs: 4, pages: 1, slots: 1 };
    let mut executor = Reference::load(program, checkpoint, capacity)?;
    let (mut step, mut pool, mut sequence) = (Step::default(), Pool::new(1), Sequence::new(0, 4));
    let last = |i| (i == 2).then_some(Draw { logits: true, ..Draw::default() });
    step.push(&mut sequence, &mut pool, &[1, 2, 3].map(Token::Id), last);
    executor.submit(&step)?;
    executor.collect().map(|_| ())
}

#[test]
fn damaged_graphs_are_refused_or_run() {
    let checkpoint = zoo::checkpoint();
    let good = good(&checkpoint);
    assert!(
        survives(good.to_string().as_bytes(), &checkpoint),
        "{:?}",
        Graph::decode_for(good.to_string().as_bytes(), index(&checkpoint)).err()
    );
    let (mut all, mut rng) = (Vec::new(), StdRng::seed_from_u64(7));
    places(&good, String::new(), &mut all);
    let mut whole = 0;
    let mut attempt = |what: String, bytes: Vec<u8>| {
        let survived = catch_unwind(AssertUnwindSafe(|| survives(&bytes, &checkpoint)));
        whole += usize::from(survived.unwrap_or_else(|_| panic!("{what}: {}", String::from_utf8_lossy(&bytes))));
    };
    for i in 0..3000 {
        let mut json = mutate(&good, &all, &mut rng);
        if i % 3 == 0 {
            let mut all = Vec::new();
            places(&json, String::new(), &mut all);
            json = mutate(&json, &all, &mut rng);
        }
        attempt(format!("mutation {i}"), json.to_string().into_bytes());
    }
    let text = good.to_string().into_bytes();
    for i in 0..1500 {
        let mut bytes = text.clone();
        for _ in 0..=i % 3 {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        bytes.truncate(if i % 5 == 0 { rng.random_range(0..bytes.len()) } else { bytes.len() });
        attempt(format!("flip {i}"), bytes);
    }
    println!("{whole} of 4500 damaged graphs still mean something");
    assert!((50..2500).contains(&whole), "{whole}");
}
