//! `config.json`, and structs read from it.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The `config.json` of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct Config(Value);

impl From<Value> for Config {
    fn from(json: Value) -> Config {
        Config(json)
    }
}

impl Config {
    /// All of it.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The configuration within this one under `key`; one without fields if there is none.
    pub fn at(&self, key: &str) -> Config {
        let found = &self.0[key];
        Config(if found.is_object() { found.clone() } else { Value::Object(Default::default()) })
    }

    /// With these fields where it lacks them: files leave out what the configuration class has as a default. Since api 1.3.
    pub fn defaults(mut self, fields: Value) -> Config {
        if let (Some(own), Value::Object(fields)) = (self.0.as_object_mut(), fields) {
            for (key, value) in fields {
                own.entry(key).or_insert(value);
            }
        }
        self
    }

    /// With this `max_position_embeddings` where it has none, which scaled ropes depend on. Since api 1.5.
    pub fn max_positions(&self, positions: usize) -> Config {
        self.clone().defaults(serde_json::json!({ "max_position_embeddings": positions }))
    }

    /// The number of a token, or else `default`.
    pub fn token(&self, key: &str, default: u32) -> Result<u32> {
        let found = &self.0[key];
        match found.as_u64().map(u32::try_from) {
            Some(Ok(token)) => Ok(token),
            None if found.is_null() => Ok(default),
            _ => Err(Error(format!("config.json: {key}: expected the number of a token, found {found}"))),
        }
    }

    /// The `model_type`, or nothing.
    pub fn model_type(&self) -> &str {
        self.0["model_type"].as_str().unwrap_or("")
    }
}

/// One value for all layers, or one for each.
#[derive(Clone, PartialEq, Debug, serde::Deserialize)]
#[serde(untagged)]
pub enum PerLayer<T> {
    /// The same everywhere.
    All(T),
    /// By layer.
    Each(Vec<T>),
}

impl<T: Copy> PerLayer<T> {
    /// The value of a layer; `None` past the last one.
    pub fn at(&self, layer: usize) -> Option<T> {
        match self {
            PerLayer::All(value) => Some(*value),
            PerLayer::Each(values) => values.get(layer).copied(),
        }
    }
}

/// Reads one field: absent gives the default; null gives `None` to an option, and `null`, or else the default, to the rest.
#[doc(hidden)]
pub fn parse_field<T: DeserializeOwned>(
    config: &Config,
    keys: &[&str],
    default: Option<T>,
    null: Option<T>,
) -> Result<T> {
    let found = keys.iter().find_map(|k| config.0.get(k).map(|v| (*k, v)));
    match found {
        Some((key, value)) if !value.is_null() => {
            check_size(key, value)?;
            serde_path_to_error::deserialize(value).map_err(|e: serde_path_to_error::Error<serde_json::Error>| {
                let inner = e.path().to_string();
                let dot = if inner == "." { String::new() } else { format!(".{inner}") };
                Error(format!("config.json: {key}{dot}: {}", e.into_inner()))
            })
        }
        // Null is a value of its own for options, and stands for the default everywhere else.
        Some(_) => T::deserialize(Value::Null).ok().or(null).or(default).ok_or_else(|| missing(keys, "is null")),
        None => default.or_else(|| T::deserialize(Value::Null).ok()).ok_or_else(|| missing(keys, "is missing")),
    }
}

/// Refuses integers that are no size of anything. Products of two of those that are left cannot
/// overflow, so that architectures need not think of it.
fn check_size(path: &str, value: &Value) -> Result<()> {
    const MOST: u64 = i32::MAX as u64;
    match value {
        Value::Number(n) if n.as_u64().or(n.as_i64().map(i64::unsigned_abs)).is_some_and(|n| n > MOST) => {
            Err(Error(format!("config.json: {path}: expected {MOST} at most, found {n}")))
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, v)| check_size(&format!("{path}[{i}]"), v)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, v)| check_size(&format!("{path}.{key}"), v)),
        _ => Ok(()),
    }
}

fn missing(keys: &[&str], what: &str) -> Error {
    Error(format!("config.json: {} {what}", keys.join(" or ")))
}

/// Declares a struct that is read from `config.json`.
///
/// Each field is `name: type`, with `as "key"` where the file spells it otherwise (several spellings:
/// `as "a" | "b"`), and `= default` where it may be absent. A default may use the fields above it. Null counts as `None` for an
/// `Option` that is present, and otherwise as absent, or as what stands behind `; null =` (since api 1.5).
///
/// ```
/// use tamarack_api::*;
/// config! {
///     /// How wide it is.
///     struct Widths {
///         hidden_size: usize,
///         heads as "num_attention_heads" | "n_head": usize,
///         head_dim: usize = hidden_size / heads,
///         sliding_window: Option<usize> = Some(4096),
///     }
/// }
/// let json = serde_json::json!({ "hidden_size": 64, "n_head": 4, "head_dim": null, "sliding_window": null });
/// let c = Widths::parse(&Config::from(json))?;
/// assert_eq!((c.heads, c.head_dim, c.sliding_window), (4, 16, None));
/// let wrong = Widths::parse(&Config::from(serde_json::json!({ "hidden_size": "wide" })));
/// assert!(wrong.unwrap_err().to_string().starts_with("config.json: hidden_size: invalid type"));
/// let absurd = Widths::parse(&Config::from(serde_json::json!({ "hidden_size": 1u64 << 40 })));
/// assert!(absurd.unwrap_err().to_string().starts_with("config.json: hidden_size: expected 2147483647 at most"));
/// # Ok::<(), Error>(())
/// ```
#[macro_export]
macro_rules! config {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($field:ident $(as $($key:literal)|+)? : $type:ty $(= $default:expr $(; null = $null:expr)?)?),* $(,)?
    }) => {
        $(#[$meta])*
        #[allow(missing_docs)]
        #[derive(Clone, Debug)]
        $vis struct $name { $(pub $field: $type),* }
        impl $name {
            /// Reads the fields, or says which one is missing or wrong.
            $vis fn parse(config: &$crate::Config) -> $crate::Result<Self> {
                $(
                    #[allow(unused_mut, unused_assignments)]
                    let mut keys: &[&str] = &[stringify!($field)];
                    $(keys = &[$($key),+];)?
                    #[allow(unused_mut, unused_assignments)]
                    let mut default: Option<$type> = None;
                    $(default = Some($default);)?
                    #[allow(unused_mut, unused_assignments)]
                    let mut null: Option<$type> = None;
                    $($(null = Some($null);)?)?
                    let $field: $type = $crate::parse_field(config, keys, default, null)?;
                )*
                Ok(Self { $($field),* })
            }
        }
    };
}
