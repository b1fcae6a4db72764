//! Models that are known by name.

use super::{Identifier, ModelConfiguration, kind::ModelKind, preconfigured::Preconfigured};
use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, PoisonError, RwLock},
};

/// Configurations of models of one kind, by name: [`super::LlmRegistry`] or [`super::VlmRegistry`].
///
/// Clones are handles of the same registry.
///
/// ```
/// use tamarack::{LlmRegistry, ModelConfiguration};
///
/// let models = LlmRegistry::new([]);
/// models.register([ModelConfiguration::hub("my-org/my-model").default_prompt("Once upon a time")]);
/// assert!(models.contains("my-org/my-model"));
/// assert_eq!(models.configuration("my-model").default_prompt, "Once upon a time");
/// ```
pub struct AbstractModelRegistry<K> {
    /// In the order in which they were registered.
    models: Arc<RwLock<Vec<Named>>>,
    kind: PhantomData<fn() -> K>,
}

struct Named {
    /// Beside its id and its name.
    alias: Option<&'static str>,
    configuration: ModelConfiguration,
}

impl<K> Clone for AbstractModelRegistry<K> {
    fn clone(&self) -> Self {
        AbstractModelRegistry { models: self.models.clone(), kind: PhantomData }
    }
}

impl<K: ModelKind> AbstractModelRegistry<K> {
    /// The registry of this process, which begins with the preconfigured models.
    pub fn shared() -> AbstractModelRegistry<K> {
        K::models().clone()
    }

    /// A registry of these models.
    pub fn new(models: impl IntoIterator<Item = ModelConfiguration>) -> AbstractModelRegistry<K> {
        let models = models.into_iter().map(|configuration| Named { alias: None, configuration }).collect();
        AbstractModelRegistry { models: Arc::new(RwLock::new(models)), kind: PhantomData }
    }

    pub(super) fn of(models: &'static [Preconfigured]) -> AbstractModelRegistry<K> {
        let models = models.iter().map(|m| Named { alias: Some(m.name), configuration: m.configuration() }).collect();
        AbstractModelRegistry { models: Arc::new(RwLock::new(models)), kind: PhantomData }
    }

    /// Adds models. One with the id of another replaces it.
    pub fn register(&self, configurations: impl IntoIterator<Item = ModelConfiguration>) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        for configuration in configurations {
            match models.iter_mut().find(|m| m.configuration.id == configuration.id) {
                Some(known) => known.configuration = configuration,
                None => models.push(Named { alias: None, configuration }),
            }
        }
    }

    /// The model of this hub id (of this path, if it is none of the hub), of this name, or of this name among the
    /// preconfigured ones (`llama3_2_3b_4bit`). Of several the last one.
    pub fn find(&self, name: &str) -> Option<ModelConfiguration> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let is = |m: &&Named| {
            let id = match &m.configuration.id {
                Identifier::Hub { id, .. } => id == name,
                Identifier::Directory(path) | Identifier::Gguf(path) => path.as_os_str() == name,
            };
            id || m.configuration.name == name || m.alias == Some(name)
        };
        models.iter().rev().find(is).map(|m| m.configuration.clone())
    }

    /// As [`AbstractModelRegistry::find`]; for a model that is not there, a configuration without settings of its own,
    /// as [`ModelConfiguration::parse`] makes it.
    pub fn configuration(&self, name: &str) -> ModelConfiguration {
        self.find(name).unwrap_or_else(|| ModelConfiguration::parse(name))
    }

    /// Whether [`AbstractModelRegistry::find`] finds it.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// All models, in the order in which they were registered.
    pub fn models(&self) -> Vec<ModelConfiguration> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().map(|m| m.configuration.clone()).collect()
    }
}

impl<K: ModelKind> fmt::Debug for AbstractModelRegistry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.models().into_iter().map(|m| m.id.to_string());
        f.debug_list().entries(names).finish()
    }
}
