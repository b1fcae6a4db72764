//! Python's methods of strings, lists and dicts, as far as the sandbox of transformers lets
//! templates call them. What changes a list or a dict is refused there and unknown here.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::{python, strings};

/// Calls `value.method(args)`.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String if method == "format" => check_widths(value).map(|()| None),
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Seq => list_method(value, method, args),
        ValueKind::Map if method == "copy" => from_args(args).map(|()| Some(value.clone())),
        _ => Ok(None),
    };
    match own? {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Methods that minijinja's own collection lacks or treats unlike Python.
fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    strings::check_pieces(text)?;
    Ok(Some(match method {
        "replace" => {
            let (old, new, count) = from_args::<(&str, &str, Option<i64>)>(args)?;
            let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
            let found = text.matches(old).take(count).count();
            python::check_length(text.len() + found.saturating_mul(new.len()))?;
            text.replacen(old, new, count).into()
        }
        "join" => {
            let (items,) = from_args::<(&Value,)>(args)?;
            join(text, items)?
        }
        "zfill" => {
            let (width,) = from_args::<(usize,)>(args)?;
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            (sign.to_owned() + &strings::pad(digits, width.saturating_sub(sign.len()), '0', |all| all)?).into()
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill) = from_args::<(usize, Option<char>)>(args)?;
            let (fill, left): (_, fn(usize) -> usize) = match method {
                "ljust" => (fill, |_| 0),
                "rjust" => (fill, |all| all),
                _ => (fill, |all| all / 2),
            };
            strings::pad(text, width, fill.unwrap_or(' '), left)?.into()
        }
        "strip" => {
            let (chars,) = from_args::<(Option<&str>,)>(args)?;
            text.trim_matches(strips(chars)).into()
        }
        "lstrip" => {
            let (chars,) = from_args::<(Option<&str>,)>(args)?;
            text.trim_start_matches(strips(chars)).into()
        }
        "rstrip" => {
            let (chars,) = from_args::<(Option<&str>,)>(args)?;
            text.trim_end_matches(strips(chars)).into()
        }
        "removeprefix" => {
            let (prefix,) = from_args::<(&str,)>(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,) = from_args::<(&str,)>(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" => {
            let (separator,) = from_args::<(&str,)>(args)?;
            let (before, found, after) = match text.split_once(separator) {
                Some((before, after)) => (before, separator, after),
                None => (text, "", ""),
            };
            tuple([before, found, after])
        }
        "rpartition" => {
            let (separator,) = from_args::<(&str,)>(args)?;
            let (before, found, after) = match text.rsplit_once(separator) {
                Some((before, after)) => (before, separator, after),
                None => ("", "", text),
            };
            tuple([before, found, after])
        }
        "rsplit" => {
            let (separator, limit) = from_args::<(Option<&str>, Option<i64>)>(args)?;
            rsplit(text, separator, limit)
        }
        "splitlines" => {
            let (keep_ends,) = from_args::<(Option<bool>,)>(args)?;
            let lines = strings::split_lines(text, keep_ends.unwrap_or(false));
            lines.into_iter().map(Value::from).collect()
        }
        "title" => from_args(args).map(|()| strings::title(text).into())?,
        "capitalize" => from_args(args).map(|()| strings::capitalize(text).into())?,
        "swapcase" => from_args(args).map(|()| strings::swap_case(text).into())?,
        "istitle" => from_args(args).map(|()| strings::is_title(text).into())?,
        "isdecimal" => from_args(args).map(|()| (!text.is_empty() && text.chars().all(is_decimal)).into())?,
        "isidentifier" => from_args(args).map(|()| strings::is_identifier(text).into())?,
        "isprintable" => from_args(args).map(|()| text.chars().all(python::is_printable).into())?,
        "expandtabs" => {
            let (size,) = from_args::<(Option<usize>,)>(args)?;
            strings::expand_tabs(text, size.unwrap_or(8))?.into()
        }
        "translate" => {
            let (table,) = from_args::<(&Value,)>(args)?;
            translate(text, table)?.into()
        }
        "rindex" => {
            let (wanted,) = from_args::<(&Value,)>(args)?;
            let found = wanted.as_str().and_then(|wanted| text.rfind(wanted));
            position(found.map(|at| text[..at].chars().count()), wanted)?
        }
        "casefold" => from_args(args).map(|()| text.to_lowercase().into())?,
        "index" => {
            let (wanted,) = from_args::<(&Value,)>(args)?;
            let found = wanted.as_str().and_then(|wanted| text.find(wanted));
            position(found.map(|at| text[..at].chars().count()), wanted)?
        }
        _ => return Ok(None),
    }))
}

