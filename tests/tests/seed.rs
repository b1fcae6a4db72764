//! The tables of the interface that this project re-creates (mlx-swift-lm's containers, configurations, factories and
//! registries), a test for each row. docs/guide.rs has its snippets.

use std::{collections::BTreeSet, fs, path::Path};
use tamarack::{
    ChatSession, Device, Error, GenerateParameters, Generation, LlmModelFactory, LlmRegistry, LlmTypeRegistry,
    LoadOptions, ModelConfiguration, ModelContainer, ModelContext, ProcessorTypeRegistry, Result, StopReason,
    UserInput, VlmModelFactory, VlmRegistry, VlmTypeRegistry,
    checkpoint::Checkpoint,
    hub::Hub,
    load_container,
    model::{Identifier, Parameters, Verify},
    plugins::Registry,
    text::{Message, ToolCallFormat},
};
use tamarack_tests::{models, tiny};
use tempfile::TempDir;

/// A hub whose cache has a tiny llama as `org/model`, which can be talked to.
fn hub() -> (Hub, TempDir) {
    let cache = tempfile::tempdir().expect("a folder");
    let snapshot = cache.path().join("models--org--model/snapshots/main");
    fs::create_dir_all(&snapshot).expect("made");
    tiny::write_chat_model(&snapshot);
    (Hub::builder().cache_dir(cache.path()).offline(true).build().expect("a hub"), cache)
}

fn options() -> LoadOptions {
    let _ = tamarack_plugins::LINKED;
    LoadOptions::default().device(Device::Reference).context(256)
}

async fn load(folder: &Path) -> Result<ModelContainer> {
    load_container(&ModelConfiguration::directory(folder), options()).await
}

async fn loaded() -> (ModelContainer, TempDir) {
    let folder = tiny::chat_model();
    (load(folder.path()).await.expect("loads"), folder)
}

fn greedy(tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(tokens), temperature: 0.0, ignore_eos: true, ..Default::default() }
}

async fn answer(container: &ModelContainer, prompt: &str, parameters: GenerateParameters) -> (Vec<u32>, StopReason) {
    let input = container.prepare(prompt.into()).await.expect("prepared");
    let mut stream = container.generate(input, parameters).await.expect("runs");
    let mut tokens = Vec::new();
    loop {
        match stream.next().await.expect("an event").expect("no failure") {
            Generation::Token(token) => tokens.push(token),
            Generation::Info(info) => return (tokens, info.stop_reason),
            _ => {}
        }
    }
}

