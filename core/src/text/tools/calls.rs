//! Calls whose name stands before a JSON object: Mistral's and Kimi's.

use super::{RawCall, Rejection, RejectionReason, json};

pub(super) const ARGS: &str = "[ARGS]";
pub(super) const CALL_ID: &str = "[CALL_ID]";

/// `name[ARGS]{..}`, with `[CALL_ID]id` before the arguments in some versions; or an object, or a list of objects.
pub(super) fn mistral(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let body = body.trim();
    if body.starts_with('{') || is_list(body) {
        return json::calls(body);
    }
    // Some versions write `name{..}`.
    let args = body.find(ARGS).map(|at| (at, at + ARGS.len()));
    let Some((header, start)) = args.or_else(|| body.find('{').map(|at| (at, at))) else {
        return vec![Err(Rejection::malformed(format!("expected {ARGS} after the name, found {body:?}")))];
    };
    let (name, id) = match body[..header].split_once(CALL_ID) {
        Some((name, id)) => (name.trim(), Some(id.trim().to_owned())),
        None => (body[..header].trim(), None),
    };
    if name.is_empty() {
        return vec![Err(missing_name())];
    }
    vec![json::arguments(&body[start..], name).map(|arguments| RawCall { id, name: name.to_owned(), arguments })]
}

/// Whether a text begins with a list of objects. A tag such as `[ARGS]` also begins with a bracket.
pub(super) fn is_list(text: &str) -> bool {
    text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['{', ']']))
}

pub(super) const KIMI_BEGIN: &str = "<|tool_call_begin|>";
pub(super) const KIMI_END: &str = "<|tool_call_end|>";
const KIMI_ARGUMENTS: &str = "<|tool_call_argument_begin|>";

/// `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{..}<|tool_call_end|>`, once or more.
pub(super) fn kimi(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        match kimi_call(rest.strip_prefix(KIMI_BEGIN).unwrap_or(rest)) {
            Ok((call, after)) => {
                calls.push(Ok(call));
                rest = after.trim();
            }
            Err(rejection) => return vec![Err(rejection)],
        }
    }
    if calls.is_empty() {
        vec![Err(Rejection::malformed(format!("expected {KIMI_BEGIN}, found nothing")))]
    } else {
        calls
    }
}

fn kimi_call(text: &str) -> Result<(RawCall, &str), Rejection> {
    let Some((id, arguments)) = text.split_once(KIMI_ARGUMENTS).filter(|(id, _)| !id.contains("<|")) else {
        return Err(Rejection::malformed(format!("expected {KIMI_ARGUMENTS}, found {text:?}")));
    };
    let id = id.trim();
    let name = id.strip_prefix("functions.").unwrap_or(id);
    let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
    if name.is_empty() {
        return Err(missing_name());
    }
    let named = |r: Rejection| Rejection { name: Some(name.to_owned()), ..r };
    let is_empty = arguments.trim().is_empty() || arguments.trim_start().starts_with("<|");
    let after = if is_empty { arguments } else { json::first(arguments).map_err(named)?.1 };
    let arguments = json::arguments(&arguments[..arguments.len() - after.len()], name)?;
    let after = after.trim_start();
    let rest = match after.strip_prefix(KIMI_END) {
        Some(rest) => rest,
        None if after.is_empty() || after.starts_with(KIMI_BEGIN) => after,
        None => return Err(named(Rejection::malformed(format!("expected {KIMI_END}, found {after:?}")))),
    };
    Ok((RawCall { id: Some(id.to_owned()), name: name.to_owned(), arguments }, rest))
}

pub(super) fn missing_name() -> Rejection {
    let message = "expected the name of a tool, found none".to_owned();
    Rejection { reason: RejectionReason::MissingToolName, message, name: None }
}
