//! A conversation on a real terminal: `script` makes one.

use super::support::{goldens, program, text};
use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
    /// What of it has been looked at.
    seen: usize,
}

impl Terminal {
    /// `tamarack chat` with a model of random weights, up to its first prompt.
    fn chat(more: &str) -> Terminal {
        let model = goldens("vision/qwen2_vl");
        let fixed = ["chat", "--device", "reference", "--context", "2048", "--model", text(&model)];
        let mut terminal = Terminal::begin(&[&fixed[..], &more.split_whitespace().collect::<Vec<_>>()].concat());
        terminal.wait_for("/help says what there is");
        terminal
    }

    /// A command on a terminal.
    fn begin(arguments: &[&str]) -> Terminal {
        let quoted = arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>().join(" ");
        let chat = format!("exec '{}' {quoted}", env!("CARGO_BIN_EXE_tamarack"));
        let mut script: Command = program("script", &["--quiet", "--return", "--command", &chat, "/dev/null"]);
        script.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("script, of util-linux (on Debian bsdutils)");
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let screen: Arc<Mutex<String>> = Arc::default();
        let written = screen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                *written.lock().unwrap() += &String::from_utf8_lossy(&bytes[..n]);
            }
        });
        Terminal { child, keys, screen, seen: 0 }
    }

    /// What is written up to `expected`, and not further.
    fn wait_for(&mut self, expected: &str) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen.lock().unwrap()[self.seen..].to_owned();
            if let Some(at) = screen.find(expected) {
                self.seen += at + expected.len();
                return screen[..at + expected.len()].to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "`{expected}` does not come: {screen}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Enters a line, and waits for what comes of it.
    fn enter(&mut self, line: &str, expected: &str) -> String {
        self.press(&format!("{line}\r"));
        self.wait_for(expected)
    }

    /// Ctrl-D, with which it ends well.
    fn end(mut self) {
        self.press("\x04");
        assert!(self.child.wait().unwrap().success(), "{}", self.screen.lock().unwrap());
    }
}

/// What a command without input leaves on a terminal.
pub fn screen_of(arguments: &[&str]) -> String {
    let mut terminal = Terminal::begin(arguments);
    assert!(terminal.child.wait().unwrap().success(), "{}", terminal.screen.lock().unwrap());
    terminal.wait_for("tokens/s");
    let screen = terminal.screen.lock().unwrap();
    screen.clone()
}

#[test]
fn a_conversation_understands_its_commands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.safetensors");
    let mut chat = Terminal::chat("--max-tokens 4");
    chat.enter("/help", "the conversation goes on.");
    chat.enter("/sing", "error: no command /sing");
    chat.enter("/system Be brief.", "Noted.");
    chat.enter("/set temperature 0.2", "temperature 0.2");
    chat.enter("/set temperature warm", "error: expected a number, found `warm`");
    let first = chat.enter("Hello", "cut off at the limit of tokens");
    assert!(first.contains("prompt: ") && first.contains("answer: 4 tokens"), "{first}");
    chat.enter("And then?", "kept), ");
    chat.enter(&format!("/save {}", text(&file)), "4 turns are in ");
    chat.enter("/reset", "Forgotten.");
    chat.enter(&format!("/load {}", text(&file)), "4 turns, ");
    chat.enter("So?", "kept), ");
    // The last line again, by the arrow key.
    chat.press("\x1b[A\r");
    chat.wait_for("kept), ");
    chat.enter("/load /no/such/file", "error: /no/such/file");

    // Ctrl-C stops an answer, of which nothing stays.
    chat.enter("/set max_tokens none", "max_tokens none");
    chat.press("Go on\r");
    thread::sleep(Duration::from_millis(300));
    chat.press("\x03");
    chat.wait_for("; cancelled");
    chat.enter(&format!("/save {}", text(&file)), "8 turns are in ");
    chat.press("\x03");
    chat.wait_for("Ctrl-C once more");
    chat.end();
}

#[test]
fn a_conversation_sees_images() {
    let image = goldens("vision/images/cat.png");
    let mut chat = Terminal::chat("--max-tokens 2 --temperature 0");
    chat.enter("/image", "error: expected /image FILE");
    chat.enter(&format!("/image {}", text(&image)), "Noted.");
    let sees = chat.enter("What is it?", "tokens, ");
    let blind = chat.enter("/reset", "Forgotten.") + &chat.enter("What is it?", "tokens, ");
    let prompt =
        |text: &str| text.rsplit("prompt: ").next().unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(prompt(&sees) > prompt(&blind) + 4, "{sees}{blind}");
    chat.enter("/image /no/such.png", "Noted.");
    chat.enter("And this?", "error: /no/such.png");
    chat.end();
}

/// Lines that are there at once: typed while nobody reads, pasted without brackets, or written by `expect`.
#[test]
fn lines_typed_ahead_are_all_heard() {
    for ending in ["\r", "\n"] {
        let mut chat = Terminal::chat("--max-tokens 2 --temperature 0");
        chat.press(&["one", "two", "three", "/set top_k 3", "four"].map(|line| format!("{line}{ending}")).concat());
        for _ in ["one", "two", "three"] {
            chat.wait_for("answer: ");
        }
        chat.wait_for("top_k 3");
        chat.wait_for("answer: ");
        // While an answer comes.
        chat.enter("/set max_tokens 40", "max_tokens 40");
        chat.press(&format!("five{ending}"));
        thread::sleep(Duration::from_millis(200));
        chat.press(&format!("six{ending}seven{ending}"));
        for _ in ["five", "six", "seven"] {
            chat.wait_for("answer: ");
        }
        chat.end();
    }
}

/// A paste between brackets is one question, however many lines it has.
#[test]
fn a_paste_is_one_question() {
    let mut chat = Terminal::chat("--max-tokens 2 --temperature 0");
    chat.press("\x1b[200~one\rtwo\x1b[201~\r");
    chat.wait_for("answer: ");
    chat.enter("/set top_k", "top_k 0");
    chat.end();
}