/// The types of the overview.
mod types {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn model_container_is_for_any_thread() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<ModelContainer>();
        let (container, _folder) = loaded().await;
        let alone = (answer(&container, "One", greedy(12)).await, answer(&container, "Two", greedy(12)).await);
        let spawned = ["One", "Two"].map(|prompt| {
            let container = container.clone();
            tokio::spawn(async move { answer(&container, prompt, greedy(12)).await })
        });
        let [one, two] = spawned.map(async |task| task.await.expect("no panic"));
        assert_eq!((one.await, two.await), alone);
    }

    #[tokio::test]
    async fn model_context_has_model_tokenizer_and_processor() {
        let (container, _folder) = loaded().await;
        let look = |context: &mut ModelContext| {
            let ModelContext { model, configuration, processor, .. } = &*context;
            let tokens = processor.prepare(UserInput::raw("Hi"), context.tokenizer()?)?.tokens;
            Ok::<_, Error>((model.vocabulary(), configuration.eos_token_ids.clone(), tokens))
        };
        let found = container.perform(look).await.expect("runs").expect("a context");
        assert_eq!(found, (97, BTreeSet::from([2]), container.encode("Hi").expect("tokens")));
    }

    #[test]
    fn model_configuration_has_identity_and_settings() {
        let configuration = ModelConfiguration::hub("org/model").extra_eos_token("<|im_end|>");
        assert_eq!((configuration.id.to_string().as_str(), configuration.name.as_str()), ("org/model", "model"));
        assert_ne!(configuration, ModelConfiguration::hub("org/model"));
    }

    #[tokio::test]
    async fn llm_model_factory_loads_text_models() {
        let folder = tiny::chat_model();
        let text = ModelConfiguration::directory(folder.path());
        let container = LlmModelFactory::shared().load_container(&text, options()).await.expect("loads");
        assert_eq!((container.model_info().model_type.as_str(), container.model_info().image_rows), ("llama", 0));
        let sees = ModelConfiguration::directory(models::folder("goldens/vision/qwen2_vl"));
        let e = LlmModelFactory::shared().load_container(&sees, options()).await.expect_err("it sees");
        assert!(e.to_string().contains("(load it with VlmModelFactory)"), "{e}");
    }

    #[tokio::test]
    async fn vlm_model_factory_loads_models_that_see() {
        let sees = ModelConfiguration::directory(models::folder("goldens/vision/qwen2_vl"));
        let container = VlmModelFactory::shared().load_container(&sees, options()).await.expect("loads");
        assert!(container.model_info().image_rows > 0);
        let folder = tiny::chat_model();
        let text = ModelConfiguration::directory(folder.path());
        let e = VlmModelFactory::shared().load_container(&text, options()).await.expect_err("it is blind");
        assert!(matches!(&e, Error::UnsupportedModelType(_)) && e.to_string().contains("LlmModelFactory"), "{e}");
    }

    /// Each with its id on the hub, and found by name.
    #[test]
    fn llm_registry_has_preconfigured_models() {
        for (model, name, id) in [
            (LlmRegistry::llama3_2_3b_4bit(), "llama3_2_3b_4bit", "mlx-community/Llama-3.2-3B-Instruct-4bit"),
            (LlmRegistry::qwen3_4b_4bit(), "qwen3_4b_4bit", "mlx-community/Qwen3-4B-4bit"),
            (LlmRegistry::gemma3_1b_qat_4bit(), "gemma3_1b_qat_4bit", "mlx-community/gemma-3-1b-it-qat-4bit"),
            (LlmRegistry::phi3_5_4bit(), "phi3_5_4bit", "mlx-community/Phi-3.5-mini-instruct-4bit"),
            (LlmRegistry::mistral_7b_4bit(), "mistral_7b_4bit", "mlx-community/Mistral-7B-Instruct-v0.3-4bit"),
        ] {
            assert_eq!(model.id.to_string(), id);
            assert_eq!([name, id].map(|key| LlmRegistry::shared().configuration(key)), [model.clone(), model]);
        }
    }

    #[test]
    fn vlm_registry_has_preconfigured_models() {
        for (model, name, id) in [
            (
                VlmRegistry::qwen2_vl_2b_instruct_4bit(),
                "qwen2_vl_2b_instruct_4bit",
                "mlx-community/Qwen2-VL-2B-Instruct-4bit",
            ),
            (VlmRegistry::gemma3_4b_qat_4bit(), "gemma3_4b_qat_4bit", "mlx-community/gemma-3-4b-it-qat-4bit"),
            (
                VlmRegistry::paligemma_3b_mix_448_8bit(),
                "paligemma_3b_mix_448_8bit",
                "mlx-community/paligemma-3b-mix-448-8bit",
            ),
        ] {
            assert_eq!(model.id.to_string(), id);
            assert_eq!([name, id].map(|key| VlmRegistry::shared().configuration(key)), [model.clone(), model]);
        }
    }

    #[test]
    fn llm_type_registry_maps_model_types() {
        let _ = tamarack_plugins::LINKED;
        for model_type in [
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3",
            "phi",
            "phi3",
            "deepseek_v3",
            "glm4",
            "lfm2",
        ] {
            let found = LlmTypeRegistry::shared().find(model_type).unwrap_or_else(|e| panic!("{e}"));
            assert!(found.declaration().model_types.iter().any(|t| t == model_type), "{model_type}");
        }
        assert!(!LlmTypeRegistry::shared().contains("qwen2_vl"));
    }

    #[test]
    fn vlm_type_registry_maps_model_types() {
        let _ = tamarack_plugins::LINKED;
        for model_type in
            ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "paligemma", "gemma3", "idefics3", "smolvlm", "pixtral", "mistral3"]
        {
            assert!(VlmTypeRegistry::shared().contains(model_type), "{model_type}");
        }
        assert!(!VlmTypeRegistry::shared().contains("llama"));
    }
}

