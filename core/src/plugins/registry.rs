//! Every architecture of a program in order of precedence, and every plugin that failed to load.

use super::{
    found::{Code, Found, Source},
    library::{Library, refuse_world_writable, unreadable},
    limit::TIME_LIMIT,
};
use crate::{Error, Result};
use serde::{Serialize, Serializer};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tamarack_api::{Architecture, Declaration, Kind, Registration, plugin::guarded, private::inventory};

/// The environment variable that lists plugin directories, separated as in `PATH`.
pub const PLUGIN_PATH: &str = "TAMARACK_PLUGIN_PATH";

/// The user's own plugin directory, `~/.local/share/tamarack/plugins` on Linux. It need not exist.
pub fn user_directory() -> Option<PathBuf> {
    Some(directories::ProjectDirs::from("", "", "tamarack")?.data_local_dir().join("plugins"))
}

/// What wins over what, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Explicit,
    Directory,
    Linked,
}

/// The architectures that a program knows.
///
/// Where several serve one model type, one that the program registered or whose file it named wins over
/// one from a plugin directory, and that over one that is linked in; among equals the later addition
/// wins, and in one directory the first file name. What loses is kept, for [`Registry::list`].
///
/// Cloning is cheap, and the clone is independent.
#[derive(Clone, Default)]
pub struct Registry {
    /// In order of precedence.
    plugins: Vec<(Rank, Found)>,
    failures: Vec<Failure>,
    /// How long a library may take to load, and then to record.
    limit: Option<Duration>,
}

/// A plugin that is not available.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// The library or directory; for a linked plugin, the package.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What a registry holds, for people and for `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// In order of precedence.
    pub plugins: Vec<Listed>,
    /// In the order of loading.
    pub failures: Vec<Failure>,
}

/// One architecture of a [`Listing`].
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Listed {
    /// The architecture's name.
    pub name: String,
    /// The `model_type`s that it can serve.
    pub model_types: Vec<String>,
    /// See [`Found::package`].
    pub package: String,
    /// See [`Found::version`].
    pub version: String,
    /// Where it comes from.
    pub source: Source,
    /// The model types that another plugin serves in its stead, and where that one comes from.
    pub shadowed_by: BTreeMap<String, Source>,
}

impl Registry {
    /// The plugins that are linked into this program.
    pub fn linked() -> Registry {
        let mut registry = Registry::default();
        let mut linked = Vec::new();
        for r in inventory::iter::<Registration> {
            match guarded(|| Ok(r.architecture.declaration())) {
                Ok(d) => linked.push(Found::new(d, [r.package, r.version], Source::Linked, Code::Here(r.architecture))),
                Err(e) => registry.fail(Path::new(r.package), e),
            }
        }
        // The linker's own order changes from build to build.
        linked.sort_by(|a, b| (&a.declaration().name, a.package()).cmp(&(&b.declaration().name, b.package())));
        registry.insert(Rank::Linked, linked);
        registry
    }

    /// The linked plugins, those of the user's plugin directory, and those of the directories that
    /// `$TAMARACK_PLUGIN_PATH` lists, of which the first wins. What fails is kept, see
    /// [`Registry::list`].
    pub fn from_env() -> Registry {
        let mut registry = Registry::linked();
        if let Some(directory) = user_directory().filter(|d| d.exists()) {
            registry.load_dir(&directory);
        }
        registry.load_path(&env::var_os(PLUGIN_PATH).unwrap_or_default());
        registry
    }

    /// Loads every library of a list of directories. An empty or relative entry would mean the working
    /// directory, where a plugin must never come from by accident.
    fn load_path(&mut self, list: &OsStr) {
        let mut directories: Vec<PathBuf> = env::split_paths(list).filter(|d| !d.as_os_str().is_empty()).collect();
        directories.reverse();
        for directory in directories {
            match directory.is_absolute() {
                true => self.load_dir(&directory),
                false => {
                    self.fail(&directory, format!("is relative: name plugin directories in full in {PLUGIN_PATH}"))
                }
            }
        }
    }

