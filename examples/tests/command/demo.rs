//! `examples/demo`, with stand-ins for what it sets up and builds.

use super::support::{program, run, text};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn script(path: &Path, source: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/usr/bin/env bash\n{source}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the demo has the command do.
fn asked(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    script(&root.join("tests/set-up"), "exit 0");
    script(&root.join("tests/fetch-models"), "echo model.gguf");
    let command = env!("CARGO_BIN_EXE_tamarack");
    let cargo = format!(
        "[ \"$1\" = run ] || exit 0\n\
         while [ \"$1\" != -- ]; do shift; done; shift\n\
         case \"$*\" in *--help) exec '{command}' \"$@\" ;; esac\n\
         printf '[%s]' \"$@\""
    );
    script(&root.join("bin/cargo"), &cargo);
    let demo = root.join("examples/demo");
    fs::create_dir_all(root.join("examples")).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo"), &demo).unwrap();
    let mut demo = program(text(&demo), arguments);
    let path = std::env::var("PATH").unwrap_or_default();
    demo.env("PATH", format!("{}:{path}", text(&root.join("bin"))));
    let said = run(demo).expect("demo");
    said.strip_prefix("[chat][--model][model.gguf][--temperature][0]").unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn the_demo_asks_what_it_is_given() {
    const QUESTION: &str = "[What is the capital of France?]";
    for (arguments, expected) in [
        (&[][..], QUESTION),
        (&["Why is the sky blue?"], "[Why is the sky blue?]"),
        (&["--device", "cpu"], &format!("{QUESTION}[--device][cpu]")),
        (&["--device=cpu", "--json", "-v"], &format!("{QUESTION}[--device=cpu][--json][-v]")),
        (&["Why?", "--device", "cpu"], "[Why?][--device][cpu]"),
        (&["--device", "cpu", "Why?"], "[--device][cpu][Why?]"),
        (&["--json", "Why?"], "[--json][Why?]"),
        (&["-m", "other.gguf"], &format!("{QUESTION}[-m][other.gguf]")),
        (&["-m", "other.gguf", "Why?"], "[-m][other.gguf][Why?]"),
        (&["--prompt", "Why?"], "[--prompt][Why?]"),
        (&["--", "-Why?"], "[--][-Why?]"),
    ] {
        assert_eq!(asked(arguments), expected, "{arguments:?}");
    }
}
