//! Calls whose name stands before a JSON object: Mistral's and Kimi's.

use super::{RawCall, Rejection, RejectionReason, json};

/// `name[ARGS]{..}`, with `[CALL_ID]id` before the arguments in some versions, once or more; or a list of objects.
pub(super) fn mistral(body: &str) -> Vec<Result<RawCall, Rejection>> {
    const ARGS: &str = "[ARGS]";
    const CALL_ID: &str = "[CALL_ID]";
    if body.trim_start().starts_with(['[', '{']) {
        return json::calls(body);
    }
    let mut calls = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        // `name{..}` is what some versions write.
        let args = rest.find(ARGS).map(|at| (at, at + ARGS.len()));
        let Some((header, start)) = args.or_else(|| rest.find('{').map(|at| (at, at))) else {
            calls.push(Err(Rejection::malformed(format!("expected {ARGS} after the name, found {rest:?}"))));
            break;
        };
        let (name, id) = match rest[..header].split_once(CALL_ID) {
            Some((name, id)) => (name.trim(), Some(id.trim().to_owned())),
            None => (rest[..header].trim(), None),
        };
        let named = |r: Rejection| Rejection { name: Some(name.to_owned()), ..r };
        match json::first(&rest[start..]) {
            _ if name.is_empty() => {
                calls.push(Err(missing_name()));
                break;
            }
            Ok((arguments, end)) => {
                calls.push(Ok(RawCall { id, ..RawCall::json(name, arguments) }));
                rest = rest[start + end..].trim_start().trim_start_matches("[TOOL_CALLS]").trim_start();
            }
            Err(rejection) => {
                calls.push(Err(named(rejection)));
                break;
            }
        }
    }
    if calls.is_empty() { vec![Err(Rejection::malformed("expected a call, found nothing"))] } else { calls }
}

/// `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{..}<|tool_call_end|>`, once or more.
pub(super) fn kimi(body: &str) -> Vec<Result<RawCall, Rejection>> {
    let calls: Vec<_> = body.split("<|tool_call_begin|>").map(str::trim).filter(|part| !part.is_empty()).collect();
    let one = |part: &str| {
        let Some((header, arguments)) = part.split_once("<|tool_call_argument_begin|>") else {
            return Err(Rejection::malformed(format!("expected <|tool_call_argument_begin|>, found {part:?}")));
        };
        let id = header.trim();
        let name = id.strip_prefix("functions.").unwrap_or(id);
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        if name.is_empty() {
            return Err(missing_name());
        }
        let arguments = arguments.split("<|tool_call_end|>").next().unwrap_or_default();
        let (arguments, _) = json::first(arguments).map_err(|r| Rejection { name: Some(name.to_owned()), ..r })?;
        Ok(RawCall { id: Some(id.to_owned()), ..RawCall::json(name, arguments) })
    };
    if calls.is_empty() {
        return vec![Err(Rejection::malformed("expected <|tool_call_begin|>, found nothing"))];
    }
    calls.into_iter().map(one).collect()
}

pub(super) fn missing_name() -> Rejection {
    let message = "expected the name of a tool, found none".to_owned();
    Rejection { reason: RejectionReason::MissingToolName, message, name: None }
}
