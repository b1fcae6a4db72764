//! Which files of a model's folder hold its weights, as `transformers` chooses them
//! (`modeling_utils.py`, `_get_resolved_checkpoint_files`).
//!
//! Folders often hold more than one copy: a quantizer that rewrites a model may leave the index of the original beside its
//! own single file, and a repository may offer variants of one model side by side.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::json::read_json;
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The chosen files.
pub(super) struct WeightFiles {
    /// In the order in which they are read.
    pub files: Vec<PathBuf>,
    /// The file that an index names for a tensor. It decides where two files hold the same tensor.
    pub owners: BTreeMap<String, PathBuf>,
}

/// Chooses the weight files of `folder`:
///
/// 1. `model.safetensors`, unless a complete index names it among others;
/// 2. the files of the index, if all of them are there;
/// 3. one complete set of `model*.safetensors`, then of `weight*.safetensors`, then of any other name.
///
/// # Errors
/// There is no file, a set lacks some of its files, two sets are equally good, or the index names a file outside the folder.
pub(super) fn choose(folder: &Path) -> Result<WeightFiles> {
    let index_path = folder.join(INDEX);
    let has_single = folder.join(SINGLE).exists();
    let owners = match index_path.exists().then(|| owners(&index_path)) {
        Some(Err(e)) if has_single => {
            tracing::warn!("the index is ignored: {e}");
            BTreeMap::new()
        }
        Some(owners) => owners?,
        None => BTreeMap::new(),
    };
    let mut named: Vec<PathBuf> = owners.values().cloned().collect();
    named.sort();
    named.dedup();
    let absent = named.iter().find(|file| !folder.join(file).exists());
    let is_complete = !named.is_empty() && absent.is_none();
    let names_single = named.iter().any(|file| file == Path::new(SINGLE));
    if is_complete && (names_single || !has_single) {
        return Ok(WeightFiles { files: named, owners });
    }
    if has_single {
        return Ok(WeightFiles { files: vec![SINGLE.into()], owners: BTreeMap::new() });
    }
    let others = unindexed(folder)?;
    if let Some(absent) = absent
        && others.iter().all(|file| named.iter().any(|name| name == Path::new(file)))
    {
        let of = named.len();
        let message = format!("{} is absent, one of the {of} files that hold the model: download it", absent.display());
        return Err(Error::file(index_path, message));
    }
    if others.is_empty() {
        return Err(Error::file(folder, "expected *.safetensors files, found none: is the model complete?"));
    }
    let files = one_set(folder, &others)?;
    Ok(WeightFiles { files: files.into_iter().map(PathBuf::from).collect(), owners: BTreeMap::new() })
}

/// The file of each tensor, by the index.
fn owners(index: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let json = read_json(index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| Error::file(index, "expected an object `weight_map`"))?;
    let owner = |(name, file): (&String, &Value)| {
        let inside = file.as_str().filter(|file| is_inside(file));
        let wrong = || Error::file(index, format!("{name}: expected a .safetensors file in this folder, found {file}"));
        Ok((name.clone(), PathBuf::from(inside.ok_or_else(wrong)?)))
    };
    map.iter().map(owner).collect()
}

/// Files `model*`, or else `weight*`, or else all but adapters.
fn unindexed(folder: &Path) -> Result<Vec<String>> {
    let names = file_names(folder)?;
    let files = |prefix: &str| -> Vec<String> {
        let is_weights = |n: &&String| n.ends_with(".safetensors") && !n.starts_with("adapter");
        names.iter().filter(|n| n.starts_with(prefix)).filter(is_weights).cloned().collect()
    };
    Ok(["model", "weight", ""].map(files).into_iter().find(|files| !files.is_empty()).unwrap_or_default())
}

/// The name `STEM-NUMBER-of-COUNT[.VARIANT].safetensors`, without its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Set<'a> {
    stem: &'a str,
    count: usize,
    variant: &'a str,
}

impl<'a> Set<'a> {
    /// The set that a file belongs to, and its number there.
    fn of(name: &'a str) -> Option<(Set<'a>, usize)> {
        let (stem, rest) = name.strip_suffix(".safetensors")?.split_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (count, variant) = rest.split_at(digits);
        Some((Set { stem, count: count.parse().ok()?, variant }, number.parse().ok()?))
    }

    /// The name of one of its files.
    fn file(&self, number: usize) -> String {
        format!("{}-{number:05}-of-{:05}{}.safetensors", self.stem, self.count, self.variant)
    }
}

