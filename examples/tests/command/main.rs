//! The `tamarack` command as a user has it: what it prints, where, and with which exit code.

mod bench;
mod chat;
mod compare;
mod defaults;
#[cfg(unix)]
mod demo;
mod logits;
mod plugin;
mod prompt;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
mod untrusted;
mod vision;

use serde_json::{Value, json};
use std::{fs, io::Read, process::Stdio};
use support::{plugins, program, run, tamarack, text, tiny};

#[test]
fn every_help_has_an_example() {
    for command in [
        "",
        "chat",
        "pull",
        "models",
        "remove",
        "quantize",
        "plugins",
        "inspect",
        "devices",
        "bench",
        "debug",
        "debug logits",
        "debug compare",
        "debug vision",
        "plugin",
        "plugin new",
        "plugin check",
        "plugin install",
        "plugin list",
        "plugin remove",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = run(tamarack(&arguments)).expect(command);
        let usage = format!("Usage: tamarack {command}");
        assert!(help.contains(usage.trim_end()) && help.contains("Example"), "{command}: {help}");
        assert!(help.lines().all(|line| line.trim_end() == line), "{command}: {help}");
    }
}

#[test]
fn what_goes_wrong_is_said_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broken.gguf"), "GGUF of sorts").unwrap();
    let (tied, broken) = (tiny("tied"), folder.path().join("broken.gguf"));
    let (tied, broken) = (text(&tied), text(&broken));
    let out = folder.path().join("no/such/folder");
    let logits = |model, tokens| ["debug", "logits", model, "--device", "reference", "--tokens", tokens, "--out"];
    let on_reference = |model| ["chat", "--device", "reference", "--model", model];
    for (arguments, code, message) in [
        (vec![], 2, "Usage: tamarack"),
        (vec!["sing"], 2, "error: unrecognized subcommand 'sing'"),
        (vec!["chat", "hello", "--prompt", "hello"], 2, "error: the argument '[PROMPT]' cannot be used with"),
        (vec!["chat", "--temperature", "hot", "hello"], 2, "error: invalid value 'hot' for '--temperature"),
        (vec!["chat"], 2, "error: expected a prompt"),
        (vec!["chat", "--model", "", "hello"], 2, "error: expected a model"),
        (vec!["plugins", "--only-plugins"], 2, "--plugins <DIR>"),
        ([&on_reference("/no/such/model")[..], &["x"]].concat(), 1, "error: /no/such/model"),
        ([&on_reference("./absent.gguf")[..], &["x"]].concat(), 1, "error: ./absent.gguf"),
        ([&on_reference("no-such/model")[..], &["x"]].concat(), 1, "no file or directory here"),
        ([&on_reference(broken)[..], &["x"]].concat(), 1, "broken.gguf: "),
        ([&on_reference(tied)[..], &["x"]].concat(), 1, "tokenizer.json"),
        (vec!["chat", "--device", "abacus", "--model", tied, "x"], 1, "error: no device `abacus`"),
        (
            [&on_reference(tied)[..], &["--context", "0", "x"]].concat(),
            1,
            "error: context: expected at least 1 token, found 0",
        ),
        ([&logits(tied, "1,97")[..], &["out"]].concat(), 1, "error: token 97 is outside the vocabulary of 97"),
        ([&logits(tied, "1,two")[..], &["out"]].concat(), 2, "error: invalid value 'two' for '--tokens"),
        ([&logits(tied, "1,2")[..], &[text(&out)]].concat(), 1, "no/such/folder: "),
        (vec!["inspect", broken], 1, "broken.gguf: "),
        (vec!["bench"], 2, "--model <MODEL>"),
        (vec!["bench", "--synthetic", "tiny:q9"], 2, "no format `q9`: there are q4_0"),
        (vec!["bench", "--synthetic", "tiny:f16", "--batch", "4", "--rows", "3"], 2, "error: --batch 4 does not fit"),
        (vec!["bench", "--synthetic", "tiny:f16", "--device", "reference"], 1, "error: no speed to measure"),
    ] {
        let outcome = run(tamarack(&arguments));
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
}

