//! How tokens are chosen where no option says so.

use super::support::{copy, events, goldens, run, tamarack, text};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// What `chat` generates with.
fn parameters(model: &Path, options: &[&str]) -> Value {
    let fixed =
        ["chat", "--device", "cpu", "--context", "512", "--max-tokens", "1", "--json", "--model", text(model), "hi"];
    events(&run(tamarack(&[&fixed[..], options].concat())).expect("an answer"))[0]["parameters"].clone()
}

/// The keys and what they mean are those of transformers' GenerationConfig.
#[test]
fn generation_config_counts_unless_an_option_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    copy(&goldens("vision/qwen2_vl"), folder.path());
    let with = |config: Value, options: &[&str]| {
        fs::write(folder.path().join("generation_config.json"), config.to_string()).unwrap();
        parameters(folder.path(), options)
    };
    let found = with(json!({ "eos_token_id": 259 }), &[]);
    let shown = |found: &Value| {
        ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"].map(|name| found[name].clone())
    };
    let [none, all] = [json!(null), json!(0)];
    assert_eq!(shown(&found), [json!(0.6), json!(1.0), all.clone(), json!(0.0), none.clone()]);

    let config = json!({ "do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.05,
        "repetition_penalty": 1.05 });
    let found = with(config.clone(), &[]);
    assert_eq!(shown(&found), [json!(0.7), json!(0.8), json!(20), json!(0.05), json!(1.05)]);
    let options = ["--temperature", "0.2", "--top-p", "1", "--top-k", "0", "--min-p", "0", "--repetition-penalty", "1"];
    let found = with(config, &options);
    assert_eq!(shown(&found), [json!(0.2), json!(1.0), all, json!(0.0), json!(1.0)]);

    let greedy = json!({ "do_sample": false, "temperature": 0.7 });
    assert_eq!(with(greedy.clone(), &[])["temperature"], 0.0);
    assert_eq!(with(greedy, &["--temperature", "0.9"])["temperature"], 0.9);
}

#[test]
fn what_counts_is_shown_and_explained() {
    let model = goldens("vision/qwen2_vl");
    let options = ["-v", "chat", "--device", "cpu", "--context", "512", "--max-tokens", "1", "--top-k", "7", "--model"];
    let outcome = run(tamarack(&[&options[..], &[text(&model), "hi"]].concat()));
    assert!(outcome.stderr.contains("sampling: max_tokens 1, temperature 0.6, top_p 1, top_k 7"), "{}", outcome.stderr);
    let help = run(tamarack(&["chat", "--help"])).expect("help");
    assert!(help.contains("generation_config.json") && help.contains("[default: the model's, else 0.6]"), "{help}");
}
