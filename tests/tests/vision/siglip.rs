//! What is particular to the models with SigLIP's tower: files of every age, parts of images, prompts that see
//! themselves.

use super::{Case, answer, close, folder, image, load, load_from, on_runtime};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tamarack::{
    ChatSession, Device, GenerateParameters, LlmModelFactory, LoadOptions, ModelConfiguration, UserInput,
    plugins::Registry,
};

/// A copy of a model with other names of tensors, and convolutions as MLX writes them if asked for.
fn renamed(model: &str, to: &Path, rename: impl Fn(&str) -> String, is_mlx: bool) {
    for entry in fs::read_dir(folder(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    let bytes = fs::read(folder(model).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, t)| (rename(&name), t.shape().to_vec(), t)).collect();
    let turned: Vec<Vec<u8>> = tensors.iter().map(|(_, shape, t)| turn(shape, t.data())).collect();
    let views = tensors.iter_mut().zip(&turned).map(|((name, shape, t), turned)| {
        let is_conv = is_mlx && shape.len() == 4;
        let data = if is_conv { turned } else { t.data() };
        shape[1..].rotate_left(usize::from(is_conv));
        (name.clone(), TensorView::new(t.dtype(), shape.clone(), data).unwrap())
    });
    fs::write(to.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// [dim, channels, ..patch] of two bytes as [dim, ..patch, channels]; nothing for other shapes.
fn turn(shape: &[usize], data: &[u8]) -> Vec<u8> {
    let [_, channels, height, width] = *shape else { return Vec::new() };
    let each = channels * height * width * 2;
    let at = |of: &[u8], pixel: usize, channel: usize| {
        let i = (channel * height * width + pixel) * 2;
        [of[i], of[i + 1]]
    };
    let rows = data.chunks_exact(each);
    rows.flat_map(|row| (0..height * width).flat_map(move |p| (0..channels).flat_map(move |c| at(row, p, c)))).collect()
}

/// Names as hubs and other programs have them: those of goldens are of today's `save_pretrained`.
#[test]
fn checkpoints_of_every_age() {
    let hub = |name: &str| name.replacen("vision_tower.", "vision_tower.vision_model.", 1);
    let memory = |name: &str| match name {
        _ if name.starts_with("language_model.model.") => {
            name.replacen("language_model.model", "model.language_model", 1)
        }
        _ if name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.") => format!("model.{name}"),
        _ => name.to_owned(),
    };
    let mlx = |name: &str| match name.strip_prefix("model.").unwrap_or(name) {
        name if name.starts_with("text_model.") => name.replacen("text_model", "language_model", 1),
        name if name.starts_with("lm_head.") => format!("language_model.{name}"),
        name => name.to_owned(),
    };
    type Rename<'a> = &'a dyn Fn(&str) -> String;
    let all: [(&str, &str, Rename<'_>, bool); 8] = [
        ("gemma3", "one", &hub, false),
        ("gemma3", "one", &hub, true),
        ("gemma3", "one", &memory, false),
        ("paligemma", "one", &hub, false),
        ("paligemma2", "one", &memory, true),
        ("paligemma", "one", &memory, false),
        ("idefics3", "whole", &mlx, true),
        ("smolvlm", "whole", &mlx, true),
    ];
    on_runtime(async {
        for (model, case, rename, is_mlx) in all {
            let copy = tempfile::tempdir().unwrap();
            renamed(model, copy.path(), rename, is_mlx);
            let container = load_from(copy.path(), Device::Reference).await;
            let case = Case::read(&folder(model).join(format!("{case}.golden")));
            let input = container.prepare(case.input()).await.unwrap();
            let logits = container.perform(move |c| c.model.forward_input(&input, 512)).await.unwrap().unwrap();
            close(&case.name, &logits, &case.floats("logits"), 2e-3).unwrap_or_else(|e| panic!("{e}"));
        }
    });
}

/// Files leave out what their configuration class has as a default: those of Llama, and of the towers.
#[test]
fn sizes_that_files_leave_out() {
    let config = json!({ "model_type": "idefics3", "text_config": { "vocab_size": 128_259 } });
    let registry = Registry::linked();
    let found = registry.find("idefics3").unwrap();
    let text = found.text_model(&config).unwrap().unwrap();
    let tensors = registry.find(&text.model_type).unwrap().tensors(&text.config).unwrap();
    assert_eq!(tensors["model.embed_tokens.weight"], [128_259, 4096]);
    let e = found.record("tower", &config, Default::default()).unwrap_err().to_string();
    let expected = "model.vision_model.embeddings.patch_embedding.weight: expected [1152, 3, 32, 32] by config.json";
    assert!(e.contains(expected), "{e}");
}

/// One flat file where there are two nested ones today.
#[test]
fn processor_files_of_every_age() {
    on_runtime(async {
        for (model, case) in [("gemma3", "crops"), ("paligemma", "two"), ("idefics3", "two"), ("smolvlm", "one")] {
            let copy = tempfile::tempdir().unwrap();
            renamed(model, copy.path(), str::to_owned, false);
            let new = copy.path().join("processor_config.json");
            let file: Value = serde_json::from_slice(&fs::read(&new).unwrap()).unwrap();
            fs::remove_file(new).unwrap();
            fs::write(copy.path().join("preprocessor_config.json"), file["image_processor"].to_string()).unwrap();
            let case = Case::read(&folder(model).join(format!("{case}.golden")));
            let old = load_from(copy.path(), Device::Reference).await.prepare(case.input()).await.unwrap();
            let new = load(model, Device::Reference).await.prepare(case.input()).await.unwrap();
            assert_eq!(old, new, "{}", case.name);
        }
    });
}

/// Gemma 3 alone is still a language model, whatever else is in its files.
#[test]
fn the_text_alone_needs_no_tower() {
    on_runtime(async {
        let configuration = ModelConfiguration::directory(folder("gemma3"));
        let options = LoadOptions::default().device(Device::Reference).context(256);
        let container = LlmModelFactory::shared().load_container(&configuration, options).await.unwrap();
        assert_eq!(container.model_info().image_rows, 0);
        let both = load("gemma3", Device::Reference).await;
        let mut answers = Vec::new();
        for container in [container, both] {
            let input = container.prepare("Hello".into()).await.unwrap();
            answers.push(answer(&container, input, 6).await);
        }
        assert_eq!(answers[0], answers[1]);
    });
}

/// A tile's size is the tower's, and there are only so many of them.
#[test]
fn tiles_have_to_fit_the_tower() {
    on_runtime(async {
        for (change, expected) in [
            (
                json!({ "max_image_size": { "longest_edge": 27 } }),
                "max_image_size.longest_edge: expected the tower's 28",
            ),
            (json!({ "max_image_size": { "longest_edge": -1 } }), "max_image_size.longest_edge: expected a number"),
            (json!({ "size": { "longest_edge": 2000 } }), "tiles: expected 1024 at most"),
        ] {
            let copy = tempfile::tempdir().unwrap();
            renamed("idefics3", copy.path(), str::to_owned, false);
            let path = copy.path().join("processor_config.json");
            let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let (key, value) = change.as_object().unwrap().iter().next().unwrap();
            file["image_processor"][key] = value.clone();
            fs::write(&path, file.to_string()).unwrap();
            let container = load_from(copy.path(), Device::Reference).await;
            let e = container.prepare(UserInput::from("?").image(image("cat.png"))).await.unwrap_err().to_string();
            assert!(e.contains(expected), "{e}");
        }
    });
}

/// Nothing of a prompt that sees itself is of use for another one, and all of it for the same.
#[test]
fn a_prefix_is_kept_as_a_whole() {
    on_runtime(async {
        let parameters = || GenerateParameters {
            max_tokens: Some(4),
            temperature: 0.0,
            ignore_eos: true,
            ..GenerateParameters::default()
        };
        let container = load("paligemma2", Device::Reference).await;
        let cache = container.prompt_cache();
        let ask = async |question: &str, is_cached: bool| {
            let input = container.prepare(UserInput::from(question).image(image("cat.png"))).await.unwrap();
            let stream = match is_cached {
                true => container.generate_from(input, parameters(), &cache).await,
                false => container.generate(input, parameters()).await,
            };
            stream.unwrap().text().await.unwrap()
        };
        let (first, info) = ask("caption", true).await;
        assert_eq!(info.cached_prompt_tokens, 0);
        let (again, info) = ask("caption", true).await;
        assert_eq!((again, info.cached_prompt_tokens), (first, info.prompt_tokens - 1));
        let (other, info) = ask("caption it", true).await;
        assert_eq!(info.cached_prompt_tokens, 0, "all of it saw what is not there");
        assert_eq!(other, ask("caption it", false).await.0);
        // The same in a conversation, whose second turn has the first one in its prompt.
        let mut session = ChatSession::new(container.clone()).parameters(parameters());
        session.add_image(image("cup.png"));
        session.respond("caption").await.unwrap();
        session.respond("and?").await.unwrap();
        assert_eq!(session.turns().len(), 4);
    });
}

/// A prompt that no step can take is refused.
#[test]
fn a_prefix_has_to_fit_a_step() {
    on_runtime(async {
        let container = load("paligemma", Device::Reference).await;
        let long = UserInput::from("long ".repeat(150)).image(image("cat.png"));
        let input = container.prepare(long).await.unwrap();
        let refused = container.generate(input, GenerateParameters::default()).await;
        let e = match refused {
            Ok(stream) => stream.text().await.err(),
            Err(e) => Some(e),
        };
        let e = e.expect("an error").to_string();
        assert!(e.starts_with("a prompt of 768 tokens that see each other, 16 of them images'"), "{e}");
    });
}