#[test]
fn plugins_come_with_source_shadow_and_failures() {
    let (good, bad) = plugins();
    let arguments = ["plugins", "--plugins", text(good.path()), "--plugins", text(bad.path())];
    let table = run(tamarack(&arguments)).expect("plugins");
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("NAME") && rows[1].contains("llama, mistral"), "{table}");
    assert!(rows[1].contains(text(good.path())), "the directory wins: {table}");
    let linked = rows[2..].iter().find(|row| row.starts_with("llama ")).expect("the linked one, too");
    assert!(linked.contains("linked") && linked.contains("by ") && linked.contains(text(good.path())), "{table}");
    let failed = rows.iter().position(|row| *row == "Failed to load:").expect("failures");
    assert!(rows[failed + 1].trim_start().starts_with(text(bad.path())), "{table}");

    let listing = run(tamarack(&[&arguments[..], &["--json"]].concat())).json("plugins");
    assert_eq!(listing["plugins"][0]["model_types"], json!(["llama", "mistral"]));
    assert_eq!(listing["plugins"][0]["shadowed_by"], json!({}));
    let linked: Vec<&Value> = listing["plugins"].as_array().unwrap()[1..].iter().collect();
    assert!(linked.iter().all(|plugin| plugin["source"] == "linked"), "{listing}");
    let llama = linked.iter().find(|plugin| plugin["name"] == "llama").expect("the linked one, too");
    assert_eq!(llama["shadowed_by"].as_object().unwrap().len(), 2);
    assert!(listing["failures"][0]["path"].as_str().unwrap().starts_with(text(bad.path())), "{listing}");

    let only = run(tamarack(&["plugins", "--only-plugins", "--plugins", text(good.path()), "--json"]));
    assert_eq!(only.json("plugins")["plugins"].as_array().unwrap().len(), 1);
    let none = run(tamarack(&["plugins", "--only-plugins", "--plugins", text(bad.path())])).expect("plugins");
    assert!(none.starts_with("No plugins") && none.contains("Failed to load:"), "{none}");
}

#[test]
fn a_model_that_no_plugin_serves_says_what_there_is() {
    let (_, bad) = plugins();
    let model = tempfile::tempdir().unwrap();
    fs::copy(tiny("tied").join("model.safetensors"), model.path().join("model.safetensors")).unwrap();
    fs::write(model.path().join("config.json"), r#"{"model_type": "perceptron"}"#).unwrap();
    let plugins = ["--plugins", text(bad.path())];
    for arguments in [vec!["inspect", text(model.path())], vec!["chat", "hello", "--model", text(model.path())]] {
        let outcome = run(tamarack(&[&arguments[..], &plugins].concat()));
        assert_eq!(outcome.code, Some(1));
        for expected in ["error: ", "unsupported model_type `perceptron`: registered are ", ", llama, ", ", mistral, "]
        {
            assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
        }
        let failed = format!("; failed to load: {}", text(bad.path()));
        assert!(outcome.stderr.contains(&failed), "{}", outcome.stderr);
        // What its files tell is shown nevertheless.
        assert_eq!(outcome.stdout.contains("parameters"), arguments[0] == "inspect", "{}", outcome.stdout);
    }
}

#[test]
fn a_plugin_that_fails_to_load_is_named_although_another_serves_the_model() {
    let (good, bad) = plugins();
    let model = tiny("tied");
    let plugins = ["--plugins", text(good.path()), "--plugins", text(bad.path())];
    let outcome = run(tamarack(&[&["inspect", text(&model)], &plugins[..]].concat()));
    assert!(outcome.stderr.starts_with(&format!("warning: {}", text(bad.path()))), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.expect("inspect").contains(text(good.path())));
}

#[test]
fn inspect_counts_tensors_bytes_and_dispatches() {
    let model = tiny("mistral_full");
    let report = run(tamarack(&["inspect", text(&model), "--context", "100", "--tensors", "--json"])).json("inspect");
    let config: Value = serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    let number = |key: &str| config[key].as_u64().unwrap();
    assert_eq!((&report["model_type"], &report["config"]["hidden_size"]), (&json!("mistral"), &config["hidden_size"]));
    assert!(report["plugin"].as_str().unwrap().starts_with("llama (tamarack-llama "), "{report}");

    // Embedding and head; two norms, four projections and three of the MLP a layer; the last norm.
    let (d, ff, layers) = (number("hidden_size"), number("intermediate_size"), number("num_hidden_layers"));
    let kv = d / number("num_attention_heads") * number("num_key_value_heads");
    let layer = 2 * d + 2 * d * d + 2 * d * kv + 3 * d * ff;
    let parameters = 2 * number("vocab_size") * d + layers * layer + d;
    assert_eq!((&report["tensors"], &report["parameters"]), (&json!(3 + 9 * layers), &json!(parameters)));
    assert_eq!(report["bytes"], json!(2 * parameters), "bf16");
    assert_eq!(report["formats"][0]["stored"], "bf16");
    assert_eq!(report["tensor_list"].as_array().unwrap().len() as u64, 3 + 9 * layers);

    // Matrices stay bf16 on the device, vectors become f32, the cache is f16.
    let memory = &report["memory"];
    assert_eq!(memory["weights"], json!(2 * parameters + 2 * d * (2 * layers + 1)));
    assert_eq!(memory["cache_per_token"], json!(layers * 2 * kv * 2));
    assert_eq!(memory["total"], json!(memory["weights"].as_u64().unwrap() + 100 * layers * 4 * kv));
    assert_eq!(report["dispatches"]["layer"], 6);

    let table = run(tamarack(&["inspect", text(&model), "--tensors"])).expect("inspect");
    for part in ["mistral", "num_hidden_layers", "6 a layer", "bf16", "model.layers.0.self_attn.q_proj.weight"] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
}

#[test]
fn inspect_tells_which_layers_run_where() {
    let model = tiny("tied");
    let on = ["inspect", text(&model), "--device", "0,cpu"];
    let placed = &run(tamarack(&[&on[..], &["--gpu-layers", "1", "--json"]].concat())).json("inspect")["placement"];
    assert_eq!((&placed["gpu_layers"], &placed["layer_times"]), (&json!(1), &Value::Null), "{placed}");
    assert!(placed["cpu_layers"].as_u64() > Some(0) && placed["gpu_memory"]["weights"].as_u64() > Some(0), "{placed}");
    let table = run(tamarack(&on)).expect("inspect");
    assert!(table.contains("ms each a token; all of it fits") && table.contains("on the processor"), "{table}");
}

#[test]
fn devices_end_with_the_processor() {
    let devices = run(tamarack(&["devices", "--json"])).json("devices");
    let devices = devices.as_array().unwrap();
    assert_eq!(devices[devices.len() - 2..].iter().map(|d| &d["id"]).collect::<Vec<_>>(), ["cpu", "reference"]);
    let is_wanted = |d: &&serde_json::Value| d["kind"] != "software";
    let best = devices.iter().find(is_wanted).unwrap();
    let defaults: Vec<_> = devices.iter().filter(|d| d["default"] == true).collect();
    assert_eq!(defaults, [best], "a GPU or the processor, and no software");
    for (i, device) in devices[..devices.len() - 2].iter().enumerate() {
        assert_eq!(device["id"], json!(i.to_string()));
        assert!(device["limits"]["binding_size"].as_u64().unwrap() >= 1 << 20, "{device}");
    }
    let table = run(tamarack(&["devices"])).expect("devices");
    assert_eq!(table.lines().count(), devices.len() + 1);
}

/// Every processor runs plain Rust, and none has what is named so here.
#[test]
fn instructions_are_shown_and_chosen() {
    let with = |instructions: &str| {
        let mut command = tamarack(&["devices", "--json"]);
        command.env("TAMARACK_CPU", instructions);
        run(command)
    };
    let devices = with("portable").json("devices");
    let cpu = devices.as_array().unwrap().iter().find(|d| d["id"] == "cpu").unwrap();
    assert!(cpu["name"].as_str().unwrap().starts_with("the processor: portable; "), "{cpu}");
    let outcome = with("abacus");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("TAMARACK_CPU=abacus: this processor has "), "{}", outcome.stderr);
}

