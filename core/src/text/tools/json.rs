//! Calls that are JSON objects: `{"name": .., "arguments": {..}}`.

use super::{
    Arguments, RawCall, Rejection, RejectionReason,
    literal::{Literal, Reader, Stop, Syntax},
};

/// One or more objects, one after the other or in a list.
pub(super) fn calls(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let values = match values(body) {
        Ok(values) => values,
        Err(rejection) => return vec![Err(rejection)],
    };
    let each = |value| match value {
        Literal::List(items) => items,
        other => vec![other],
    };
    values.into_iter().flat_map(each).map(call).collect()
}

/// The call that an object describes, under the keys that the various models use.
fn call(value: Literal) -> Result<RawCall, Rejection> {
    let Literal::Object(mut fields) = value else {
        let found = value.into_value();
        return Err(Rejection::malformed(format!("expected an object with `name` and `arguments`, found {found}")));
    };
    if let Some(Literal::Object(inner)) = last(&fields, "function").or(last(&fields, "tool")).cloned() {
        fields.extend(inner);
    }
    let text = |key: &str| match last(&fields, key) {
        Some(Literal::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let Some(name) = text("name").or(text("function")).filter(|name| !name.is_empty()) else {
        let (reason, message) = (RejectionReason::MissingToolName, "expected a `name`, found none".to_owned());
        return Err(Rejection { reason, message, name: None });
    };
    let arguments = last(&fields, "arguments").or(last(&fields, "parameters")).cloned();
    let arguments = Arguments::Literal(arguments.unwrap_or(Literal::Object(Vec::new())));
    Ok(RawCall { id: text("id"), name, arguments })
}

/// The field with this name. The last one counts, as in JSON parsers.
fn last<'a>(fields: &'a [(String, Literal)], key: &str) -> Option<&'a Literal> {
    fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// JSON values one after the other, with blanks, commas or semicolons between them.
fn values(body: &str) -> Result<Vec<Literal>, Rejection> {
    let (mut rest, mut values) = (body.trim(), Vec::new());
    while !rest.is_empty() {
        let is_doubled = is_doubled(rest);
        let (value, after) = first(if is_doubled { &rest[1..] } else { rest })?;
        values.push(value);
        rest = after;
        for _ in 0..if is_doubled { 2 } else { 0 } {
            rest = rest.trim_start().strip_prefix('}').unwrap_or(rest);
        }
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
    }
    if values.is_empty() { Err(Rejection::malformed("expected an object, found nothing")) } else { Ok(values) }
}

/// Whether a text begins with two braces. Some models copy `{{..}}` from templates in which braces are doubled
/// (`parseRedundantOuterBraces` in mlx-swift-lm).
pub(super) fn is_doubled(text: &str) -> bool {
    text.trim_start().strip_prefix('{').is_some_and(|inner| inner.trim_start().starts_with('{'))
}

/// The JSON value that a text begins with, and what follows it.
pub(super) fn first(text: &str) -> Result<(Literal, &str), Rejection> {
    let mut reader = Reader { rest: text, syntax: Syntax::Json };
    match reader.value() {
        Ok(value) => Ok((value, reader.rest)),
        Err(Stop::End) => Err(Rejection {
            reason: RejectionReason::IncompleteOutput,
            ..Rejection::malformed("not JSON: expected the end of the value, found the end of the text")
        }),
        Err(Stop::Unexpected) => {
            let found: String = reader.rest.chars().take(40).collect();
            Err(Rejection::malformed(format!("not JSON: unexpected {found:?}")))
        }
    }
}

/// The arguments of a call. Only white space may follow them. A text without arguments is an empty object.
pub(super) fn arguments(text: &str, name: &str) -> Result<Arguments, Rejection> {
    let named = |r: Rejection| Rejection { name: Some(name.to_owned()), ..r };
    if text.trim().is_empty() {
        return Ok(Arguments::Literal(Literal::Object(Vec::new())));
    }
    let (value, rest) = first(text).map_err(named)?;
    match rest.trim() {
        "" => Ok(Arguments::Literal(value)),
        rest => Err(named(Rejection::malformed(format!("expected the end of the arguments, found {rest:?}")))),
    }
}