/// What a container offers.
mod container {
    use super::*;

    #[tokio::test]
    async fn it_comes_from_a_factory_a_hub_of_its_own_and_with_progress() {
        let (hub, _cache) = hub();
        let (options, mut progress) = options().hub(hub).progress_stream();
        let configuration = ModelConfiguration::hub("org/model");
        let container = LlmModelFactory::shared().load_container(&configuration, options).await.expect("loads");
        assert_eq!(container.configuration().id, configuration.id);
        let mut last = None;
        while let Some(p) = progress.next().await {
            assert!((0.0..=1.0).contains(&p.fraction_completed()));
            last = Some(p);
        }
        assert_eq!(last.map(|p| p.fraction_completed()), Some(1.0));
    }

    #[tokio::test]
    async fn configuration_tokenizer_and_processor_are_at_hand() {
        let (container, folder) = loaded().await;
        assert_eq!(container.configuration().id, Identifier::Directory(folder.path().into()));
        let tokenizer = container.tokenizer().expect("a tokenizer");
        assert_eq!(tokenizer.vocab_size(), 97);
        let input = container.processor().prepare(UserInput::raw("Hi"), tokenizer).expect("prepared");
        assert_eq!(input.tokens, tokenizer.encode("Hi", true).expect("tokens"));
    }

    #[tokio::test]
    async fn perform_has_all_of_the_context() {
        let (container, _folder) = loaded().await;
        let messages = [Message::user("Hello").into()];
        let tokens = container.perform(move |context| {
            context.tokenizer()?.apply_chat_template(&messages, None, true, &Default::default())
        });
        let tokens = tokens.await.expect("runs").expect("tokens");
        assert_eq!(tokens, container.apply_chat_template(&[Message::user("Hello")]).expect("tokens"));
    }

    #[tokio::test]
    async fn prepare_and_generate() {
        let (container, _folder) = loaded().await;
        let input = container.prepare("Hello".into()).await.expect("prepared");
        assert_eq!(container.decode(&input.tokens).expect("text"), "<s>user: Hello</s><s>assistant: ");
        let (_, info) = container.generate(input, greedy(5)).await.expect("runs").text().await.expect("ends");
        assert_eq!((info.generation_tokens, info.stop_reason), (5, StopReason::Length));
    }

    #[tokio::test]
    async fn encode_and_decode() {
        let (container, _folder) = loaded().await;
        let tokens = container.encode("Hello world").expect("tokens");
        assert_eq!(container.decode(&tokens).expect("text"), "Hello world");
    }

    #[tokio::test]
    async fn apply_chat_template_takes_messages_tools_and_context() {
        let folder = tiny::chat_model();
        let template = "{{ messages[0].content }}|{{ tools[0].function.name }}|{{ mood }}";
        fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
        let container = load(folder.path()).await.expect("loads");
        let messages = [serde_json::json!({ "role": "user", "content": "Hi" })];
        let tools = [serde_json::json!({ "type": "function", "function": { "name": "clock" } })];
        let context = [("mood".to_owned(), "calm".into())].into_iter().collect();
        let tokens = container.apply_chat_template_with(&messages, &tools, &context).expect("tokens");
        assert_eq!(container.decode(&tokens).expect("text"), "Hi|clock|calm");
    }
}

/// The properties of a configuration, as they show in what is loaded.
mod configuration {
    use super::*;

    #[test]
    fn id_is_of_the_hub_or_a_folder() {
        let hub = ModelConfiguration::hub("mlx-community/model").revision("v1.0");
        assert_eq!(hub.id, Identifier::Hub { id: "mlx-community/model".into(), revision: "v1.0".into() });
        let folder = ModelConfiguration::directory("/path/to/model").extra_eos_tokens(["</s>"]);
        assert_eq!(folder.id, Identifier::Directory("/path/to/model".into()));
        assert_eq!(ModelConfiguration::gguf("a/b.gguf").id, Identifier::Gguf("a/b.gguf".into()));
    }

    #[test]
    fn name_is_for_people() {
        assert_eq!(ModelConfiguration::hub("org/model").name, "model");
        assert_eq!(ModelConfiguration::directory("/path/to/model").name, "model");
        assert_eq!(ModelConfiguration::hub("org/model").name("The best").name, "The best");
    }

