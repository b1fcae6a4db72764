//! From what a user asks to what a model runs on.

use super::kind;
use crate::{Error, LmInput, Result, UserInput, input::Prompt, text::Tokenizer};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// Makes tokens of what a user asks.
pub trait UserInputProcessor: Send + Sync {
    /// The model's input.
    ///
    /// # Errors
    /// [`Error::Text`] if the chat template refuses, [`Error::Request`] for what the model cannot take.
    fn prepare(&self, input: UserInput, tokenizer: &Tokenizer) -> Result<LmInput>;
}

/// What language models have: the chat template, and the tokenizer.
#[derive(Clone, Copy, Debug, Default)]
pub struct LlmUserInputProcessor;

impl UserInputProcessor for LlmUserInputProcessor {
    fn prepare(&self, input: UserInput, tokenizer: &Tokenizer) -> Result<LmInput> {
        let UserInput { prompt, tools, additional_context, images, videos, .. } = input;
        if !images.is_empty() {
            return Err(Error::Request("the model takes no images: choose a vision-language model".to_owned()));
        }
        if !videos.is_empty() {
            return Err(Error::Request("the model takes no videos: choose a vision-language model".to_owned()));
        }
        let offered = (!tools.is_empty()).then_some(&tools[..]);
        let (tokens, is_chat) = match prompt {
            Prompt::Messages(turns) => {
                (tokenizer.apply_chat_template(&turns, offered, true, &additional_context)?, true)
            }
            Prompt::Raw(text) => (tokenizer.encode(&text, true)?, false),
        };
        Ok(LmInput { tokens, tools, is_chat, media: None })
    }
}

/// Makes a processor from what `preprocessor_config.json` (or `processor_config.json`) says.
type Create = dyn Fn(&Value) -> Result<Arc<dyn UserInputProcessor>> + Send + Sync;

/// Which processor serves which `processor_class` of a vision-language model, in place of what its architecture brings
/// along. Language models need none of it.
///
/// Clones are handles of the same registry. It begins empty: architectures that take images have a processor of their own.
#[derive(Clone, Default)]
pub struct ProcessorTypeRegistry(Arc<RwLock<BTreeMap<String, Arc<Create>>>>);

impl ProcessorTypeRegistry {
    /// The registry of this process.
    pub fn shared() -> ProcessorTypeRegistry {
        kind::processors()
    }

    /// Registers what makes the processor of a class; it replaces what was registered before.
    pub fn register(
        &self,
        processor_class: impl Into<String>,
        create: impl Fn(&Value) -> Result<Arc<dyn UserInputProcessor>> + Send + Sync + 'static,
    ) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(processor_class.into(), Arc::new(create));
    }

    /// Whether a class is registered.
    pub fn contains(&self, processor_class: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(processor_class)
    }

    /// Every class that is registered, sorted.
    pub fn processor_classes(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The processor that a configuration with a `processor_class` asks for.
    ///
    /// # Errors
    /// [`Error::Request`] if the class is not registered, and what creating it says.
    pub fn create(&self, config: &Value) -> Result<Arc<dyn UserInputProcessor>> {
        let class = config["processor_class"].as_str().unwrap_or_default();
        let create = self.0.read().unwrap_or_else(PoisonError::into_inner).get(class).cloned();
        let create = create.ok_or_else(|| {
            let known = self.processor_classes().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            let remedy = "register one with ProcessorTypeRegistry::register";
            Error::Request(format!("no processor for processor_class `{class}`: registered are {known}; {remedy}"))
        })?;
        create(config)
    }
}

impl fmt::Debug for ProcessorTypeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.processor_classes()).finish()
    }
}
