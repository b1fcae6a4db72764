//! The cache on disk, `models--org--name/{blobs,refs,snapshots}`, read without a network.
//!
//! Layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>.

use std::path::{Path, PathBuf};

use super::RemoteFile;
use super::select::Wanted;
use crate::{Error, Result};

/// What is kept of one repository.
pub(super) struct Cache {
    /// `models--org--name`.
    pub folder: PathBuf,
    repo: String,
}

impl Cache {
    pub(super) fn new(cache_dir: &Path, repo: &str) -> Cache {
        let folder = cache_dir.join(format!("models--{}", repo.replace('/', "--")));
        Cache { folder, repo: repo.to_owned() }
    }

    /// The repository's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of that folder.
    pub(super) fn name(&self) -> String {
        self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The kept snapshot of `revision`, or the file of it that is wanted.
    pub(super) fn find(&self, revision: &str, wanted: &Wanted) -> Result<PathBuf> {
        let commit = match std::fs::read_to_string(self.folder.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        let snapshot = self.folder.join("snapshots").join(commit);
        let missing = |what: &str| {
            let (repo, folder) = (&self.repo, self.folder.display());
            Error::Hub(format!(
                "{repo}: {what}, looked for revision `{revision}` in the cache at {folder}; \
                 connect to the network (and unset HF_HUB_OFFLINE) to download it"
            ))
        };
        let names = names(&snapshot);
        if !names.iter().any(|name| wanted.matches(name)) {
            return Err(missing(&format!("no {} is there", wanted.described)));
        }
        if let Some(shard) = missing_shard(&snapshot, &names) {
            return Err(missing(&format!("`{shard}` is missing")));
        }
        if wanted.model && !names.iter().any(|name| name.ends_with(".safetensors")) {
            return Err(missing("its weights are missing"));
        }
        self.entry(snapshot, wanted)
    }

    /// What a caller gets: the folder, or in it the one file that was asked for.
    pub(super) fn entry(&self, snapshot: PathBuf, wanted: &Wanted) -> Result<PathBuf> {
        let Some(file) = &wanted.file else { return Ok(snapshot) };
        let path = snapshot.join(file);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::Hub(format!("{}: there is no `{file}`", self.repo)))
    }
}

/// The files below `snapshot`, with `/` between folders. Pointers without a blob do not count.
pub(super) fn names(snapshot: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![(snapshot.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            if path.is_dir() {
                folders.push((path, name + "/"));
            } else if path.exists() {
                names.push(name);
            }
        }
    }
    names
}

/// A file that the index of the weights names and that is not there. An interrupted download leaves
/// such snapshots behind.
fn missing_shard(snapshot: &Path, names: &[String]) -> Option<String> {
    let index = std::fs::read(snapshot.join("model.safetensors.index.json")).ok()?;
    let index: serde_json::Value = serde_json::from_slice(&index).ok()?;
    let shards = index.get("weight_map")?.as_object()?.values().filter_map(|shard| shard.as_str());
    shards.into_iter().find(|shard| !names.iter().any(|name| name == shard)).map(str::to_owned)
}

/// Checks that what arrived has the announced sizes. What has not is removed: it would be taken for
/// good the next time.
pub(super) fn verify(snapshot: &Path, files: &[RemoteFile]) -> Result<()> {
    let mut damaged = None;
    for file in files {
        let path = snapshot.join(&file.path);
        let found = std::fs::metadata(&path).map_err(|error| Error::io(&path, error))?.len();
        if found != file.size {
            remove(&path)?;
            damaged.get_or_insert((path, file.size, found));
        }
    }
    let Some((path, expected, found)) = damaged else { return Ok(()) };
    Err(Error::file(path, format!("expected {expected} bytes, received {found}; it was removed, try again")))
}

/// Removes a pointer and the blob behind it.
fn remove(pointer: &Path) -> Result<()> {
    if let Ok(blob) = pointer.canonicalize() {
        std::fs::remove_file(&blob).map_err(|error| Error::io(&blob, error))?;
    }
    std::fs::remove_file(pointer).or_else(ignore_absent).map_err(|error| Error::io(pointer, error))
}

fn ignore_absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
