//! How Python prints values: `str`, `repr` and `json.dumps`. Templates are written against it.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Values nested deeper than this are refused, as Python does at its recursion limit.
const MAX_DEPTH: usize = 200;

/// No text that a template makes may be longer, in bytes. A few lines can double a text, or a list
/// that holds itself twice, far beyond any memory.
pub(super) const MAX_TEXT: usize = 16 << 20;

/// Checks the length of a text that is about to be made, or is being made.
pub(super) fn check_length(length: usize) -> Result<(), Error> {
    if length <= MAX_TEXT {
        return Ok(());
    }
    Err(type_error(format!("a text gets longer than {} MiB", MAX_TEXT >> 20)))
}

/// An error of the kind that Python calls a `TypeError`.
pub(super) fn type_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// What Python calls the type of `value`.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        ValueKind::Iterable => "generator",
        _ => "object",
    }
}

/// `str(value)`.
pub(super) fn str(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => repr(value),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(&mut out, value, 0)?;
    Ok(out)
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    check_length(out.len())?;
    match value.kind() {
        ValueKind::String => write_string_repr(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => out.push_str(&float(value)?),
        ValueKind::Seq if value.is_tuple() => {
            write_items(out, value, depth, "(", if value.len() == Some(1) { ",)" } else { ")" })?;
        }
        ValueKind::Seq | ValueKind::Iterable => write_items(out, value, depth, "[", "]")?,
        ValueKind::Map => {
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "{" } else { ", " });
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push_str(if value.len() == Some(0) { "{}" } else { "}" });
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_items(out: &mut String, items: &Value, depth: usize, open: &str, close: &str) -> Result<(), Error> {
    out.push_str(open);
    for (index, item) in items.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, &item, depth + 1)?;
    }
    out.push_str(close);
    Ok(())
}

/// Single quotes, unless the text holds one and no double quote.
fn write_string_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&match c as u32 {
                code @ ..0x100 => format!("\\x{code:02x}"),
                code @ ..0x10000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

/// The common part of `str.isprintable`: no controls, no separators but the space.
pub(super) fn is_printable(c: char) -> bool {
    let invisible = matches!(c as u32, 0xad | 0x200b..=0x200f | 0x2060..=0x206f | 0xfeff
        | 0xe000..=0xf8ff | 0xf0000..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

/// `repr` of a float: the shortest digits that read back the same, with an exponent below 1e-4 and
/// from 1e16.
fn float(value: &Value) -> Result<String, Error> {
    let x = f64::try_from(value.clone())?;
    if x.is_nan() {
        return Ok("nan".into());
    }
    if x.is_infinite() {
        return Ok(if x > 0.0 { "inf" } else { "-inf" }.into());
    }
    let scientific = format!("{x:e}");
    let Some((digits, Ok(exponent))) =
        scientific.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>()))
    else {
        return Ok(scientific);
    };
    if (-4..16).contains(&exponent) {
        Ok(format!("{x:?}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        Ok(format!("{digits}e{sign}{:02}", exponent.abs()))
    }
}

/// The options of `json.dumps` that transformers hands on to templates.
pub(super) struct Json {
    /// The text of one level, or everything on one line.
    pub indent: Option<String>,
    /// Between items, and between a key and its value.
    pub separators: (String, String),
    /// `\u` escapes for everything beyond ASCII.
    pub ensure_ascii: bool,
    /// Keys in alphabetical order.
    pub sort_keys: bool,
}

impl Json {
    /// `json.dumps(value)`. Keys keep their order unless told otherwise.
    pub(super) fn dumps(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(&mut out, value, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        check_depth(depth)?;
        check_length(out.len())?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => out.push_str(match float(value)?.as_str() {
                "nan" => "NaN",
                "inf" => "Infinity",
                "-inf" => "-Infinity",
                finite => finite,
            }),
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq => self.write_list(out, value, depth)?,
            ValueKind::Map => self.write_map(out, value, depth)?,
            _ => {
                let name = type_name(value);
                return Err(type_error(format!("Object of type {name} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn write_list(&self, out: &mut String, items: &Value, depth: usize) -> Result<(), Error> {
        out.push('[');
        let mut empty = true;
        for item in items.try_iter()? {
            self.start_item(out, empty, depth);
            empty = false;
            self.write(out, &item, depth + 1)?;
        }
        self.end_items(out, empty, depth);
        out.push(']');
        Ok(())
    }

    fn write_map(&self, out: &mut String, map: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = map.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        out.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.start_item(out, index == 0, depth);
            match key.kind() {
                ValueKind::String => self.write(out, key, depth + 1)?,
                ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                    out.push('"');
                    self.write(out, key, depth + 1)?;
                    out.push('"');
                }
                _ => {
                    return Err(type_error(format!(
                        "keys must be str, int, float, bool or None, not {}",
                        type_name(key)
                    )));
                }
            }
            out.push_str(&self.separators.1);
            self.write(out, &map.get_item(key)?, depth + 1)?;
        }
        self.end_items(out, keys.is_empty(), depth);
        out.push('}');
        Ok(())
    }

    fn start_item(&self, out: &mut String, first: bool, depth: usize) {
        if !first {
            out.push_str(&self.separators.0);
        }
        self.new_line(out, depth + 1);
    }

    fn end_items(&self, out: &mut String, empty: bool, depth: usize) {
        if !empty {
            self.new_line(out, depth);
        }
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(type_error(format!("maximum recursion depth exceeded: more than {MAX_DEPTH} levels")))
}
