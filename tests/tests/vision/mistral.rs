//! Images of any size in Pixtral's rows, and the spellings of its files.

use super::{
    load, on_runtime,
    qwen::{prepared, table},
    variants::Variant,
};
use serde_json::json;
use tamarack::{Device, UserInput};

#[test]
fn sizes_are_those_of_transformers() {
    on_runtime(async {
        for model in ["pixtral", "mistral3"] {
            let container = load(model, Device::Reference).await;
            for row in table(model) {
                let [height, width, rows, columns]: [usize; 4] = serde_json::from_value(row).unwrap();
                let found = prepared(&container, "[IMG]", [height, width]).await;
                assert_eq!(found.grid, [1, rows, columns], "{model}: {height} x {width}");
            }
        }
    });
}

/// Rows end in a token of their own, and fewer pixels are fewer rows.
#[test]
fn rows_end_and_shrink() {
    on_runtime(async {
        let container = load("mistral3", Device::Reference).await;
        let input = UserInput::raw("[IMG]!").image(super::image("cat.png")).max_pixels(800);
        let input = container.prepare(input).await.unwrap();
        let media = input.media.unwrap();
        let [img, end_of_row, end] = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"].map(|t| container.encode(t).unwrap()[0]);
        let bang = container.encode("!").unwrap()[0];
        assert_eq!(media.images[0].patches.grid, [1, 2, 4]);
        assert_eq!(input.tokens, [img, img, end, bang]);
        let input = UserInput::raw("[IMG]!").image(super::image("cat.png")).max_pixels(1600);
        let input = container.prepare(input).await.unwrap();
        assert_eq!(input.tokens, [img, img, img, end_of_row, img, img, img, end, bang]);
        let media = input.media.unwrap();
        assert_eq!(media.images[0].tokens, [0, 1, 2, 4, 5, 6]);
        assert_eq!(media.positions.iter().map(|p| p[2]).collect::<Vec<u32>>(), (0..9).collect::<Vec<u32>>());
    });
}

#[test]
fn names_of_memory_and_of_mlx() {
    for model in ["pixtral", "mistral3"] {
        let memory = [
            ("language_model.lm_head.", "lm_head."),
            ("language_model.model.", "model.language_model."),
            ("", "model."),
        ];
        Variant::of(model).renamed(&memory).check();
        let mlx = [("vision_tower.", "vision_tower.vision_model."), ("", "")];
        let mut mlx = Variant::of(model).with_channels_last("vision_tower.patch_conv.weight").renamed(&mlx);
        if model == "pixtral" {
            mlx.config["model_type"] = "pixtral".into();
        }
        mlx.check();
    }
}

#[test]
fn older_files() {
    for model in ["pixtral", "mistral3"] {
        let mut old = Variant::of(model).with_preprocessor();
        for part in ["text_config", "vision_config"] {
            let rope = old.config[part]["rope_parameters"].take();
            old.config[part]["rope_theta"] = rope["rope_theta"].clone();
            old.config[part].as_object_mut().unwrap().remove("rope_parameters");
        }
        // Missing in conversions.
        old.config.as_object_mut().unwrap().remove("spatial_merge_size");
        old.processor = json!({ "processor_class": "PixtralProcessor", "image_token": "[IMG]" });
        old.check();
    }
}

/// A tower or a choice that is not served is refused by name.
#[test]
fn others_are_refused() {
    for (key, value, expected) in [
        ("vision_config", json!({ "model_type": "clip_vision_model" }), "expected pixtral, found `clip_vision_model`"),
        ("vision_feature_layer", json!(7), "vision_feature_layer: expected -4 to 3, found 7"),
        ("vision_feature_select_strategy", json!("default"), "expected full, found `default`"),
    ] {
        let mut other = Variant::of("pixtral");
        other.config[key] = value;
        let message = on_runtime(other.load()).map(drop).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
