//! Factories and their registries: which model, which architecture, which processor.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use tamarack::{
    Device, Error, LlmModelFactory, LlmRegistry, LlmTypeRegistry, LmInput, LoadOptions, ModelConfiguration,
    ModelContainer, Phase, ProcessorTypeRegistry, Result, UserInput, UserInputProcessor, VlmModelFactory, VlmRegistry,
    VlmTypeRegistry, load_container,
    plugins::Registry,
    text::{Message, Tokenizer},
};
use tamarack_api::{Architecture, Config, Declaration, Kind, Step, Tensor, Weights};
use tamarack_tests::{models, tiny};

/// Serves llama files with the plugin's own code, under another name and perhaps as another kind.
struct Renamed(&'static str, &'static [&'static str], Kind);

impl Architecture for Renamed {
    fn declaration(&self) -> Declaration {
        Declaration { kind: self.2, ..Declaration::llm(self.0, self.1) }
    }
    fn text(&self, config: &Config, weights: &Weights, step: &Step) -> tamarack_api::Result<Tensor> {
        let llama = tamarack_api::registered().into_iter().find(|r| r.architecture.declaration().name == "llama");
        llama.expect("linked").architecture.text(config, weights, step)
    }
}

static MINE: Renamed = Renamed("mine", &["llama"], Kind::Llm);
static OTHER: Renamed = Renamed("other", &["other"], Kind::Llm);
static SEES: Renamed = Renamed("sees", &["llama", "sees"], Kind::Vlm);

/// A tiny llama, with a `config.json` of which some entries are others.
fn folder(changes: &[(&str, serde_json::Value)], files: &[(&str, &str)]) -> tempfile::TempDir {
    let (from, to) = (&models::tiny("llama")[0], tempfile::tempdir().expect("a folder"));
    std::fs::copy(from.join("model.safetensors"), to.path().join("model.safetensors")).expect("copied");
    let config = std::fs::read_to_string(from.join("config.json")).expect("read");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    for (name, value) in changes {
        config[*name] = value.clone();
    }
    std::fs::write(to.path().join("config.json"), config.to_string()).expect("written");
    for (name, text) in files {
        std::fs::write(to.path().join(name), text).expect("written");
    }
    to
}

fn options() -> LoadOptions {
    let _ = tamarack_plugins::LINKED;
    LoadOptions::default().device(Device::Reference).context(64)
}

async fn llm(types: &LlmTypeRegistry, folder: &Path) -> Result<ModelContainer> {
    let factory = LlmModelFactory::new(types.clone());
    factory.load_container(&ModelConfiguration::directory(folder), options()).await
}

#[tokio::test]
async fn architectures_are_registered_replaced_and_asked_for() {
    let types = LlmTypeRegistry::new(Registry::linked());
    assert!(types.contains("llama") && types.contains("qwen3") && !types.contains("other"));
    let folder = folder(&[], &[]);
    let plugin = async |types: &LlmTypeRegistry| {
        let container = llm(types, folder.path()).await.expect("it loads");
        container.model_info().plugin.clone()
    };
    assert!(plugin(&types).await.starts_with("llama (tamarack-llama "));
    types.register(&MINE).expect("registered");
    assert_eq!(plugin(&types).await, "mine (registered)");
    types.register_model_type("llama", &OTHER).expect("registered");
    assert_eq!(plugin(&types).await, "other (registered)");
    assert!(!types.contains("other"), "it was registered for llama alone");
    assert!(types.model_types().contains("llama"));
    // Clones are the same registry, and others know nothing of it.
    types.clone().register(&OTHER).expect("registered");
    assert!(types.contains("other") && !LlmTypeRegistry::new(Registry::linked()).contains("other"));
    let none = LlmTypeRegistry::new(Registry::default());
    let e = llm(&none, folder.path()).await.expect_err("nothing is registered");
    assert!(e.to_string().contains("unsupported model_type `llama`: registered are none; "), "{e}");
}

#[tokio::test]
async fn kinds_are_told_apart() {
    let types = LlmTypeRegistry::new(Registry::linked());
    let e = types.register(&SEES).expect_err("another kind");
    assert_eq!(e.to_string(), "sees: expected an architecture of kind Llm, found Vlm");

    let folder = folder(&[], &[("processor_config.json", r#"{"processor_class": "SeeingProcessor"}"#)]);
    let configuration = ModelConfiguration::directory(folder.path());
    let vlm = VlmModelFactory::new(Registry::linked());
    let e = vlm.load_container(&configuration, options()).await.expect_err("no plugin for images").to_string();
    assert!(e.contains("unsupported model_type `llama`: llama (tamarack-llama "), "{e}");
    assert!(
        e.ends_with(
            "serves it as a language model (load it with LlmModelFactory), no plugin as a vision-language model"
        ),
        "{e}"
    );
    let unknown = VlmTypeRegistry::new(Registry::default()).find("qwen2_vl").expect_err("unknown").to_string();
    assert!(unknown.ends_with("no vision-language architecture is registered"), "{unknown}");

    let processors = ProcessorTypeRegistry::default();
    let vlm = vlm.processors(processors.clone());
    vlm.type_registry().register(&SEES).expect("registered");
    let e = vlm.load_container(&configuration, options()).await.expect_err("no processor").to_string();
    assert_eq!(
        e,
        "no processor for processor_class `SeeingProcessor`: registered are none; \
         register one with ProcessorTypeRegistry::register"
    );
    processors.register("SeeingProcessor", |config| {
        assert_eq!(config["processor_class"], "SeeingProcessor");
        Ok(Arc::new(Sevens(1)))
    });
    processors.register("SeeingProcessor", |_| Ok(Arc::new(Sevens(3))));
    assert!(processors.contains("SeeingProcessor"));
    assert_eq!(processors.processor_classes(), ["SeeingProcessor"]);
    let container = vlm.load_container(&configuration, options()).await.expect("it loads");
    assert_eq!(container.model_info().plugin, "sees (registered)");
    // The latest registration counts, for `perform` too.
    let input = container.perform(|context| context.processor.prepare("".into(), &tokenizer())).await;
    assert_eq!(input.and_then(|i| i).expect("prepared").tokens, [7, 7, 7]);
    assert_eq!(container.processor().prepare("".into(), &tokenizer()).expect("prepared").tokens, [7, 7, 7]);
}

/// Whatever is asked, so many sevens.
struct Sevens(usize);

impl UserInputProcessor for Sevens {
    fn prepare(&self, _: UserInput, _: &Tokenizer) -> Result<LmInput> {
        Ok(vec![7; self.0].into())
    }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(tiny::chat_model().path()).expect("a tokenizer")
}

#[tokio::test]
async fn one_function_picks_by_what_the_model_is() {
    let folder = folder(&[], &[]);
    let container = load_container(&ModelConfiguration::directory(folder.path()), options()).await.expect("it loads");
    assert!(container.model_info().plugin.starts_with("llama ("));
    let sees = self::folder(
        &[("model_type", "sees_too".into())],
        &[("processor_config.json", r#"{"processor_class": "Sees"}"#)],
    );
    let configuration = ModelConfiguration::directory(sees.path());
    let e = load_container(&configuration, options()).await.expect_err("not yet").to_string();
    assert!(e.contains("unsupported model_type `sees_too`: registered are "), "{e}");
    // From now on, in the whole process.
    VlmTypeRegistry::shared().register_model_type("sees_too", &SEES).expect("registered");
    ProcessorTypeRegistry::shared().register("Sees", |_| Ok(Arc::new(Sevens(1))));
    assert!(VlmTypeRegistry::shared().contains("sees_too") && !LlmTypeRegistry::shared().contains("sees_too"));
    let container = load_container(&configuration, options()).await.expect("it loads");
    assert_eq!(container.model_info().plugin, "sees (registered)");
    assert!(VlmModelFactory::shared().load_container(&configuration, options()).await.is_ok());
    assert!(LlmModelFactory::shared().load_container(&configuration, options()).await.is_err());

    // Both kinds serve this one: its configuration tells.
    LlmTypeRegistry::shared().register_model_type("sees_too", &OTHER).expect("registered");
    let container = load_container(&configuration, options()).await.expect("it loads");
    assert_eq!(container.model_info().plugin, "other (registered)");
    let both = [("model_type", "sees_too".into()), ("vision_config", serde_json::json!({}))];
    let sees = self::folder(&both, &[("processor_config.json", r#"{"processor_class": "Sees"}"#)]);
    let container = load_container(&ModelConfiguration::directory(sees.path()), options()).await.expect("it loads");
    assert_eq!(container.model_info().plugin, "sees (registered)");
}

/// Llama's files, with a chat template for those that have none.
struct Templated;

impl Architecture for Templated {
    fn declaration(&self) -> Declaration {
        let chat_template = Some("{{ bos_token }}[{{ messages[0].content }}]".to_owned());
        Declaration { chat_template, ..MINE.declaration() }
    }
    fn text(&self, config: &Config, weights: &Weights, step: &Step) -> tamarack_api::Result<Tensor> {
        MINE.text(config, weights, step)
    }
}

#[tokio::test]
async fn an_architectures_chat_template_is_for_files_without_one() {
    let types = LlmTypeRegistry::new(Registry::linked());
    types.register(&Templated).expect("registered");
    let folder = tiny::chat_model();
    let asked = async || {
        let container = llm(&types, folder.path()).await.expect("loads");
        let tokens = container.apply_chat_template(&[Message::user("Hi")]).expect("tokens");
        container.decode(&tokens).expect("text")
    };
    assert_eq!(asked().await, "<s>user: Hi</s><s>assistant: ");
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"bos_token": "<s>"}"#).expect("written");
    assert_eq!(asked().await, "<s>[Hi]");
}

#[test]
fn models_are_found_by_name() {
    let models = LlmRegistry::shared();
    for name in ["mlx-community/Llama-3.2-3B-Instruct-4bit", "Llama-3.2-3B-Instruct-4bit", "llama3_2_3b_4bit"] {
        assert_eq!(models.configuration(name), LlmRegistry::llama3_2_3b_4bit(), "{name}");
    }
    let llama = LlmRegistry::llama3_2_3b_4bit();
    assert_eq!(llama.extra_eos_tokens, ["<|eot_id|>".to_owned()].into());
    assert_eq!(llama.default_prompt, "What is the difference between a fruit and a vegetable?");
    assert!(models.contains("meta-llama/Llama-3.2-3B-Instruct"), "the original is there, too");
    assert!(!models.contains("org/unknown"));
    assert_eq!(models.configuration("org/unknown"), ModelConfiguration::hub("org/unknown"));
    for name in ["qwen2_vl_2b_instruct_4bit", "Qwen/Qwen2-VL-2B-Instruct"] {
        assert!(VlmRegistry::shared().contains(name), "{name}");
    }

    // A registry of its own, and one that replaces an entry.
    let mine = LlmRegistry::new([ModelConfiguration::directory("/models/mine").name("the best")]);
    assert!(mine.contains("/models/mine") && mine.contains("the best") && !models.contains("the best"));
    mine.register([ModelConfiguration::directory("/models/mine").default_prompt("Hi"), ModelConfiguration::hub("a/b")]);
    assert_eq!(mine.models().len(), 2);
    assert_eq!(mine.configuration("/models/mine").default_prompt, "Hi");
    let factory = LlmModelFactory::with_registries(Registry::linked(), mine);
    assert!(factory.model_registry().contains("a/b"));
}

#[test]
fn no_model_is_preconfigured_twice() {
    for models in [LlmRegistry::shared().models(), VlmRegistry::shared().models()] {
        let mut ids: Vec<String> = models.iter().map(|m| m.id.to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), models.len());
    }
}

#[tokio::test]
async fn progress_is_called_and_streamed() {
    let folder = folder(&[], &[]);
    let configuration = ModelConfiguration::directory(folder.path());
    let factory = LlmModelFactory::new(Registry::linked());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let called = options().progress(move |p| tell.lock().expect("unpoisoned").push(p));
    let container = factory.load_container(&configuration, called).await.expect("it loads");
    let told = std::mem::take(&mut *told.lock().expect("unpoisoned"));
    let loads: Vec<_> = told.iter().filter(|p| p.phase == Phase::Load).collect();
    assert!(loads.is_sorted_by_key(|p| p.done) && loads.iter().all(|p| p.total == loads[0].total && p.total > 0));
    assert_eq!(loads.last().map(|p| p.fraction_completed()), Some(1.0));
    drop(container);

    let (options, mut progress) = options().progress_stream();
    let loading = factory.load_container(&configuration, options);
    let watching = async {
        let mut last = None;
        while let Some(p) = progress.next().await {
            last = Some(p);
        }
        last
    };
    let (container, last) = futures::join!(loading, watching);
    assert!(container.is_ok());
    assert_eq!(last.map(|p| p.fraction_completed()), Some(1.0));
    // A load that fails ends the stream, too.
    let (options, mut progress) = self::options().progress_stream();
    let absent = ModelConfiguration::directory("/absent");
    let (failed, rest) = futures::join!(factory.load_container(&absent, options), progress.next());
    assert!(matches!(failed, Err(Error::File { .. })), "{failed:?}");
    assert_eq!(rest, None);
}