/// The files of the only complete set. Files whose names do not say which set they belong to are one set together, as `mlx-lm`
/// takes them.
fn one_set(folder: &Path, names: &[String]) -> Result<Vec<String>> {
    let mut sets: BTreeMap<Set, BTreeMap<usize, &String>> = BTreeMap::new();
    let mut loose = Vec::new();
    for name in names {
        match Set::of(name) {
            Some((set, number)) => drop(sets.entry(set).or_default().insert(number, name)),
            None => loose.push(name.clone()),
        }
    }
    let is_whole = |(set, files): &(&Set, &BTreeMap<usize, &String>)| files.keys().copied().eq(1..=set.count);
    let mut whole = sets.iter().filter(is_whole);
    if let Some((set, files)) = whole.next() {
        return match whole.next() {
            None => Ok(files.values().map(|name| (*name).clone()).collect()),
            Some((other, _)) => {
                let copies = [set, other].map(|set| set.file(1)).join(" and ");
                Err(Error::file(folder, format!("{copies} begin two copies of the model: remove one of them")))
            }
        };
    }
    match sets.first_key_value() {
        Some((set, files)) if loose.is_empty() => {
            let lacks = (1..=set.count).find(|number| !files.contains_key(number)).unwrap_or(1);
            let message = format!("{} is absent, one of {} files: download it", set.file(lacks), set.count);
            Err(Error::file(folder, message))
        }
        _ => Ok(loose),
    }
}

/// The names in a directory that are text, sorted.
pub(super) fn file_names(path: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))? {
        let entry = entry.map_err(|e| Error::io(path, e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Whether a name from an index stays within the folder.
fn is_inside(name: &str) -> bool {
    let is_name = |c: Component| matches!(c, Component::Normal(_));
    name.ends_with(".safetensors") && !name.contains(['\\', ':', '\0']) && Path::new(name).components().all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is chosen in a folder of these files, or the error; `index` is what an index names.
    fn chosen(files: &[&str], index: Option<&[&str]>) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        if let Some(index) = index {
            let map: Value = index.iter().enumerate().map(|(i, file)| (i.to_string(), json!(file))).collect();
            std::fs::write(folder.path().join(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
        }
        let files = choose(folder.path()).map_err(|e| e.to_string())?.files;
        Ok(files.iter().map(|f| f.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn an_index_counts_only_if_all_its_files_are_there() {
        let [one, two] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        for (files, index, wanted) in [
            (vec![one, two], vec![one, two], vec![one, two]),
            (vec![SINGLE], vec![one, two], vec![SINGLE]),
            (vec![SINGLE, one], vec![one, two], vec![SINGLE]),
            (vec![SINGLE, one, two], vec![one, two], vec![SINGLE]),
            (vec![SINGLE, "extra.safetensors"], vec![SINGLE, "extra.safetensors"], vec!["extra.safetensors", SINGLE]),
            (vec!["model.fp16.safetensors"], vec![one, two], vec!["model.fp16.safetensors"]),
            (vec![SINGLE], vec!["../model.safetensors"], vec![SINGLE]),
            (vec!["sub/a.safetensors", "sub/b.safetensors"], vec!["sub/a.safetensors"], vec!["sub/a.safetensors"]),
        ] {
            assert_eq!(chosen(&files, Some(&index)).unwrap(), wanted, "{files:?} with an index of {index:?}");
        }
    }

    #[test]
    fn copies_without_an_index_are_told_apart() {
        let [one, two] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let half = "model-00001-of-00003.safetensors";
        let fp16 = ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"];
        for (files, wanted) in [
            (vec![SINGLE, half], vec![SINGLE]),
            (vec![SINGLE, "model.fp16.safetensors", "consolidated.safetensors"], vec![SINGLE]),
            (vec![one, two, "consolidated.safetensors"], vec![one, two]),
            (vec![one, two, half], vec![one, two]),
            (vec![fp16[0], fp16[1]], vec![fp16[0], fp16[1]]),
            (
                vec!["weights.00.safetensors", "weights.01.safetensors"],
                vec!["weights.00.safetensors", "weights.01.safetensors"],
            ),
            (vec!["adapter_model.safetensors", "llm.safetensors"], vec!["llm.safetensors"]),
        ] {
            assert_eq!(chosen(&files, None).unwrap(), wanted, "{files:?}");
        }
    }

    #[test]
    fn what_is_absent_or_outside_is_named() {
        let [one, two] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        for (files, index, wanted) in [
            (vec![one], Some(vec![one, two]), "model-00002-of-00002.safetensors is absent, one of the 2 files"),
            (vec![two], None, "model-00001-of-00002.safetensors is absent, one of 2 files"),
            (vec![], None, "expected *.safetensors files, found none"),
            (vec!["adapter_model.safetensors"], None, "expected *.safetensors files, found none"),
            (vec![one, two, "model-00001-of-00001.safetensors"], None, "begin two copies of the model"),
            (vec![], Some(vec!["../model.safetensors"]), "expected a .safetensors file in this folder"),
            (vec![one], Some(vec!["/tmp/model.safetensors"]), "expected a .safetensors file in this folder"),
            (vec![], Some(vec!["pytorch_model.bin"]), "expected a .safetensors file in this folder"),
        ] {
            let error = chosen(&files, index.as_deref()).unwrap_err();
            assert!(error.contains(wanted), "{files:?} with {index:?}: {error}");
        }
    }
}
