//! A plugin directory that changes while the program runs.

use super::registry::{Registry, libraries};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Looks at a plugin directory from time to time and loads what has come.
///
/// What was loaded stays as it is: models that run keep their plugin, and the next one that is loaded gets the newest.
pub struct Watch {
    directory: PathBuf,
    seen: BTreeMap<PathBuf, Seen>,
    /// Why the directory could not be read the last time.
    trouble: Option<String>,
}

struct Seen {
    changed: Option<SystemTime>,
    bytes: u64,
    is_loaded: bool,
}

/// What [`Watch::poll`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The library, or the directory itself.
    pub path: PathBuf,
    /// The model types that it serves now, or why it serves none. The registry keeps the reason, too.
    pub outcome: Result<Vec<String>, String>,
}

impl Watch {
    /// Watches a directory, which need not exist yet.
    pub fn new(directory: &Path) -> Watch {
        Watch { directory: directory.to_owned(), seen: BTreeMap::new(), trouble: None }
    }

    /// Loads what is new or was changed. A file is loaded once it is found twice as it was: one that is still being
    /// copied is not yet a plugin.
    pub fn poll(&mut self, registry: &mut Registry) -> Vec<Change> {
        let paths = match libraries(&self.directory) {
            Ok(paths) => paths,
            Err(e) => {
                let is_news = self.directory.exists() && self.trouble.as_ref() != Some(&e);
                self.trouble = Some(e.clone());
                let change = Change { path: self.directory.clone(), outcome: Err(e) };
                return if is_news { vec![change] } else { Vec::new() };
            }
        };
        self.trouble = None;
        self.seen.retain(|path, _| paths.contains(path));
        let settled: Vec<PathBuf> = paths.into_iter().filter(|path| self.is_due(path)).collect();
        let load = |path: PathBuf| Change { outcome: registry.load_from_directory(&path), path };
        settled.into_iter().map(load).collect()
    }

    /// Whether a file has settled and is not loaded as it is.
    fn is_due(&mut self, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else { return false };
        let (changed, bytes) = (metadata.modified().ok(), metadata.len());
        match self.seen.get_mut(path) {
            Some(seen) if (seen.changed, seen.bytes) == (changed, bytes) => {
                !std::mem::replace(&mut seen.is_loaded, true)
            }
            _ => {
                self.seen.insert(path.to_owned(), Seen { changed, bytes, is_loaded: false });
                false
            }
        }
    }
}
