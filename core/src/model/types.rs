//! Which architecture serves which `model_type`.

use super::kind::{self, ModelKind};
use crate::{
    Result,
    plugins::{Found, Registry},
};
use std::{
    collections::BTreeSet,
    fmt,
    marker::PhantomData,
    sync::{Arc, PoisonError, RwLock},
};
use tamarack_api::Architecture;

/// Which architecture serves which `model_type`, of models of one kind: [`super::LlmTypeRegistry`] or
/// [`super::VlmTypeRegistry`].
///
/// Clones are handles of the same registry. What is registered later replaces what was there, for models that are
/// loaded from then on.
///
/// ```
/// use tamarack::{LlmTypeRegistry, plugins::Registry};
///
/// let types = LlmTypeRegistry::new(Registry::linked());
/// if !types.contains("llama") {
///     println!("no plugin for llama is linked; there are {:?}", types.model_types());
/// }
/// ```
pub struct ModelTypeRegistry<K> {
    plugins: Arc<RwLock<Registry>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for ModelTypeRegistry<K> {
    fn clone(&self) -> Self {
        ModelTypeRegistry { plugins: self.plugins.clone(), kind: PhantomData }
    }
}

impl<K: ModelKind> ModelTypeRegistry<K> {
    /// The registry of this process, with the plugins of [`Registry::from_env`].
    pub fn shared() -> ModelTypeRegistry<K> {
        ModelTypeRegistry { plugins: kind::plugins(), kind: PhantomData }
    }

    /// A registry of its own, with plugins of the program's choice. [`Registry::default`] has none.
    pub fn new(plugins: Registry) -> ModelTypeRegistry<K> {
        ModelTypeRegistry { plugins: Arc::new(RwLock::new(plugins)), kind: PhantomData }
    }

    /// Registers an architecture for all the model types that it declares. It wins over every plugin, and over what was
    /// registered before.
    ///
    /// # Errors
    /// [`crate::Error::Plugin`] if its declaration panics, or if it makes models of another kind.
    pub fn register(&self, architecture: &'static dyn Architecture) -> Result<()> {
        self.insert(architecture, None)
    }

    /// Registers an architecture for one model type, whatever it declares.
    ///
    /// # Errors
    /// As for [`ModelTypeRegistry::register`].
    pub fn register_model_type(&self, model_type: &str, architecture: &'static dyn Architecture) -> Result<()> {
        self.insert(architecture, Some(model_type))
    }

    fn insert(&self, architecture: &'static dyn Architecture, model_type: Option<&str>) -> Result<()> {
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).register_as(architecture, model_type, K::KIND)
    }

    /// Whether some architecture serves `model_type`: known before anything is downloaded.
    pub fn contains(&self, model_type: &str) -> bool {
        self.find(model_type).is_ok()
    }

    /// The architecture that serves `model_type`.
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedModelType`] with what is registered and what failed to load.
    pub fn find(&self, model_type: &str) -> Result<Found> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).find_kind(model_type, K::KIND)
    }

    /// Every model type that is served, sorted.
    pub fn model_types(&self) -> BTreeSet<String> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.model_types_of(K::KIND).into_iter().map(str::to_owned).collect()
    }

    /// The plugins as they are now, those of other kinds included.
    pub fn plugins(&self) -> Registry {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<K: ModelKind> From<Registry> for ModelTypeRegistry<K> {
    fn from(plugins: Registry) -> Self {
        ModelTypeRegistry::new(plugins)
    }
}

impl<K: ModelKind> fmt::Debug for ModelTypeRegistry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(K::NAME).field(&self.model_types()).finish()
    }
}
