//! Arguments of the types that a tool's JSON schema asks for.

use super::{
    Arguments,
    literal::{Literal, Syntax, word_value},
};
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

/// Names of objects in which some models enclose all arguments (`unwrapArgumentWrapper` in mlx-swift-lm).
const WRAPPERS: [&str; 5] = ["properties", "parameters", "arguments", "args", "kwargs"];

/// The arguments as an object, each of the type that `parameters`, the schema of all, gives for it.
pub(super) fn arguments(arguments: Arguments, parameters: Option<&Value>) -> Result<Map<String, Value>, String> {
    let properties = parameters.and_then(|p| p.get("properties")?.as_object());
    let is_wrapper = |key: &str| WRAPPERS.contains(&key) && properties.is_some_and(|p| !p.contains_key(key));
    match arguments {
        Arguments::Text(pairs, untyped) => {
            if let [(key, text)] = &pairs[..]
                && is_wrapper(key)
                && let Some(Literal::Object(fields)) = Literal::read(text, Syntax::Json)
            {
                return coerce_fields(fields, parameters, DEPTH);
            }
            let read =
                |(key, text): (String, String)| match from_text(&text, properties.and_then(|p| p.get(&key)), untyped) {
                    Ok(value) => Ok((key, value)),
                    Err(e) => Err(format!("{key}: {e}")),
                };
            pairs.into_iter().map(read).collect()
        }
        Arguments::Literal(Literal::Object(mut fields)) => {
            if let [(key, inner)] = &fields[..]
                && is_wrapper(key)
                && let Some(inner) = object(inner)
            {
                fields = inner;
            }
            coerce_fields(fields, parameters, DEPTH)
        }
        Arguments::Literal(Literal::Word(word)) if word_value(&word) == Some(Value::Null) => Ok(Map::new()),
        Arguments::Literal(other) => match object(&other) {
            Some(fields) => coerce_fields(fields, parameters, DEPTH),
            None => Err(format!("expected an object, found {}", other.into_value())),
        },
    }
}

