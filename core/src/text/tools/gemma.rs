//! Calls as the Gemmas write them: `call:name{key:value,..}`, keys bare and strings between tags of their own.

use super::{
    Arguments, RawCall, Rejection,
    calls::missing_name,
    literal::{Reader, Syntax},
    verbatim::{Reading, ambiguous},
};

/// Parses frames of one or more calls. `mark` is the tag on both sides of a string. The text after the calls must not
/// contain tags, for the reason given in [`super::verbatim`].
pub(super) fn read(text: &str, [start, end]: [&'static str; 2], mark: &'static str) -> Result<Reading, Rejection> {
    let mut calls = Vec::new();
    let mut reader = Reader { rest: text, syntax: Syntax::Gemma(mark) };
    let mut behind = 0;
    while reader.take(start) {
        loop {
            calls.push(call(&mut reader)?);
            if reader.take(end) || reader.rest.trim().is_empty() {
                break;
            }
        }
        behind = text.len() - reader.rest.len();
    }
    if [start, end, mark].iter().any(|tag| reader.rest.contains(tag)) {
        let name = calls.first().map(|call: &RawCall| call.name.clone());
        return Err(Rejection { name, ..ambiguous() });
    }
    Ok(Reading { calls: calls.into_iter().map(Ok).collect(), end: behind })
}

fn call(reader: &mut Reader<'_>) -> Result<RawCall, Rejection> {
    if !reader.take("call:") {
        return Err(Rejection::malformed(format!("expected call:name{{..}}, found {:?}", reader.rest)));
    }
    let Some(open) = reader.rest.find('{') else {
        return Err(Rejection::malformed(format!("expected {{key:value}}, found {:?}", reader.rest)));
    };
    let name = reader.rest[..open].trim().to_owned();
    if name.is_empty() {
        return Err(missing_name());
    }
    reader.rest = &reader.rest[open..];
    match reader.value() {
        Ok(arguments) => Ok(RawCall { id: None, name, arguments: Arguments::Literal(arguments) }),
        Err(_) => {
            let message = format!("expected {{key:value}}, stopped at {:?}", reader.rest);
            Err(Rejection { name: Some(name), ..Rejection::malformed(message) })
        }
    }
}
