//! How far a download is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hf_hub::progress::{DownloadEvent, FileStatus, ProgressEvent, ProgressHandler};
use tokio::{sync::Notify, time};

use super::RemoteFile;

/// A step of a download.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The file that a piece arrived of, as the repository names it.
    pub file: String,
    /// Bytes that are there, of all files, cached ones included.
    pub bytes: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// Adds up the client's reports, which are about single files.
pub(super) struct Tally<F> {
    sizes: HashMap<String, u64>,
    done: Mutex<HashMap<String, u64>>,
    heard: Notify,
    report: F,
}

impl<F: Fn(Progress) + Send + Sync> Tally<F> {
    pub(super) fn new(files: &[RemoteFile], report: F) -> Tally<F> {
        let sizes = files.iter().map(|file| (file.path.clone(), file.size)).collect();
        Tally { sizes, done: Mutex::default(), heard: Notify::new(), report }
    }

    /// Ends when the client has told nothing for so long.
    pub(super) async fn silence(&self, patience: Duration) {
        while time::timeout(patience, self.heard.notified()).await.is_ok() {}
    }

    pub(super) fn update(&self, file: &str, bytes: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        // Reports may come late and twice; progress only goes forward.
        let known = done.entry(file.to_owned()).or_default();
        if bytes > *known {
            *known = bytes;
            let (bytes, total) = (done.values().sum(), self.sizes.values().sum());
            (self.report)(Progress { file: file.to_owned(), bytes, total });
        }
    }
}

impl<F: Fn(Progress) + Send + Sync> ProgressHandler for Tally<F> {
    fn on_progress(&self, event: &ProgressEvent) {
        self.heard.notify_one();
        let ProgressEvent::Download(DownloadEvent::Progress { files }) = event else { return };
        for file in files {
            let Some(&size) = self.sizes.get(&file.filename) else { continue };
            // Files that were in the cache are reported complete with a size of zero.
            let complete = file.status == FileStatus::Complete;
            self.update(&file.filename, if complete { size } else { file.bytes_completed.min(size) });
        }
    }
}
