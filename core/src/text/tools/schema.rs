//! Arguments of the types that a tool's JSON schema asks for.

use super::{Arguments, python};
use serde_json::{Map, Number, Value};

/// What text becomes where the schema does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Untyped {
    /// Text, unless it is a JSON object or array.
    Text,
    /// JSON if it is some, else text.
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Type {
    Integer,
    Number,
    Boolean,
    Object,
    Array,
    Null,
    String,
}

/// How deep schemas and the values that they describe are followed.
const DEPTH: usize = 32;

/// The arguments as an object, each of the type that `parameters`, the schema of all, gives for it.
pub(super) fn arguments(arguments: Arguments, parameters: Option<&Value>) -> Result<Map<String, Value>, String> {
    let schema = |key: &str| parameters?.get("properties")?.get(key);
    match arguments {
        Arguments::Text(pairs, untyped) => pairs
            .into_iter()
            .map(|(key, text)| match from_text(&text, schema(&key), untyped) {
                Ok(value) => Ok((key, value)),
                Err(e) => Err(format!("{key}: {e}")),
            })
            .collect(),
        // Some models write the object as a string of JSON.
        Arguments::Json(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => coerce_fields(object, parameters, DEPTH),
            _ => Err(format!("expected an object, found {text:?}")),
        },
        Arguments::Json(Value::Object(object)) => coerce_fields(object, parameters, DEPTH),
        Arguments::Json(Value::Null) => Ok(Map::new()),
        Arguments::Json(other) => Err(format!("expected an object, found {other}")),
    }
}

fn coerce_fields(
    object: Map<String, Value>,
    schema: Option<&Value>,
    depth: usize,
) -> Result<Map<String, Value>, String> {
    let of = |key: &str| schema?.get("properties")?.get(key);
    let field = |(key, value): (String, Value)| match coerce(value, of(&key), depth) {
        Ok(value) => Ok((key, value)),
        Err(e) => Err(format!("{key}: {e}")),
    };
    object.into_iter().map(field).collect()
}

/// A value that has a type already, but perhaps not the right one: numbers come as text, and text as numbers.
fn coerce(value: Value, schema: Option<&Value>, depth: usize) -> Result<Value, String> {
    let types = types(schema, DEPTH);
    if depth == 0 || types.is_empty() {
        return Ok(value);
    }
    let has = |t| types.contains(&t);
    match value {
        Value::String(text) if !has(Type::String) => from_text(&text, schema, Untyped::Text),
        Value::Number(n) if has(Type::Integer) && !has(Type::Number) => {
            let whole = integer(&n.to_string());
            whole.map(Value::from).ok_or_else(|| format!("expected an integer, found {n}"))
        }
        Value::Number(_) | Value::Bool(_) if types == [Type::String] => Ok(Value::String(value.to_string())),
        Value::Object(object) if has(Type::Object) => Ok(coerce_fields(object, schema, depth - 1)?.into()),
        Value::Object(_) | Value::Array(_) if types == [Type::String] => Ok(Value::String(value.to_string())),
        Value::Array(items) if has(Type::Array) => {
            let of = schema.and_then(|s| s.get("items"));
            items.into_iter().map(|item| coerce(item, of, depth - 1)).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        other => Ok(other),
    }
}

/// The value that `text` stands for: of the narrowest type that the schema allows.
fn from_text(text: &str, schema: Option<&Value>, untyped: Untyped) -> Result<Value, String> {
    let types = types(schema, DEPTH);
    let json = || serde_json::from_str::<Value>(text.trim()).ok();
    if types.is_empty() {
        let value = json().filter(|v| untyped == Untyped::Json || v.is_object() || v.is_array());
        return Ok(value.unwrap_or_else(|| text.into()));
    }
    let word = text.trim().to_lowercase();
    let read = |t: &Type| match t {
        Type::Integer => integer(text.trim()).map(Value::from),
        Type::Number => text.trim().parse().ok().and_then(number),
        Type::Boolean => match word.as_str() {
            "true" | "1" | "yes" | "on" => Some(true.into()),
            "false" | "0" | "no" | "off" => Some(false.into()),
            _ => None,
        },
        Type::Object => json().or_else(|| python::value(text)).filter(Value::is_object),
        Type::Array => json().or_else(|| python::value(text)).filter(Value::is_array),
        Type::Null => ["null", "none", "nil"].contains(&word.as_str()).then_some(Value::Null),
        Type::String => Some(text.into()),
    };
    // Models say `null` for what they leave out, whether or not the schema allows for it.
    let null = || (word == "null").then_some(Value::Null);
    let value = types.iter().find_map(read).or_else(null);
    value.ok_or_else(|| {
        let names: Vec<String> = types.iter().map(|t| format!("{t:?}").to_lowercase()).collect();
        format!("expected {}, found {text:?}", names.join(" or "))
    })
}

/// A whole number, also one written as `3.0`.
fn integer(text: &str) -> Option<Number> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(n.into());
    }
    if let Ok(n) = text.parse::<u64>() {
        return Some(n.into());
    }
    let x: f64 = text.parse().ok()?;
    (x.fract() == 0.0 && x.abs() < 9e15).then(|| (x as i64).into())
}

