//! Calls in the manner of XML. It is no XML: nothing is escaped, and attributes are written `name=value`.

use super::{Arguments, RawCall, Rejection, RejectionReason, calls::missing_name, schema::Untyped};

/// `<function=name><parameter=key>value</parameter></function>`, once or more.
pub(super) fn function(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let parts: Vec<&str> = body.split("<function=").skip(1).collect();
    if parts.is_empty() {
        return vec![Err(Rejection::malformed(format!("expected <function=..>, found {body:?}")))];
    }
    let one = |part: &str| {
        let (name, rest) = named(part)?;
        let rest = rest.split("</function>").next().unwrap_or_default();
        let mut arguments = Vec::new();
        for part in rest.split("<parameter=").skip(1) {
            let Some((key, value)) = part.split_once('>') else {
                return Err(incomplete(&name, "<parameter="));
            };
            let Some((value, _)) = value.split_once("</parameter>") else {
                return Err(incomplete(&name, "</parameter>"));
            };
            arguments.push((unquoted(key).to_owned(), without_breaks(value).to_owned()));
        }
        Ok(RawCall { id: None, name, arguments: Arguments::Text(arguments, Untyped::Text) })
    };
    parts.into_iter().map(one).collect()
}

/// `name<arg_key>key</arg_key><arg_value>value</arg_value>`.
pub(super) fn arg_pairs(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let mut parts = body.split("<arg_key>");
    let name = parts.next().unwrap_or_default().trim().to_owned();
    let one = || {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(if name.is_empty() { missing_name() } else { Rejection::malformed(format!("{name:?}")) });
        }
        let mut arguments = Vec::new();
        for part in parts {
            let Some((key, rest)) = part.split_once("</arg_key>") else { return Err(incomplete(&name, "</arg_key>")) };
            let Some((_, rest)) = rest.split_once("<arg_value>") else { return Err(incomplete(&name, "<arg_value>")) };
            let Some((value, _)) = rest.split_once("</arg_value>") else {
                return Err(incomplete(&name, "</arg_value>"));
            };
            arguments.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(RawCall { id: None, name: name.clone(), arguments: Arguments::Text(arguments, Untyped::Json) })
    };
    vec![one()]
}

/// `<invoke name="name"><parameter name="key">value</parameter></invoke>`, once or more, all names with `prefix`.
pub(super) fn invocations(body: &str, prefix: &str) -> Vec<Result<RawCall, Rejection>> {
    let untyped = if prefix.is_empty() { Untyped::Text } else { Untyped::Json };
    let [open, close] = ["<", "</"].map(|s| format!("{s}{prefix}invoke"));
    let [parameter, end] = ["<", "</"].map(|s| format!("{s}{prefix}parameter"));
    let parts: Vec<&str> = body.split(open.as_str()).skip(1).collect();
    if parts.is_empty() {
        return vec![Err(Rejection::malformed(format!("expected {open}, found {body:?}")))];
    }
    let one = |part: &str| {
        let Some((attributes, rest)) = part.split_once('>') else { return Err(incomplete("", ">")) };
        let name = attribute(attributes).filter(|name| !name.is_empty()).ok_or_else(missing_name)?;
        let rest = rest.split(close.as_str()).next().unwrap_or_default();
        let mut arguments = Vec::new();
        for part in rest.split(parameter.as_str()).skip(1) {
            let Some((attributes, value)) = part.split_once('>') else { return Err(incomplete(&name, ">")) };
            let Some((value, _)) = value.split_once(end.as_str()) else { return Err(incomplete(&name, &end)) };
            let Some(key) = attribute(attributes) else {
                return Err(Rejection::malformed(format!("expected a parameter's name, found {attributes:?}")));
            };
            arguments.push((key, value.trim().to_owned()));
        }
        Ok(RawCall { id: None, name, arguments: Arguments::Text(arguments, untyped) })
    };
    parts.into_iter().map(one).collect()
}

/// A name up to `>`, and what follows.
fn named(part: &str) -> Result<(String, &str), Rejection> {
    let Some((name, rest)) = part.split_once('>') else { return Err(incomplete("", ">")) };
    match unquoted(name) {
        "" => Err(missing_name()),
        name if name.contains(['<', '\n']) => Err(Rejection::malformed(format!("{name:?} is no name"))),
        name => Ok((name.to_owned(), rest)),
    }
}

/// The value of `name=".."`.
fn attribute(attributes: &str) -> Option<String> {
    let (_, value) = attributes.split_once("name=")?;
    let value = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].split(quote).next()?,
        _ => value.split_whitespace().next()?,
    };
    Some(value.to_owned())
}

fn unquoted(name: &str) -> &str {
    name.trim().trim_matches(['"', '\''])
}

/// Without the line breaks that set a value apart.
fn without_breaks(value: &str) -> &str {
    let value = value.strip_prefix('\n').unwrap_or(value);
    value.strip_suffix('\n').unwrap_or(value)
}

fn incomplete(name: &str, expected: &str) -> Rejection {
    let name = Some(name.to_owned()).filter(|n| !n.is_empty());
    Rejection { reason: RejectionReason::MalformedSyntax, message: format!("expected {expected}, found none"), name }
}
