//! Containers, configurations, factories and registries, by example.
//!
//! Every example runs when the tests do, on a tiny model of random weights. Where one names a model of the hub, that
//! stands in for it; `options` then has the hub with the stand-in. Without options of its own, a program writes
//! `LoadOptions::default()`.
//!
//! | what | for |
//! |---|---|
//! | [`ModelContainer`] | a loaded model, for any thread |
//! | [`ModelContext`] | model, tokenizer and processor together, inside [`ModelContainer::perform`] |
//! | [`ModelConfiguration`] | which model, its tokens that end a text, settings |
//! | [`LlmModelFactory`] | loads language models |
//! | [`VlmModelFactory`] | loads vision-language models |
//! | [`LlmRegistry`], [`VlmRegistry`] | preconfigured models |
//! | [`LlmTypeRegistry`], [`VlmTypeRegistry`] | from `model_type` to architecture |
//!
//! # ModelContainer
//!
//! ## Loading one
//!
//! ```
//! # use tamarack::*;
//! # tamarack_guide::run(async |hub, options| {
//! // By a factory. `load_container` alone picks the factory by what the model is.
//! let configuration = ModelConfiguration::hub("mlx-community/Qwen3-4B-4bit");
//! let container = LlmModelFactory::shared().load_container(&configuration, options).await?;
//! # drop(container);
//!
//! // From a hub of its own.
//! let options = LoadOptions::default().hub(hub);
//! # let options = options.device(Device::Reference);
//! let configuration = ModelConfiguration::hub("private/model");
//! let container = load_container(&configuration, options.clone()).await?;
//!
//! // With a word on how far it is.
//! let options = options.progress(|p| println!("{:?} {}: {:.0} %", p.phase, p.file, 100.0 * p.fraction_completed()));
//! let container = load_container(&configuration, options.clone()).await?;
//!
//! // The same as a stream.
//! let (options, mut progress) = options.progress_stream();
//! let loading = load_container(&configuration, options);
//! let watching = async {
//!     let mut last = None;
//!     while let Some(p) = progress.next().await {
//!         last = Some(p);
//!     }
//!     last
//! };
//! let (container, last) = tokio::join!(loading, watching);
//! assert_eq!(last.map(|p| p.fraction_completed()), Some(1.0));
//! # container.map(drop)
//! # });
//! ```
//!
//! A [`Hub`] with a token is `Hub::builder().token("your_token").build()?`.
//!
//! ## Using it
//!
//! ```
//! # use tamarack::*;
//! # use tamarack::text::Message;
//! # tamarack_guide::loaded(async |container| {
//! let configuration = container.configuration();
//! let tokenizer = container.tokenizer()?;
//! let processor = container.processor();
//! # assert_eq!(configuration.eos_token_ids, [2].into());
//! # assert_eq!(processor.prepare(UserInput::raw("Hi"), tokenizer)?.tokens, [43, 76]);
//!
//! // The model to itself, between two steps of whatever else runs.
//! let messages = [Message::user("Hello").into()];
//! let (tokens, likely) = container
//!     .perform(move |context| {
//!         let tokens = context.tokenizer()?.apply_chat_template(&messages, None, true, &Default::default())?;
//!         let logits = context.model.forward(&tokens, 512)?; // [tokens, vocabulary]
//!         let last = &logits[logits.len() - context.model.vocabulary()..];
//!         let likely = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b]));
//!         assert_eq!(context.configuration.name, "model");
//!         assert_eq!(context.processor.prepare("Hello".into(), context.tokenizer()?)?.tokens, tokens);
//!         Ok::<_, Error>((tokens, likely))
//!     })
//!     .await??;
//! # assert!(tokens.len() > 5 && likely.is_some());
//! # Ok(())
//! # });
//! ```
//!
//! ## Short ways
//!
//! ```
//! # use tamarack::*;
//! # use tamarack::text::Message;
//! # tamarack_guide::loaded(async |container| {
//! // Prepare input for generation.
//! let input = container.prepare(UserInput::messages([Message::user("Hello")])).await?;
//!
//! // Generate with streaming.
//! let parameters = GenerateParameters { max_tokens: Some(8), ..Default::default() };
//! let mut stream = container.generate(input, parameters).await?;
//! while let Some(event) = stream.next().await {
//!     match event? {
//!         Generation::Chunk(text) => print!("{text}"),
//!         Generation::Info(info) => println!("\n{:.1} tokens/s", info.tokens_per_second()),
//!         _ => {}
//!     }
//! }
//!
//! // Encode and decode.
//! let tokens = container.encode("Hello world")?;
//! assert_eq!(container.decode(&tokens)?, "Hello world");
//!
//! // Apply the chat template.
//! let tokens = container.apply_chat_template(&[Message::user("Hello")])?;
//! assert_eq!(container.decode(&tokens)?, "<s>user: Hello</s><s>assistant: ");
//! # Ok(())
//! # });
//! ```
//!
//! # ModelConfiguration
//!
//! ```
//! # use tamarack::{ModelConfiguration, text::ToolCallFormat};
//! // From the hub.
//! let configuration = ModelConfiguration::hub("mlx-community/Llama-3.2-3B-Instruct-4bit")
//!     .default_prompt("Hello")
//!     .extra_eos_tokens(["<|eot_id|>"]);
//!
//! // Of a certain revision.
//! let configuration = ModelConfiguration::hub("mlx-community/model").revision("v1.0");
//!
//! // From a folder, and from a GGUF file.
//! let configuration = ModelConfiguration::directory("/path/to/model").extra_eos_tokens(["</s>"]);
//! let configuration = ModelConfiguration::gguf("/path/to/model.Q4_K_M.gguf");
//!
//! // With a format of tool calls.
//! let configuration = ModelConfiguration::hub("mlx-community/GLM-4-9B-0414-4bit").tool_call_format(ToolCallFormat::Glm4);
//! ```
//!
//! | field | type | what |
//! |---|---|---|
//! | `id` | [`Identifier`](tamarack::model::Identifier) | a repository of the hub and its revision, a folder, or a GGUF file |
//! | `name` | `String` | what people call it |
//! | `tokenizer_id` | `Option<String>` | another place that the tokenizer comes from |
//! | `override_tokenizer` | `Option<String>` | the kind of tokenizer that a GGUF file is to be read as |
//! | `default_prompt` | `String` | something to try it with |
//! | `extra_eos_tokens` | `BTreeSet<String>` | more tokens that end a text, as the vocabulary spells them |
//! | `eos_token_ids` | `BTreeSet<u32>` | ids of tokens that end a text; a loaded model's has those of its files |
//! | `stop_strings` | `Vec<String>` | texts that end a text |
//! | `tool_call_format` | `Option<ToolCallFormat>` | how the model writes tool calls |
//!
//! # Factories
//!
//! ```
//! # use tamarack::*;
//! # tamarack_guide::run(async |_hub, options| {
//! // The shared one.
//! let factory = LlmModelFactory::shared();
//! let container = factory.load_container(&LlmRegistry::llama3_2_3b_4bit(), options.clone()).await?;
//! # assert_eq!(container.configuration().default_prompt, "What is the difference between a fruit and a vegetable?");
//!
//! // One with registries of its own.
//! let types = LlmTypeRegistry::new(plugins::Registry::linked());
//! let models = LlmRegistry::new([ModelConfiguration::hub("private/model").name("mine")]);
//! let factory = LlmModelFactory::with_registries(types, models);
//! let mine = factory.model_registry().configuration("mine");
//! let container = factory.load_container(&mine, options).await?;
//! # Ok(())
//! # });
//! ```
//!
//! Vision-language models have a factory, too. `load_container` alone takes both.
//!
//! ```
//! # use tamarack::*;
//! # use tamarack_tests::models::folder;
//! # tamarack_guide::run(async |_hub, options| {
//! let factory = VlmModelFactory::shared();
//! let container = factory.load_container(&VlmRegistry::qwen2_vl_2b_instruct_4bit(), options.clone()).await?;
//! # let photo = folder("goldens/vision/images").join("cat.png");
//! let input = container.prepare(UserInput::from("What is there to see?").image(photo)).await?;
//! let mut stream = container.generate(input, GenerateParameters { max_tokens: Some(4), ..Default::default() }).await?;
//! # let mut tokens = 0;
//! while let Some(event) = stream.next().await {
//!     match event? {
//!         Generation::Chunk(text) => print!("{text}"),
//! #       Generation::Info(info) => tokens = info.generation_tokens,
//!         _ => {}
//!     }
//! }
//! # assert!(tokens > 0);
//!
//! // A model without eyes is none.
//! let blind = factory.load_container(&ModelConfiguration::hub("private/model"), options).await;
//! assert!(matches!(blind, Err(Error::UnsupportedModelType(_))));
//! # Ok(())
//! # });
//! ```
//!
//! # Registries of models
//!
//! ```
//! use tamarack::{LlmRegistry, ModelConfiguration, VlmRegistry};
//!
//! LlmRegistry::llama3_2_3b_4bit();
//! LlmRegistry::qwen3_4b_4bit();
//! LlmRegistry::gemma3_1b_qat_4bit();
//! LlmRegistry::phi3_5_4bit();
//! LlmRegistry::mistral_7b_4bit();
//!
//! VlmRegistry::qwen2_vl_2b_instruct_4bit();
//! VlmRegistry::gemma3_4b_qat_4bit();
//! VlmRegistry::paligemma_3b_mix_448_8bit();
//!
//! // By name, which may also be the id; the originals that are not quantized are there as well.
//! let models = LlmRegistry::shared();
//! assert_eq!(models.configuration("llama3_2_3b_4bit"), LlmRegistry::llama3_2_3b_4bit());
//! assert!(models.contains("meta-llama/Llama-3.2-3B-Instruct"));
//! for model in models.models() {
//!     println!("{}: {}", model.name, model.id);
//! }
//!
//! // Those of a program's own.
//! models.register([ModelConfiguration::hub("my-org/my-model")]);
//! assert!(models.contains("my-model"));
//! ```
//!
//! # Registries of types
//!
//! Whether a model can be loaded is known before anything is downloaded:
//!
//! ```
//! # let _ = tamarack_plugins::LINKED;
//! use tamarack::{LlmTypeRegistry, VlmTypeRegistry};
//!
//! for model_type in ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi", "phi3", "glm4"] {
//!     assert!(LlmTypeRegistry::shared().contains(model_type));
//! }
//! // Those that take images are in a registry of their own.
//! assert!(VlmTypeRegistry::shared().contains("qwen2_vl"));
//! ```
//!
//! An architecture of a program's own is registered with [`register`](LlmTypeRegistry::register) and replaces what served
//! its model types before. Processors of vision-language models are found by their `processor_class`, in
//! [`ProcessorTypeRegistry`].
//!
//! # How a model is loaded
//!
//! 1. **Download**: `config.json` alone first; a model that nothing serves ends here. Then all that the model needs, kept
//!    in the cache that Python's tools share.
//! 2. **Configuration**: `config.json` has the `model_type`.
//! 3. **Architecture**: the type registry has the plugin that serves it, which records the model.
//! 4. **Weights**: `.safetensors` files or a GGUF file, straight from the file to the device.
//! 5. **Tokenizer**: `tokenizer.json`, `tokenizer_config.json` and the chat template.
//! 6. **Tokens that end a text**: those of `generation_config.json`, or else of `config.json`. The former also says how tokens
//!    are chosen where a program does not: `ModelContainer::generate_parameters`, with which a `ChatSession` begins.
//! 7. **Processor**: what makes a model's input of what a user asks.
//!
//! ```
//! # use tamarack::ModelConfiguration;
//! # tamarack_guide::run(async |hub, _options| {
//! let configuration = ModelConfiguration::hub("mlx-community/Qwen3-4B-4bit");
//! let folder = configuration.model_directory(&hub)?;
//! // ~/.cache/huggingface/hub/models--mlx-community--Qwen3-4B-4bit/snapshots/..
//! # assert!(folder.iter().any(|part| part == "models--mlx-community--Qwen3-4B-4bit"));
//! # Ok(())
//! # });
//! ```
//!
//! # Memory
//!
//! ```
//! # use tamarack::*;
//! # tamarack_guide::run(async |_hub, options| {
//! # let configuration = ModelConfiguration::hub("private/model");
//! // What it will take, from the headers of its files.
//! let estimate = LlmModelFactory::shared().estimate(&configuration, &options)?;
//! let container = load_container(&configuration, options).await?;
//! let memory = container.memory().await?;
//! println!("weights {}, keys and values {}, all else {}", memory.weights, memory.kv, memory.workspace);
//! assert_eq!(estimate.kv, memory.kv);
//!
//! // The last handle that is dropped frees the model. Whoever cannot wait for the others unloads it.
//! container.unload().await?;
//! drop(container);
//! # Ok(())
//! # });
//! ```
//!
//! As a rule, a model quantized to 4 bits takes some 0.5 to 0.6 GB for each billion of its parameters.
//!
//! # Changing parameters
//!
//! ```
//! # use tamarack::*;
//! use tamarack::model::{Parameters, Verify};
//!
//! # tamarack_guide::loaded(async |container| {
//! let mut parameters = Parameters::default();
//! parameters.insert("model.norm.weight", &[32], vec![0.5; 32])?;
//! container.update(move |context| context.model.update(&parameters, Verify::NoUnusedKeys)).await?;
//! # let norm = container.perform(|context| context.model.parameter("model.norm.weight")).await?;
//! # assert_eq!(norm, Some(vec![0.5; 32]));
//! # Ok(())
//! # });
//! ```
//!
//! # What has no counterpart
//!
//! The closures of `perform` that took model and tokenizer apart, or values beside them, are closures over a
//! [`ModelContext`] here, which capture what they need. `ModelRegistry` is [`LlmRegistry`] or [`VlmRegistry`].