/// Numbers of decimal systems; those of scripts other than Latin are rare enough in templates.
fn is_decimal(c: char) -> bool {
    c.is_ascii_digit()
}

/// `str.translate`: a table from code points to texts, code points, or nothing.
fn translate(text: &str, table: &Value) -> Result<String, Error> {
    let mut out = String::new();
    for c in text.chars() {
        let to = table.get_item(&Value::from(u32::from(c)))?;
        match (to.as_str(), to.as_i64().and_then(|code| char::from_u32(u32::try_from(code).ok()?))) {
            (Some(text), _) => out.push_str(text),
            (None, Some(c)) => out.push(c),
            (None, None) if to.is_none() => {}
            (None, None) => out.push(c),
        }
        python::check_length(out.len())?;
    }
    Ok(out)
}

/// `separator.join(items)`; Python joins nothing but texts.
fn join(separator: &str, items: &Value) -> Result<Value, Error> {
    let mut joined = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        let Some(text) = item.as_str() else {
            let found = python::type_name(&item);
            return Err(python::type_error(format!("sequence item {index}: expected str instance, {found} found")));
        };
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
        python::check_length(joined.len())?;
    }
    Ok(joined.into())
}

/// `format` pads to whatever width its text says; this refuses absurd ones.
fn check_widths(format: &Value) -> Result<(), Error> {
    let text = format.as_str().unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    if numbers.any(|digits| digits.len() > 4) {
        return Err(python::type_error("format: a width is too large"));
    }
    strings::check_pieces(text)
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "copy" => from_args(args).map(|()| Some(list.clone())),
        "index" => {
            let (wanted,) = from_args::<(&Value,)>(args)?;
            position(list.try_iter()?.position(|item| item == *wanted), wanted).map(Some)
        }
        _ => Ok(None),
    }
}

/// What `strip` and its relatives remove: the given characters, or white space.
pub(super) fn strips(chars: Option<&str>) -> impl Fn(char) -> bool {
    move |c| chars.map_or_else(|| strings::is_space(c), |chars| chars.contains(c))
}

fn tuple(parts: [&str; 3]) -> Value {
    minijinja::value::Tuple::from(parts.map(Value::from)).into()
}

fn rsplit(text: &str, separator: Option<&str>, limit: Option<i64>) -> Value {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(limit, separator).collect(),
        None => rsplit_space(text, limit),
    };
    parts.reverse();
    parts.into_iter().map(Value::from).collect()
}

/// The words of `text` from the last to the first; the last of `limit` parts is what is left.
fn rsplit_space(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(strings::is_space);
    while !rest.is_empty() {
        let start = rest.rfind(strings::is_space).filter(|_| parts.len() + 1 < limit);
        let Some(start) = start else {
            parts.push(rest);
            break;
        };
        let word = rest[start..].trim_start_matches(strings::is_space);
        parts.push(word);
        rest = rest[..start].trim_end_matches(strings::is_space);
    }
    parts
}

fn position(found: Option<usize>, wanted: &Value) -> Result<Value, Error> {
    found
        .map(Value::from)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("index: {wanted:?} is not there")))
}
