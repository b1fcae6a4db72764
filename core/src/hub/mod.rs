//! Models from the HuggingFace hub, kept in the cache that Python's tools use too.
//!
//! The transfer and the cache layout (`blobs`, `refs`, `snapshots`) are those of the `hf-hub` crate;
//! what is added here is the choice of files, working without a network, continuing what broke off, sums of
//! what arrived, and errors that say what to do.

mod cache;
mod errors;
mod installed;
mod progress;
mod resume;
mod select;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use hf_hub::HFClient;
use hf_hub::repository::RepoTreeEntry;

use crate::{Error, Result, web};
use cache::Cache;
pub use installed::Installed;
pub use progress::Progress;
use progress::Tally;
use resume::Blobs;
use select::{Source, Wanted};

/// What running a model takes: weights, configuration, tokenizer, chat template.
pub const MODEL_FILES: &[&str] = &["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"];
/// What its tokenizer alone takes.
pub const TOKENIZER_FILES: &[&str] = &["*.json", "*.jinja", "*.txt", "*.model"];

/// How long a connection may say nothing, where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many files are asked for at a time.
const AT_ONCE: usize = 8;

/// Access to a hub. Clones share connections.
#[derive(Clone, Debug)]
pub struct Hub {
    client: HFClient,
    offline: bool,
    timeout: Duration,
}

/// Settings of a [`Hub`]. What is not set comes from the environment, as for Python's tools.
#[derive(Clone, Debug, Default)]
pub struct HubBuilder {
    cache_dir: Option<PathBuf>,
    endpoint: Option<String>,
    token: Option<String>,
    offline: Option<bool>,
    timeout: Option<Duration>,
}

/// A file of a repository and its size in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct RemoteFile {
    path: String,
    size: u64,
}

impl HubBuilder {
    /// Where files are kept. Otherwise `HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> HubBuilder {
        self.cache_dir = Some(folder.into());
        self
    }

    /// The hub's address. Otherwise `HF_ENDPOINT` or `https://huggingface.co`.
    pub fn endpoint(mut self, url: impl Into<String>) -> HubBuilder {
        self.endpoint = Some(url.into());
        self
    }

    /// The access token. Otherwise `HF_TOKEN` or the file that `hf auth login` writes.
    pub fn token(mut self, token: impl Into<String>) -> HubBuilder {
        self.token = Some(token.into());
        self
    }

    /// Whether to use nothing but what is in the cache. Otherwise `HF_HUB_OFFLINE`.
    pub fn offline(mut self, offline: bool) -> HubBuilder {
        self.offline = Some(offline);
        self
    }

    /// How long a connection may say nothing before it counts as cut off. Otherwise `HF_HUB_DOWNLOAD_TIMEOUT`, in seconds,
    /// or half a minute.
    pub fn timeout(mut self, timeout: Duration) -> HubBuilder {
        self.timeout = Some(timeout);
        self
    }

    /// Fails when the endpoint is no URL.
    pub fn build(self) -> Result<Hub> {
        let timeout = self.timeout.or_else(timeout_by_environment).unwrap_or(TIMEOUT);
        let http =
            reqwest::Client::builder().user_agent(web::AGENT).connect_timeout(timeout).read_timeout(timeout).build();
        let http = http.map_err(|error| cannot_set_up(&error))?;
        let mut client = HFClient::builder().user_agent(web::AGENT).client(http);
        if let Some(folder) = self.cache_dir {
            client = client.cache_dir(folder);
        }
        if let Some(url) = self.endpoint {
            client = client.endpoint(url);
        }
        if let Some(token) = self.token {
            client = client.token(token);
        }
        let client = client.build().map_err(|error| cannot_set_up(&error))?;
        Ok(Hub { client, offline: self.offline.unwrap_or_else(offline_by_environment), timeout })
    }
}

fn cannot_set_up(error: &dyn std::error::Error) -> Error {
    Error::Hub(format!("cannot set up the hub client: {}", web::cause(error)))
}

fn timeout_by_environment() -> Option<Duration> {
    let seconds: f64 = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
}

fn offline_by_environment() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
    matches!(value.as_str(), "1" | "on" | "yes" | "true")
}

impl Hub {
    /// A hub as the environment sets it up.
    pub fn new() -> Result<Hub> {
        HubBuilder::default().build()
    }

