//! The handle of a loaded model.

use super::{Model, ModelConfiguration, ModelContext, UserInputProcessor, context::tokenizer};
use crate::{
    Error, LmInput, Result, Unused, UserInput,
    engine::{About, Command, Engine, Request, Trim},
    exec::MemoryUse,
    generate::{GenerateParameters, GenerationComponents, GenerationStream, PromptCache},
    image,
    text::{Message, Tokenizer},
};
use serde_json::{Map, Value};
use std::{fmt, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// A loaded model. Clones are handles of the same one, any thread may use them at the same time, and
/// any number of generations run together, in one batch. Dropping the last handle frees the model.
///
/// A device can be lost: its driver resets it, or it is unplugged. Generations that run then end with
/// [`Error::DeviceLost`], and so may whatever asks next. After that the model is loaded anew, from the same files and with the
/// same options, with its adapters and with parameters as [`super::Model::update`] has left them, before the next request
/// is served; prompt caches hold nothing then and fill again. Where it cannot be loaded, because its device is no longer
/// there, say, each request ends with [`Error::DeviceLost`] and the reason, and the next one tries again.
///
/// ```no_run
/// use tamarack::{GenerateParameters, Generation, LoadOptions, ModelConfiguration, load_container};
///
/// # async fn example() -> tamarack::Result<()> {
/// let configuration = ModelConfiguration::directory("models/SmolLM2-135M-Instruct");
/// let container = load_container(&configuration, LoadOptions::default()).await?;
/// let input = container.prepare("Why is the sky blue?".into()).await?;
/// let mut stream = container.generate(input, GenerateParameters::default()).await?;
/// while let Some(event) = stream.next().await {
///     if let Generation::Chunk(text) = event? {
///         print!("{text}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ModelContainer(Arc<Inner>);

struct Inner {
    configuration: Arc<ModelConfiguration>,
    tokenizer: Arc<Result<Tokenizer, String>>,
    processor: Arc<dyn UserInputProcessor>,
    info: ModelInfo,
    engine: Arc<Engine>,
    /// Is dropped last.
    _trim: Trim,
}

impl fmt::Debug for ModelContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { configuration, info, .. } = &*self.0;
        f.debug_struct("ModelContainer").field("id", &configuration.id).field("info", info).finish_non_exhaustive()
    }
}

/// What a loaded model is.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The `model_type` of its `config.json`.
    pub model_type: String,
    /// The plugin that serves it: name, package, version and source.
    pub plugin: String,
    /// The device that runs it.
    pub device: String,
    /// Whether that is a processor that stands in for a GPU.
    pub is_software: bool,
    /// Values in its weights.
    pub parameters: u64,
    /// Bytes of its weights in the files.
    pub bytes: u64,
    /// Entries of a row of logits.
    pub vocabulary: usize,
    /// Tokens that its cache holds, over all sequences.
    pub context: usize,
    /// Tokens of prompts and of running generations that one step takes.
    pub step_rows: usize,
    /// Tokens of an image that it has room for; 0 if it takes none.
    pub image_rows: usize,
    /// Tensors of its files that its architecture does not use, which were left out.
    pub unused: Unused,
}

impl ModelContainer {
    pub(crate) fn new(engine: Engine, context: Shared) -> ModelContainer {
        let Shared { configuration, tokenizer, processor, info } = context;
        ModelContainer(Arc::new(Inner {
            configuration,
            tokenizer,
            processor,
            info,
            engine: Arc::new(engine),
            _trim: Trim,
        }))
    }

    /// The configuration it was loaded with, completed by what its files say.
    pub fn configuration(&self) -> &ModelConfiguration {
        &self.0.configuration
    }

