//! Calls as the Gemmas write them: `call:name{key:value,..}`, keys bare and strings between marks of their own.

use super::{RawCall, Rejection, calls::missing_name};
use serde_json::{Map, Value};

/// How deep values may lie within each other.
const DEPTH: usize = 64;

/// One call or more; `quote` stands on both sides of a string.
pub(super) fn calls(body: &str, quote: &'static str) -> Vec<Result<RawCall, Rejection>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    while let Some(at) = rest.find("call:") {
        let after = &rest[at + "call:".len()..];
        let Some(open) = after.find('{') else { break };
        let name = after[..open].trim();
        if name.is_empty() {
            return vec![Err(missing_name())];
        }
        let mut reader = Reader { rest: &after[open..], quote };
        match reader.value(DEPTH) {
            Some(arguments) => calls.push(Ok(RawCall::json(name, arguments))),
            None => {
                let message = format!("expected {{key:value}}, stopped at {:?}", reader.rest);
                calls.push(Err(Rejection { name: Some(name.to_owned()), ..Rejection::malformed(message) }));
                return calls;
            }
        }
        rest = reader.rest;
    }
    if calls.is_empty() {
        calls.push(Err(Rejection::malformed(format!("expected call:name{{..}}, found {body:?}"))));
    }
    calls
}

struct Reader<'a> {
    rest: &'a str,
    quote: &'static str,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        let deeper = depth.checked_sub(1)?;
        if self.take(self.quote) {
            let end = self.rest.find(self.quote)?;
            let text = self.rest[..end].to_owned();
            self.rest = &self.rest[end + self.quote.len()..];
            return Some(text.into());
        }
        if self.take("{") {
            let mut fields = Map::new();
            while !self.take("}") {
                let key = self.key()?;
                fields.insert(key, self.value(deeper)?);
                self.separator("}")?;
            }
            return Some(fields.into());
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                items.push(self.value(deeper)?);
                self.separator("]")?;
            }
            return Some(items.into());
        }
        let end = self.rest.find([',', '}', ']'])?;
        let text = self.rest[..end].trim();
        let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        self.rest = &self.rest[end..];
        Some(value)
    }

    fn key(&mut self) -> Option<String> {
        let quoted = self.take(self.quote);
        let end = self.rest.find(if quoted { self.quote } else { ":" })?;
        let key = self.rest[..end].trim().trim_matches('"').to_owned();
        self.rest = &self.rest[end..];
        if quoted {
            self.take(self.quote);
        }
        self.take(":").then_some(key)
    }

    /// A comma, or that the end is next.
    fn separator(&mut self, end: &str) -> Option<()> {
        (self.take(",") || self.rest.trim_start().starts_with(end)).then_some(())
    }

    fn take(&mut self, what: &str) -> bool {
        let trimmed = self.rest.trim_start();
        let found = trimmed.starts_with(what);
        if found {
            self.rest = &trimmed[what.len()..];
        }
        found
    }
}
