//! Calls that are JSON objects: `{"name": .., "arguments": {..}}`.

use super::{RawCall, Rejection, RejectionReason};
use serde_json::Value;

/// One or more objects, one after the other or in a list.
pub(super) fn calls(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let values = match values(body) {
        Ok(values) => values,
        Err(rejection) => return vec![Err(rejection)],
    };
    let each = |value| match value {
        Value::Array(items) => items,
        other => vec![other],
    };
    values.into_iter().flat_map(each).map(call).collect()
}

/// The call that an object describes, under the keys that the various models use.
pub(super) fn call(value: Value) -> Result<RawCall, Rejection> {
    let Value::Object(mut object) = value else {
        return Err(Rejection::malformed(format!("expected an object with `name` and `arguments`, found {value}")));
    };
    if let Some(Value::Object(inner)) = object.get("function").or(object.get("tool")).cloned() {
        object.extend(inner);
    }
    let name = match object.get("name").or(object.get("function")).and_then(Value::as_str) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => {
            let (reason, message) = (RejectionReason::MissingToolName, "expected a `name`, found none".to_owned());
            return Err(Rejection { reason, message, name: None });
        }
    };
    let arguments = object.remove("arguments").or_else(|| object.remove("parameters")).unwrap_or(Value::Null);
    let id = object.get("id").and_then(Value::as_str).map(str::to_owned);
    Ok(RawCall { id, ..RawCall::json(name, arguments) })
}

/// JSON values one after the other, with blanks, commas or semicolons between them.
fn values(body: &str) -> Result<Vec<Value>, Rejection> {
    let (mut rest, mut values) = (body.trim(), Vec::new());
    while !rest.is_empty() {
        let (value, end) = first(rest)?;
        values.push(value);
        rest = rest[end..].trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
    }
    if values.is_empty() { Err(Rejection::malformed("expected an object, found nothing")) } else { Ok(values) }
}

/// The JSON value that a text begins with, and where it ends. Line breaks within strings, which JSON forbids and
/// models write, are let pass.
pub(super) fn first(text: &str) -> Result<(Value, usize), Rejection> {
    let strict = |text: &str| {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let value = stream.next();
        (value, stream.byte_offset())
    };
    let (found, end) = strict(text);
    let e = match found {
        Some(Ok(value)) => return Ok((value, end)),
        Some(Err(e)) => e,
        None => return Err(Rejection::malformed("expected a JSON value, found nothing")),
    };
    let (escaped, places) = escape_controls(text);
    if let (Some(Ok(value)), end) = strict(&escaped) {
        return Ok((value, places[end]));
    }
    let reason = if e.is_eof() { RejectionReason::IncompleteOutput } else { RejectionReason::MalformedSyntax };
    Err(Rejection { reason, message: format!("not JSON: {e}"), name: None })
}

/// The text with control characters in strings escaped, and for each byte of it where that was.
fn escape_controls(text: &str) -> (String, Vec<usize>) {
    let (mut out, mut places) = (String::new(), Vec::new());
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            c if in_string && c.is_control() => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        places.resize(out.len(), at);
    }
    places.push(text.len());
    (out, places)
}

/// Whether the text ends within a JSON string.
pub(super) fn ends_in_string(text: &str) -> bool {
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
    }
    in_string
}

/// Where the object that a text begins with ends, if it does.
pub(super) fn object_end(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' if !in_string => depth += 1,
            '}' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
    }
    None
}
