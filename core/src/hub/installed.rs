//! What the cache holds, and removing it.

use super::{
    Hub,
    cache::{Cache, names},
    select::Source,
};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A model of the hub that is on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    /// `org/name`.
    pub id: String,
    /// The snapshot that was used last.
    pub path: PathBuf,
    /// Files of that snapshot, with `/` between folders.
    pub files: Vec<String>,
    /// Bytes on disk, all snapshots together.
    pub bytes: u64,
}

impl Hub {
    /// The models in the cache, by name.
    ///
    /// # Errors
    /// [`Error::Io`] if the cache is there and cannot be read.
    pub fn installed(&self) -> Result<Vec<Installed>> {
        let folder = self.client.cache_dir();
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(folder, e)),
        };
        let id = |entry: std::fs::DirEntry| {
            let name = entry.file_name().to_str()?.strip_prefix("models--")?.replace("--", "/");
            Some((name, entry.path()))
        };
        let mut models: Vec<_> =
            entries.flatten().filter_map(id).filter_map(|(id, path)| installed(id, &path)).collect();
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(models)
    }

    /// Removes a model from the cache, or of `org/name:file.gguf` that one file. Gives the bytes that became free.
    ///
    /// # Errors
    /// [`Error::Hub`] if it is not there, [`Error::Io`] if it cannot be removed.
    pub fn remove(&self, id: &str) -> Result<u64> {
        let source = Source::parse(id)?;
        let folder = Cache::new(self.client.cache_dir(), &source.repo).folder;
        let absent = || Error::Hub(format!("{id} is not in the cache at {}", self.client.cache_dir().display()));
        let Some(file) = source.file else {
            let bytes = size(&folder.join("blobs"));
            return match std::fs::remove_dir_all(&folder) {
                Ok(()) => Ok(bytes),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(absent()),
                Err(e) => Err(Error::io(&folder, e)),
            };
        };
        // The same file may be in several snapshots, and its blob behind all of them.
        let mut blobs = Vec::new();
        for snapshot in folders(&folder.join("snapshots")) {
            let pointer = snapshot.join(&file);
            if let Ok(blob) = pointer.canonicalize() {
                blobs.push((blob.metadata().map_or(0, |m| m.len()), blob));
                std::fs::remove_file(&pointer).map_err(|e| Error::io(&pointer, e))?;
            }
        }
        blobs.sort();
        blobs.dedup();
        for (_, blob) in blobs.iter().filter(|(_, blob)| blob.exists()) {
            std::fs::remove_file(blob).map_err(|e| Error::io(blob, e))?;
        }
        if blobs.is_empty() { Err(absent()) } else { Ok(blobs.iter().map(|(bytes, _)| bytes).sum()) }
    }
}

/// What is kept of a repository; nothing if no snapshot has a file.
fn installed(id: String, folder: &Path) -> Option<Installed> {
    let main = std::fs::read_to_string(folder.join("refs/main")).ok();
    let main = main.map(|commit| folder.join("snapshots").join(commit.trim()));
    let written = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
    let last = || folders(&folder.join("snapshots")).into_iter().max_by_key(written);
    let path = main.filter(|path| path.is_dir()).or_else(last)?;
    let mut files = names(&path);
    files.sort();
    (!files.is_empty()).then(|| Installed { id, files, bytes: size(&folder.join("blobs")).max(size(&path)), path })
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Bytes of the files below a folder, those that are only pointed to left out.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let each = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| m.len()),
        _ => 0,
    };
    entries.map(each).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A cache as the hub's own tools leave it: blobs, and snapshots that point at them.
    fn add(cache: &Path, repo: &str, files: &[(&str, &str)]) {
        let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
        let snapshot = folder.join("snapshots/abc");
        for name in ["blobs", "refs"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(folder.join("refs/main"), "abc").unwrap();
        for (name, content) in files {
            let blob = folder.join("blobs").join(format!("blob-{name}"));
            fs::write(&blob, content).unwrap();
            #[cfg(unix)]
            std::os::unix::fs::symlink(&blob, snapshot.join(name)).unwrap();
            #[cfg(not(unix))]
            fs::copy(&blob, snapshot.join(name)).unwrap();
        }
    }

    #[test]
    fn models_are_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::builder().cache_dir(folder.path()).build().unwrap();
        assert_eq!(hub.installed().unwrap(), []);
        add(folder.path(), "org/b", &[("config.json", "{}"), ("model.safetensors", "12345")]);
        add(folder.path(), "org/a", &[("x.gguf", "123"), ("y.gguf", "1")]);
        fs::create_dir_all(folder.path().join("models--org--empty/snapshots")).unwrap();
        fs::create_dir_all(folder.path().join("datasets--org--c")).unwrap();
        let models = hub.installed().unwrap();
        let found: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.files.len())).collect();
        assert_eq!(found, [("org/a", 2), ("org/b", 2)]);
        assert_eq!(models[1].files, ["config.json", "model.safetensors"]);
        #[cfg(unix)]
        assert_eq!(models[1].bytes, 7);

        assert_eq!(hub.remove("org/a:x.gguf").unwrap(), 3);
        assert_eq!(hub.installed().unwrap()[0].files, ["y.gguf"]);
        assert!(hub.remove("org/a:x.gguf").unwrap_err().to_string().contains("is not in the cache"));
        assert_eq!(hub.remove("org/b").unwrap(), 7);
        assert!(hub.remove("org/b").unwrap_err().to_string().contains("is not in the cache"));
        assert!(hub.remove("../../etc").is_err());
        assert_eq!(hub.installed().unwrap().len(), 1);
    }
}
