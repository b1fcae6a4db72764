//! Filters and tests where Python's jinja2 differs from minijinja.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error};

use super::modulo::{MODULO, modulo};
use super::python::{self, Json, type_error, type_name};
use super::{jinja, methods, source, strings};

pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter(source::ITERABLE, iterable);
    environment.add_filter(source::MARKUP_SUM, markup_sum);
    environment.add_filter(MODULO, modulo);
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
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    jinja::add_filters(environment);
}

pub(super) fn add_tests(environment: &mut Environment<'static>) {
    // Undefined values count as empty in Python's jinja.
    environment.add_test("iterable", |value: &Value| iterable(value).is_ok());
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain && value.as_object().is_some());
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Map | Undefined)
    });
}

/// What Python iterates over when asked to iterate over `value`.
fn iterable(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        // As a list, a text has an end that `loop.last` sees.
        strings::check_pieces(text)?;
        return Ok(text.chars().map(Value::from).collect());
    }
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

/// A number without its fraction; `default` for what is no number.
fn int(value: &Value, default: Option<Value>, base: Option<u32>) -> Value {
    let number = match value.as_str() {
        Some(text) => whole_number(text.trim(), base.unwrap_or(10)).map(Value::from),
        None if value.is_integer() => Some(value.clone()),
        None => None,
    };
    let truncated = || Some(Value::from(number_of(value)?.trunc() as i64));
    number.or_else(truncated).or(default).unwrap_or_else(|| Value::from(0))
}

/// Digits of a base from 2 to 36, behind `0x`, `0o` or `0b` where the base is that.
fn whole_number(text: &str, base: u32) -> Option<i64> {
    let prefix = match base {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    let digits = text.strip_prefix(prefix).unwrap_or(text);
    (2..=36).contains(&base).then(|| i64::from_str_radix(digits, base).ok())?
}

fn float(value: &Value, default: Option<Value>) -> Value {
    number_of(value).map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0))
}

fn number_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
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
    const MAX_WIDTH: usize = 100;
    if let Some(text) = width.as_str().filter(|text| text.len() <= MAX_WIDTH) {
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
    let text = python::str(value)?;
    python::check_length(text.len() + text.lines().count().saturating_mul(indention.len()))?;
    Ok(strings::indent(&text, &indention, first, blank))
}
