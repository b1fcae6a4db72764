//! What Qwen's processors say of images of any size, and the spellings of their files.

use super::{folder, load, on_runtime, variants::Variant};
use serde_json::{Value, json};
use tamarack::{Device, Image, ModelContainer, UserInput, exec::ImagePatches, image::Pixels};
use tamarack_tests::gpu::close;

/// What transformers' functions give, see goldens/vision.py.
pub fn table(name: &str) -> Vec<Value> {
    let tables: Value = serde_json::from_slice(&std::fs::read(folder("towers.json")).unwrap()).unwrap();
    tables[name].as_array().unwrap().clone()
}

/// What becomes of a gray image of this height and width.
pub async fn prepared(container: &ModelContainer, marker: &str, [height, width]: [usize; 2]) -> ImagePatches {
    let gray = Image::Pixels(Pixels { width, height, rgb: vec![128; width * height * 3] });
    let input = container.prepare(UserInput::raw(marker).image(gray)).await.unwrap_or_else(|e| panic!("{e}"));
    (*input.media.unwrap().images[0].patches).clone()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn windows_are_those_of_transformers() {
    on_runtime(async {
        let container = load("qwen2_5_vl", Device::Reference).await;
        for row in table("windows") {
            let found = prepared(&container, "<|image_pad|>", numbers(&row["size"])).await;
            assert_eq!(found.order, numbers::<Vec<u32>>(&row["order"]), "{}", row["size"]);
            assert_eq!(found.windows, numbers::<Vec<usize>>(&row["windows"]), "{}", row["size"]);
        }
    });
}

#[test]
fn shares_of_positions_are_those_of_transformers() {
    on_runtime(async {
        let container = load("qwen3_vl", Device::Reference).await;
        for row in table("taps") {
            let found = prepared(&container, "<|image_pad|>", numbers(&row["size"])).await;
            assert_eq!(found.inputs["taps"], numbers::<Vec<f32>>(&row["taps"]), "{}", row["size"]);
            close("shares", &found.inputs["shares"], &numbers::<Vec<f32>>(&row["shares"]), 1e-6).unwrap();
        }
    });
}

#[test]
fn names_of_memory_and_of_mlx() {
    for model in ["qwen2_vl", "qwen2_5_vl"] {
        let memory = [("visual.", "model.visual."), ("model.", "model.language_model."), ("lm_head.", "lm_head.")];
        Variant::of(model).renamed(&memory).check();
        let mlx = [
            ("visual.", "vision_tower."),
            ("model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
        ];
        Variant::of(model).with_channels_last("visual.patch_embed.proj.weight").renamed(&mlx).check();
    }
    let mlx = [
        ("model.visual.", "vision_tower."),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ];
    Variant::of("qwen3_vl").with_channels_last("model.visual.patch_embed.proj.weight").renamed(&mlx).check();
}

#[test]
fn older_files() {
    for model in ["qwen2_vl", "qwen2_5_vl"] {
        let mut old = Variant::of(model).with_preprocessor();
        let size = old.preprocessor["size"].take();
        old.preprocessor["min_pixels"] = size["shortest_edge"].clone();
        old.preprocessor["max_pixels"] = size["longest_edge"].clone();
        // What is the text's lies at the root.
        let text = old.config["text_config"].take();
        let sections = &text["rope_parameters"]["mrope_section"];
        old.config["rope_scaling"] = json!({ "type": "mrope", "mrope_section": sections });
        old.config["rope_theta"] = text["rope_parameters"]["rope_theta"].clone();
        for (key, value) in text.as_object().unwrap() {
            if !["model_type", "rope_parameters", "dtype", "tie_word_embeddings"].contains(&key.as_str()) {
                old.config[key] = value.clone();
            }
        }
        old.config["vision_config"]["model_type"] = model.into();
        let channels = old.config["vision_config"]["in_channels"].take();
        old.config["vision_config"].as_object_mut().unwrap().remove("in_channels");
        old.config["vision_config"]["in_chans"] = channels;
        old.config.as_object_mut().unwrap().remove("text_config");
        old.processor = Value::Null;
        old.check();
    }
    let mut old = Variant::of("qwen3_vl").with_preprocessor();
    let rope = old.config["text_config"]["rope_parameters"].take();
    let text = old.config["text_config"].as_object_mut().unwrap();
    text.remove("rope_parameters");
    text.insert("rope_theta".to_owned(), rope["rope_theta"].clone());
    let sections = json!({ "rope_type": "default", "mrope_section": rope["mrope_section"] });
    text.insert("rope_scaling".to_owned(), sections);
    old.processor = Value::Null;
    old.check();
}
