//! The cache on disk, `models--org--name/{blobs,refs,snapshots}`, read without a network.
//!
//! Layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>.

use std::path::{Path, PathBuf};

use super::RemoteFile;
use super::select::Wanted;
use crate::{Error, Result};

/// What says in which file each tensor is.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What is kept of one repository.
pub(super) struct Cache {
    /// `models--org--name`.
    pub folder: PathBuf,
    locks: PathBuf,
    repo: String,
}

impl Cache {
    pub(super) fn new(cache_dir: &Path, repo: &str) -> Cache {
        let name = format!("models--{}", repo.replace('/', "--"));
        Cache { folder: cache_dir.join(&name), locks: cache_dir.join(".locks").join(name), repo: repo.to_owned() }
    }

    /// Where the content of `file` is.
    pub(super) fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(&file.etag)
    }

    /// Where it is while it is under way.
    pub(super) fn part(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", file.etag))
    }

    /// The file that is locked meanwhile.
    pub(super) fn lock(&self, file: &RemoteFile) -> PathBuf {
        self.locks.join(format!("{}.lock", file.etag))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Whether the snapshot of `commit` has `file`, all of it.
    pub(super) fn has(&self, commit: &str, file: &RemoteFile) -> bool {
        let found = std::fs::metadata(self.snapshot(commit).join(&file.path));
        found.is_ok_and(|found| found.is_file() && found.len() == file.size)
    }

    /// Puts `file`, whose blob is there, in the snapshot of `commit`.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile) -> Result<()> {
        let pointer = self.snapshot(commit).join(&file.path);
        let depth = file.path.matches('/').count();
        point(&self.blob(file), &pointer, depth).map_err(|error| Error::io(&pointer, error))
    }

    /// Notes which commit `revision` is. That it cannot be noted is no reason to fail: the snapshot is there.
    pub(super) fn note(&self, revision: &str, commit: &str) {
        let path = self.folder.join("refs").join(revision);
        let is_noted = std::fs::read_to_string(&path).is_ok_and(|noted| noted.trim() == commit);
        if is_noted || revision == commit {
            return;
        }
        let folder = path.parent().unwrap_or(&path);
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, commit));
        written.unwrap_or_else(|error| tracing::debug!("{}: {error}", path.display()));
    }

    /// The kept snapshot of `revision`, or the file of it that is wanted.
    pub(super) fn find(&self, revision: &str, wanted: &Wanted) -> Result<PathBuf> {
        let snapshot = self.snapshot(&self.commit(revision));
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
        if let Some(file) = missing_file(&snapshot, &names, wanted) {
            return Err(missing(&format!("`{file}` is missing")));
        }
        if wanted.model && !names.iter().any(|name| name.ends_with(".safetensors")) {
            return Err(missing("its weights are missing"));
        }
        self.entry(snapshot, wanted)
    }

    /// The commit that `revision` was when it was downloaded. A cache that was copied may lack its `refs`; if it has one
    /// snapshot, that is the one.
    fn commit(&self, revision: &str) -> String {
        if let Ok(commit) = std::fs::read_to_string(self.folder.join("refs").join(revision)) {
            return commit.trim().to_owned();
        }
        let entries = std::fs::read_dir(self.folder.join("snapshots")).into_iter().flatten().flatten();
        let mut commits = entries.filter_map(|entry| entry.file_name().into_string().ok());
        match (revision, commits.next(), commits.next()) {
            ("main", Some(only), None) => only,
            _ => revision.to_owned(),
        }
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

/// A file that a model lacks. An interrupted download leaves such snapshots behind. An index counts only if all files
/// that it names are there; else the weights are `model*.safetensors`, as for the reader of a directory.
fn missing_file(snapshot: &Path, names: &[String], wanted: &Wanted) -> Option<String> {
    let is_there = |wanted: &str| names.iter().any(|name| name == wanted);
    let mut numbered = names.iter().filter(|name| wanted.matches(name)).filter_map(|name| numbers(name));
    if !wanted.model {
        let mut all = numbered.flat_map(|(stem, count, end)| (1..=count).map(move |i| part(stem, i, count, end)));
        return all.find(|name| wanted.matches(name) && !is_there(name));
    }
    let is_whole = |name: &String| {
        name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/') && numbers(name).is_none()
    };
    let is_complete = |(stem, count, end)| (1..=count).all(|i| is_there(&part(stem, i, count, end)));
    if names.iter().any(is_whole) {
        return None;
    }
    let absent = || {
        let index = std::fs::read(snapshot.join(INDEX)).ok()?;
        let index: serde_json::Value = serde_json::from_slice(&index).ok()?;
        let named = index.get("weight_map")?.as_object()?.values().filter_map(|name| name.as_str());
        named.into_iter().find(|name| !is_there(name)).map(str::to_owned)
    };
    let first = numbered.clone().next();
    match absent() {
        Some(_) if numbered.any(is_complete) => None,
        Some(name) => Some(name),
        None if snapshot.join(INDEX).exists() => None,
        None => first
            .and_then(|(stem, count, end)| (1..=count).map(|i| part(stem, i, count, end)).find(|name| !is_there(name))),
    }
}

/// Of a file that is one of several, `NAME-00001-of-00003.END`: name, how many, and end.
pub(super) fn numbers(name: &str) -> Option<(&str, usize, &str)> {
    let (rest, end) = name.rsplit_once('.')?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(count) && is_number(number)).then_some(())?;
    Some((stem, count.parse().ok()?, end))
}

fn part(stem: &str, number: usize, count: usize, end: &str) -> String {
    format!("{stem}-{number:05}-of-{count:05}.{end}")
}

/// Makes `pointer` stand for `blob`. Where the system has no links, the blob itself goes there, as `huggingface_hub` does.
fn point(blob: &Path, pointer: &Path, depth: usize) -> std::io::Result<()> {
    let folder = pointer.parent().unwrap_or(pointer);
    std::fs::create_dir_all(folder)?;
    std::fs::remove_file(pointer).or_else(ignore_absent)?;
    let name = blob.file_name().unwrap_or_default();
    let relative: PathBuf = std::iter::repeat_n("..", depth + 2).collect::<PathBuf>().join("blobs").join(name);
    match symlink(&relative, pointer) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => std::fs::rename(blob, pointer),
    }
}

#[cfg(unix)]
fn symlink(to: &Path, from: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, from)
}

#[cfg(windows)]
fn symlink(to: &Path, from: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(to, from)
}

fn ignore_absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
