//! Tools that a model may call.

use crate::text::ToolCall;
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

type Handler = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// A tool that a model may call: what it is told of it, and what is done then.
///
/// ```
/// use serde::Deserialize;
/// use serde_json::json;
/// use tamarack::Tool;
///
/// #[derive(Deserialize)]
/// struct Place {
///     city: String,
/// }
///
/// let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
/// let tool = Tool::new("get_weather", "The weather in a city", parameters, async |place: Place| {
///     Ok::<_, String>(format!("It rains in {}.", place.city))
/// });
/// assert_eq!(tool.name(), "get_weather");
/// ```
#[derive(Clone)]
pub struct Tool {
    schema: Value,
    handler: Option<Handler>,
}

impl Tool {
    /// A tool. `parameters` is the JSON schema of `I`; what `handler` gives, or the message of its error, is told to the
    /// model.
    pub fn new<I, O, E, F>(
        name: &str,
        description: &str,
        parameters: Value,
        handler: impl Fn(I) -> F + Send + Sync + 'static,
    ) -> Tool
    where
        I: DeserializeOwned,
        O: Serialize,
        E: fmt::Display,
        F: Future<Output = Result<O, E>> + Send + 'static,
    {
        let function = json!({ "name": name, "description": description, "parameters": parameters });
        let handler = move |arguments: Value| -> BoxFuture<'static, Result<Value, String>> {
            let running = serde_json::from_value(arguments).map(&handler);
            Box::pin(async move {
                let output = running.map_err(|e| format!("arguments: {e}"))?.await.map_err(|e| e.to_string())?;
                serde_json::to_value(output).map_err(|e| e.to_string())
            })
        };
        Tool { schema: json!({ "type": "function", "function": function }), handler: Some(Arc::new(handler)) }
    }

    /// A tool that the program calls by itself: a session ends its turn there. `schema` is as chat templates take it.
    pub fn declared(schema: Value) -> Tool {
        Tool { schema, handler: None }
    }

    /// What the model is told.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Its name; empty if the schema has none.
    pub fn name(&self) -> &str {
        let function = self.schema.get("function").unwrap_or(&self.schema);
        function.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it can be called from here.
    pub(super) fn has_handler(&self) -> bool {
        self.handler.is_some()
    }

    /// Calls it; gives the turn that tells the model what came out.
    pub(super) async fn call(&self, call: &ToolCall) -> Value {
        let result = match &self.handler {
            Some(handler) => handler(call.arguments.clone().into()).await,
            None => Err("there is nobody to call it".to_owned()),
        };
        let content = match result {
            Ok(Value::String(text)) => text,
            Ok(value) => value.to_string(),
            Err(message) => format!("error: {message}"),
        };
        json!({ "role": "tool", "tool_call_id": call.id, "name": call.name, "content": content })
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool").field("schema", &self.schema).finish_non_exhaustive()
    }
}