use std::{fs, path::Path};
use tamarack::hub::Hub;
// For the links above.
#[allow(unused_imports)]
use tamarack::{
    Device, LlmModelFactory, LlmRegistry, LlmTypeRegistry, LoadOptions, ModelConfiguration, ModelContainer,
    ModelContext, ProcessorTypeRegistry, Result, VlmModelFactory, VlmRegistry, VlmTypeRegistry, load_container,
};
use tamarack_tests::{models, tiny};

/// The models that the examples name.
const MODELS: [&str; 4] = [
    "mlx-community/Qwen3-4B-4bit",
    "mlx-community/Llama-3.2-3B-Instruct-4bit",
    "mlx-community/Qwen2-VL-2B-Instruct-4bit",
    "private/model",
];

/// Runs an example with a hub that has the models they name, and options to load them with.
#[doc(hidden)]
pub fn run(example: impl AsyncFnOnce(Hub, LoadOptions) -> Result<()>) {
    let _ = tamarack_plugins::LINKED;
    let cache = tempfile::tempdir().expect("a folder");
    MODELS.iter().for_each(|id| keep(cache.path(), id));
    let hub = Hub::builder().cache_dir(cache.path()).offline(true).build().expect("a hub");
    let options = LoadOptions::default().hub(hub.clone()).device(Device::Reference).context(256);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(example(hub, options)).unwrap_or_else(|e| panic!("{e}"));
}

/// Runs an example with a model that is loaded.
#[doc(hidden)]
pub fn loaded(example: impl AsyncFnOnce(ModelContainer) -> Result<()>) {
    run(async |_, options| example(load_container(&ModelConfiguration::hub("private/model"), options).await?).await);
}

/// Puts a tiny model into the cache, as if it had been downloaded.
fn keep(cache: &Path, id: &str) {
    let folder = cache.join(format!("models--{}", id.replace('/', "--")));
    let snapshot = folder.join("snapshots/main");
    fs::create_dir_all(&snapshot).expect("made");
    if !id.contains("VL") {
        return tiny::write_chat_model(&snapshot);
    }
    for entry in fs::read_dir(models::folder("goldens/vision/qwen2_vl")).expect("goldens") {
        let path = entry.expect("a file").path();
        fs::copy(&path, snapshot.join(path.file_name().expect("a name"))).expect("copied");
    }
}
