//! Filters of jinja2 that minijinja lacks (jinja2, `filters.py`).

use minijinja::value::{Kwargs, Rest, Value, from_args};
use minijinja::{Environment, Error};
use minijinja_contrib as contrib;

use super::python::{self, check_length, type_error};
use super::strings;

pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter("filesizeformat", |value: &Value, binary: Option<bool>| {
        let size = value.as_str().map_or_else(|| f64::try_from(value.clone()).ok(), |text| text.trim().parse().ok());
        let size = size.ok_or_else(|| type_error(format!("filesizeformat: expected a number, found {value}")))?;
        Ok(contrib::filters::filesizeformat(size, binary))
    });
    environment.add_filter("center", |value: &Value, width: Option<usize>| {
        // The odd blank comes first if the width is even, as in CPython's str.center.
        let text = python::str(value)?;
        let width = width.unwrap_or(80);
        strings::pad(&text, width, ' ', if width.is_multiple_of(2) { |n| n.div_ceil(2) } else { |n| n / 2 })
    });
    environment.add_filter("wordcount", |value: &Value| {
        let text = python::str(value)?;
        Ok(text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count())
    });
    environment.add_filter("wordwrap", word_wrap);
    environment.add_filter("truncate", truncate);
    environment.add_filter("striptags", |value: &Value| python::str(value).map(contrib::filters::striptags));
    environment.add_function("cycler", |items: Rest<Value>| contrib::globals::cycler(items.0));
    environment.add_function("joiner", contrib::globals::joiner);
    environment.add_filter("urlencode", url_encode);
    for name in ["escape", "e"] {
        environment.add_filter(name, |value: &Value| {
            let text = python::str(value)?;
            Ok(Value::from_safe_string(if value.is_safe() { text } else { strings::escape(&text) }))
        });
    }
    environment.add_filter("forceescape", |value: &Value| {
        python::str(value).map(|text| Value::from_safe_string(strings::escape(&text)))
    });
    environment.add_filter("pprint", |value: &Value| python::repr(value));
    environment.add_filter("xmlattr", xml_attributes);
}

/// Lines of at most `width` characters, broken at blanks, and within words that are longer.
fn word_wrap(
    value: &Value,
    width: Option<usize>,
    break_long_words: Option<bool>,
    wrap: Option<&str>,
) -> Result<String, Error> {
    let (text, width, wrap) = (python::str(value)?, width.unwrap_or(79).max(1), wrap.unwrap_or("\n"));
    let mut out: Vec<String> = Vec::new();
    for paragraph in strings::split_lines(&text, false) {
        let mut line = String::new();
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            let mut word: Vec<char> = word.chars().collect();
            let used = line.chars().count();
            if used > 0 && used + 1 + word.len() <= width {
                line.push(' ');
                line.extend(word);
                continue;
            }
            if used > 0 {
                out.push(std::mem::take(&mut line));
            }
            while word.len() > width && break_long_words.unwrap_or(true) {
                let rest = word.split_off(width);
                out.push(std::mem::replace(&mut word, rest).into_iter().collect());
            }
            line.extend(word);
        }
        out.push(line);
    }
    check_length(text.len() + out.len().saturating_mul(wrap.len()))?;
    Ok(out.join(wrap))
}

/// At most `length` characters, of whole words unless `killwords`, and `end`.
fn truncate(value: &Value, arguments: Rest<Value>) -> Result<String, Error> {
    let text = python::str(value)?;
    let (length, killwords, end, leeway, options) =
        from_args::<(Option<usize>, Option<bool>, Option<&str>, Option<usize>, Kwargs)>(&arguments)?;
    let length = length.or(options.get("length")?).unwrap_or(255);
    let killwords = killwords.or(options.get("killwords")?).unwrap_or(false);
    let end = end.or(options.get("end")?).unwrap_or("...");
    let leeway = leeway.or(options.get("leeway")?).unwrap_or(5);
    options.assert_all_used()?;
    let tail = end.chars().count();
    if length < tail {
        return Err(type_error(format!("truncate: expected a length of at least {tail}, found {length}")));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let head: String = text.chars().take(length - tail).collect();
    let head = if killwords { &head } else { head.rsplit_once(' ').map_or(&*head, |(words, _)| words) };
    Ok(format!("{head}{end}"))
}

/// `urllib.parse.quote` of a text, or the pairs of a dict or of a list of pairs as a query.
fn url_encode(value: &Value) -> Result<String, Error> {
    if value.as_str().is_some() || value.try_iter().is_err() {
        return python::str(value).map(|text| quote(&text, "/"));
    }
    let mut pairs = Vec::new();
    for item in value.try_iter()? {
        let (key, value) = match value.kind() {
            minijinja::value::ValueKind::Map => (item.clone(), value.get_item(&item)?),
            _ => (item.get_item_by_index(0)?, item.get_item_by_index(1)?),
        };
        pairs.push(format!("{}={}", quote_plus(&python::str(&key)?), quote_plus(&python::str(&value)?)));
    }
    Ok(pairs.join("&"))
}

fn quote(text: &str, safe: &str) -> String {
    let each = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b"_.-~".contains(&b) || safe.as_bytes().contains(&b) => {
            char::from(b).to_string()
        }
        b => format!("%{b:02X}"),
    };
    text.bytes().map(each).collect()
}

fn quote_plus(text: &str) -> String {
    quote(text, " ").replace(' ', "+")
}

/// Attributes of an XML element, without those that are none or undefined.
fn xml_attributes(value: &Value, autospace: Option<bool>) -> Result<Value, Error> {
    let mut out = Vec::new();
    for key in value.try_iter()? {
        let attribute = value.get_item(&key)?;
        if attribute.is_none() || attribute.is_undefined() {
            continue;
        }
        let name = python::str(&key)?;
        if name.contains(|c: char| c.is_whitespace() || "/>=".contains(c)) {
            return Err(type_error(format!("xmlattr: invalid character in attribute name: {name:?}")));
        }
        out.push(format!("{}=\"{}\"", strings::escape(&name), strings::escape(&python::str(&attribute)?)));
    }
    let lead = if autospace.unwrap_or(true) && !out.is_empty() { " " } else { "" };
    Ok(Value::from_safe_string(lead.to_owned() + &out.join(" ")))
}
