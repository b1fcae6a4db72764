//! config.json and its siblings: objects of JSON as Python writes it.

use std::path::Path;

use serde_json::Value;

use super::mapping::Mapping;
use super::sniff;
use crate::{Error, Result};

/// Larger files are not read: the longest real index is a few megabytes.
const MAX_BYTES: usize = 64 << 20;

/// U+FEFF in UTF-8, which some editors put before a text and which is no part of it.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What Python writes for floats that JSON does not have, and what stands for them here. The longer
/// word of two that begin alike comes first.
const NOT_JSON: [(&[u8], &[u8]); 3] =
    [(b"-Infinity", b"-1.7976931348623157e308"), (b"Infinity", b"1.7976931348623157e308"), (b"NaN", b"null")];

/// The object in the file at `path`.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let file = Mapping::open(path)?;
    if file.len() > MAX_BYTES {
        return Err(Error::file(path, format!("expected {MAX_BYTES} bytes at most, found {}", file.len())));
    }
    parse(&file).map_err(|message| Error::file(path, message))
}

/// The object in these bytes, which may begin with a byte order mark.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let strict = serde_json::from_slice(bytes);
    let value: Value = strict.or_else(|e| serde_json::from_slice(&strictly(bytes)).or(Err(e))).map_err(|e| {
        let found = sniff::format(bytes).map_or_else(String::new, |what| format!(" (the file is {what})"));
        format!("not JSON: {e}{found}")
    })?;
    if value.is_object() { Ok(value) } else { Err("expected a JSON object".into()) }
}

/// The same without Python's own words, where they do not stand in a text.
fn strictly(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at, mut in_text) = (vec![], 0, false);
    while let Some(&byte) = bytes.get(at) {
        let word = NOT_JSON.iter().find(|(word, _)| !in_text && bytes[at..].starts_with(word));
        if let Some((word, stands_for)) = word {
            out.extend_from_slice(stands_for);
            at += word.len();
            continue;
        }
        let taken = if in_text && byte == b'\\' { 2 } else { 1 };
        in_text ^= byte == b'"';
        out.extend(bytes.iter().skip(at).take(taken));
        at += taken;
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        for (text, want) in [
            (r#"{"a": 1}"#, Some(json!({ "a": 1 }))),
            (r#"{"limit": [0.0, Infinity]}"#, Some(json!({ "limit": [0.0, f64::MAX] }))),
            (r#"{"a": -Infinity, "b": NaN}"#, Some(json!({ "a": f64::MIN, "b": null }))),
            (r#"{"NaN \" Infinity": NaN}"#, Some(json!({ "NaN \" Infinity": null }))),
            ("\u{feff}{\"a\": 1}", Some(json!({ "a": 1 }))),
            (r#"{"a": Infinit}"#, None),
            ("[1]", None),
            ("{", None),
            ("\"\\", None),
        ] {
            assert_eq!(parse(text.as_bytes()).ok(), want, "{text}");
        }
    }
}
