//! Reads values in JSON, in Python, and in the syntax of the Gemmas. They differ in quotes and keys.

use serde_json::{Number, Value};

/// How deep values may lie within each other.
const DEPTH: usize = 128;

/// A value before the schema of its parameter is applied. A word without quotes keeps its text, because `01001` and
/// `3.10` are strings if the schema asks for a string, and their text cannot be restored from a number.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Literal {
    Word(String),
    Text(String),
    List(Vec<Literal>),
    Object(Vec<(String, Literal)>),
}

impl Literal {
    /// The value of the literal if there is no schema.
    pub fn into_value(self) -> Value {
        match self {
            Literal::Word(word) => word_value(&word).unwrap_or(Value::String(word)),
            Literal::Text(text) => text.into(),
            Literal::List(items) => items.into_iter().map(Literal::into_value).collect(),
            Literal::Object(fields) => fields.into_iter().map(|(key, field)| (key, field.into_value())).collect(),
        }
    }

    /// Parses `text` as one literal.
    pub fn read(text: &str, syntax: Syntax) -> Option<Literal> {
        let mut reader = Reader { rest: text, syntax };
        let literal = reader.value().ok()?;
        reader.rest.trim().is_empty().then_some(literal)
    }
}

/// The value of a word in JSON or Python. Neither allows a number with a leading zero.
pub(super) fn word_value(word: &str) -> Option<Value> {
    let digits = word.trim_start_matches(['-', '+']);
    match word {
        "true" | "True" => Some(true.into()),
        "false" | "False" => Some(false.into()),
        "null" | "None" => Some(Value::Null),
        _ if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => None,
        _ if digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()) => None,
        _ => match (word.parse::<i64>(), word.parse::<u64>()) {
            (Ok(n), _) => Some(n.into()),
            (_, Ok(n)) => Some(n.into()),
            _ => word.parse().ok().and_then(Number::from_f64).map(Value::Number),
        },
    }
}

/// The syntax of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Syntax {
    Json,
    Python,
    /// Strings are enclosed in this tag and not escaped.
    Gemma(&'static str),
}

/// Why a reader stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// The text ends within the value.
    End,
    /// What comes next cannot be part of the value.
    Unexpected,
}

/// Reads values from the beginning of `rest`.
pub(super) struct Reader<'a> {
    pub rest: &'a str,
    pub syntax: Syntax,
}

impl<'a> Reader<'a> {
    /// The next value.
    pub fn value(&mut self) -> Result<Literal, Stop> {
        self.value_within(DEPTH)
    }

    fn value_within(&mut self, depth: usize) -> Result<Literal, Stop> {
        let deeper = depth.checked_sub(1).ok_or(Stop::Unexpected)?;
        if let Some(text) = self.string() {
            return text.map(Literal::Text);
        }
        if self.take("{") {
            let mut fields = Vec::new();
            self.items("}", |reader| reader.field(&mut fields, deeper))?;
            return Ok(Literal::Object(fields));
        }
        let close = if self.take("[") {
            "]"
        } else if self.syntax == Syntax::Python && self.take("(") {
            ")"
        } else {
            return self.word().map(|word| Literal::Word(word.to_owned()));
        };
        let mut items = Vec::new();
        self.items(close, |reader| reader.value_within(deeper).map(|item| items.push(item)))?;
        Ok(Literal::List(items))
    }

    /// Items with commas between them up to `close`. JSON alone forbids a comma after the last one.
    pub fn items(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if self.take(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.take(",") {
                return self.expect(close);
            }
            if self.syntax != Syntax::Json && self.take(close) {
                return Ok(());
            }
        }
    }

    fn field(&mut self, fields: &mut Vec<(String, Literal)>, depth: usize) -> Result<(), Stop> {
        let key = match (self.string(), self.syntax) {
            (Some(key), _) => key?,
            (None, Syntax::Json) => return Err(self.stop()),
            (None, Syntax::Python) => match self.value_within(depth)? {
                Literal::Word(key) => key,
                other => other.into_value().to_string(),
            },
            (None, Syntax::Gemma(_)) => self.name().to_owned(),
        };
        self.expect(":")?;
        let is_known = fields.iter().any(|(known, _)| *known == key);
        if matches!(self.syntax, Syntax::Gemma(_)) && (key.is_empty() || is_known) {
            // Strings are not escaped, so a repeated key may be part of one.
            return Err(Stop::Unexpected);
        }
        fields.push((key, self.value_within(depth)?));
        Ok(())
    }

