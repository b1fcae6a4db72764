//! `debug logits` gives what other engines compute, also without a tokenizer.

use super::support::{run, tamarack, text, tiny};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{fs, path::Path};

/// Allowed on a logit of the tiny models, whose spread is 1.7.
const TOLERANCE: f32 = 1e-3;

/// Type, shape and words of a tensor.
fn tensor(path: &Path, name: &str) -> (Dtype, Vec<usize>, Vec<u32>) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", path.display()));
    let words = tensor.data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    (tensor.dtype(), tensor.shape().to_vec(), words)
}

#[test]
fn logits_equal_the_goldens() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    for (name, chunk) in
        [("tied", "24"), ("biases", "7"), ("linear", "1"), ("mistral_window", "5"), ("longrope_long", "9")]
    {
        let model = tiny(name);
        let golden = model.join("golden.safetensors");
        let ids: Vec<String> = tensor(&golden, "input_ids").2.iter().map(u32::to_string).collect();
        let greedy = tensor(&golden, "greedy");
        let (ids, n) = (ids.join(","), greedy.1[0].to_string());
        let given = ["debug", "logits", text(&model), "--tokens", &ids, "--greedy", &n];
        let how = ["--chunk", chunk, "--device", "reference", "--out", text(&out)];
        let outcome = run(tamarack(&[&given[..], &how].concat()));
        assert!(outcome.stderr.contains("reference"), "the reference executor is announced: {}", outcome.stderr);
        assert!(outcome.expect(name).contains("logits"), "{name}");

        assert_eq!(tensor(&out, "greedy"), greedy, "{name}");
        let (found, expected) = (tensor(&out, "logits"), tensor(&golden, "logits"));
        assert_eq!((found.0, &found.1), (expected.0, &expected.1), "{name}");
        let difference = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
        let worst = found.2.iter().zip(&expected.2).map(difference).fold(0.0, f32::max);
        assert!(worst <= TOLERANCE, "{name}: a logit is off by {worst}");
    }
}

/// Tensors that the architecture does not use are one line on stderr, wherever a model is loaded, or an error.
#[test]
fn unused_tensors_are_warned_of_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    fs::create_dir(&model).unwrap();
    fs::copy(tiny("relu").join("config.json"), model.join("config.json")).unwrap();
    let bytes = fs::read(tiny("relu").join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let score = TensorView::new(Dtype::F32, vec![1, 32], &[0; 128]).unwrap();
    let views = file.tensors().into_iter().chain([("score.weight".to_owned(), score)]);
    safetensors::serialize_to_file(views, None, &model.join("model.safetensors")).unwrap();
    let model = text(&model);
    let warning = format!(
        "warning: {model}: left out, since the architecture does not use them: 1 tensor of 128 bytes: score.weight \
         (--strict refuses that)"
    );
    for given in [
        &["debug", "logits", model, "--tokens", "1,2", "--device", "cpu", "--out", text(&out)][..],
        &["debug", "compare", model, "--tokens", "1,2", "--device", "cpu"],
        &["inspect", model],
        &[
            "bench",
            "--model",
            model,
            "--device",
            "cpu",
            "--prompt",
            "8",
            "--generate",
            "2",
            "--depth",
            "0",
            "--repetitions",
            "1",
        ],
    ] {
        let outcome = run(tamarack(given));
        let warnings = outcome.stderr.lines().filter(|line| line.contains("score.weight")).collect::<Vec<_>>();
        assert_eq!((outcome.code, &*warnings), (Some(0), &[&*warning][..]), "{given:?}: {}", outcome.stderr);
        let outcome = run(tamarack(&[given, &["--strict"]].concat()));
        let expected =
            "the architecture does not use 1 of the checkpoint's 13 tensors, the first is score.weight [1, 32]";
        assert!(outcome.code == Some(1) && outcome.stderr.contains(expected), "{given:?}: {}", outcome.stderr);
    }
}

#[test]
fn an_adapter_is_run_with() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("logits.safetensors"), tiny("biases"));
    let adapter = model.join("../../adapters/peft_lora");
    let golden = adapter.join("golden.safetensors");
    let ids: Vec<String> = tensor(&golden, "input_ids").2.iter().map(u32::to_string).collect();
    let ids = ids.join(",");
    let how = ["debug", "logits", text(&model), "--tokens", &ids, "--device", "reference", "--out", text(&out)];
    run(tamarack(&[&how[..], &["--adapter", text(&adapter)]].concat())).expect("logits");
    let (found, expected) = (tensor(&out, "logits").2, tensor(&golden, "logits").2);
    let difference = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
    let worst = found.iter().zip(&expected).map(difference).fold(0.0, f32::max);
    assert!(found.len() == expected.len() && worst <= TOLERANCE, "a logit is off by {worst}");
}

#[test]
fn greedy_tokens_are_only_written_where_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("logits.safetensors"), tiny("tied"));
    let arguments =
        ["debug", "logits", text(&model), "--tokens", "5,9,2", "--device", "reference", "--out", text(&out)];
    run(tamarack(&arguments)).expect("logits");
    let bytes = fs::read(&out).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().names(), ["logits"]);

    let beyond = run(tamarack(&[&arguments[..], &["--greedy", "40", "--context", "16"]].concat()));
    assert_eq!(beyond.code, Some(1));
    assert!(beyond.stderr.contains("--greedy 40") && beyond.stderr.contains("--context"), "{}", beyond.stderr);
}
