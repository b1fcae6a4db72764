//! Models from the HuggingFace hub, kept in the cache that Python's tools use too.
//!
//! The cache has the layout of `huggingface_hub` (`blobs`, `refs`, `snapshots`). Files are downloaded over HTTP, and an interrupted
//! download is resumed. The `hf-hub` crate downloads files that the hub stores in Xet, unless a part of the file is in the cache.

mod cache;
mod environment;
mod errors;
mod fetch;
mod header;
mod installed;
mod progress;
mod remote;
mod select;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use hf_hub::HFClient;

use crate::{Error, Result, web};
use cache::Cache;
use errors::Trouble;
use fetch::Fetch;
pub use installed::Installed;
pub use progress::Progress;
use progress::Tally;
use remote::Remote;
use select::{Source, Wanted};

/// What running a model takes: weights, configuration, tokenizer, chat template.
pub const MODEL_FILES: &[&str] =
    &["*.safetensors", "*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.txt", "*.model"];
/// What its tokenizer alone takes.
pub const TOKENIZER_FILES: &[&str] = &["*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.txt", "*.model"];

/// How long a connection may say nothing, where nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many files are asked for at a time.
const AT_ONCE: usize = 8;

/// Access to a hub. Clones share connections.
#[derive(Clone, Debug)]
pub struct Hub {
    client: HFClient,
    remote: Remote,
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

/// A file of a repository.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct RemoteFile {
    path: String,
    /// In bytes.
    size: u64,
    /// What the cache calls its content.
    etag: String,
    /// Whether that is the SHA-256 of the content.
    is_sum: bool,
    /// Whether the hub offers it by its Xet protocol.
    is_xet: bool,
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

    /// The access token. Otherwise `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` or the file that `hf auth login` writes. White space
    /// around it does not count.
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

    /// Fails when the endpoint is no address, or the token no token.
    pub fn build(self) -> Result<Hub> {
        // A token that is no header: the client, which would read the environment in its own way, then sends none.
        const NO_TOKEN: &str = "\n";
        let timeout = self.timeout.or_else(environment::timeout).unwrap_or(TIMEOUT);
        let endpoint = environment::endpoint(self.endpoint.as_deref())?;
        let token = self.token.as_deref().and_then(environment::clean);
        let authorization = match &token {
            Some(token) => Some(environment::authorization("the access token", token)?),
            None => environment::token()?,
        };
        let bearer = authorization.as_ref().and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        let http =
            reqwest::Client::builder().user_agent(web::AGENT).connect_timeout(timeout).read_timeout(timeout).build();
        let http = http.map_err(|error| cannot_set_up(&error))?;
        let client = HFClient::builder().user_agent(web::AGENT).client(http.clone()).endpoint(endpoint.clone());
        let client = client.token(bearer.unwrap_or(NO_TOKEN));
        let client = client.cache_dir(self.cache_dir.unwrap_or_else(environment::cache_dir));
        let client = client.build().map_err(|error| cannot_set_up(&error))?;
        let remote = Remote::new(http, endpoint, authorization);
        let offline = self.offline.unwrap_or_else(|| environment::is_true("HF_HUB_OFFLINE"));
        Ok(Hub { client, remote, offline, timeout })
    }
}

fn cannot_set_up(error: &dyn std::error::Error) -> Error {
    Error::Hub(format!("cannot set up the hub client: {}", web::cause(error)))
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
        let repo = source.repo.as_str();
        let explain = |trouble: Trouble| trouble.explain(self.remote.endpoint(), repo, revision);
        let (commit, files) = self.listing(repo, revision).await.map_err(explain)?;
        let files = wanted.choose(files, repo).map_err(Failure::Refused)?;
        let cache = Cache::new(self.client.cache_dir(), repo);
        let tally = Arc::new(Tally::new(&files, progress));
        // Where all is there, nothing is written: the cache may be one that can only be read.
        let (there, absent): (Vec<_>, Vec<_>) = files.iter().partition(|file| cache.has(&commit, file));
        there.iter().for_each(|file| tally.update(&file.path, file.size));
        let by_xet = |file: &&RemoteFile| file.is_xet && file.is_sum && is_untouched(&cache, file);
        let (xet, http): (Vec<_>, Vec<_>) = absent.into_iter().partition(by_xet);
        let left = self.fetch_by_xet(repo, &commit, &cache, xet, &tally).await?;
        let told = |file: &str, bytes: u64| tally.update(file, bytes);
        let fetch = Fetch { remote: &self.remote, cache: &cache, repo, commit: &commit, told };
        let fetches: Vec<_> = http.into_iter().chain(left).map(|file| fetch.file(file)).collect();
        stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect::<()>().await.map_err(explain)?;
        cache.note(revision, &commit);
        Ok(cache.snapshot(&commit))
    }

    /// The commit that a revision stands for, and its files.
    async fn listing(&self, repo: &str, revision: &str) -> Result<(String, Vec<RemoteFile>), Trouble> {
        let commit = self.remote.commit(repo, revision).await?;
        let files = self.remote.files(repo, &commit).await?;
        Ok((commit, files))
    }

    /// Fetches files by the hub's own protocol, in many streams at once. Gives those that did not come: another server
    /// answers then, which a firewall may not let through, and it cannot do without locks.
    async fn fetch_by_xet<'a>(
        &self,
        repo: &str,
        commit: &str,
        cache: &Cache,
        files: Vec<&'a RemoteFile>,
        tally: &Arc<Tally<impl Fn(Progress) + Send + Sync + 'static>>,
    ) -> Result<Vec<&'a RemoteFile>, Failure> {
        if files.is_empty() || environment::is_true("HF_HUB_DISABLE_XET") {
            return Ok(files);
        }
        let (owner, name) = hf_hub::split_id(repo);
        let client = self.client.model(owner, name);
        let fetched = client
            .snapshot_download()
            .revision(commit)
            .allow_patterns(files.iter().map(|file| select::literally(&file.path)).collect())
            .max_workers(AT_ONCE)
            .progress(tally.clone())
            .send();
        // The client asks what each file is over connections of its own, which wait for ever. Before it tells of anything it
        // asks for a list, and about the files.
        let rounds = 2 + u32::try_from(files.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX - 2);
        let patience = self.timeout.saturating_mul(rounds);
        tokio::select! {
            fetched = fetched => if let Err(error) = fetched {
                tracing::warn!("{repo}: Xet failed ({error}), going on with HTTP");
            },
            () = tally.silence(patience) => return Err(errors::silent(self.remote.endpoint(), repo, patience)),
        }
        let explain = |trouble: Trouble| trouble.explain(self.remote.endpoint(), repo, commit);
        let (there, left): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| cache.has(commit, file));
        for file in there {
            fetch::check(cache, file).await.map_err(explain)?;
        }
        Ok(left)
    }
}

/// Whether nothing of a file is there, so that it may as well come by another protocol.
fn is_untouched(cache: &Cache, file: &RemoteFile) -> bool {
    !cache.part(file).exists() && !cache.blob(file).exists()
}

/// Why there was no download.
enum Failure {
    /// Nobody answered, or not sensibly, or nothing can be written: what is in the cache may help.
    Unreachable(Error),
    /// The hub answered, and trying again changes nothing.
    Refused(Error),
}