    /// Loads every library of a directory, not of those in it. One that fails is kept as a failure and
    /// does not stop the others.
    pub fn load_dir(&mut self, directory: &Path) {
        match libraries(directory) {
            Ok(paths) => {
                let found = paths.iter().flat_map(|path| self.open(path).unwrap_or_default()).collect();
                self.insert(Rank::Directory, found);
            }
            Err(e) => self.fail(directory, e),
        }
    }

    /// Loads one library that has come into a plugin directory; the model types that it serves.
    pub(super) fn load_from_directory(&mut self, path: &Path) -> Result<Vec<String>, String> {
        let found = self.open(path)?;
        let types = found.iter().flat_map(|f| f.declaration().model_types.clone()).collect();
        self.insert(Rank::Directory, found);
        Ok(types)
    }

    /// Loads one library, which then wins over all directories.
    ///
    /// # Errors
    /// [`Error::Plugin`] with the path and what is wrong; it is kept as a failure, too.
    pub fn load_file(&mut self, path: &Path) -> Result<()> {
        let found = self.open(path).map_err(|e| Error::Plugin(format!("{}: {e}", path.display())))?;
        self.insert(Rank::Explicit, found);
        Ok(())
    }

    /// How long a plugin that is added from now on may take to load, and then to record a model, in place of
    /// [`super::TIME_LIMIT`].
    pub fn set_time_limit(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }

    /// Adds an architecture of the program's own, which then wins over all directories.
    ///
    /// # Errors
    /// [`Error::Plugin`] if its declaration panics.
    pub fn register(&mut self, architecture: &'static dyn Architecture) -> Result<()> {
        self.insert_registered(architecture, declaration(architecture)?);
        Ok(())
    }

    /// The same, for one model type if one is given, and refused where the architecture makes models of another kind.
    pub(crate) fn register_as(
        &mut self,
        architecture: &'static dyn Architecture,
        model_type: Option<&str>,
        kind: Kind,
    ) -> Result<()> {
        let mut declaration = declaration(architecture)?;
        if declaration.kind != kind {
            let (name, found) = (&declaration.name, declaration.kind);
            return Err(Error::Plugin(format!("{name}: expected an architecture of kind {kind:?}, found {found:?}")));
        }
        if let Some(model_type) = model_type {
            declaration.model_types = vec![model_type.to_owned()];
        }
        self.insert_registered(architecture, declaration);
        Ok(())
    }

    fn insert_registered(&mut self, architecture: &'static dyn Architecture, declaration: Declaration) {
        let found = Found::new(declaration, ["", ""], Source::Registered, Code::Here(architecture));
        let found = found.within(self.limit());
        self.insert(Rank::Explicit, vec![found]);
    }

    /// The plugin for a `model_type` of `config.json`.
    ///
    /// # Errors
    /// [`Error::UnsupportedModelType`] with what is registered and what failed to load.
    pub fn find(&self, model_type: &str) -> Result<Found> {
        self.winner(model_type).cloned().ok_or_else(|| Error::UnsupportedModelType(self.unsupported(model_type)))
    }

    /// The same among architectures of one kind.
    ///
    /// # Errors
    /// Likewise.
    pub fn find_kind(&self, model_type: &str, kind: Kind) -> Result<Found> {
        let plugins = self.plugins.iter().filter(|(_, p)| p.declaration().kind == kind);
        let only = Registry { plugins: plugins.cloned().collect(), ..self.clone() };
        only.find(model_type).map_err(|e| match self.winner(model_type) {
            Some(other) => {
                let (origin, (is, remedy)) = (other.origin(), called(other.declaration().kind));
                let (wanted, _) = called(kind);
                Error::UnsupportedModelType(format!(
                    "unsupported model_type `{model_type}`: {origin} serves it as a {is}{remedy}, no plugin as a {wanted}"
                ))
            }
            None if kind == Kind::Vlm && only.plugins.is_empty() => {
                let none = "no vision-language architecture is registered";
                Error::UnsupportedModelType(format!("{e}; {none}"))
            }
            None => e,
        })
    }

