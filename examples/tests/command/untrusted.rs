//! Control characters in what others wrote: configurations, tensors, tokenizers, answers.

use super::support::{copy, events, field, goldens, run, tamarack, text, tiny};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// What sets a terminal's title, colors its text, clears it (C1), deletes, and turns the direction of text around.
const HOSTILE: &str = "x\u{1b}]0;title\u{7}\u{1b}[31m\u{9b}2J\u{7f}\u{202e}y";

/// That a terminal shows a text and obeys nothing in it.
#[track_caller]
fn is_shown(output: &str) {
    let obeyed = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!output.contains(obeyed), "{output:?}");
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn names_in_files_are_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("models--org--tiny").join("snapshots/abc");
    fs::create_dir_all(&model).unwrap();
    copy(&tiny("tied"), &model);
    edit(&model.join("config.json"), |config| config["model_type"] = HOSTILE.into());
    for arguments in [
        &["inspect", text(&model)][..],
        &["inspect", "--json", text(&model)],
        &["chat", "--device", "cpu", "--model", text(&model), "hi"],
        &["models"],
        &["models", "--json"],
    ] {
        let mut command = tamarack(arguments);
        command.env("HF_HUB_CACHE", folder.path());
        let outcome = run(command);
        is_shown(&outcome.stdout);
        is_shown(&outcome.stderr);
        let all = outcome.stdout + &outcome.stderr;
        assert!(all.contains(r"\u{1b}]0;title") || all.contains(r"\u001b]0;title"), "{arguments:?}: {all}");
    }
    let report: Value = run(tamarack(&["inspect", "--json", text(&model)])).stdout.parse().unwrap();
    assert_eq!(report["model_type"], HOSTILE, "JSON stays what it is");
}

#[test]
fn names_of_tensors_and_files_are_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    copy(&tiny("tied"), folder.path());
    let data = [0u8; 4];
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &data).unwrap();
    let bytes = safetensors::serialize([(format!("{HOSTILE}\nmodel"), tensor)], None).unwrap();
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let listed = run(tamarack(&["inspect", "--tensors", text(folder.path())]));
    is_shown(&listed.stdout);
    is_shown(&listed.stderr);
    assert!(listed.stdout.contains(r"\u{202e}y\u{a}model"), "{}", listed.stdout);
    let absent = run(tamarack(&["chat", "--model", &format!("/no/such/{HOSTILE}"), "hi"]));
    assert_eq!(absent.code, Some(1));
    is_shown(&absent.stderr);
}

/// A model whose first token is the byte that begins a terminal's commands.
fn model_that_says_escape(folder: &Path) {
    copy(&goldens("vision/qwen2_vl"), folder);
    let arguments =
        ["chat", "--device", "cpu", "--context", "512", "--temperature", "0", "--max-tokens", "1", "--json"];
    let said = events(&run(tamarack(&[&arguments[..], &["--model", text(folder), "hi"]].concat())).expect("an answer"));
    let first = field(&said, "token", "id")[0].clone();
    edit(&folder.join("tokenizer.json"), |file| {
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        let spelt = vocab.iter().find(|(_, id)| **id == first).unwrap().0.clone();
        // What byte-level vocabularies write for 0x1b.
        let escape = vocab.insert("\u{11b}".to_owned(), first).unwrap();
        vocab.insert(spelt, escape);
    });
}

#[test]
fn an_answer_is_shown_on_a_terminal_and_written_as_it_is_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    model_that_says_escape(folder.path());
    let arguments = [
        "chat",
        "--device",
        "cpu",
        "--context",
        "512",
        "--temperature",
        "0",
        "--max-tokens",
        "1",
        "--model",
        text(folder.path()),
        "hi",
    ];
    let piped = run(tamarack(&arguments));
    assert!(piped.stdout.starts_with('\u{1b}'), "{:?}", piped.stdout);
    let json = run(tamarack(&[&arguments[..], &["--json"]].concat())).expect("an answer");
    assert!(json.contains(r#""text":"\u001b"#), "{json}");
    is_shown(&json);
    #[cfg(target_os = "linux")]
    {
        let screen = super::terminal::screen_of(&arguments);
        assert!(screen.contains(r"\u{1b}") && !screen.contains("\u{1b}\r\n"), "{screen:?}");
    }
}

/// libwayland, which Mesa loads to ask the desktop for its GPU, writes to stderr where there is no desktop.
#[test]
fn a_libraries_complaint_is_not_taken_for_ours() {
    for arguments in [&["devices", "--json"][..], &["devices"]] {
        let mut command = tamarack(arguments);
        // As where no desktop is, and the tests' own remedy is not at hand.
        for name in ["XDG_RUNTIME_DIR", "NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT", "DRI_PRIME", "WAYLAND_DISPLAY"] {
            command.env_remove(name);
        }
        let outcome = run(command);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{}", json!(outcome.stdout));
    }
}
