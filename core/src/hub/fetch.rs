//! One file of a repository, from the hub into the cache's `blobs`.
//!
//! What is under way is in `blobs/ETAG.incomplete`, as `huggingface_hub` has it. A file in LFS is known by its SHA-256, so
//! what an earlier process left of it is kept, the rest is asked for, and the whole is checked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::RemoteFile;
use super::cache::Cache;
use super::errors::Trouble;
use super::remote::{Piece, RETRIES, Remote, pause};
use crate::Error;

/// The repository that files are fetched from, and the cache that they go to.
pub(super) struct Fetch<'a, T: Fn(&str, u64)> {
    pub remote: &'a Remote,
    pub cache: &'a Cache,
    pub repo: &'a str,
    pub commit: &'a str,
    /// Hears of a file and the bytes of it that are there.
    pub told: T,
}

impl<T: Fn(&str, u64)> Fetch<'_, T> {
    /// Fetches `file` and puts it in the snapshot.
    pub async fn file(&self, file: &RemoteFile) -> Result<(), Trouble> {
        let blob = self.cache.blob(file);
        let _lock = lock(self.cache.lock(file)).await;
        let is_whole = || fs::metadata(&blob).is_ok_and(|found| found.len() == file.size);
        // Another process may have been here meanwhile.
        if !self.cache.has(self.commit, file) {
            if !is_whole() {
                self.blob(file, &blob).await?;
            }
            self.cache.link(self.commit, file).map_err(Trouble::Local)?;
        }
        (self.told)(&file.path, file.size);
        Ok(())
    }

    async fn blob(&self, file: &RemoteFile, blob: &Path) -> Result<(), Trouble> {
        let path = self.cache.part(file);
        let mut part = Part::open(path.clone(), file).await.map_err(|e| Trouble::io(&path, e))?;
        let mut failures = 0;
        loop {
            let before = part.len;
            match self.receive(file, &mut part).await {
                Ok(()) => match part.check(file) {
                    Ok(()) => break,
                    // What an earlier process left was wrong.
                    Err(_) if part.is_continued => part.restart().map_err(|e| Trouble::io(&path, e))?,
                    Err(error) => {
                        let _ = fs::remove_file(&path);
                        return Err(Trouble::Local(error));
                    }
                },
                // As long as something comes each time, it will be whole some time.
                Err(trouble) if trouble.passes() && failures < RETRIES => {
                    tracing::debug!("{}: {}: {trouble:?}, asking for the rest", self.repo, file.path);
                    failures = if part.len > before { 0 } else { failures + 1 };
                    pause(failures).await;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        fs::rename(&path, blob).map_err(|e| Trouble::io(blob, e))
    }

    /// Receives what `part` lacks.
    async fn receive(&self, file: &RemoteFile, part: &mut Part) -> Result<(), Trouble> {
        if part.len == file.size {
            return Ok(());
        }
        let range = (part.len > 0).then_some(part.len..file.size);
        let mut response = match self.remote.file(self.repo, self.commit, &file.path, range).await? {
            Piece::Range(response) => response,
            other => {
                part.restart().map_err(|e| Trouble::io(&part.path, e))?;
                match other {
                    Piece::Whole(response) => response,
                    _ => match self.remote.file(self.repo, self.commit, &file.path, None).await? {
                        Piece::Range(response) | Piece::Whole(response) => response,
                        Piece::None => return Err(Trouble::Short { expected: file.size, received: 0 }),
                    },
                }
            }
        };
        while let Some(piece) = response.chunk().await.map_err(Trouble::Network)? {
            let room = usize::try_from(file.size - part.len).unwrap_or(usize::MAX);
            if piece.len() > room {
                let remedy = "does a proxy or a login page answer in place of the hub?";
                let message =
                    format!("{}: {}: expected {} bytes, received more: {remedy}", self.repo, file.path, file.size);
                part.restart().map_err(|e| Trouble::io(&part.path, e))?;
                return Err(Trouble::Local(Error::Hub(message)));
            }
            part.append(&piece).map_err(|e| Trouble::io(&part.path, e))?;
            (self.told)(&file.path, part.len);
        }
        match part.len == file.size {
            true => Ok(()),
            false => Err(Trouble::Short { expected: file.size, received: part.len }),
        }
    }
}

/// A file that is under way.
struct Part {
    path: PathBuf,
    file: File,
    /// Bytes that are there.
    len: u64,
    /// Their sum, so far.
    sum: Sha256,
    /// Whether some of them are from an earlier process.
    is_continued: bool,
}

impl Part {
    /// What there is of `file`; without a sum to check the whole with, nothing.
    async fn open(path: PathBuf, file: &RemoteFile) -> io::Result<Part> {
        let (size, is_sum) = (file.size, file.is_sum);
        let opened = tokio::task::spawn_blocking(move || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = open(&path)?;
            let there = file.metadata()?.len();
            let len = if is_sum && there <= size { there } else { 0 };
            file.set_len(len)?;
            let sum = add(&mut file, Sha256::new())?;
            Ok(Part { path, file, len, sum, is_continued: len > 0 })
        });
        opened.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.sum.update(piece);
        self.len += piece.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.len, self.sum, self.is_continued) = (0, Sha256::new(), false);
        Ok(())
    }

    /// Whether the whole is what the hub has.
    fn check(&self, file: &RemoteFile) -> Result<(), Error> {
        if file.is_sum { compare(&self.path, &file.etag, &hexadecimal(self.sum.clone())) } else { Ok(()) }
    }
}

/// Opens what is under way for writing. One of another user's is replaced, where the folder allows that.
fn open(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    open().or_else(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => fs::remove_file(path).map_err(|_| e).and_then(|()| open()),
        _ => Err(e),
    })
}

/// Checks the sum of a blob that arrived by other means, and removes it if it is wrong.
pub(super) async fn check(cache: &Cache, file: &RemoteFile) -> Result<(), Trouble> {
    let (blob, wanted) = (cache.blob(file), file.etag.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let sum = File::open(&blob).and_then(|mut file| add(&mut file, Sha256::new()));
        let sum = sum.map_err(|e| Error::io(&blob, e))?;
        compare(&blob, &wanted, &hexadecimal(sum)).inspect_err(|_| drop(fs::remove_file(&blob)))
    });
    checked.await.unwrap_or_else(|e| Err(Error::Hub(e.to_string()))).map_err(Trouble::Local)
}

fn compare(path: &Path, wanted: &str, found: &str) -> Result<(), Error> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::file(path, format!("expected the SHA-256 {wanted}, received {found}; it was removed, try again")))
}

/// Adds the rest of a file to a sum.
fn add(file: &mut File, mut sum: Sha256) -> io::Result<Sha256> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum),
            count => sum.update(&buffer[..count]),
        }
    }
}

fn hexadecimal(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One process at a time fetches a file, Python's included: the others wait, and then find it. The lock ends with the
/// process, however that ends. A lock is a help, no condition: what two processes write at once is found by its sum. So one
/// that cannot be had, because the folder is read-only, the file is another user's, or the file system has no locks, is done
/// without.
async fn lock(path: PathBuf) -> Option<File> {
    let locked = tokio::task::spawn_blocking(move || {
        let _ = path.parent().map(fs::create_dir_all);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.or_else(|_| File::open(&path));
        let locked = file.and_then(|file| match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                tracing::info!("{}: another process downloads the file; waiting", path.display());
                file.lock().map(|()| file)
            }
            Err(TryLockError::Error(e)) => Err(e),
        });
        locked.inspect_err(|e| tracing::debug!("{}: no lock: {e}", path.display())).ok()
    });
    locked.await.ok().flatten()
}
