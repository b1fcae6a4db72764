//! Models in several files, `NAME-00001-of-0000N.gguf`.

use std::path::{Path, PathBuf};

use super::Metadata;
use crate::{Error, Result};

/// More files than this are not looked for.
const MAX_FILES: usize = 1024;

/// All files of the model that `path` belongs to, in order; by name alone, none is opened.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let Some((stem, count)) = path.file_name().and_then(|name| name.to_str()).and_then(numbered) else {
        return Ok(vec![path.to_owned()]);
    };
    if count > MAX_FILES {
        return Err(Error::file(path, format!("expected {MAX_FILES} files at most, the name says {count}")));
    }
    let files: Vec<_> = (1..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"))).collect();
    match files.iter().find(|file| !file.exists()) {
        Some(absent) => Err(Error::file(absent, format!("absent, but one of the {count} files of this model"))),
        None => Ok(files),
    }
}

/// `NAME-00002-of-00003.gguf` is `NAME`, 3.
fn numbered(name: &str) -> Option<(&str, usize)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| if s.len() == 5 { s.parse::<usize>().ok() } else { None };
    let (number, count) = (digits(number)?, digits(count)?);
    (1..=count).contains(&number).then_some((stem, count))
}

/// Checks what file `number` (from 0) of `count` says of itself.
pub(super) fn check(metadata: &Metadata, number: usize, count: usize) -> Result<(), String> {
    let said = metadata.u64("split.count").unwrap_or(1).max(1);
    if said != count as u64 {
        let remedy = "name the files NAME-00001-of-0000N.gguf, all of them in one directory";
        return Err(format!("split.count: the model has {said} files, found {count}; {remedy}"));
    }
    match metadata.u64("split.no") {
        Some(n) if n != number as u64 => Err(format!("split.no: expected {number}, found {n}")),
        None if count > 1 => Err("split.no: expected the number of this file, found none".into()),
        _ => Ok(()),
    }
}

/// Checks the number of tensors in all files together.
pub(super) fn check_total(metadata: &Metadata, found: usize) -> Result<(), String> {
    match metadata.u64("split.tensors.count") {
        Some(total) if total != found as u64 => {
            Err(format!("split.tensors.count: expected {total} tensors, found {found}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn names_of_numbered_files() {
        for (name, want) in [
            ("m-00002-of-00003.gguf", Some(("m", 3))),
            ("a-of-b-00001-of-00001.gguf", Some(("a-of-b", 1))),
            ("m.gguf", None),
            ("m-00004-of-00003.gguf", None),
            ("m-00000-of-00003.gguf", None),
            ("m-1-of-3.gguf", None),
            ("m-+0001-of-00003.gguf", None),
            ("m-00001-of-00003.bin", None),
        ] {
            assert_eq!(numbered(name), want, "{name}");
        }
    }
}
