//! A file's bytes, mapped once and shared by every tensor that lies in it.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sniff;
use crate::{Error, Result};

/// The bytes of one file: mapped from disk, or held in memory.
pub struct Mapping {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Mapping {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The system refuses, `path` is not a regular file, or the file is a stand-in for the real one (a Git LFS pointer, an
    /// HTML page).
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> Result<Arc<Mapping>> {
        // Opening a pipe would block, and a device has no length: look before opening.
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            return Err(Error::file(path, "expected a regular file"));
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the mapping is read-only and every access is bounds-checked against the length
        // at this moment. A file that another process cuts short meanwhile raises a fault, as for
        // every program that maps its weights; nothing here can be corrupted by it.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        if let Some(reason) = sniff::not_a_model_file(&map) {
            return Err(Error::file(path, reason));
        }
        Ok(Arc::new(Mapping { path: path.to_owned(), bytes: Bytes::Mapped(map) }))
    }

    /// Bytes that are in memory already; `path` is what errors call them.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Arc<Mapping> {
        Arc::new(Mapping { path: path.into(), bytes: Bytes::Owned(bytes) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// A range of a mapping that is known to lie inside it.
#[derive(Clone)]
pub(super) struct Slice {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Slice {
    /// The bytes `range` of `mapping`, if it has them.
    pub fn new(mapping: &Arc<Mapping>, range: Range<usize>) -> Option<Slice> {
        mapping.get(range.clone())?;
        Some(Slice { mapping: mapping.clone(), range })
    }

    /// All bytes of `mapping`.
    pub fn of(mapping: Arc<Mapping>) -> Slice {
        let range = 0..mapping.len();
        Slice { mapping, range }
    }

    /// The bytes `range` of these, if it has them.
    pub fn part(&self, range: Range<usize>) -> Option<Slice> {
        let (start, end) = (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        (end <= self.range.end).then(|| Slice::new(&self.mapping, start..end))?
    }

    /// The file these bytes lie in.
    pub fn path(&self) -> &Path {
        self.mapping.path()
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping[self.range.clone()]
    }
}