    #[tokio::test]
    async fn tokenizer_id_is_another_place_of_the_tokenizer() {
        let (model, (hub, _cache), other) = (tiny::chat_model(), hub(), tiny::chat_model());
        fs::remove_file(model.path().join("tokenizer.json")).expect("removed");
        let configuration = ModelConfiguration::directory(model.path());
        let container = load_container(&configuration, options()).await.expect("loads");
        let e = container.encode("Hi").expect_err("there is none").to_string();
        assert!(e.contains("tokenizer.json"), "{e}");
        for id in ["org/model".to_owned(), other.path().display().to_string()] {
            let configuration = configuration.clone().tokenizer_id(id);
            let container = load_container(&configuration, options().hub(hub.clone())).await.expect("loads");
            assert_eq!(container.encode("Hi").expect("tokens"), [43, 76]);
        }
    }

    #[tokio::test]
    async fn override_tokenizer_names_another_kind() {
        let tokens = async |kind: Option<&str>| {
            let mut configuration = ModelConfiguration::gguf(models::smollm2());
            configuration.override_tokenizer = kind.map(str::to_owned);
            let container = load_container(&configuration, options()).await.expect("loads");
            container.encode("A GitHub").expect("tokens")
        };
        // That of GPT-4o cuts words where lower case turns into upper.
        let (own, other) = (tokens(None).await, tokens(Some("gpt-4o")).await);
        assert!(own.len() < other.len(), "{own:?} {other:?}");
    }

    #[test]
    fn default_prompt_is_something_to_try() {
        assert_eq!(ModelConfiguration::hub("org/model").default_prompt("Hello").default_prompt, "Hello");
        assert_eq!(LlmRegistry::qwen3_4b_4bit().default_prompt, "Why is the sky blue?");
    }

    #[tokio::test]
    async fn extra_eos_tokens_end_an_answer() {
        let (container, folder) = loaded().await;
        let (tokens, _) = answer(&container, "Hello", greedy(8)).await;
        let spelt = container.tokenizer().expect("a tokenizer").id_to_token(tokens[4]).expect("a token");
        let configuration = ModelConfiguration::directory(folder.path()).extra_eos_tokens([spelt]);
        let container = load_container(&configuration, options()).await.expect("loads");
        assert!(container.configuration().eos_token_ids.contains(&tokens[4]));
        let first = tokens.iter().position(|t| *t == tokens[4]).expect("it is there");
        let parameters = GenerateParameters { ignore_eos: false, ..greedy(8) };
        assert_eq!(answer(&container, "Hello", parameters).await, (tokens[..first].to_vec(), StopReason::Stop));
    }

    #[tokio::test]
    async fn eos_token_ids_are_those_of_generation_config_over_config() {
        let folder = tiny::chat_model();
        let path = folder.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        config["eos_token_id"] = 5.into();
        fs::write(&path, config.to_string()).expect("written");
        let ids = async || load(folder.path()).await.expect("loads").configuration().eos_token_ids.clone();
        // 2 is the tokenizer's own.
        assert_eq!(ids().await, [2, 5].into());
        fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [7, 8]}"#).expect("written");
        assert_eq!(ids().await, [2, 7, 8].into());
    }

    #[tokio::test]
    async fn generate_parameters_are_said_or_those_of_generation_config() {
        let folder = tiny::chat_model();
        let config = r#"{"do_sample": true, "temperature": 0.25, "top_p": 0.5, "max_new_tokens": 3}"#;
        fs::write(folder.path().join("generation_config.json"), config).expect("written");
        let asked =
            GenerateParameters { temperature: 0.25, top_p: 0.5, max_tokens: Some(3), ..GenerateParameters::default() };
        let container = load(folder.path()).await.expect("loads");
        assert_eq!(container.generate_parameters(), asked);
        let mut session = ChatSession::new(container);
        assert_eq!(*session.parameters_mut(), asked);
        let mut tokens = 0;
        let mut stream = session.stream_response("Hello").await.expect("begins");
        while let Some(event) = stream.next().await {
            tokens += usize::from(matches!(event.expect("an event"), Generation::Token(_)));
        }
        assert!((1..=3).contains(&tokens), "{tokens}");
        // What a program says in its configuration comes before what files say.
        let said = GenerateParameters { temperature: 0.75, ..GenerateParameters::default() };
        let configuration = ModelConfiguration::directory(folder.path()).generate_parameters(said.clone());
        let container = load_container(&configuration, options()).await.expect("loads");
        assert_eq!(container.generate_parameters(), said);
        fs::remove_file(folder.path().join("generation_config.json")).expect("removed");
        assert_eq!(load(folder.path()).await.expect("loads").generate_parameters(), GenerateParameters::default());
    }

    #[tokio::test]
    async fn tool_call_format_is_said_or_inferred() {
        let folder = tiny::chat_model();
        let configuration = ModelConfiguration::directory(folder.path());
        let format = async |c: &ModelConfiguration| {
            load_container(c, options()).await.expect("loads").configuration().tool_call_format
        };
        assert_eq!(format(&configuration).await, None);
        assert_eq!(
            format(&configuration.clone().tool_call_format(ToolCallFormat::Glm4)).await,
            Some(ToolCallFormat::Glm4)
        );
        let template = "<|tool_list_start|>{{ tools }}<|tool_call_start|>[f()]<|tool_call_end|>";
        fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
        assert_eq!(format(&configuration).await, Some(ToolCallFormat::Lfm2));
    }
}

