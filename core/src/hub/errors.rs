//! What the hub's refusals mean, and what to do about them.

use std::time::Duration;

use reqwest::Response;

use super::Failure;
use crate::{Error, web};

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The hub, or the server that it redirects to, said so.
    Answer(Answer),
    /// The connection failed, or broke off.
    Network(reqwest::Error),
    /// A file ended early.
    Short { expected: u64, received: u64 },
    /// The cache cannot be written, or what arrived is damaged.
    Local(Error),
    /// The hub does what it should not; the text goes on behind its address.
    Malformed(String),
}

/// What the hub said.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    /// The hub's own name for the problem.
    code: String,
    message: String,
    /// The server, where it is not the hub.
    elsewhere: Option<String>,
}

impl Trouble {
    /// A failure on this machine.
    pub(super) fn io(path: &std::path::Path, error: std::io::Error) -> Trouble {
        Trouble::Local(Error::io(path, error))
    }

    /// Why `response` is no success.
    pub(super) async fn of(mut response: Response, endpoint: &str) -> Trouble {
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (code, mut message) = (header("x-error-code"), header("x-error-message"));
        let is_ours = reqwest::Url::parse(endpoint).is_ok_and(|endpoint| endpoint.origin() == response.url().origin());
        let elsewhere = (!is_ours).then(|| response.url().origin().ascii_serialization());
        let status = response.status().as_u16();
        if message.is_empty()
            && let Ok(Some(body)) = response.chunk().await
        {
            let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            message = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned())).unwrap_or_default();
        }
        Trouble::Answer(Answer { status, code, message, elsewhere })
    }

    /// Whether the same request may get another answer.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Trouble::Network(_) | Trouble::Short { .. })
    }

    /// Turns what happened to `repo` at `revision` into an error that names the remedy.
    pub(super) fn explain(self, endpoint: &str, repo: &str, revision: &str) -> Failure {
        let refused = |message: String| Failure::Refused(Error::Hub(format!("{repo}{message}")));
        let unreachable = |message: String| Failure::Unreachable(Error::Hub(format!("{repo}{message}")));
        let answer = match self {
            Trouble::Answer(answer) => answer,
            Trouble::Network(error) => {
                return unreachable(format!(
                    ": cannot reach {endpoint}: {}; check the network and HTTPS_PROXY, or set HF_HUB_OFFLINE=1 to use what \
                     is in the cache",
                    web::cause(&error)
                ));
            }
            Trouble::Short { expected, received } => {
                return unreachable(format!(
                    ": {endpoint} sent {received} of {expected} bytes, several times; what came is kept, try again later"
                ));
            }
            Trouble::Local(error) => return local(error),
            Trouble::Malformed(message) => return refused(format!(": {endpoint} {message}")),
        };
        let detail = answer.detail();
        match (answer.status, answer.code.as_str()) {
            (status, _) if let Some(server) = &answer.elsewhere => unreachable(format!(
                ": {server}, where {endpoint} keeps the file, answers with status {status}{detail}; try again later"
            )),
            (_, "GatedRepo") => refused(format!(
                " is gated: accept its terms at {endpoint}/{repo}, then set HF_TOKEN to a token of that account (or run \
                 `hf auth login`)"
            )),
            (401, code) if code != "RepoNotFound" && answer.message.contains("Invalid") => refused(
                ": the hub does not accept the access token; set HF_TOKEN to a valid one (or run `hf auth login`)"
                    .to_owned(),
            ),
            (401, _) | (_, "RepoNotFound") => refused(format!(
                ": not found at {endpoint}; check the spelling, and if it is private set HF_TOKEN to a token that may read \
                 it (or run `hf auth login`)"
            )),
            (403, _) => refused(format!(
                ": the access token may not read this repository{detail}; give it that permission at \
                 {endpoint}/settings/tokens, or set HF_TOKEN to another"
            )),
            (404, _) => refused(format!(": no revision or file like that, `{revision}`, at {endpoint}{detail}")),
            (429, _) => unreachable(format!(": {endpoint} asks for a pause (too many requests); try again later")),
            (status @ 500.., _) => {
                unreachable(format!(": {endpoint} fails with status {status}{detail}; try again later"))
            }
            (status, _) => refused(format!(": {endpoint} answers with status {status}{detail}")),
        }
    }
}

impl Answer {
    fn detail(&self) -> String {
        if self.message.is_empty() { String::new() } else { format!(" ({})", self.message) }
    }
}

/// A cache that one may not write is no reason to leave what is in it unused.
fn local(error: Error) -> Failure {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match &error {
        Error::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem) => {
            let remedy = "set HF_HUB_CACHE to a folder that may be written";
            Failure::Unreachable(Error::Hub(format!("cannot download into the cache: {error}; {remedy}")))
        }
        _ => Failure::Refused(error),
    }
}

/// That nothing was heard for so long.
pub(super) fn silent(endpoint: &str, repo: &str, patience: Duration) -> Failure {
    let seconds = patience.as_secs_f32();
    Failure::Unreachable(Error::Hub(format!(
        "{repo}: {endpoint} says nothing, for {seconds} seconds now; try again later, or set HF_HUB_OFFLINE=1 to use what is \
         in the cache"
    )))
}
