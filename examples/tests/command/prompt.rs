//! Prompts of `chat`, however they are given: named, piped in, or both.

use super::support::{events, field, goldens, tamarack, text};
use serde_json::Value;
use std::{
    fs::File,
    io::Write,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `chat` with a model of random weights whose tokens are bytes.
fn chat(arguments: &[&str]) -> std::process::Command {
    let model = goldens("vision/qwen2_vl");
    let fixed = ["chat", "--device", "cpu", "--context", "512", "--max-tokens", "1", "--json", "--model", text(&model)];
    let mut command = tamarack(&[&fixed[..], arguments].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How many tokens a prompt is, and what was said on stderr.
fn ended(child: Child) -> (u64, String) {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let events: Vec<Value> = events(&String::from_utf8(output.stdout).unwrap());
    (field(&events, "done", "prompt_tokens")[0].as_u64().unwrap(), stderr)
}

fn tokens(arguments: &[&str], piped: &[u8]) -> u64 {
    let mut child = chat(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(piped).unwrap();
    ended(child).0
}

/// As llm and ollama do: https://github.com/simonw/llm/blob/main/llm/cli.py, `read_prompt`.
#[test]
fn what_is_piped_in_comes_before_the_prompt() {
    let of = |prompt: &str| ended(chat(&[prompt]).spawn().unwrap()).0;
    let joined = of("one\ntwo\n\nadd them");
    for named in [&["add them"][..], &["--prompt", "add them"], &["--prompt=add them"]] {
        assert_eq!(tokens(named, b"one\ntwo\n"), joined, "{named:?}");
    }
    assert_eq!(tokens(&["--raw", "c"], b"ab\n"), 4, "nothing comes between");
    for nothing in [&b""[..], b"\n", b" \r\n"] {
        assert_eq!(tokens(&["add them"], nothing), of("add them"), "{nothing:?}");
    }
    let mut from_file = chat(&["add them"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.txt");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    from_file.stdin(File::open(path).unwrap());
    assert_eq!(ended(from_file.spawn().unwrap()).0, joined);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_prompt() {
    let plain = tokens(&[], b"hi");
    assert_eq!(tokens(&[], b"\xef\xbb\xbfhi\n"), plain);
    assert_eq!(tokens(&[], b"\xff\xfeh\0i\0\r\0\n\0"), plain, "as shells of Windows write it");
    assert_eq!(tokens(&["hi"], b"\xef\xbb\xbf\n"), plain, "a mark alone is nothing");
    assert_eq!(tokens(&["--raw"], b"\xef\xbb\xbfhi"), 2);
}

/// Even a pipe that is slow to begin and slow to end is read.
#[test]
fn a_slow_pipe_is_waited_for() {
    let mut child = chat(&["add them"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for part in ["one\n", "two\n"] {
        thread::sleep(Duration::from_secs(2));
        stdin.write_all(part.as_bytes()).unwrap();
    }
    drop(stdin);
    assert_eq!(ended(child).0, tokens(&["add them"], b"one\ntwo\n"));
}

/// Programs that start others leave them pipes that nobody writes to or closes.
#[test]
fn a_pipe_into_which_nobody_writes_is_left_out() {
    let began = Instant::now();
    let mut child = chat(&["hi"]).stdin(Stdio::piped()).spawn().unwrap();
    let open = child.stdin.take();
    let (found, stderr) = ended(child);
    drop(open);
    assert!(stderr.contains("warning: stdin is open, and nothing came"), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(found, tokens(&["hi"], b""));
}

#[test]
fn what_is_no_text_or_too_much_is_said() {
    let fails = |arguments: &[&str], piped: &[u8], message: &str| {
        let mut child = chat(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It does not wait for the end of what is too much.
        let _ = stdin.write_all(piped);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(message), "{stderr}");
    };
    fails(&["hi"], b"\xff\xff", "error: stdin: expected text in UTF-8");
    fails(&[], b"\xff\xff", "error: stdin: expected text in UTF-8");
    fails(&[], b"  \n", "error: expected a prompt");
    fails(&["hi"], &vec![b'a'; (64 << 20) + (1 << 17)], "error: stdin: expected a prompt of at most 64 MiB");
}

#[test]
fn penalties_may_be_negative() {
    for (option, value) in [
        ("--frequency-penalty", "-2"),
        ("--presence-penalty", "-0.5"),
        ("--frequency-penalty", "-1e-3"),
        ("--presence-penalty", "-.5"),
    ] {
        let child = chat(&[option, value, "hi"]).spawn().unwrap();
        let events = events(&String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap());
        let name = option[2..].replace('-', "_");
        assert_eq!(events[0]["parameters"][&name].as_f64(), value.parse().ok(), "{option} {value}: {events:?}");
    }
    // What is negative and must not be is called by its name.
    for (option, message) in [
        ("--temperature", "error: temperature: expected 0 or more, found -1"),
        ("--top-p", "error: top_p: expected 0 to 1, found -1"),
        ("--min-p", "error: min_p: expected 0 to 1, found -1"),
        ("--repetition-penalty", "error: repetition_penalty: expected more than 0, found -1"),
        ("--seed", "error: invalid value '-1' for '--seed <N>'"),
        ("--top-k", "error: invalid value '-1' for '--top-k <K>'"),
        ("--max-tokens", "error: invalid value '-1' for '--max-tokens <N>'"),
    ] {
        let output = chat(&[option, "-1", "hi"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(message), "{option}: {stderr}");
    }
    assert_eq!(tokens(&["-5"], b""), tokens(&["+5"], b""), "a prompt may be a number");
}
