//! The names that transformers gives to templates: filters, tests, functions and methods, with the
//! meaning they have in Python.

use std::fmt::Write;

use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::python::{self, Json, type_error, type_name};
use super::{methods, source, strings};

/// What one rendering may cost. One unit is an instruction or 64 bytes, so this allows for about ten
/// thousand turns or a hundred megabytes, and ends a hostile loop within a few seconds.
const FUEL: u64 = 4_000_000;

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    if let Ok(syntax) = syntax.trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    // A dump of all variables belongs into no message.
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(print);
    environment.set_unknown_method_callback(methods::call);
    add_filters(&mut environment);
    add_tests(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    set_clock(&mut environment, || chrono::Local::now().naive_local());
    environment
}

/// Makes `strftime_now` ask `clock` for the time.
pub(super) fn set_clock(
    environment: &mut Environment<'static>,
    clock: impl Fn() -> NaiveDateTime + Send + Sync + 'static,
) {
    environment.add_function("strftime_now", move |format: &str| {
        let mut text = String::new();
        write!(text, "{}", clock().format(format))
            .map_err(|_| type_error(format!("strftime_now: `{format}` is no time format")))?;
        Ok(text)
    });
}

fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&python::str(value)?)?,
    }
    Ok(())
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, python::str(message)?))
}

fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter(source::ITERABLE, iterable);
    environment.add_filter(source::MARKUP_SUM, markup_sum);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| match value.kind() {
        ValueKind::String => Ok(value.clone()),
        _ => python::str(value).map(Value::from),
    });
    environment.add_filter("safe", |value: &Value| Ok(Value::from_safe_string(python::str(value)?)));
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("upper", |value: &Value| Ok(python::str(value)?.to_uppercase()));
    environment.add_filter("lower", |value: &Value| Ok(python::str(value)?.to_lowercase()));
    environment.add_filter("title", |value: &Value| Ok(strings::title_filter(&python::str(value)?)));
    environment.add_filter("capitalize", |value: &Value| Ok(strings::capitalize(&python::str(value)?)));
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| {
        let text = python::str(value)?;
        Ok(text.trim_matches(methods::strips(chars)).to_owned())
    });
    environment.add_filter("indent", indent);
}

fn add_tests(environment: &mut Environment<'static>) {
    // Undefined values count as empty in Python's jinja.
    environment.add_test("iterable", |value: &Value| iterable(value).is_ok());
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Map | Undefined)
    });
}

/// `value`, if Python would iterate over it.
fn iterable(value: &Value) -> Result<Value, Error> {
    if value.is_none() || value.try_iter().is_err() {
        return Err(type_error(format!("'{}' object is not iterable", type_name(value))));
    }
    Ok(value.clone())
}

/// `first + others…` as markupsafe adds: what meets safe text and is not safe itself is escaped.
fn markup_sum(first: Value, others: Rest<Value>) -> Result<Value, Error> {
    let mut sum = first;
    for other in others.iter() {
        let (Some(left), Some(right)) = (sum.as_str(), other.as_str()) else {
            return Err(type_error(format!(
                "can only concatenate str (not \"{}\") to str",
                type_name(if sum.as_str().is_some() { other } else { &sum })
            )));
        };
        sum = match (sum.is_safe(), other.is_safe()) {
            (false, false) => Value::from(format!("{left}{right}")),
            (true, false) => Value::from_safe_string(left.to_owned() + &strings::escape(right)),
            (false, true) => Value::from_safe_string(strings::escape(left) + right),
            (true, true) => Value::from_safe_string(format!("{left}{right}")),
        };
    }
    Ok(sum)
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().chars().count()),
        ValueKind::Iterable => Ok(value.try_iter()?.count()),
        _ => value.len().ok_or_else(|| type_error(format!("object of type '{}' has no len()", type_name(value)))),
    }
}

fn tojson(value: &Value, ensure_ascii: Option<bool>, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let ensure_ascii = match ensure_ascii {
        Some(given) => given,
        None => options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let indent = match indent {
        Some(given) => Some(given),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| indention(&indent));
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let indent = indent.transpose()?;
    let separators = match separators.as_deref() {
        Some([items, keys]) => (items.clone(), keys.clone()),
        Some(_) => return Err(type_error("tojson: separators are two strings")),
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    Json { indent, separators, ensure_ascii, sort_keys }.dumps(value)
}

/// One level of indentation, given as a number of spaces or as text.
fn indention(width: &Value) -> Result<String, Error> {
    /// More is a mistake or an attack.
    const MAX_WIDTH: usize = 1000;
    if let Some(text) = width.as_str() {
        return Ok(text.to_owned());
    }
    match width.as_i64() {
        Some(width) if width <= MAX_WIDTH as i64 => Ok(" ".repeat(width.max(0) as usize)),
        _ => Err(type_error(format!("indent: expected at most {MAX_WIDTH} spaces, found {width}"))),
    }
}

fn indent(
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let flag = |given: Option<bool>, name: &str| match given {
        Some(given) => Ok(given),
        None => options.get::<Option<bool>>(name).map(Option::unwrap_or_default),
    };
    let (first, blank) = (flag(first, "first")?, flag(blank, "blank")?);
    let width = match width {
        Some(given) => Some(given),
        None => options.get::<Option<Value>>("width")?,
    };
    options.assert_all_used()?;
    let indention = indention(&width.unwrap_or_else(|| Value::from(4)))?;
    Ok(strings::indent(&python::str(value)?, &indention, first, blank))
}