    /// How tokens are chosen where nobody says otherwise: as the model's files ask for, as
    /// [`GenerateParameters::default`] has it otherwise.
    ///
    /// ```no_run
    /// # use tamarack::{GenerateParameters, LmInput, ModelContainer, Result};
    /// # async fn example(container: ModelContainer, input: LmInput) -> Result<()> {
    /// let short = GenerateParameters { max_tokens: Some(64), ..container.generate_parameters() };
    /// let answer = container.generate(input, short).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn generate_parameters(&self) -> GenerateParameters {
        self.0.configuration.generate_parameters.clone().unwrap_or_default()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Text`] if the model's files have none that can be read. Everything that takes and gives
    /// token ids works nevertheless.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        tokenizer(&self.0.tokenizer)
    }

    /// What makes tokens of what a user asks.
    pub fn processor(&self) -> &dyn UserInputProcessor {
        &*self.0.processor
    }

    /// The device that runs it, for people.
    pub fn device(&self) -> String {
        self.0.info.device.clone()
    }

    /// What it is.
    pub fn model_info(&self) -> &ModelInfo {
        &self.0.info
    }

    /// Runs `work` on the engine's thread, with the model to itself: between steps, while running
    /// generations wait.
    ///
    /// ```no_run
    /// # async fn example(container: tamarack::ModelContainer) -> tamarack::Result<()> {
    /// let tokens = container.encode("The sky is blue.")?;
    /// let logits = container.perform(move |context| context.model.forward(&tokens, 512)).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Request`] if `work` panicked.
    pub async fn perform<R, F>(&self, work: F) -> Result<R>
    where
        F: FnOnce(&mut ModelContext) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let work = move |context: &mut ModelContext| {
            // Nobody waits for the result if the caller has lost interest.
            let _ = send.send(work(context));
        };
        self.0.engine.send(Command::Perform(Box::new(work)))?;
        receive.await.map_err(|_| Error::Request("perform: the closure panicked".to_owned()))
    }

    /// As [`ModelContainer::perform`], for what changes the model: [`super::Model::update`].
    ///
    /// # Errors
    /// What `work` says, or as for [`ModelContainer::perform`].
    pub async fn update<R, F>(&self, work: F) -> Result<R>
    where
        F: FnOnce(&mut ModelContext) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.perform(work).await?
    }

    /// What the model takes of its device's memory.
    ///
    /// # Errors
    /// As for [`ModelContainer::perform`].
    pub async fn memory(&self) -> Result<MemoryUse> {
        self.perform(|context| context.model.memory()).await
    }

    /// Frees the model, whoever else has a handle of it. Generations that run are cancelled, and all that needs the
    /// model is refused from then on. To have it freed when nobody needs it any more, drop the handles.
    ///
    /// # Errors
    /// [`Error::Device`] if it was unloaded before.
    pub async fn unload(&self) -> Result<()> {
        let (send, receive) = oneshot::channel();
        self.0.engine.send(Command::Unload(send))?;
        receive.await.map_err(|_| Error::Device("the model was unloaded already".to_owned()))
    }

    /// Makes tokens of a conversation or a text.
    ///
    /// # Errors
    /// [`Error::Text`] if there is no tokenizer, or the chat template refuses; with images or videos also [`Error::Io`] and
    /// [`Error::File`] if one cannot be read, and [`Error::Request`] if the model takes none, or not so many or so large ones.
    pub async fn prepare(&self, input: UserInput) -> Result<LmInput> {
        let tokenizer = self.tokenizer()?;
        let input = image::fetch_all(input).await?;
        if input.images.is_empty() && input.videos.is_empty() {
            return self.0.processor.prepare(input, tokenizer);
        }
        // Decoding and resizing take a while.
        let (processor, tokenizer) = (self.0.processor.clone(), tokenizer.clone());
        let done = tokio::task::spawn_blocking(move || processor.prepare(input, &tokenizer)).await;
        done.unwrap_or_else(|_| Err(Error::Request("preparing images panicked".to_owned())))
    }

    /// Begins a generation. It runs whether or not the stream is read.
    ///
    /// # Errors
    /// [`Error::Request`] if parameters have no meaning, if the prompt is empty or does not fit into the
    /// context, and for tokens outside the vocabulary.
    pub async fn generate(&self, input: LmInput, parameters: GenerateParameters) -> Result<GenerationStream> {
        self.begin(input, parameters, GenerationComponents::default(), None)
    }

    /// Begins a generation that goes on from what `cache` holds, as far as the prompt does, and leaves there what it
    /// computes. While another generation uses the cache, this one does without.
    ///
    /// # Errors
    /// As for [`ModelContainer::generate`], or if the cache is that of another model.
    pub async fn generate_from(
        &self,
        input: LmInput,
        parameters: GenerateParameters,
        cache: &PromptCache,
    ) -> Result<GenerationStream> {
        self.begin(input, parameters, GenerationComponents::default(), Some(cache))
    }

    /// Begins a generation with logit processors and a sampler of the program's own.
    ///
    /// # Errors
    /// As for [`ModelContainer::generate_from`].
    pub async fn generate_with(
        &self,
        input: LmInput,
        parameters: GenerateParameters,
        components: GenerationComponents,
        cache: Option<&PromptCache>,
    ) -> Result<GenerationStream> {
        self.begin(input, parameters, components, cache)
    }

    fn begin(
        &self,
        input: LmInput,
        parameters: GenerateParameters,
        components: GenerationComponents,
        cache: Option<&PromptCache>,
    ) -> Result<GenerationStream> {
        let Inner { configuration, tokenizer, info, engine, .. } = &*self.0;
        cache.map_or(Ok(()), |cache| cache.check(engine))?;
        let (events, receive) = mpsc::unbounded_channel();
        let about = About { configuration, tokenizer: tokenizer.as_ref().as_ref().ok(), info };
        let request = Request::new(input, parameters, components, cache.cloned(), &about, events)?;
        let cancelled = request.cancelled.clone();
        engine.send(Command::Generate(Box::new(request)))?;
        Ok(GenerationStream::new(receive, cancelled, engine.clone()))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// A cache of nothing, for generations that begin alike.
    pub fn prompt_cache(&self) -> PromptCache {
        PromptCache::new(Arc::downgrade(&self.0.engine))
    }

    /// The tokens of a text, with the special tokens that every text of the model has.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`], or if there is no tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.encode(text, true)
    }

    /// The text of tokens, special tokens written out.
    ///
    /// # Errors
    /// As for [`Tokenizer::decode`], or if there is no tokenizer.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer()?.decode(tokens, false)
    }

    /// The tokens of a conversation that the model is to go on with.
    ///
    /// # Errors
    /// [`Error::Text`] if there is no tokenizer, or the chat template refuses.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let turns: Vec<Value> = messages.iter().cloned().map(Value::from).collect();
        self.apply_chat_template_with(&turns, &[], &Map::new())
    }

    /// The same for turns of any kind, with tools that the model may call, and with whatever else its chat template reads
    /// (`enable_thinking`, say): all as templates have it.
    ///
    /// # Errors
    /// As for [`ModelContainer::apply_chat_template`].
    pub fn apply_chat_template_with(
        &self,
        messages: &[Value],
        tools: &[Value],
        additional_context: &Map<String, Value>,
    ) -> Result<Vec<u32>> {
        let tools = (!tools.is_empty()).then_some(tools);
        self.tokenizer()?.apply_chat_template(messages, tools, true, additional_context)
    }
}

/// What container and engine know of the same model.
pub(crate) struct Shared {
    pub configuration: Arc<ModelConfiguration>,
    pub tokenizer: Arc<Result<Tokenizer, String>>,
    pub processor: Arc<dyn UserInputProcessor>,
    pub info: ModelInfo,
}

impl Shared {
    /// What the engine holds: the model, and of the rest the same.
    pub fn context(&self, model: Model) -> ModelContext {
        ModelContext {
            model,
            configuration: self.configuration.clone(),
            tokenizer: self.tokenizer.clone(),
            processor: self.processor.clone(),
        }
    }
}
