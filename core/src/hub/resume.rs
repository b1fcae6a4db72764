//! Downloads that broke off, continued; and sums of what arrived.
//!
//! The client writes to `blobs/ETAG.incomplete` and begins anew each time. Here what is there is kept: the rest
//! is asked for, and the whole is checked. The etag of a large file is the SHA-256 of its content.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use hf_hub::{HFError, HFRepository, RepoTypeModel};
use sha2::{Digest, Sha256};

use super::RemoteFile;
use crate::{Error, Result};

/// The blobs of a repository in the cache.
pub(super) struct Blobs {
    folder: PathBuf,
    /// Names of those that were whole when this was made.
    whole: HashSet<String>,
}

impl Blobs {
    /// Of the repository at `folder` in the cache.
    pub fn of(folder: &Path) -> Blobs {
        let folder = folder.join("blobs");
        let names = names(&folder);
        Blobs { whole: names.into_iter().filter(|name| !name.ends_with(".incomplete")).collect(), folder }
    }

    /// Continues what earlier processes left of `files`. `told` hears of a file and the bytes that are there.
    pub async fn finish(
        &self,
        repo: &HFRepository<RepoTypeModel>,
        revision: &str,
        files: &[RemoteFile],
        told: &impl Fn(&str, u64),
    ) -> Result<(), HFError> {
        let names = names(&self.folder);
        let broken: HashSet<&str> = names.iter().filter_map(|name| name.strip_suffix(".incomplete")).collect();
        if !broken.iter().any(|etag| is_sum(etag)) {
            return Ok(());
        }
        for file in files {
            let seen = repo.get_file_metadata().filepath(&file.path).revision(revision).send().await?;
            let whole = self.folder.join(&seen.etag);
            let part = self.folder.join(format!("{}.incomplete", seen.etag));
            let there = fs::metadata(&part).map_or(0, |found| found.len());
            if !broken.contains(&seen.etag[..]) || !is_sum(&seen.etag) || whole.exists() || there == 0 {
                continue;
            }
            if there < file.size {
                let rest = repo.download_file_stream().filename(&file.path).revision(revision);
                let (_, mut pieces) = rest.range(there..file.size).send().await?;
                let mut out = OpenOptions::new().append(true).open(&part)?;
                let mut there = there;
                // A server that does not know ranges sends all of it; the sum will tell.
                while let Some(piece) = pieces.try_next().await?
                    && there <= file.size
                {
                    out.write_all(&piece)?;
                    there += piece.len() as u64;
                    told(&file.path, there);
                }
            }
            // What is wrong is not kept; the client then begins anew.
            match sum(&part) {
                Ok(sum) if sum == seen.etag => fs::rename(&part, &whole)?,
                _ => fs::remove_file(&part)?,
            }
        }
        Ok(())
    }

    /// Checks the sums of what has arrived since. What is damaged is removed: it would be taken for good
    /// the next time.
    pub fn check(&self) -> Result<()> {
        for name in names(&self.folder) {
            if !is_sum(&name) || self.whole.contains(&name) {
                continue;
            }
            let path = self.folder.join(&name);
            let found = sum(&path).map_err(|e| Error::io(&path, e))?;
            if found != name {
                fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
                let message = format!("expected the SHA-256 {name}, received {found}; it was removed, try again");
                return Err(Error::file(path, message));
            }
        }
        Ok(())
    }
}

/// One process at a time downloads a repository: the others wait, and then find it. The lock ends with the
/// process, however that ends.
pub(super) async fn lock(cache_dir: &Path, repo_folder: String) -> Result<File> {
    let path = cache_dir.join(".locks").join(repo_folder).join("tamarack.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let open = || -> std::io::Result<File> {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let file = File::create(&path)?;
            if file.try_lock().is_err() {
                tracing::info!("{}: another process downloads the model; waiting", path.display());
                file.lock()?;
            }
            Ok(file)
        };
        open().map_err(|e| Error::io(&path, e))
    });
    locked.await.map_err(|e| Error::Hub(format!("waiting for another download failed: {e}")))?
}

/// Whether an etag is a SHA-256.
fn is_sum(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The SHA-256 of a file, in hexadecimal.
fn sum(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
