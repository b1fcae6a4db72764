//! Which files of which repository.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::cache::{INDEX, numbers};
use super::{MODEL_FILES, RemoteFile};
use crate::{Error, Result};

/// What a model id names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Source {
    /// `org/name`, or a name alone.
    pub repo: String,
    /// One GGUF file.
    pub file: Option<String>,
}

impl Source {
    pub(super) fn parse(id: &str) -> Result<Source> {
        let malformed =
            || Error::Hub(format!("model id: expected `org/name`, or `org/name:file.gguf` for one file, found `{id}`"));
        let (repo, file) = match id.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => match id.match_indices('/').nth(1) {
                Some((at, _)) => (&id[..at], Some(&id[at + 1..])),
                None => (id, None),
            },
        };
        let is_name = |part: &str| {
            let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            plain && !part.is_empty() && !part.starts_with('.') && !part.contains("--") && !part.contains("..")
        };
        let is_repo = repo.split('/').count() <= 2 && repo.split('/').all(is_name);
        let is_file = |file: &str| file.ends_with(".gguf") && is_inside(file);
        if !is_repo || file.is_some_and(|file| !is_file(file)) {
            return Err(malformed());
        }
        Ok(Source { repo: repo.to_owned(), file: file.map(str::to_owned) })
    }
}

/// `revision`, if it can be part of a path.
pub(super) fn check_revision(revision: &str) -> Result<&str> {
    if is_inside(revision) {
        return Ok(revision);
    }
    Err(Error::Hub(format!("revision: expected a branch, a tag or a commit, found `{revision}`")))
}