    /// Every model type that an architecture of this kind serves, sorted.
    pub(crate) fn model_types_of(&self, kind: Kind) -> BTreeSet<&str> {
        let plugins = self.plugins.iter().map(|(_, p)| p.declaration()).filter(|d| d.kind == kind);
        plugins.flat_map(|d| &d.model_types).map(String::as_str).collect()
    }

    /// Every model type that some plugin serves, sorted.
    pub fn model_types(&self) -> BTreeSet<&str> {
        self.plugins.iter().flat_map(|(_, p)| &p.declaration().model_types).map(String::as_str).collect()
    }

    /// Everything, shadowed plugins and failures included.
    pub fn list(&self) -> Listing {
        let plugins = self.plugins.iter().map(|(_, plugin)| self.listed(plugin)).collect();
        Listing { plugins, failures: self.failures.clone() }
    }

    fn listed(&self, plugin: &Found) -> Listed {
        let declaration = plugin.declaration();
        // One that makes another kind of model of it stands beside it: Gemma 3's text alone, say.
        let rivals = || self.plugins.iter().map(|(_, p)| p).filter(|p| p.declaration().kind == declaration.kind);
        let shadow = |model_type: &String| {
            let winner = rivals().find(|p| p.serves(model_type)).filter(|winner| !winner.is(plugin))?;
            Some((model_type.clone(), winner.source().clone()))
        };
        Listed {
            name: declaration.name.clone(),
            model_types: declaration.model_types.clone(),
            package: plugin.package().to_owned(),
            version: plugin.version().to_owned(),
            source: plugin.source().clone(),
            shadowed_by: declaration.model_types.iter().filter_map(shadow).collect(),
        }
    }

    fn winner(&self, model_type: &str) -> Option<&Found> {
        self.plugins.iter().map(|(_, p)| p).find(|p| p.serves(model_type))
    }

    fn unsupported(&self, model_type: &str) -> String {
        const SHOWN: usize = 8;
        let types: Vec<&str> = self.model_types().into_iter().collect();
        let types = if types.is_empty() { "none".to_owned() } else { types.join(", ") };
        let failures = self.failures.iter().take(SHOWN);
        let mut failed: Vec<String> = failures.map(|f| format!("{}: {}", f.path.display(), f.reason)).collect();
        if let more @ 1.. = self.failures.len().saturating_sub(SHOWN) {
            failed.push(format!("and {more} more"));
        }
        let failed = if failed.is_empty() { String::new() } else { format!("; failed to load: {}", failed.join("; ")) };
        let remedy = format!("a directory with a plugin for it can be named in {PLUGIN_PATH}");
        format!("unsupported model_type `{model_type}`: registered are {types}; {remedy}{failed}")
    }

    /// Opens a library, or keeps the reason why not.
    fn open(&mut self, path: &Path) -> Result<Vec<Found>, String> {
        // What was wrong with the file before may be mended.
        self.failures.retain(|f| f.path != path);
        let opened = Library::open(path, self.limit());
        let (library, description) = opened.inspect_err(|e| self.fail(path, e.clone()))?;
        let (library, limit) = (Arc::new(library), self.limit());
        let found = description.architectures.into_iter().map(|d| {
            let code = Code::Library(library.clone());
            Found::new(d.declaration, [&d.package, &d.version], Source::File(path.to_owned()), code).within(limit)
        });
        Ok(found.collect())
    }

    fn limit(&self) -> Duration {
        self.limit.unwrap_or(TIME_LIMIT)
    }

    fn insert(&mut self, rank: Rank, found: Vec<Found>) {
        let at = self.plugins.partition_point(|(r, _)| *r < rank);
        self.plugins.splice(at..at, found.into_iter().map(|f| (rank, f)));
    }

    fn fail(&mut self, path: &Path, reason: String) {
        tracing::warn!(path = %path.display(), reason, "plugin failed to load");
        self.failures.push(Failure { path: path.to_owned(), reason });
    }
}