/// The fields of an object. Some models write the object as a string of JSON, or as an empty string.
fn object(literal: &Literal) -> Option<Vec<(String, Literal)>> {
    match literal {
        Literal::Object(fields) => Some(fields.clone()),
        Literal::Text(text) if text.trim().is_empty() => Some(Vec::new()),
        Literal::Text(text) => match Literal::read(text, Syntax::Json)? {
            Literal::Object(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

fn coerce_fields(
    fields: Vec<(String, Literal)>,
    schema: Option<&Value>,
    depth: usize,
) -> Result<Map<String, Value>, String> {
    let of = |key: &str| schema?.get("properties")?.get(key);
    let field = |(key, literal): (String, Literal)| match coerce(literal, of(&key), depth) {
        Ok(value) => Ok((key, value)),
        Err(e) => Err(format!("{key}: {e}")),
    };
    fields.into_iter().map(field).collect()
}

/// A value that has a type already, but perhaps not the right one: numbers come as text, and text as numbers.
fn coerce(literal: Literal, schema: Option<&Value>, depth: usize) -> Result<Value, String> {
    let types = types(schema, DEPTH);
    if depth == 0 || types.is_empty() {
        return Ok(literal.into_value());
    }
    let has = |t| types.contains(&t);
    match literal {
        Literal::Text(text) if !has(Type::String) => from_text(&text, schema, Untyped::Text),
        Literal::Word(word) => match word_value(&word) {
            Some(Value::Number(_)) if has(Type::Integer) && !has(Type::Number) => {
                let whole = integer(&word).map(Value::from).or(has(Type::String).then(|| word.as_str().into()));
                whole.ok_or_else(|| format!("expected an integer, found {word}"))
            }
            Some(Value::Number(_)) if has(Type::String) && !has(Type::Number) => Ok(word.into()),
            Some(Value::Bool(_)) if has(Type::String) && !has(Type::Boolean) => Ok(word.into()),
            Some(value) => Ok(value),
            None => from_text(&word, schema, Untyped::Text),
        },
        Literal::Object(fields) if has(Type::Object) => Ok(coerce_fields(fields, schema, depth - 1)?.into()),
        Literal::List(items) if has(Type::Array) => {
            let of = schema.and_then(|s| s.get("items"));
            items.into_iter().map(|item| coerce(item, of, depth - 1)).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        other if types == [Type::String] && !matches!(other, Literal::Text(_)) => {
            Ok(other.into_value().to_string().into())
        }
        other => Ok(other.into_value()),
    }
}

/// The value that `text` stands for: of the narrowest type that the schema allows.
fn from_text(text: &str, schema: Option<&Value>, untyped: Untyped) -> Result<Value, String> {
    let types = types(schema, DEPTH);
    let json = || serde_json::from_str::<Value>(text.trim()).ok();
    let python = || Literal::read(text, Syntax::Python).map(Literal::into_value);
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
        Type::Object => json().or_else(python).filter(Value::is_object),
        Type::Array => json().or_else(python).filter(Value::is_array),
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
        let read = |text: &str| {
            let literal = Literal::read(text, Syntax::Json).unwrap();
            arguments(Arguments::Literal(literal), Some(&schema)).map(Value::from)
        };
        let given =
            json!({ "n": "7", "s": 5, "l": ["1.5", 2], "o": { "b": "false", "c": 1 }, "other": "1" }).to_string();
        let expected = json!({ "n": 7, "s": "5", "l": [1.5, 2], "o": { "b": false, "c": 1 }, "other": "1" });
        assert_eq!(read(&given), Ok(expected.clone()));
        assert_eq!(read(&json!(given).to_string()), Ok(expected));
        assert_eq!(read("{\"n\": 2.0}"), Ok(json!({ "n": 2 })));
        assert_eq!(read("{\"n\": \"seven\"}"), Err("n: expected integer, found \"seven\"".to_owned()));
        assert_eq!(read("[1]"), Err("expected an object, found [1]".to_owned()));
        for none in ["null", "\"\"", "\" \"", "\"{}\""] {
            assert_eq!(read(none), Ok(json!({})), "{none}");
        }
    }

    #[test]
    fn string_parameters_keep_what_was_written_without_quotes() {
        let schema = |ty: Value| json!({ "properties": { "code": { "type": ty } } });
        for word in ["1001", "3.10", "1e5", "true", "12345678901234567890123", "-0.0", "1.0"] {
            let literal = Literal::read(&format!("{{\"code\": {word}}}"), Syntax::Json).unwrap();
            for ty in [json!("string"), json!(["string", "null"])] {
                let found = arguments(Arguments::Literal(literal.clone()), Some(&schema(ty)));
                assert_eq!(found.map(Value::from), Ok(json!({ "code": word })));
            }
        }
        for (word, ty, expected) in [
            ("01001", "string", Some(json!("01001"))),
            ("1.2.3", "string", Some(json!("1.2.3"))),
            ("True", "string", Some(json!("True"))),
            ("Paris", "string", Some(json!("Paris"))),
            ("007", "integer", Some(json!(7))),
            ("Paris", "integer", None),
            ("None", "string", Some(json!(null))),
        ] {
            let literal = Literal::read(&format!("{{'code': {word}}}"), Syntax::Python).unwrap();
            let found = arguments(Arguments::Literal(literal), Some(&schema(json!(ty)))).ok().map(Value::from);
            assert_eq!(found, expected.map(|value| json!({ "code": value })), "{word}");
        }
    }

    #[test]
    fn a_wrapper_of_all_arguments_is_taken_off() {
        let schema = json!({ "properties": { "city": { "type": "string" } } });
        let read = |text: &str, schema: &Value| {
            let literal = Literal::read(text, Syntax::Json).unwrap();
            arguments(Arguments::Literal(literal), Some(schema)).map(Value::from)
        };
        for wrapper in WRAPPERS {
            let inner = json!({ "city": "Paris" });
            let unwrapped = Ok(inner.clone());
            assert_eq!(read(&json!({ wrapper: inner }).to_string(), &schema), unwrapped, "{wrapper}");
            assert_eq!(read(&json!({ wrapper: inner.to_string() }).to_string(), &schema), unwrapped, "{wrapper}");
            let pairs = vec![(wrapper.to_owned(), inner.to_string())];
            assert_eq!(arguments(Arguments::Text(pairs, Untyped::Text), Some(&schema)).map(Value::from), unwrapped);
            // A parameter that the tool declares is no wrapper, nor is one of several.
            let own = json!({ "properties": { wrapper: { "type": "object" } } });
            assert_eq!(read(&json!({ wrapper: inner }).to_string(), &own), Ok(json!({ wrapper: inner })));
            let both = json!({ wrapper: inner, "city": "Rome" });
            assert_eq!(read(&both.to_string(), &schema), Ok(both));
            assert_eq!(read(&json!({ wrapper: 1 }).to_string(), &schema), Ok(json!({ wrapper: 1 })));
        }
    }
}
