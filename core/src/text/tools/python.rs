//! Calls written as Python: `[f(a='v', b=[1, True])]`.

use super::{
    Arguments, RawCall, Rejection,
    calls::missing_name,
    literal::{Literal, Reader, Stop, Syntax},
};

/// A list of calls, with or without brackets, perhaps in a fenced block.
pub(super) fn calls(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let body = body.trim().trim_start_matches("```python").trim_start_matches("```").trim_end_matches("```");
    let mut reader = Reader { rest: body.trim(), syntax: Syntax::Python };
    match list(&mut reader) {
        Ok(calls) if !calls.is_empty() && reader.rest.trim().is_empty() => calls.into_iter().map(Ok).collect(),
        _ if reader.peek("(") => vec![Err(missing_name())],
        _ => vec![Err(Rejection::malformed(format!("expected [name(key=value)], stopped at {:?}", reader.rest)))],
    }
}

fn list(reader: &mut Reader<'_>) -> Result<Vec<RawCall>, Stop> {
    let mut calls = Vec::new();
    if reader.take("[") {
        reader.items("]", |reader| call(reader).map(|call| calls.push(call)))?;
        return Ok(calls);
    }
    while !reader.rest.trim().is_empty() {
        calls.push(call(reader)?);
        reader.take(",");
    }
    Ok(calls)
}

fn call(reader: &mut Reader<'_>) -> Result<RawCall, Stop> {
    let (name, arguments) = reader.rest.split_once('(').ok_or(Stop::End)?;
    let name = name.trim();
    if name.is_empty() || name.contains(|c: char| !(c.is_alphanumeric() || "_.-:/".contains(c))) {
        return Err(Stop::Unexpected);
    }
    reader.rest = arguments;
    let mut fields = Vec::new();
    reader.items(")", |reader| {
        let key = reader.name();
        if key.is_empty() {
            return Err(Stop::Unexpected);
        }
        reader.expect("=")?;
        fields.push((key.to_owned(), reader.value()?));
        Ok(())
    })?;
    Ok(RawCall { id: None, name: name.to_owned(), arguments: Arguments::Literal(Literal::Object(fields)) })
}
