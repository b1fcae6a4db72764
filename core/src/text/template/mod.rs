//! Chat templates: Jinja sources that turn a conversation into a prompt.
//!
//! They are written for `apply_chat_template` of transformers, that is for Python's jinja2 in its
//! sandbox, with trimmed blocks and a few more names. Rendering gives the same bytes. A template
//! comes with a model from the network, so what it may cost is bounded.

mod environment;
mod filters;
mod jinja;
mod methods;
mod modulo;
mod python;
mod source;
mod strings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use minijinja::{Environment, Value as JinjaValue};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The name of a model's only template, and of the one that serves where no other does.
const DEFAULT: &str = "default";
/// The name of the template that is used as soon as there are tools.
const TOOL_USE: &str = "tool_use";

/// The longest source that is compiled, in bytes. Real ones have up to 30 KB.
const MAX_SOURCE: usize = 256 << 10;

/// The names under which a turn's reasoning is found, the most common one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The compiled chat template of a model, or several under names.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    sources: BTreeMap<String, String>,
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Compiles a single template. `special_tokens` are the names a template may ask for
    /// (`bos_token`, `eos_token`, …) and their texts.
    ///
    /// Fails with the line where the source is no valid template.
    pub fn new(source: &str, special_tokens: &Map<String, Value>) -> Result<ChatTemplate> {
        ChatTemplate::with_names([(DEFAULT.into(), source.into())].into(), special_tokens)
    }

    /// Compiles several templates. The one named `tool_use` renders conversations with tools,
    /// `default` all others.
    pub fn with_names(sources: BTreeMap<String, String>, special_tokens: &Map<String, Value>) -> Result<ChatTemplate> {
        let mut environment = environment::environment();
        for (name, source) in &sources {
            if source.len() > MAX_SOURCE {
                let found = source.len();
                return Err(Error::Text(format!(
                    "chat template `{name}`: expected at most {MAX_SOURCE} bytes, found {found}"
                )));
            }
            on_deep_stack(|| environment.add_template_owned(name.clone(), source::adapt(source)))?
                .map_err(|error| failure("does not compile", &error))?;
        }
        Ok(ChatTemplate { environment, sources, special_tokens: special_tokens.clone() })
    }

    /// Pins the time that templates see through `strftime_now`, which otherwise is the local time.
    pub fn at(mut self, now: NaiveDateTime) -> ChatTemplate {
        environment::set_clock(&mut self.environment, move || now);
        self
    }

    /// The source of the template that renders conversations, with tools or without.
    pub fn source(&self, with_tools: bool) -> Option<&str> {
        self.sources.get(self.choose(with_tools)).map(String::as_str)
    }

    /// Renders a conversation.
    ///
    /// `messages` are objects with a `role` and whatever else the template reads; keys that are
    /// null count as absent. `tools` are JSON schemas. `extra` is handed to the template as it is
    /// (`documents`, `enable_thinking`, …) and may replace special tokens.
    ///
    /// Fails when the template refuses the conversation, with the template's own message, and when
    /// it costs too much.
    pub fn render(
        &self,
        messages: &[Value],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String> {
        let name = self.choose(tools.is_some());
        let template = self.environment.get_template(name).map_err(|_| {
            let names = self.sources.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Error::Text(format!("chat template: none is named `{name}`, there are: {names}"))
        })?;
        let messages = messages.iter().map(normalize).collect::<Result<_>>()?;
        let mut context = Map::from_iter([("documents".into(), Value::Null)]);
        context.extend(self.special_tokens.clone());
        context.extend(extra.clone());
        context.insert("messages".into(), Value::Array(messages));
        context.insert("tools".into(), tools.map_or(Value::Null, |tools| tools.into()));
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let context = jinja_value(&Value::Object(context));
        on_deep_stack(|| template.render(context))?.map_err(|error| failure("cannot render this conversation", &error))
    }

    fn choose(&self, with_tools: bool) -> &'static str {
        if with_tools && self.sources.contains_key(TOOL_USE) { TOOL_USE } else { DEFAULT }
    }
}

/// Runs `work` where a hostile template can overflow no stack. The compiler descends into chains of
/// operators and dropping a value descends into it, both without a limit but the size of the source
/// and the fuel; this much holds several times what these allow for.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    const STACK: usize = 512 << 20; // Reserved, not used: the system hands out pages on demand.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        let running = thread
            .spawn_scoped(scope, work)
            .map_err(|error| Error::Text(format!("chat template: no thread to run it on: {error}")))?;
        running.join().map_err(|_| Error::Text("chat template: the engine failed".into()))
    })
}

/// What `apply_chat_template` does to a message before the template sees it: null keys go, and
/// reasoning is found under the names that the various models use.
fn normalize(message: &Value) -> Result<Value> {
    let Value::Object(message) = message else {
        return Err(Error::Text(format!(
            "chat template: expected messages to be objects with `role` and `content`, found {message}"
        )));
    };
    let present = message.iter().filter(|(_, value)| !value.is_null());
    let mut present: Map<String, Value> = present.map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(reasoning) = REASONING.iter().find_map(|&name| present.get(name)).cloned() {
        let mut aliased = Map::from_iter([("thinking".into(), reasoning.clone())]);
        aliased.extend(present);
        aliased.insert("reasoning_content".into(), reasoning);
        present = aliased;
    }
    Ok(Value::Object(present))
}

fn jinja_value(value: &Value) -> JinjaValue {
    match value {
        Value::Null => JinjaValue::from(()),
        Value::Bool(b) => JinjaValue::from(*b),
        Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
            (Some(n), ..) => JinjaValue::from(n),
            (_, Some(n), _) => JinjaValue::from(n),
            (.., Some(x)) => JinjaValue::from(x),
            _ => JinjaValue::from(n.to_string()),
        },
        Value::String(s) => JinjaValue::from(s.as_str()),
        Value::Array(items) => items.iter().map(jinja_value).collect(),
        Value::Object(map) => JinjaValue::from_pairs(map.iter().map(|(k, v)| (k.as_str(), jinja_value(v)))),
    }
}

/// The innermost cause says what is wrong (a template's own refusal above all), the outermost
/// position where.
fn failure(what: &str, error: &minijinja::Error) -> Error {
    let mut cause = error;
    while let Some(inner) = std::error::Error::source(cause).and_then(|e| e.downcast_ref()) {
        cause = inner;
    }
    let place = match (error.name(), error.line()) {
        (Some(name), Some(line)) if name != DEFAULT => format!(" `{name}`, line {line},"),
        (_, Some(line)) => format!(" line {line}"),
        _ => String::new(),
    };
    let detail = cause.detail().map_or_else(|| cause.kind().to_string(), str::to_owned);
    Error::Text(format!("chat template{place} {what}: {detail}"))
}
