//! What the hub's refusals mean, and what to do about them.

use std::time::Duration;

use hf_hub::{HFClient, HFError};

use super::Failure;
use crate::{Error, web};

/// Turns an error about `repo` at `revision` into one that names the remedy.
pub(super) fn explain(error: HFError, client: &HFClient, repo: &str, revision: &str) -> Failure {
    let endpoint = client.endpoint();
    let refused = |message: String| Failure::Refused(Error::Hub(message));
    let unreachable = |message: String| Failure::Unreachable(Error::Hub(message));
    let Some(answer) = Answer::of(&error) else {
        return match error {
            HFError::Request { source, .. } => unreachable(format!(
                "{repo}: cannot reach {endpoint}: {}; check the network and HTTPS_PROXY, or set \
                 HF_HUB_OFFLINE=1 to use what is in the cache",
                web::cause(&source)
            )),
            HFError::CacheLockTimeout { path } => {
                refused(format!("{repo}: another process holds {}; wait until its download is done", path.display()))
            }
            other => refused(format!("{repo}: {other}")),
        };
    };
    match (answer.status, answer.code) {
        (_, "GatedRepo") => refused(format!(
            "{repo} is gated: accept its terms at {endpoint}/{repo}, then set HF_TOKEN to a token of that \
             account (or run `hf auth login`)"
        )),
        (401, code) if code != "RepoNotFound" && answer.message.contains("Invalid") => refused(format!(
            "{repo}: the hub does not accept the access token; set HF_TOKEN to a valid one (or run `hf auth login`)"
        )),
        (401, _) | (_, "RepoNotFound") => refused(format!(
            "{repo}: not found at {endpoint}; check the spelling, and if it is private set HF_TOKEN to a \
             token that may read it (or run `hf auth login`)"
        )),
        (403, _) => refused(format!(
            "{repo}: the access token may not read this repository{}; give it that permission at \
             {endpoint}/settings/tokens, or set HF_TOKEN to another",
            answer.detail()
        )),
        (404, _) => {
            refused(format!("{repo}: no revision or file like that, `{revision}`, at {endpoint}{}", answer.detail()))
        }
        (429, _) => unreachable(format!("{repo}: {endpoint} asks for a pause (too many requests); try again later")),
        (status @ 500.., _) => {
            unreachable(format!("{repo}: {endpoint} fails with status {status}{}; try again later", answer.detail()))
        }
        (status, _) => refused(format!("{repo}: {endpoint} answers with status {status}{}", answer.detail())),
    }
}

/// That nothing was heard for so long.
pub(super) fn silent(client: &HFClient, repo: &str, patience: Duration) -> Failure {
    let (endpoint, seconds) = (client.endpoint(), patience.as_secs_f32());
    Failure::Unreachable(Error::Hub(format!(
        "{repo}: {endpoint} says nothing, for {seconds} seconds now; try again later, or set HF_HUB_OFFLINE=1 to use what is \
         in the cache"
    )))
}

/// What the hub said.
struct Answer<'a> {
    status: u16,
    /// The hub's own name for the problem.
    code: &'a str,
    message: &'a str,
}

impl Answer<'_> {
    fn of(error: &HFError) -> Option<Answer<'_>> {
        let context = match error {
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context }
            | HFError::RateLimited { context, .. } => context,
            HFError::RepoNotFound { context, .. }
            | HFError::RevisionNotFound { context, .. }
            | HFError::EntryNotFound { context, .. } => context.as_ref()?,
            _ => return None,
        };
        Some(Answer {
            status: context.status.as_u16(),
            code: context.error_code.as_deref().unwrap_or_default(),
            message: context.server_message.as_deref().unwrap_or_default(),
        })
    }

    fn detail(&self) -> String {
        if self.message.is_empty() { String::new() } else { format!(" ({})", self.message) }
    }
}