/// A number, whole where it is.
fn number(x: f64) -> Option<Value> {
    if x.fract() == 0.0 && x.abs() < 9e15 {
        return Some((x as i64).into());
    }
    Number::from_f64(x).map(Value::Number)
}

/// The types that a schema allows, narrowest first; none where it does not tell.
fn types(schema: Option<&Value>, depth: usize) -> Vec<Type> {
    let Some(schema) = schema.filter(|_| depth > 0) else { return Vec::new() };
    let mut found: Vec<Type> = Vec::new();
    match schema.get("type") {
        Some(Value::String(name)) => found.extend(named(name)),
        Some(Value::Array(names)) => found.extend(names.iter().filter_map(|n| named(n.as_str()?))),
        _ => found.extend(schema.get("enum").and_then(Value::as_array).into_iter().flatten().map(of_value)),
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let choices = schema.get(key).and_then(Value::as_array).into_iter().flatten();
        found.extend(choices.flat_map(|choice| types(Some(choice), depth - 1)));
    }
    found.sort();
    found.dedup();
    found
}

/// Not everyone who writes a schema knows JSON's names.
fn named(name: &str) -> Option<Type> {
    let name = name.trim().to_lowercase();
    let begins = |with: &[&str]| with.iter().any(|w| name.starts_with(w));
    match name.as_str() {
        "null" => Some(Type::Null),
        "string" | "str" | "text" | "varchar" | "char" | "enum" => Some(Type::String),
        _ if begins(&["int", "uint", "long", "short", "unsigned"]) => Some(Type::Integer),
        _ if begins(&["num", "float", "double"]) => Some(Type::Number),
        _ if begins(&["bool"]) => Some(Type::Boolean),
        _ if begins(&["obj", "dict", "map"]) => Some(Type::Object),
        _ if begins(&["arr", "list", "tuple"]) => Some(Type::Array),
        _ => None,
    }
}

fn of_value(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Boolean,
        Value::Number(n) if n.is_f64() => Type::Number,
        Value::Number(_) => Type::Integer,
        Value::String(_) => Type::String,
        Value::Array(_) => Type::Array,
        Value::Object(_) => Type::Object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_becomes_what_the_schema_asks_for() {
        let ty = |t: &str| Some(json!({ "type": t }));
        for (text, schema, expected) in [
            ("42", ty("integer"), Some(json!(42))),
            ("42.0", ty("int32"), Some(json!(42))),
            ("4.5", ty("integer"), None),
            ("4.5", ty("number"), Some(json!(4.5))),
            ("4", ty("float"), Some(json!(4))),
            ("inf", ty("number"), None),
            (" True", ty("boolean"), Some(json!(true))),
            ("perhaps", ty("boolean"), None),
            ("42", ty("string"), Some(json!("42"))),
            ("null", ty("integer"), Some(json!(null))),
            ("null", ty("string"), Some(json!("null"))),
            ("[1, 2]", ty("array"), Some(json!([1, 2]))),
            ("{'a': True}", ty("object"), Some(json!({ "a": true }))),
            ("7", Some(json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] })), Some(json!(7))),
            ("x", Some(json!({ "type": ["integer", "string"] })), Some(json!("x"))),
            ("none", Some(json!({ "type": ["integer", "null"] })), Some(json!(null))),
            ("2", Some(json!({ "enum": [1, 2] })), Some(json!(2))),
            ("2", Some(json!({ "description": "?" })), Some(json!("2"))),
            ("2", None, Some(json!("2"))),
            ("[2]", None, Some(json!([2]))),
        ] {
            assert_eq!(from_text(text, schema.as_ref(), Untyped::Text).ok(), expected, "{text} {schema:?}");
        }
        assert_eq!(from_text("2", None, Untyped::Json), Ok(json!(2)));
        assert_eq!(from_text("2 apples", None, Untyped::Json), Ok(json!("2 apples")));
        let e = from_text("x", Some(&json!({ "type": ["integer", "null"] })), Untyped::Text).unwrap_err();
        assert_eq!(e, "expected integer or null, found \"x\"");
    }

    #[test]
    fn values_of_the_wrong_type_are_put_right() {
        let schema = json!({ "properties": {
            "n": { "type": "integer" }, "s": { "type": "string" }, "l": { "type": "array", "items": { "type": "number" } },
            "o": { "type": "object", "properties": { "b": { "type": "boolean" } } },
        }});
        let read = |value| arguments(Arguments::Json(value), Some(&schema)).map(Value::from);
        let given = json!({ "n": "7", "s": 5, "l": ["1.5", 2], "o": { "b": "false", "c": 1 }, "other": "1" });
        let expected = json!({ "n": 7, "s": "5", "l": [1.5, 2], "o": { "b": false, "c": 1 }, "other": "1" });
        assert_eq!(read(given.clone()), Ok(expected.clone()));
        assert_eq!(read(json!(given.to_string())), Ok(expected));
        assert_eq!(read(json!({ "n": 2.0 })), Ok(json!({ "n": 2 })));
        assert_eq!(read(json!({ "n": "seven" })), Err("n: expected integer, found \"seven\"".to_owned()));
        assert_eq!(read(json!([1])), Err("expected an object, found [1]".to_owned()));
        assert_eq!(read(Value::Null), Ok(json!({})));
    }
}