    /// Settings to start from.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// Makes files of a repository available locally and returns their folder.
    ///
    /// `id` is `org/name`, or names one GGUF file of a repository as `org/name:file.gguf` or
    /// `org/name/file.gguf`; then the path of that file is returned and `globs` do not matter.
    /// `revision` is a branch, a tag or a commit. `globs` choose the files ([`MODEL_FILES`]); `*`
    /// stays within a folder. `progress` is told of every piece that arrives.
    ///
    /// Without a network, or when told to stay offline, what the cache holds is used. Fails when the
    /// hub refuses, when nothing matches, and when what arrived is not what was announced. Needs a
    /// tokio runtime.
    pub async fn snapshot(
        &self,
        id: &str,
        revision: Option<&str>,
        globs: &[&str],
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<PathBuf> {
        let source = Source::parse(id)?;
        let revision = select::check_revision(revision.unwrap_or("main"))?;
        let wanted = Wanted::new(&source, globs)?;
        let cache = Cache::new(self.client.cache_dir(), &source.repo);
        if self.offline {
            return cache.find(revision, &wanted);
        }
        match self.download(&source, revision, &wanted, progress).await {
            Err(Failure::Unreachable(error)) => match cache.find(revision, &wanted) {
                Ok(path) => {
                    tracing::warn!("{error}; using the copy in the cache");
                    Ok(path)
                }
                Err(_) => Err(error),
            },
            Err(Failure::Refused(error)) => Err(error),
            Ok(folder) => cache.entry(folder, &wanted),
        }
    }

    /// As [`Hub::snapshot`], from what is in the cache already. Never asks the network.
    ///
    /// # Errors
    /// [`Error::Hub`] if something is missing; the message names it.
    pub fn cached(&self, id: &str, revision: Option<&str>, globs: &[&str]) -> Result<PathBuf> {
        let source = Source::parse(id)?;
        let revision = select::check_revision(revision.unwrap_or("main"))?;
        Cache::new(self.client.cache_dir(), &source.repo).find(revision, &Wanted::new(&source, globs)?)
    }

    async fn download(
        &self,
        source: &Source,
        revision: &str,
        wanted: &Wanted,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<PathBuf, Failure> {
        let explain = |error| errors::explain(error, &self.client, &source.repo, revision);
        let (owner, name) = hf_hub::split_id(&source.repo);
        let repo = self.client.model(owner, name);
        let entries = repo.list_tree().revision(revision).recursive(true).send().map_err(explain)?;
        let entries: Vec<RepoTreeEntry> = entries.try_collect().await.map_err(explain)?;
        let files = entries.into_iter().filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some(RemoteFile { path, size }),
            _ => None,
        });
        let files = wanted.choose(files.collect(), &source.repo).map_err(Failure::Refused)?;
        let cache = Cache::new(self.client.cache_dir(), &source.repo);
        let _lock = resume::lock(self.client.cache_dir(), cache.name()).await.map_err(Failure::Refused)?;
        let blobs = Blobs::of(cache.folder());
        let tally = Arc::new(Tally::new(&files, progress));
        blobs
            .finish(&repo, revision, &files, &|file: &str, bytes: u64| tally.update(file, bytes))
            .await
            .map_err(explain)?;
        let snapshot = repo
            .snapshot_download()
            .revision(revision)
            .allow_patterns(files.iter().map(|file| select::literally(&file.path)).collect())
            .max_workers(AT_ONCE)
            .progress(tally.clone())
            .send();
        // The client asks what each file is over connections of its own, which wait for ever. Before it tells of anything it
        // asks which commit that is, for a list, and about the files.
        let rounds = 2 + u32::try_from(files.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX - 2);
        let patience = self.timeout.saturating_mul(rounds);
        let folder = tokio::select! {
            folder = snapshot => folder.map_err(explain)?,
            () = tally.silence(patience) => return Err(errors::silent(&self.client, &source.repo, patience)),
        };
        cache::verify(&folder, &files).map_err(Failure::Refused)?;
        blobs.check().map_err(Failure::Refused)?;
        Ok(folder)
    }
}

/// Why there was no download.
enum Failure {
    /// Nobody answered, or not sensibly: the cache may help.
    Unreachable(Error),
    /// The hub answered, and trying again changes nothing.
    Refused(Error),
}