#[test]
fn downloaded_models_are_listed_and_removed() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--org--tiny");
    let snapshot = folder.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(tiny("tied").join(name), snapshot.join(name)).unwrap();
    }
    let with_cache = |arguments: &[&str]| {
        let mut command = tamarack(arguments);
        command.env("HF_HUB_CACHE", cache.path());
        run(command)
    };
    let models = with_cache(&["models", "--json"]).json("models");
    assert_eq!((&models[0]["id"], &models[0]["model_type"]), (&json!("org/tiny"), &json!("llama")));
    assert!(models[0]["plugin"].as_str().unwrap().starts_with("llama (tamarack-llama "), "{models}");
    let table = with_cache(&["models"]).expect("models");
    assert!(table.starts_with("MODEL") && table.contains("org/tiny") && table.contains("KiB"), "{table}");
    let pulled = with_cache(&["pull", "org/tiny", "--revision", "abc", "--json"]).json("pull");
    assert_eq!(pulled, json!({ "id": "org/tiny", "path": snapshot }), "what is there needs no network");
    assert!(with_cache(&["remove", "org/tiny"]).expect("remove").starts_with("org/tiny removed"));
    assert!(!folder.exists());
    let absent = with_cache(&["remove", "org/tiny"]);
    assert_eq!(absent.code, Some(1));
    assert!(absent.stderr.contains("org/tiny is not in the cache"), "{}", absent.stderr);
    assert!(with_cache(&["models"]).expect("models").starts_with("No models yet"));
    let pull = with_cache(&["pull", "org/tiny"]);
    assert_eq!((pull.code, pull.stdout.as_str()), (Some(1), ""), "there is no network");
}

#[test]
fn a_model_is_written_quantized() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (tiny("tied"), folder.path().join("4bit"));
    let quantize = ["quantize", text(&source), text(&target), "--bits", "4:32"];
    let report = run(tamarack(&[&quantize[..], &["--json"]].concat())).json("quantize");
    assert_eq!((&report["bits"], &report["group"], &report["folder"]), (&json!(4), &json!(32), &json!(target)));
    let inspected = run(tamarack(&["inspect", text(&target), "--json"])).json("inspect");
    assert_eq!(inspected["bytes"], report["bytes"]);
    let again = run(tamarack(&quantize));
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("is there already"), "{}", again.stderr);
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let model = tiny("tied");
    let mut child = tamarack(&["inspect", text(&model)]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_host_without_plugins_knows_none() {
    let (_, bad) = plugins();
    let model = tiny("tied");
    let outcome = run(program(env!("CARGO_BIN_EXE_plugin_dir"), &[text(bad.path()), text(&model), "hello"]));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("unsupported model_type `llama`: registered are none"), "{}", outcome.stderr);
}
