//! `chat` with a real model.

use super::support::{events, field, plugins, program, run, smollm2, tamarack, text};
use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

/// `chat` on the reference executor, always with the most likely token.
fn greedy<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["chat", "--device", "reference", "--temperature", "0", "--model", model], more].concat()
}

#[test]
fn the_answer_goes_to_stdout_and_all_else_to_stderr() {
    let (model, (good, bad)) = (smollm2(), plugins());
    // What is said twice counts as it was said last; directories add up.
    let plugins = ["--only-plugins", "--plugins", text(good.path()), "--plugins", text(bad.path())];
    let arguments = [&["--temperature", "9"], &plugins[..]].concat();
    let outcome = run(tamarack(&[&["chat"], &arguments[..], &greedy(&model, &[QUESTION])[1..]].concat()));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), format!("{ANSWER}\n").as_str()));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines[0].starts_with("warning: ") && lines[0].contains(text(bad.path())), "{lines:?}");
    assert!(lines[1].contains("reference") && lines[1].contains("no GPU"), "{lines:?}");
    assert!(lines[2].contains("prompt: 37 tokens") && lines[2].contains("answer: 7 tokens"), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[test]
fn a_prompt_can_be_piped_in_and_go_without_a_template() {
    let model = smollm2();
    let arguments = greedy(&model, &["--raw", "--max-tokens", "3", "--json"]);
    let mut child = tamarack(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"The capital of France is").unwrap();
    let output = child.wait_with_output().unwrap();
    let events = events(&String::from_utf8(output.stdout).unwrap());
    let done = events.last().unwrap();
    assert_eq!((done["stop_reason"].as_str(), done["prompt_tokens"].as_u64()), (Some("length"), Some(5)), "{done}");
    let text: String = field(&events, "text", "text").iter().filter_map(|t| t.as_str()).collect();
    assert!(text.contains("Paris"), "{text}");
}

/// The linked plugin, the same one as a library, and a host that has no plugin linked.
#[test]
fn a_library_answers_token_for_token_as_the_linked_plugin() {
    let model = smollm2();
    let (good, bad) = plugins();
    let answer = |more: &[&str]| {
        let events =
            events(&run(tamarack(&[&greedy(&model, &["--json", QUESTION])[..], more].concat())).expect("chat"));
        let plugin = events[0]["info"]["plugin"].as_str().unwrap().to_owned();
        let tokens: Vec<u64> = field(&events, "token", "id").iter().filter_map(|id| id.as_u64()).collect();
        assert_eq!(events.last().unwrap()["generation_tokens"].as_u64(), Some(tokens.len() as u64));
        (plugin, tokens)
    };
    let (linked, expected) = answer(&[]);
    let (library, found) = answer(&["--only-plugins", "--plugins", text(good.path())]);
    assert!(linked.ends_with("linked)") && library.contains(text(good.path())), "{linked} {library}");
    assert_eq!((found, expected.len()), (expected, 7));

    let without = run(tamarack(&greedy(&model, &["--only-plugins", "--plugins", text(bad.path()), QUESTION])));
    assert!(without.stderr.contains("registered are none"), "nothing is linked then: {}", without.stderr);

    let host = run(program(env!("CARGO_BIN_EXE_plugin_dir"), &[text(good.path()), &model, QUESTION]));
    assert_eq!(host.expect("plugin_dir").trim_end(), ANSWER);
}

#[test]
#[cfg(unix)]
fn an_interrupt_cancels_the_answer() {
    let model = smollm2();
    let arguments = greedy(&model, &["--json", "Count from one to one thousand, in words."]);
    let mut child = tamarack(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.by_ref().any(|line| line.contains("token")), "no token comes");
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let rest: Vec<String> = lines.collect();
    assert!(rest.last().is_some_and(|line| line.contains("\"cancelled\"")), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
