//! Calls written as Python: `[f(a='v', b=[1, True])]`.

use super::{RawCall, Rejection, calls::missing_name};
use serde_json::{Map, Number, Value};

/// How deep values may lie within each other.
const DEPTH: usize = 64;

/// A list of calls, with or without brackets, perhaps in a fenced block.
pub(super) fn calls(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let body = body.trim().trim_start_matches("```python").trim_start_matches("```").trim_end_matches("```");
    let mut reader = Reader(body.trim());
    match reader.calls() {
        Some(Ok(calls)) => calls.into_iter().map(Ok).collect(),
        Some(Err(rejection)) => vec![Err(rejection)],
        None => vec![Err(Rejection::malformed(format!("expected [name(key=value)], stopped at {:?}", reader.0)))],
    }
}

/// A literal, if all of the text is one.
pub(super) fn value(text: &str) -> Option<Value> {
    let mut reader = Reader(text.trim());
    let value = reader.value(DEPTH)?;
    reader.0.is_empty().then_some(value)
}

/// What is left to read.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn calls(&mut self) -> Option<Result<Vec<RawCall>, Rejection>> {
        let in_list = self.take("[");
        let mut calls = Vec::new();
        while !(self.0.is_empty() || in_list && self.peek("]")) {
            let name = self.word();
            if name.is_empty() && self.peek("(") {
                return Some(Err(missing_name()));
            }
            let arguments = self.arguments()?;
            calls.push(RawCall::json(name, arguments.into()));
            if !self.take(",") && in_list {
                break;
            }
        }
        if in_list && !self.take("]") || !self.0.is_empty() || calls.is_empty() {
            return None;
        }
        Some(Ok(calls))
    }

    fn arguments(&mut self) -> Option<Map<String, Value>> {
        self.expect("(")?;
        let mut arguments = Map::new();
        while !self.take(")") {
            let key = self.word().to_owned();
            if key.is_empty() {
                return None;
            }
            self.expect("=")?;
            arguments.insert(key, self.value(DEPTH)?);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Some(arguments)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let deeper = depth.checked_sub(1)?;
        self.0 = self.0.trim_start();
        match self.0.chars().next()? {
            '"' | '\'' => self.string().map(Value::from),
            '[' | '(' => {
                let end = if self.take("[") { "]" } else { self.take("(").then_some(")")? };
                let mut items = Vec::new();
                while !self.take(end) {
                    items.push(self.value(deeper)?);
                    if !self.take(",") {
                        self.expect(end)?;
                        break;
                    }
                }
                Some(items.into())
            }
            '{' => {
                self.expect("{")?;
                let mut fields = Map::new();
                while !self.take("}") {
                    let key = match self.value(deeper)? {
                        Value::String(key) => key,
                        other => other.to_string(),
                    };
                    self.expect(":")?;
                    fields.insert(key, self.value(deeper)?);
                    if !self.take(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Some(fields.into())
            }
            _ => self.atom(),
        }
    }

    /// A number, or one of the names that stand for a value.
    fn atom(&mut self) -> Option<Value> {
        let end = self.0.find(|c: char| !(c.is_alphanumeric() || "+-._".contains(c))).unwrap_or(self.0.len());
        let (atom, rest) = self.0.split_at(end);
        let number = |n: &str| match n.parse::<i64>() {
            Ok(n) => Some(n.into()),
            Err(_) => n.parse().ok().and_then(Number::from_f64).map(Value::Number),
        };
        let value = match atom {
            "True" | "true" => true.into(),
            "False" | "false" => false.into(),
            "None" | "null" => Value::Null,
            _ => number(atom).filter(|_| !atom.to_lowercase().contains("inf"))?,
        };
        self.0 = rest;
        Some(value)
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.0.chars().next()?;
        let mut chars = self.0.char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.0 = &self.0[at + 1..];
                    return Some(text);
                }
                '\\' => {
                    let (_, c) = chars.next()?;
                    let mut hex = |digits: usize| {
                        let code: String = (0..digits).filter_map(|_| Some(chars.next()?.1)).collect();
                        u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
                    };
                    let c = match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'x' => hex(2)?,
                        'u' => hex(4)?,
                        '\\' | '\'' | '"' => c,
                        other => {
                            text.push('\\');
                            other
                        }
                    };
                    text.push(c);
                }
                c => text.push(c),
            }
        }
        None
    }

    /// A name, dots included.
    fn word(&mut self) -> &'a str {
        self.0 = self.0.trim_start();
        let end = self.0.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    fn peek(&mut self, what: &str) -> bool {
        self.0 = self.0.trim_start();
        self.0.starts_with(what)
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.peek(what);
        if found {
            self.0 = self.0[what.len()..].trim_start();
        }
        found
    }

    fn expect(&mut self, what: &str) -> Option<()> {
        self.take(what).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literals_are_pythons() {
        for (text, expected) in [
            ("'it\\'s'", Some(json!("it's"))),
            ("\"a\\nb\\u00e9\\x41\\d\"", Some(json!("a\nbéA\\d"))),
            ("[1, -2.5, 1e3, (True, None),]", Some(json!([1, -2.5, 1000.0, [true, null]]))),
            ("{'a': {'b': [false]}, 1: 'x'}", Some(json!({ "a": { "b": [false] }, "1": "x" }))),
            ("'open", None),
            ("nan", None),
            ("1 2", None),
            ("__import__('os')", None),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        assert_eq!(value(&"[".repeat(100_000)), None, "no stack is deep enough for some");
    }
}