    /// The next value if it is a string.
    fn string(&mut self) -> Option<Result<String, Stop>> {
        self.rest = self.rest.trim_start();
        if let Syntax::Gemma(mark) = self.syntax
            && let Some(inner) = self.rest.strip_prefix(mark)
        {
            let Some((text, rest)) = inner.split_once(mark) else { return Some(Err(Stop::End)) };
            self.rest = rest;
            return Some(Ok(text.to_owned()));
        }
        let quote = self.rest.chars().next()?;
        if quote != '"' && (quote != '\'' || self.syntax == Syntax::Json) {
            return None;
        }
        let mut is_escaped = false;
        let end = self.rest[1..].find(|c| {
            let is_end = c == quote && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else { return Some(Err(Stop::End)) };
        let inner = &self.rest[1..=end];
        let text = if self.syntax == Syntax::Json { json_text(inner) } else { python_text(inner) };
        if text.is_some() {
            self.rest = &self.rest[end + 2..];
        }
        Some(text.ok_or(Stop::Unexpected))
    }

    /// A value without quotes.
    fn word(&mut self) -> Result<&'a str, Stop> {
        self.rest = self.rest.trim_start();
        let is_part = |c: char| match self.syntax {
            Syntax::Json => c.is_ascii_alphanumeric() || "+-.".contains(c),
            Syntax::Python => c.is_alphanumeric() || "+-._".contains(c),
            Syntax::Gemma(_) => !",{}[]\"\n".contains(c),
        };
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let word = self.rest[..end].trim_end();
        let is_json =
            || matches!(word, "true" | "false" | "null") || word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if word.is_empty() || self.syntax == Syntax::Json && !is_json() {
            return Err(self.stop());
        }
        self.rest = &self.rest[end..];
        Ok(word)
    }

    /// A name, which may contain dots and hyphens.
    pub fn name(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    pub fn peek(&mut self, what: &str) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.starts_with(what)
    }

    pub fn take(&mut self, what: &str) -> bool {
        let found = self.peek(what);
        if found {
            self.rest = &self.rest[what.len()..];
        }
        found
    }

    pub fn expect(&mut self, what: &str) -> Result<(), Stop> {
        if self.take(what) { Ok(()) } else { Err(self.stop()) }
    }

    fn stop(&self) -> Stop {
        if self.rest.trim().is_empty() { Stop::End } else { Stop::Unexpected }
    }
}

/// Decodes the inside of a JSON string. Control characters are accepted, because models write line breaks unescaped.
fn json_text(inner: &str) -> Option<String> {
    let mut quoted = String::from("\"");
    for c in inner.chars() {
        match c {
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    serde_json::from_str(&quoted).ok()
}

/// Decodes the inside of a Python string. Unknown escapes keep their backslash, as in Python.
fn python_text(inner: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next()? {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'x' => text.push(char::from_u32(hex(&mut chars, 2)?)?),
            'u' => {
                let mut code = hex(&mut chars, 4)?;
                // A surrogate pair, as in JSON.
                if (0xd800..0xdc00).contains(&code) && chars.as_str().starts_with("\\u") {
                    chars = chars.as_str()[2..].chars();
                    code = 0x10000 + ((code - 0xd800) << 10) + hex(&mut chars, 4)?.checked_sub(0xdc00)?;
                }
                text.push(char::from_u32(code)?);
            }
            c @ ('\\' | '\'' | '"') => text.push(c),
            c => text.extend(['\\', c]),
        }
    }
    Some(text)
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    let code: String = chars.take(digits).collect();
    u32::from_str_radix(&code, 16).ok().filter(|_| code.len() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str, syntax: Syntax) -> Option<Value> {
        Literal::read(text, syntax).map(Literal::into_value)
    }

    #[test]
    fn python_literals_are_read() {
        for (text, expected) in [
            ("'it\\'s'", Some(json!("it's"))),
            ("\"a\\nb\\u00e9\\x41\\d\\ud83d\\ude00\"", Some(json!("a\nbéA\\d😀"))),
            ("[1, -2.5, 1e3, (True, None),]", Some(json!([1, -2.5, 1000.0, [true, null]]))),
            ("{'a': {'b': [false]}, 1: 'x'}", Some(json!({ "a": { "b": [false] }, "1": "x" }))),
            ("[01001, 1.2.3, inf]", Some(json!(["01001", "1.2.3", "inf"]))),
            ("'open", None),
            ("'\\ud83d'", None),
            ("1 2", None),
            ("__import__('os')", None),
        ] {
            assert_eq!(read(text, Syntax::Python), expected, "{text}");
        }
        assert_eq!(read(&"[".repeat(100_000), Syntax::Python), None, "no stack is deep enough for some");
    }

    #[test]
    fn json_literals_are_read() {
        for text in [
            "{\"a\": [1, -2.5e3, true, null, \"\\u00e9\\n\\\"\"], \"b\": {}}",
            "[]",
            "12345678901234567890",
            "1e400",
            "{\"a\": 1,}",
            "[1,]",
            "{a: 1}",
            "'a'",
            "True",
            "\"\\q\"",
            "[1",
            "",
        ] {
            let expected: Option<Value> = serde_json::from_str(text).ok();
            let found = read(text, Syntax::Json);
            assert_eq!(found.filter(|_| text != "1e400"), expected, "{text}");
        }
        assert_eq!(read("\"two\nlines\"", Syntax::Json), Some(json!("two\nlines")));
        let word = Literal::read("{\"version\": 3.10}", Syntax::Json);
        assert_eq!(word, Some(Literal::Object(vec![("version".into(), Literal::Word("3.10".into()))])));
    }

    #[test]
    fn gemma_literals_are_read() {
        for (text, expected) in [
            (
                "{a:<q>x, {y}<q>,b:[<q>1<q>,2],c:plain text}",
                Some(json!({ "a": "x, {y}", "b": ["1", 2], "c": "plain text" })),
            ),
            ("{a:\"x, {y} \\\"z\\\"\",\"b\":'it',}", Some(json!({ "a": "x, {y} \"z\"", "b": "it" }))),
            ("{a:<q>x<q> y<q>}", None),
            ("{a:\"x\" y\"}", None),
            ("{a:x {y} z}", None),
            ("{a:1,a:2}", None),
            ("{a:Paris, France,days:3}", None),
            ("{a:<q>x}", None),
        ] {
            assert_eq!(read(text, Syntax::Gemma("<q>")), expected, "{text}");
        }
    }
}
