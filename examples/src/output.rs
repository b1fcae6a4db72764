//! The one way to stdout and stderr.
//!
//! Much of what the command prints others wrote: names in configurations and files, replies of plugins, words of models and of
//! servers. A terminal obeys control characters in it, so they are written as escapes, as in `\u{1b}`.

use serde::Serialize;
use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

/// Writes text to stdout, at once. `println!` would panic once the reader is gone.
pub fn text(text: &str) -> anyhow::Result<()> {
    write(&printable(text))
}

/// Writes what a model says to stdout: as it is where that is a file or a pipe.
pub fn answer(text: &str) -> anyhow::Result<()> {
    if io::stdout().is_terminal() { write(&spoken(text)) } else { write(text) }
}

/// Writes a value as indented JSON to stdout.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    write(&(json_text(&serde_json::to_string_pretty(value)?) + "\n"))
}

/// Writes a value as one line of JSON to stdout.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    write(&(json_text(&serde_json::to_string(value)?) + "\n"))
}

/// Writes a line to stderr. Nobody is left to tell if it is closed.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&text.to_string()));
}

/// Writes to stderr what comes beside an answer, dimmed where that is a terminal.
pub fn aside(text: &str) {
    let (mut err, text) = (io::stderr().lock(), spoken(text));
    let _ = match err.is_terminal() {
        true => write!(err, "\x1b[2m{text}\x1b[0m"),
        false => write!(err, "{text}"),
    };
    let _ = err.flush();
}

/// Text that a terminal shows and does not obey. Lines and tabs stay.
fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && c != '\t' && is_control(c))
}

/// The same for a part of a line, such as a name.
pub fn name(text: &str) -> Cow<'_, str> {
    escaped(text, is_control)
}

/// What a model says, in any language: those that are written from right to left need the characters that say so.
fn spoken(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c != '\n' && c != '\t' && c.is_control();
    match text.contains("\r\n") {
        true => Cow::Owned(escaped(&text.replace("\r\n", "\n"), is_hidden).into_owned()),
        false => escaped(text, is_hidden),
    }
}

/// Whether a terminal obeys a character: C0, DEL and C1, and those that reorder what is shown (the embeddings, overrides and
/// isolates of Unicode's bidirectional algorithm, UAX 9), behind which a name can hide what it is (CVE-2021-42574).
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// JSON with everything escaped that a terminal obeys. JSON itself insists on C0 alone.
fn json_text(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // All of them are in the basic plane, and between the quotes of a text but for line breaks.
        if c != '\n' && is_control(c) { out += &format!("\\u{:04x}", c as u32) } else { out.push(c) }
    }
    out
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Colors, titles, cursors, C1's own forms of them, DEL, and an override.
    const HOSTILE: &str = "a\x1b[31m\x1b]0;title\x07\r\u{9b}2J\x7f\u{202e}gnp.exe\0";

    #[test]
    fn a_terminal_obeys_nothing_that_is_printed() {
        let shown = r"a\u{1b}[31m\u{1b}]0;title\u{7}\u{d}\u{9b}2J\u{7f}\u{202e}gnp.exe\u{0}";
        assert_eq!(printable(HOSTILE), shown);
        assert_eq!(name(HOSTILE), shown);
        let plain = "Zeile 1,\tspalte 2\n日本語 עברית e\u{301} 👩\u{200d}🚀\n";
        assert!(matches!(printable(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(name("a\nerror: b\tc"), r"a\u{a}error: b\u{9}c");
        assert_eq!(spoken("one\r\ntwo\r\x1b[2Jthree\u{2067}\n"), "one\ntwo\\u{d}\\u{1b}[2Jthree\u{2067}\n");
    }

    #[test]
    fn json_is_the_same_and_shows_everything() {
        let value = json!({ HOSTILE: [HOSTILE, "日本語\n"] });
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = json_text(&text);
            assert!(!shown.contains(|c| c != '\n' && is_control(c)) && shown.contains("日本語"), "{shown}");
            assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        }
    }
}
