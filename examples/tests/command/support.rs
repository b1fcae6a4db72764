//! Running the programs that cargo built, apart from the user's own plugins, caches and network.

use serde_json::Value;
use std::{
    env::{self, consts},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// What a program left behind.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// stdout, if all went well.
    pub fn expect(self, what: &str) -> String {
        assert_eq!(self.code, Some(0), "{what}: {}", self.stderr);
        self.stdout
    }

    /// stdout as JSON, likewise.
    pub fn json(self, what: &str) -> Value {
        let stdout = self.expect(what);
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{what}: {e}: {stdout}"))
    }
}

/// The command with these arguments, ready to start.
pub fn tamarack(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_tamarack"), arguments)
}

pub fn program(path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    let nowhere = env::temp_dir().join("tamarack-no-such-home");
    command.args(arguments).env("HOME", &nowhere).env("XDG_DATA_HOME", &nowhere).env("HF_HUB_CACHE", &nowhere);
    command.env("HF_HUB_OFFLINE", "1").env_remove("TAMARACK_PLUGIN_PATH").env_remove("RUST_LOG");
    command.stdin(Stdio::null());
    command
}

/// Runs a program to its end, in which nothing panics.
pub fn run(command: Command) -> Outcome {
    let outcome = outcome(command);
    assert!(!outcome.stderr.contains("panicked at"), "{}", outcome.stderr);
    outcome
}

/// Runs a program to its end.
pub fn outcome(mut command: Command) -> Outcome {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A file or folder of `tests/goldens`.
pub fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(name)
}

/// The tiny models under `tests/goldens/llama`.
pub fn tiny(name: &str) -> PathBuf {
    goldens("llama").join(name)
}

/// The real model, which `tests/fetch-models` fetches.
pub fn smollm2() -> String {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = env::var_os("TAMARACK_SMOLLM2").map_or(fetched, PathBuf::from);
    assert!(path.is_file(), "{}: no such file: run tests/fetch-models, or tests/run, which does", path.display());
    path.display().to_string()
}

/// A directory with the llama plugin as a library, and one with a file that only has the name of a library.
pub fn plugins() -> (TempDir, TempDir) {
    let [good, bad] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let name = format!("{}tamarack_llama{}", consts::DLL_PREFIX, consts::DLL_SUFFIX);
    // Cargo builds the library along with what is linked in.
    let program = env::current_exe().expect("a test has a path");
    let built = program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
    let built = built.unwrap_or_else(|| panic!("{name} is not beside {}", program.display()));
    fs::copy(built, good.path().join(&name)).expect("copy");
    fs::write(bad.path().join(format!("junk{}", consts::DLL_SUFFIX)), "no library").expect("write");
    (good, bad)
}

/// Copies the files of a folder.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copy");
        }
    }
}

/// The events of `chat --json`.
pub fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A field of all events of a kind.
pub fn field<'a>(events: &'a [Value], kind: &str, key: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["event"] == kind).map(|e| &e[key]).collect()
}

/// A folder's path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
