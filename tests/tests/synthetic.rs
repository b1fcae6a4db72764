//! Random weights behave like a model's: what comes out is neither nothing nor infinite.

use serde_json::json;
use tamarack::{
    checkpoint::{Checkpoint, Format, Scales},
    exec::Capacity,
    program::RULES,
    reference::Reference,
};
use tamarack_tests::model::{Run, program, rewritten};

#[test]
fn activations_stay_near_one_through_many_layers() {
    let (d, ff, vocabulary, layers) = (128, 256, 384, 24);
    let config = json!({
        "model_type": "llama", "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocabulary, "tie_word_embeddings": false,
    });
    let mut index = vec![("model.norm.weight".to_owned(), vec![d])];
    for name in ["model.embed_tokens", "lm_head"] {
        index.push((format!("{name}.weight"), vec![vocabulary, d]));
    }
    for i in 0..layers {
        let norms = ["input_layernorm", "post_attention_layernorm"].map(|name| (name, vec![d]));
        let attention = [("q", d), ("k", d / 2), ("v", d / 2), ("o", d)];
        let attention = attention.map(|(name, rows)| (format!("self_attn.{name}_proj"), vec![rows, d]));
        let mlp = [("gate", [ff, d]), ("up", [ff, d]), ("down", [d, ff])];
        let mlp = mlp.map(|(name, shape)| (format!("mlp.{name}_proj"), shape.to_vec()));
        let norms = norms.map(|(name, shape)| (name.to_owned(), shape));
        let layer = norms.into_iter().chain(attention).chain(mlp);
        index.extend(layer.map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape)));
    }
    for format in [Format::F16, Format::Affine { bits: 4, group: 32, scales: Scales::F16 }] {
        let checkpoint = Checkpoint::synthetic(config.clone(), index.clone(), format).unwrap();
        let program = rewritten(program(&checkpoint), RULES, &checkpoint);
        let capacity = Capacity { rows: 8, outputs: 8, pages: 4, slots: 1 };
        let mut executor = Reference::load(program, &checkpoint, capacity).unwrap();
        let logits = Run::new(&mut executor, 8).feed(&[3, 99, 200, 7], 8, 1).concat();
        let variance = logits.iter().map(|v| v * v).sum::<f32>() / logits.len() as f32;
        assert!((0.1..10.0).contains(&variance), "{format}: {variance}");
    }
}