/// What a kind of model is called, and how one is loaded.
fn called(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Llm => ("language model", " (load it with LlmModelFactory)"),
        Kind::Vlm => ("vision-language model", " (load it with VlmModelFactory)"),
        Kind::Embedder => ("model of embeddings", ""),
    }
}

fn declaration(architecture: &'static dyn Architecture) -> Result<Declaration> {
    let declaration = guarded(|| Ok(architecture.declaration()));
    declaration.map_err(|e| Error::Plugin(format!("an architecture to register {e}")))
}

/// The paths in a directory that are named as this system names libraries, sorted.
pub(super) fn libraries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    refuse_world_writable(directory)?;
    let entries = fs::read_dir(directory).and_then(|d| d.collect::<Result<Vec<_>, _>>()).map_err(unreadable)?;
    let named = |path: &PathBuf| path.extension() == Some(env::consts::DLL_EXTENSION.as_ref());
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).filter(named).collect();
    paths.sort();
    Ok(paths)
}

fn displayed<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamarack_api::{Config, Step, Tensor, Weights};

    struct Named(&'static str, &'static [&'static str]);

    impl Architecture for Named {
        fn declaration(&self) -> Declaration {
            assert!(!self.1.is_empty(), "serves nothing");
            Declaration::llm(self.0, self.1)
        }
        fn text(&self, _: &Config, _: &Weights, _: &Step) -> tamarack_api::Result<Tensor> {
            Err(self.0.into())
        }
    }

    // Registered in an order that is not the one of their names, whatever the linker makes of it.
    tamarack_api::register!(Named("b", &["shared", "only_b"]));
    tamarack_api::register!(Named("c", &[]));
    tamarack_api::register!(Named("a", &["shared"]));

    #[test]
    fn linked_plugins_are_sorted_and_the_broken_reported() {
        let listing = Registry::linked().list();
        let names: Vec<&str> = listing.plugins.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(listing.plugins[0].shadowed_by, BTreeMap::new());
        assert_eq!(listing.plugins[1].shadowed_by, BTreeMap::from([("shared".into(), Source::Linked)]));
        let reason = "panicked: serves nothing".to_owned();
        assert_eq!(listing.failures, [Failure { path: "tamarack".into(), reason }]);
    }

    #[test]
    fn threads_share_a_registry() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<(Registry, Found)>();
    }

    #[test]
    fn the_latest_registration_wins() {
        let mut registry = Registry::linked();
        registry.register(&Named("first", &["shared", "x"])).unwrap();
        registry.register(&Named("second", &["shared"])).unwrap();
        let name = |t: &str| registry.find(t).map(|f| f.declaration().name.clone()).map_err(|e| e.to_string());
        assert_eq!(name("shared").as_deref(), Ok("second"));
        assert_eq!(name("x").as_deref(), Ok("first"));
        assert_eq!(name("only_b").as_deref(), Ok("b"));
        let expected = "unsupported model_type `y`: registered are only_b, shared, x; \
                        a directory with a plugin for it can be named in TAMARACK_PLUGIN_PATH; \
                        failed to load: tamarack: panicked: serves nothing";
        assert_eq!(name("y").unwrap_err(), expected);
        let e = registry.register(&Named("third", &[])).unwrap_err().to_string();
        assert_eq!(e, "an architecture to register panicked: serves nothing");
    }

    #[test]
    fn relative_and_absent_directories_are_reported() {
        let mut registry = Registry::default();
        let absent = env::temp_dir().join("tamarack-absent");
        registry.load_path(&env::join_paths([Path::new(""), Path::new("plugins"), &absent]).unwrap());
        let failures = registry.list().failures;
        assert_eq!(failures.iter().map(|f| &f.path).collect::<Vec<_>>(), [&absent, Path::new("plugins")]);
        assert!(failures[1].reason.starts_with("is relative"), "{}", failures[1].reason);
    }
}