/// Whether a path with `/` stays inside of its folder on every system.
fn is_inside(path: &str) -> bool {
    !path.contains(['\\', ':']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A glob that matches `path` and nothing else.
pub(super) fn literally(path: &str) -> String {
    globset::escape(path)
}

/// The files to fetch.
pub(super) struct Wanted {
    globs: GlobSet,
    /// The globs as they were given, for messages.
    pub described: String,
    /// The one file that was asked for.
    pub file: Option<String>,
    /// Whether this is a whole model, so that a second copy of the weights can stay away.
    pub model: bool,
}

impl Wanted {
    pub(super) fn new(source: &Source, globs: &[&str]) -> Result<Wanted> {
        let globs: Vec<String> = match &source.file {
            Some(file) => vec![shards(file)],
            None => globs.iter().map(|&glob| glob.to_owned()).collect(),
        };
        let mut set = GlobSetBuilder::new();
        for glob in &globs {
            let parsed = GlobBuilder::new(glob).literal_separator(true).build();
            set.add(parsed.map_err(|error| Error::Hub(format!("glob `{glob}`: {error}")))?);
        }
        let set = set.build().map_err(|error| Error::Hub(format!("globs: {error}")))?;
        let (described, model) = (globs.join(", "), globs == MODEL_FILES);
        Ok(Wanted { globs: set, described, file: source.file.clone(), model })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.globs.is_match(path)
    }

    /// The wanted ones among `files`; at least one.
    pub(super) fn choose(&self, files: Vec<RemoteFile>, repo: &str) -> Result<Vec<RemoteFile>> {
        let names: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let mut chosen = files;
        chosen.retain(|file| self.matches(&file.path) && is_inside(&file.path));
        let has = |test: fn(&str) -> bool| chosen.iter().any(|file| test(&file.path));
        let ggufs = names.iter().filter(|name| name.ends_with(".gguf")).map(String::as_str).collect::<Vec<_>>();
        if self.model && !has(|path| path.ends_with(".safetensors")) && !ggufs.is_empty() {
            let ggufs = ggufs.join(", ");
            return Err(Error::Hub(format!("{repo} holds GGUF files, choose one as `{repo}:FILE`: {ggufs}")));
        }
        // Mistral publishes every weight twice, once under the names of its own software.
        if self.model && has(|path| path.starts_with("model") && path.ends_with(".safetensors")) {
            chosen.retain(|file| !file.path.starts_with("consolidated"));
        }
        // Without an index a whole file counts, and its numbered parts are left over, as for transformers.
        let is_indexed = chosen.iter().any(|file| file.path == INDEX);
        if self.model && !is_indexed && chosen.iter().any(|file| file.path == "model.safetensors") {
            let is_part = |path: &str| path.ends_with(".safetensors") && numbers(path).is_some();
            chosen.retain(|file| !is_part(&file.path));
        }
        if chosen.is_empty() {
            let (wanted, found) = (&self.described, names.join(", "));
            return Err(Error::Hub(format!("{repo}: expected files like {wanted}, found: {found}")));
        }
        Ok(chosen)
    }
}

/// A glob for a GGUF file and, where it is one of several parts (`name-00001-of-00003.gguf`), for all
/// of them.
fn shards(file: &str) -> String {
    match parts(file) {
        Some((name, count)) => format!("{}-?????-of-{count}.gguf", literally(name)),
        None => literally(file),
    }
}

/// The first part of a GGUF file in several, or the file.
pub(super) fn first_part(file: &str) -> String {
    parts(file).map_or_else(|| file.to_owned(), |(name, count)| format!("{name}-00001-of-{count}.gguf"))
}

/// Of a GGUF file that is one of several parts: its name, and how many.
fn parts(file: &str) -> Option<(&str, &str)> {
    let stem = file.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(count) && is_number(number)).then_some((name, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_repositories_or_files() {
        let source = |repo: &str, file: Option<&str>| Source { repo: repo.into(), file: file.map(str::to_owned) };
        let cases = [
            ("org/name", Some(source("org/name", None))),
            ("gpt2", Some(source("gpt2", None))),
            ("org/na.me:q4.gguf", Some(source("org/na.me", Some("q4.gguf")))),
            ("org/name/sub/q4.gguf", Some(source("org/name", Some("sub/q4.gguf")))),
            ("org/name/weights.bin", None),
            ("org/name:../q4.gguf", None),
            ("../name", None),
            ("org/", None),
            ("", None),
            ("/models/mine", None),
        ];
        for (id, wanted) in cases {
            assert_eq!(Source::parse(id).ok(), wanted, "{id}");
        }
        assert!(check_revision("refs/pr/1").is_ok() && check_revision("../main").is_err());
    }

    fn choose(id: &str, globs: &[&str], files: &[&str]) -> Result<Vec<String>, String> {
        let source = Source::parse(id).unwrap();
        let files = files.iter().map(|path| RemoteFile { path: (*path).into(), ..RemoteFile::default() }).collect();
        let chosen = Wanted::new(&source, globs).unwrap().choose(files, &source.repo);
        chosen.map(|files| files.into_iter().map(|file| file.path).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_chosen_by_what_they_are_for() {
        let files = [
            "config.json",
            "hf_quant_config.json",
            "quantize_config.json",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
        ];
        assert_eq!(choose("o/n", MODEL_FILES, &files).unwrap(), files);
        assert_eq!(choose("o/n", super::super::TOKENIZER_FILES, &files).unwrap(), files);
        let files = ["config.json", "model.safetensors", "consolidated.safetensors", "onnx/a.json", "x.bin"];
        assert_eq!(choose("o/n", MODEL_FILES, &files).unwrap(), ["config.json", "model.safetensors"]);
        let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors"];
        assert_eq!(choose("o/n", MODEL_FILES, &parts).unwrap(), parts[2..]);
        assert_eq!(choose("o/n", MODEL_FILES, &parts[..2]).unwrap(), parts[..2]);
        let indexed = [&parts[..], &["model.safetensors.index.json"]].concat();
        assert_eq!(choose("o/n", MODEL_FILES, &indexed).unwrap(), indexed);
        assert_eq!(choose("o/n", &["onnx/*"], &files).unwrap(), ["onnx/a.json"]);
        assert_eq!(choose("o/n", &["*.safetensors"], &files).unwrap().len(), 2);
        let parts = ["q-00001-of-00002.gguf", "q-00002-of-00002.gguf", "q.gguf", "[q].gguf"];
        assert_eq!(choose("o/n:q-00001-of-00002.gguf", &[], &parts).unwrap(), parts[..2]);
        assert_eq!(choose("o/n/[q].gguf", &[], &parts).unwrap(), ["[q].gguf"]);
        assert_eq!(
            choose("o/n", MODEL_FILES, &["a.gguf", "config.json"]).unwrap_err(),
            "o/n holds GGUF files, choose one as `o/n:FILE`: a.gguf"
        );
        assert_eq!(
            choose("o/n", &["*.jinja"], &["a.bin", "b.bin"]).unwrap_err(),
            "o/n: expected files like *.jinja, found: a.bin, b.bin"
        );
    }
}
