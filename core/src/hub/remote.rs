//! What the hub is asked over HTTP.

use std::ops::Range;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderValue, LINK, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::RemoteFile;
use super::errors::Trouble;

/// How often a request is repeated that got no answer, or one that may be another next time.
pub(super) const RETRIES: u32 = 4;
/// What an answer of the API may weigh, and how many files a repository may have.
const MOST_BYTES: usize = 64 << 20;
const MOST_FILES: usize = 200_000;

/// The hub. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    http: Client,
    endpoint: String,
    authorization: Option<HeaderValue>,
}

/// A part of a file.
pub(super) enum Piece {
    /// The range that was asked for.
    Range(Response),
    /// The file from its first byte: the server does not honour ranges.
    Whole(Response),
    /// The server has no such range.
    None,
}

#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
}

/// An entry of a listing.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
    #[serde(rename = "xetHash")]
    xet: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Remote {
    pub(super) fn new(http: Client, endpoint: String, authorization: Option<HeaderValue>) -> Remote {
        Remote { http, endpoint, authorization }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The commit that `revision` of `repo` stands for.
    pub(super) async fn commit(&self, repo: &str, revision: &str) -> Result<String, Trouble> {
        let response = self.get(self.url(&["api/models", repo, "revision"], &[revision])?, None).await?;
        let info: Info = json(response).await?;
        let is_commit = |sha: &String| sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit());
        info.sha.filter(is_commit).ok_or_else(|| Trouble::Malformed("names no commit".to_owned()))
    }

    /// The files of `repo` at `commit`.
    pub(super) async fn files(&self, repo: &str, commit: &str) -> Result<Vec<RemoteFile>, Trouble> {
        let mut url = self.url(&["api/models", repo, "tree"], &[commit])?;
        url.set_query(Some("recursive=true"));
        let (mut next, mut files) = (Some(url), Vec::new());
        while let Some(url) = next {
            let response = self.get(url, None).await?;
            next = next_page(&response);
            let entries: Vec<Entry> = json(response).await?;
            // A page without entries would lead to itself for ever.
            next = next.filter(|_| !entries.is_empty());
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                files.push(entry.file()?);
            }
            if files.len() > MOST_FILES {
                return Err(Trouble::Malformed(format!("lists more than {MOST_FILES} files")));
            }
        }
        Ok(files)
    }

    /// A file of `repo`, or a range of it. The hub redirects large files to another server, which never sees the token: the
    /// HTTP client leaves it out where the host or the port changes.
    pub(super) async fn file(
        &self,
        repo: &str,
        commit: &str,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<Piece, Trouble> {
        let path: Vec<&str> = path.split('/').collect();
        let url = self.url(&[repo, "resolve"], &[&[commit], &path[..]].concat())?;
        let response = self.get(url, range.as_ref()).await?;
        let start = response.headers().get(CONTENT_RANGE).and_then(|range| {
            let (start, _) = range.to_str().ok()?.trim().strip_prefix("bytes")?.trim_start().split_once('-')?;
            start.parse::<u64>().ok()
        });
        Ok(match (response.status(), range) {
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => Piece::None,
            (StatusCode::PARTIAL_CONTENT, Some(range)) if start == Some(range.start) => Piece::Range(response),
            (StatusCode::PARTIAL_CONTENT, _) => Piece::None,
            _ => Piece::Whole(response),
        })
    }

    /// The address of `path`, whose parts hold slashes, and behind it `names`, which are parts whatever they hold.
    fn url(&self, path: &[&str], names: &[&str]) -> Result<Url, Trouble> {
        let malformed = |error: &dyn std::fmt::Display| Trouble::Malformed(format!("is no address: {error}"));
        let mut url = Url::parse(&self.endpoint).map_err(|error| malformed(&error))?;
        let mut segments = url.path_segments_mut().map_err(|()| malformed(&"no path can follow"))?;
        segments.pop_if_empty().extend(path.iter().flat_map(|part| part.split('/'))).extend(names);
        drop(segments);
        Ok(url)
    }

    async fn get(&self, url: Url, range: Option<&Range<u64>>) -> Result<Response, Trouble> {
        let is_ours = Url::parse(&self.endpoint).is_ok_and(|endpoint| endpoint.origin() == url.origin());
        for attempt in 0.. {
            let mut request = self.http.get(url.clone());
            if let Some(token) = self.authorization.as_ref().filter(|_| is_ours) {
                request = request.header(AUTHORIZATION, token);
            }
            if let Some(range) = range {
                request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            }
            let answer = request.send().await;
            let passes = match &answer {
                Ok(response) => matches!(response.status().as_u16(), 408 | 429 | 500 | 502 | 503 | 504),
                Err(error) => error.is_timeout() || error.is_connect() || error.is_request(),
            };
            if passes && attempt < RETRIES {
                pause(attempt).await;
                continue;
            }
            let response = answer.map_err(Trouble::Network)?;
            return match response.status() {
                status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
                _ => Err(Trouble::of(response, &self.endpoint).await),
            };
        }
        Err(Trouble::Malformed("does not answer".to_owned()))
    }
}

/// Waits before a request is repeated, longer each time.
pub(super) async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(attempt.min(RETRIES))).await;
}

impl Entry {
    /// The file, under the name that its content has in the cache: the hub's ETag, which is the SHA-256 of a file in LFS and
    /// the object id of git of any other.
    fn file(self) -> Result<RemoteFile, Trouble> {
        let Entry { path, oid, size, lfs, xet, .. } = self;
        let is_hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        let sum = lfs.as_ref().map(|lfs| lfs.oid.strip_prefix("sha256:").unwrap_or(&lfs.oid).to_ascii_lowercase());
        let sum = sum.filter(|sum| sum.len() == 64 && is_hexadecimal(sum));
        let etag = sum.clone().unwrap_or(oid);
        if !(1..=128).contains(&etag.len()) || !is_hexadecimal(&etag) {
            return Err(Trouble::Malformed(format!("lists {path} with `{etag}`, which is no object id")));
        }
        Ok(RemoteFile {
            path,
            size: lfs.map_or(size, |lfs| lfs.size),
            etag,
            is_sum: sum.is_some(),
            is_xet: xet.is_some(),
        })
    }
}

/// The address of the listing's next page.
fn next_page(response: &Response) -> Option<Url> {
    let links = response.headers().get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    response.url().join(next.split_once('<')?.1.split_once('>')?.0).ok()
}

async fn json<T: DeserializeOwned>(mut response: Response) -> Result<T, Trouble> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(Trouble::Network)? {
        body.extend_from_slice(&piece);
        if body.len() > MOST_BYTES {
            return Err(Trouble::Malformed(format!("answers with more than {MOST_BYTES} bytes")));
        }
    }
    serde_json::from_slice(&body)
        .map_err(|e| Trouble::Malformed(format!("answers with something else than JSON of the hub: {e}")))
}
