//! What the cache holds, and removing it.

use super::{
    Hub,
    cache::{Cache, names},
    select::{Source, Wanted},
};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
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
        if source.file.is_none() {
            let bytes = size(&folder);
            return match std::fs::remove_dir_all(&folder) {
                Ok(()) => Ok(bytes),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(absent()),
                Err(e) => Err(Error::io(&folder, e)),
            };
        }
        // The same file may be in several snapshots, and its blob behind other files, too.
        let wanted = Wanted::new(&source, &[])?;
        let (mut removed, mut kept) = (BTreeMap::new(), BTreeSet::new());
        for snapshot in folders(&folder.join("snapshots")) {
            for name in names(&snapshot) {
                let pointer = snapshot.join(&name);
                let Ok(content) = pointer.canonicalize() else { continue };
                if !wanted.matches(&name) {
                    kept.insert(content);
                    continue;
                }
                removed.insert(content, pointer.metadata().map_or(0, |m| m.len()));
                std::fs::remove_file(&pointer).map_err(|e| Error::io(&pointer, e))?;
            }
        }
        if removed.is_empty() {
            return Err(absent());
        }
        // What a link leads to outside of the cache is not the cache's to remove.
        let blobs = folder.join("blobs").canonicalize();
        let mut bytes = 0;
        for (content, size) in removed.into_iter().filter(|(content, _)| !kept.contains(content)) {
            if blobs.as_ref().is_ok_and(|blobs| content.starts_with(blobs)) {
                std::fs::remove_file(&content).map_err(|e| Error::io(&content, e))?;
            }
            bytes += if content.exists() { 0 } else { size };
        }
        Ok(bytes)
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
    (!files.is_empty()).then(|| Installed { id, files, bytes: size(folder), path })
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Bytes of the files that a repository has in the cache: of its blobs, and where there are no links, of its snapshots.
fn size(folder: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    ["blobs", "snapshots"].iter().map(|part| below(&folder.join(part), &mut seen)).sum()
}

/// Bytes of the files below a folder, those left out that are only pointed to, or have been seen under another name.
fn below(folder: &Path, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let each = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => below(&entry.path(), seen),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| if is_new(&m, seen) { m.len() } else { 0 }),
        _ => 0,
    };
    entries.map(each).sum()
}

/// Whether a file is not one with a second name of what has been seen.
#[cfg(unix)]
fn is_new(file: &std::fs::Metadata, seen: &mut BTreeSet<(u64, u64)>) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.nlink() == 1 || seen.insert((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn is_new(_: &std::fs::Metadata, _: &mut BTreeSet<(u64, u64)>) -> bool {
    true
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

    /// Windows without links, and copies of a cache: some or all snapshots hold the files themselves.
    #[cfg(unix)]
    #[test]
    fn sizes_count_files_that_are_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::builder().cache_dir(folder.path()).build().unwrap();
        let files = [("config.json", "{}"), ("model.safetensors", "12345"), ("x.gguf", "123")];
        for (moved, copied) in [(1, false), (3, false), (2, true)] {
            add(folder.path(), "org/a", &files);
            let repo = folder.path().join("models--org--a");
            for (name, content) in &files[..moved] {
                let pointer = repo.join("snapshots/abc").join(name);
                fs::remove_file(&pointer).unwrap();
                match copied {
                    true => fs::hard_link(repo.join("blobs").join(format!("blob-{name}")), &pointer).unwrap(),
                    false => {
                        fs::write(&pointer, content).unwrap();
                        fs::remove_file(repo.join("blobs").join(format!("blob-{name}"))).unwrap();
                    }
                }
            }
            if moved == 3 {
                fs::remove_dir_all(repo.join("blobs")).unwrap();
            }
            assert_eq!(hub.installed().unwrap()[0].bytes, 10, "{moved} files");
            assert_eq!(hub.remove("org/a:x.gguf").unwrap(), 3, "{moved} files");
            assert_eq!(hub.remove("org/a").unwrap(), 7, "{moved} files");
        }
    }

    /// One blob behind two files, a model in parts, and a link that leads out of the cache.
    #[cfg(unix)]
    #[test]
    fn removing_a_file_leaves_the_others_whole() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::builder().cache_dir(folder.path().join("hub")).build().unwrap();
        let parts = [("q-00001-of-00002.gguf", "123"), ("q-00002-of-00002.gguf", "45"), ("same.gguf", "678")];
        add(&folder.path().join("hub"), "org/a", &parts);
        let repo = folder.path().join("hub/models--org--a");
        symlink(repo.join("blobs/blob-same.gguf"), repo.join("snapshots/abc/again.gguf")).unwrap();
        fs::write(folder.path().join("mine.gguf"), "mine").unwrap();
        symlink(folder.path().join("mine.gguf"), repo.join("snapshots/abc/mine.gguf")).unwrap();
        assert_eq!(hub.remove("org/a:same.gguf").unwrap(), 0);
        assert_eq!(fs::read(repo.join("snapshots/abc/again.gguf")).unwrap(), b"678");
        assert_eq!(hub.remove("org/a:again.gguf").unwrap(), 3);
        assert_eq!(hub.remove("org/a:q-00001-of-00002.gguf").unwrap(), 5);
        assert_eq!(hub.remove("org/a:mine.gguf").unwrap(), 0);
        assert_eq!(fs::read(folder.path().join("mine.gguf")).unwrap(), b"mine");
        assert_eq!(hub.installed().unwrap(), []);
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