/// Factories with registries of a program's own.
#[tokio::test]
async fn factories_are_shared_or_custom() {
    assert!(std::ptr::eq(LlmModelFactory::shared(), LlmModelFactory::shared()));
    let folder = tiny::chat_model();
    let models = LlmRegistry::new([ModelConfiguration::directory(folder.path()).name("mine")]);
    let factory = LlmModelFactory::with_registries(LlmTypeRegistry::new(Registry::default()), models);
    let factory = factory.processors(ProcessorTypeRegistry::default());
    let mine = factory.model_registry().configuration("mine");
    assert!(!factory.type_registry().contains("llama") && factory.processor_registry().processor_classes().is_empty());
    let e = factory.load_container(&mine, options()).await.expect_err("no architecture");
    assert!(matches!(e, Error::UnsupportedModelType(_)), "{e}");
    let factory = LlmModelFactory::with_registries(Registry::linked(), factory.model_registry().clone());
    assert_eq!(factory.load_container(&mine, options()).await.expect("loads").configuration().name, "mine");
}

/// The steps of loading, by what is said where one fails.
mod loading {
    use super::*;

    async fn error(spoil: impl Fn(&Path)) -> String {
        let folder = tiny::chat_model();
        spoil(folder.path());
        load(folder.path()).await.expect_err("spoilt").to_string()
    }

    #[tokio::test]
    async fn first_files_come_from_the_hub_or_its_cache() {
        let (hub, cache) = hub();
        let options = options().hub(hub.clone());
        assert!(load_container(&ModelConfiguration::hub("org/model"), options.clone()).await.is_ok());
        let e = load_container(&ModelConfiguration::hub("org/absent"), options).await.expect_err("not there");
        assert!(matches!(e, Error::Hub(_)), "{e}");
        let folder = ModelConfiguration::hub("org/model").model_directory(&hub).expect("it is there");
        assert_eq!(folder, cache.path().join("models--org--model/snapshots/main"));
    }

    #[tokio::test]
    async fn then_config_json_says_what_it_is() {
        let e = error(|folder| fs::write(folder.join("config.json"), "{").expect("written")).await;
        assert!(e.contains("config.json"), "{e}");
        let e = error(|folder| fs::write(folder.join("config.json"), "{}").expect("written")).await;
        assert!(e.contains("expected a `model_type`"), "{e}");
    }

