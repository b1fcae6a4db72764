//! The prompt of a single answer: what is piped in, what is named, or the one after the other.

use super::{output, text};
use anyhow::{anyhow, ensure};
use std::{
    io::{self, Read},
    iter,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// Bytes of a text at most.
const MOST: usize = 64 << 20;
/// How long stdin may say nothing beside a prompt that is named. Programs that start others often leave them a pipe into which
/// nobody ever writes, and which nobody closes.
const PATIENCE: Duration = Duration::from_secs(15);

/// What comes from stdin, which a thread reads in the meantime.
pub struct Piped {
    pieces: Receiver<io::Result<Vec<u8>>>,
    began: Instant,
}

impl Piped {
    /// Begins to read.
    pub fn begin() -> Piped {
        let (send, pieces) = sync_channel(16);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let piece = match io::stdin().read(&mut buffer) {
                    Ok(0) => return,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    read => read.map(|count| buffer[..count].to_vec()),
                };
                let is_over = piece.is_err();
                if send.send(piece).is_err() || is_over {
                    return;
                }
            }
        });
        Piped { pieces, began: Instant::now() }
    }

    /// All of it.
    pub fn text(self) -> anyhow::Result<String> {
        whole(self.pieces)
    }

    /// All of it, if there is something: a stdin that stays silent is left alone, and that is said.
    pub fn text_if_any(self) -> anyhow::Result<String> {
        match self.pieces.recv_timeout(PATIENCE.saturating_sub(self.began.elapsed())) {
            Ok(first) => whole(iter::once(first).chain(self.pieces)),
            Err(RecvTimeoutError::Disconnected) => Ok(String::new()),
            Err(RecvTimeoutError::Timeout) => {
                output::note(format_args!(
                    "warning: stdin is open, and nothing came for {} seconds: it is left out (`< /dev/null` says that nothing \
                     is to come; without PROMPT, stdin is waited for)",
                    PATIENCE.as_secs()
                ));
                Ok(String::new())
            }
        }
    }
}

fn whole(pieces: impl IntoIterator<Item = io::Result<Vec<u8>>>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend(piece.map_err(|e| anyhow!("stdin: {e}"))?);
        ensure!(bytes.len() <= MOST, "stdin: expected a prompt of at most {} MiB, found more", MOST >> 20);
    }
    text::decoded(bytes).map_err(|e| anyhow!("stdin: {e}"))
}

/// The prompt of what is piped in and what is named: in this order, as in `llm` and `ollama run`.
pub fn joined(piped: &str, named: Option<&str>, is_raw: bool) -> String {
    match named {
        // Nothing is added to a text that the model goes on with, and nothing is taken from it.
        _ if is_raw => [piped, named.unwrap_or_default()].concat(),
        // The line break that ends a text file is no part of the question.
        None => piped.trim_end().to_owned(),
        Some(named) if piped.trim().is_empty() => named.to_owned(),
        Some(named) => [piped.trim_end(), named].join("\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_piped_in_comes_before_what_is_asked() {
        for (piped, named, plain, raw) in [
            ("a\nb\n", Some("sum up"), "a\nb\n\nsum up", "a\nb\nsum up"),
            ("a ", None, "a", "a "),
            ("", Some("why?"), "why?", "why?"),
            (" \r\n", Some("why? "), "why? ", " \r\nwhy? "),
            ("\n", None, "", "\n"),
        ] {
            assert_eq!((joined(piped, named, false).as_str(), joined(piped, named, true).as_str()), (plain, raw));
        }
    }
}