    #[tokio::test]
    async fn then_the_type_registry_finds_the_architecture() {
        let e = error(|folder| fs::write(folder.join("config.json"), r#"{"model_type": "x"}"#).expect("written")).await;
        assert!(e.contains("unsupported model_type `x`: registered are "), "{e}");
    }

    #[tokio::test]
    async fn then_weights_are_loaded() {
        let e = error(|folder| fs::remove_file(folder.join("model.safetensors")).expect("removed")).await;
        assert!(e.contains("safetensors"), "{e}");
    }

    #[tokio::test]
    async fn then_the_tokenizer_without_which_token_ids_still_work() {
        let folder = tiny::chat_model();
        fs::write(folder.path().join("tokenizer.json"), "{").expect("written");
        let container = load(folder.path()).await.expect("loads");
        let e = container.tokenizer().expect_err("damaged").to_string();
        assert!(e.contains("tokenizer.json"), "{e}");
        let stream = container.generate(vec![1, 2, 3].into(), greedy(4)).await.expect("runs");
        assert_eq!(stream.text().await.expect("ends").1.generation_tokens, 4);
    }

    #[tokio::test]
    async fn and_the_processor_at_last() {
        let (container, folder) = loaded().await;
        let sees = UserInput::from("What is it?").image(models::folder("goldens/vision/images").join("cat.png"));
        let e = container.prepare(sees.clone()).await.expect_err("a language model").to_string();
        assert!(e.contains("takes no images"), "{e}");
        drop(folder);
        let container = load(&models::folder("goldens/vision/qwen2_vl")).await.expect("loads");
        assert!(container.prepare(sees).await.expect("prepared").media.is_some());
    }
}

/// A model's memory: what it takes, and that it is free again.
mod memory {
    use super::*;

    #[tokio::test]
    async fn four_bits_take_a_quarter_of_sixteen() {
        let folder = models::smollm2();
        let checkpoint = Checkpoint::open(&folder).expect("opens");
        let matrices = checkpoint.tensors().filter(|(_, t)| t.shape().len() == 2);
        let parameters: usize = matrices.map(|(_, t)| t.shape().iter().product::<usize>()).sum();
        let options = LoadOptions { device: Device::Cpu, ..options() };
        let weights = LlmModelFactory::shared().estimate(&ModelConfiguration::gguf(folder), &options).expect("known");
        // Q4_1 has two bytes of scale and two of bias for 32 codes, and a part of the file has 6 or 8 bits.
        let each = weights.weights as f64 / parameters as f64;
        assert!((0.5..0.8).contains(&each), "{each} bytes for a parameter");
    }

    /// tests/release.rs measures that; here it is what handles can do afterwards.
    #[tokio::test]
    async fn a_model_without_handles_is_gone() {
        let (container, _folder) = loaded().await;
        let mut session = ChatSession::new(container.clone());
        container.unload().await.expect("unloaded");
        let e = session.respond("Hello").await.expect_err("it is gone").to_string();
        assert_eq!(e, "the model was unloaded");
    }
}

#[tokio::test]
async fn update_changes_parameters_and_refuses_unused_keys() {
    let (container, _folder) = loaded().await;
    let before = answer(&container, "Hello", greedy(8)).await;
    let mut parameters = Parameters::default();
    parameters.insert("model.layers.9.warp", &[1], vec![0.0]).expect("values");
    let wrong = parameters.clone();
    let e = container.update(move |context| context.model.update(&wrong, Verify::NoUnusedKeys)).await;
    assert!(e.expect_err("no such key").to_string().contains("model.layers.9.warp"));
    assert_eq!(answer(&container, "Hello", greedy(8)).await, before);
    let norm = container.perform(|c| c.model.parameter("model.norm.weight")).await.expect("runs").expect("values");
    let mut parameters = Parameters::default();
    parameters.insert("model.norm.weight", &[norm.len()], norm.iter().map(|v| -v).collect()).expect("values");
    container.update(move |context| context.model.update(&parameters, Verify::NoUnusedKeys)).await.expect("updated");
    assert_ne!(answer(&container, "Hello", greedy(8)).await, before);
}

/// What was deprecated there: closures take the context, and capture values; each kind of model has a registry of its own.
#[tokio::test]
async fn what_is_deprecated_has_a_better_way() {
    let (container, _folder) = loaded().await;
    let values = vec![5, 9];
    let rows = container.perform(move |context| context.model.forward(&values, 8)).await.expect("runs");
    assert_eq!(rows.expect("logits").len(), 2 * 97);
    assert!(LlmRegistry::shared().contains("llama3_2_3b_4bit") && !VlmRegistry::shared().contains("llama3_2_3b_4bit"));
}
