//! Vision-language models, stage by stage, against what `transformers` computed with the tiny models of goldens/vision.

mod input;
mod mistral;
mod qwen;
mod reuse;
mod siglip;
mod variants;
mod video;
mod web;

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tamarack::{
    Device, GenerateParameters, Generation, LmInput, LoadOptions, ModelConfiguration, ModelContainer, UserInput, Video,
    image::Sampling,
};
use tamarack_plugins as _;
use tamarack_tests::{
    gpu::{self, close},
    models,
};

/// One prompt with its images, and what became of them.
struct Case {
    name: String,
    prompt: String,
    turns: Vec<Value>,
    images: Vec<PathBuf>,
    films: Vec<Film>,
    sampling: Value,
    crops: Option<bool>,
    bytes: Vec<u8>,
}

/// A video of a case: a folder of goldens/vision/films, of which so many frames are there.
#[derive(serde::Deserialize)]
struct Film {
    path: String,
    frames: usize,
    fps: f64,
}

impl Film {
    fn video(&self) -> Video {
        let frame = |i| folder("films").join(&self.path).join(format!("frame{}.png", i + 1));
        Video::frames((0..self.frames).map(frame)).at(self.fps)
    }
}

impl Case {
    fn all(model: &str) -> Vec<Case> {
        let folder = folder(model);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "golden"));
        paths.sort();
        assert!(!paths.is_empty(), "{}: no goldens", folder.display());
        paths.iter().map(|path| Case::read(path)).collect()
    }

    fn read(path: &Path) -> Case {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let names: Vec<String> = serde_json::from_str(&metadata["images"]).unwrap();
        let images = names.iter().map(|n| image(&format!("{n}.png"))).collect();
        let turns = serde_json::from_str(&metadata["turns"]).unwrap();
        let crops = metadata.get("crops").map(|crops| crops.parse().unwrap());
        let films = metadata.get("films").map_or(Vec::new(), |films| serde_json::from_str(films).unwrap());
        let sampling = metadata.get("sampling").map_or(Value::Null, |s| serde_json::from_str(s).unwrap());
        let (name, prompt) = (path.display().to_string(), metadata["prompt"].clone());
        Case { name, prompt, turns, images, films, sampling, crops, bytes }
    }

    fn words(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
        tensor.data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    fn named(model: &str, name: &str) -> Case {
        Case::read(&folder(model).join(format!("{name}.golden")))
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_bits).collect()
    }

    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).is_ok()
    }

    fn input(&self) -> UserInput {
        let input =
            if self.turns.is_empty() { UserInput::raw(&self.prompt) } else { UserInput::messages(self.turns.clone()) };
        let input = self.crops.into_iter().fold(input, UserInput::crops);
        let mut input = self.images.iter().fold(input, |input, path| input.image(path));
        input.videos = self.films.iter().map(Film::video).collect();
        let (fps, frames) = (self.sampling["fps"].as_f64(), self.sampling["num_frames"].as_u64());
        // Both are those of the model's file.
        if fps.is_none() || frames.is_none() {
            input.sampling = Sampling { fps, frames: frames.map(|n| n as usize) };
        }
        input
    }
}

fn folder(model: &str) -> PathBuf {
    models::folder("goldens/vision").join(model)
}

fn image(name: &str) -> PathBuf {
    folder("images").join(name)
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

async fn load(model: &str, device: Device) -> ModelContainer {
    load_from(&folder(model), device).await
}

async fn load_from(folder: &Path, device: Device) -> ModelContainer {
    let configuration = ModelConfiguration::directory(folder);
    let options = LoadOptions::default().device(device).context(1024);
    tamarack::load_container(&configuration, options).await.unwrap_or_else(|e| panic!("{e}"))
}

/// The oracle, and every adapter, whose caches hold f16; with what is allowed on a logit.
fn devices() -> Vec<(Device, f32)> {
    let tolerance = |device: &Device| if *device == Device::Reference { 2e-3 } else { 3e-2 };
    gpu::devices().into_iter().map(|device| (device.clone(), tolerance(&device))).collect()
}

/// Tokens, positions and pixels, which no device has a part in.
fn check_prepared(model: &str) {
    on_runtime(async {
        let container = load(model, Device::Reference).await;
        for case in Case::all(model) {
            let input = container.prepare(case.input()).await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert_eq!(input.tokens, case.words("input_ids"), "{}: tokens", case.name);
            let media = input.media.expect("images");
            if case.has("position_ids") {
                let expected = case.words("position_ids");
                let found: Vec<u32> = (0..3).flat_map(|axis| media.positions.iter().map(move |p| p[axis])).collect();
                assert_eq!(found, expected, "{}: positions", case.name);
            }
            for (grid, is_video) in [("image_grid_thw", false), ("video_grid_thw", true)] {
                let of = media.images.iter().filter(|i| i.video.is_some() == is_video).collect::<Vec<_>>();
                // Moments of a video are apart here.
                let of = of.chunk_by(|a, b| is_video && a.video == b.video);
                let found = of.map(|m| [m.len(), m[0].patches.grid[1], m[0].patches.grid[2]].map(|n| n as u32));
                if case.has(grid) {
                    assert_eq!(found.collect::<Vec<_>>().as_flattened(), case.words(grid), "{}: {grid}", case.name);
                }
            }
        }
    });
}

/// Normalized pixels, from the bytes that they are made of.
fn check_pixels(model: &str, mean: [f32; 3], std: [f32; 3]) {
    on_runtime(async {
        let container = load(model, Device::Reference).await;
        for case in Case::all(model) {
            let input = container.prepare(case.input()).await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
            let found: Vec<f32> = input.media.unwrap().images.iter().flat_map(|i| i.patches.pixels.clone()).collect();
            let file = SafeTensors::deserialize(&case.bytes).unwrap();
            let tensor = file.tensor("pixels").unwrap();
            let channel = tensor.shape()[1] / 3;
            let expected = tensor.data().iter().enumerate().map(|(i, b)| {
                let c = i / channel % 3;
                (f32::from(*b) / 255.0 - mean[c]) / std[c]
            });
            let expected: Vec<f32> = expected.collect();
            close(&format!("{}: pixels", case.name), &found, &expected, 1e-6).unwrap_or_else(|e| panic!("{e}"));
        }
    });
}

/// Rows of the tower, and logits of every token in steps of several sizes.
fn check_forward(model: &str) {
    on_runtime(async {
        for (device, tolerance) in devices() {
            let container = load(model, device.clone()).await;
            for case in Case::all(model) {
                let input = container.prepare(case.input()).await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
                let name = format!("{} on {}", case.name, container.device());
                let media = input.media.clone().unwrap();
                let rows = container.perform(move |c| c.model.image_embeddings(&media)).await.unwrap();
                let rows = rows.unwrap_or_else(|e| panic!("{name}: {e}"));
                close(&format!("{name}: rows"), &rows, &case.floats("image_embeds"), tolerance)
                    .unwrap_or_else(|e| panic!("{e}"));
                for chunk in [512, 7] {
                    let input = input.clone();
                    let logits = container.perform(move |c| c.model.forward_input(&input, chunk)).await.unwrap();
                    let logits = logits.unwrap_or_else(|e| panic!("{name}: {e}"));
                    close(&format!("{name}, in steps of {chunk}"), &logits, &case.floats("logits"), tolerance)
                        .unwrap_or_else(|e| panic!("{e}"));
                }
            }
        }
    });
}

async fn answer(container: &ModelContainer, input: LmInput, tokens: usize) -> Vec<u32> {
    let parameters = GenerateParameters {
        max_tokens: Some(tokens),
        temperature: 0.0,
        ignore_eos: true,
        ..GenerateParameters::default()
    };
    let mut stream = container.generate(input, parameters).await.unwrap_or_else(|e| panic!("{e}"));
    let mut answer = Vec::new();
    while let Some(event) = stream.next().await {
        if let Generation::Token(token) = event.unwrap_or_else(|e| panic!("{e}")) {
            answer.push(token);
        }
    }
    answer
}

/// The tokens that follow, all prompts side by side with one that has no images.
fn check_greedy(model: &str) {
    on_runtime(async {
        for (device, tolerance) in devices() {
            let container = load(model, device).await;
            let text = container.prepare("Hello".into()).await.unwrap();
            let alone = answer(&container, text.clone(), 8).await;
            let mut inputs = vec![text];
            let cases = Case::all(model);
            for case in &cases {
                inputs.push(container.prepare(case.input()).await.unwrap_or_else(|e| panic!("{}: {e}", case.name)));
            }
            let answers = futures::future::join_all(inputs.into_iter().map(|i| answer(&container, i, 8))).await;
            assert_eq!(answers[0], alone, "on {}: a prompt without images", container.device());
            for (case, answer) in cases.iter().zip(&answers[1..]) {
                let n = models::certain(&case.floats("margins"), 2.0 * tolerance);
                assert!(n > 0, "{}: no token is certain", case.name);
                assert_eq!(answer[..n], case.words("greedy")[..n], "{} on {}", case.name, container.device());
            }
        }
    });
}

const CLIP: [[f32; 3]; 2] = [tamarack_api::CLIP_MEAN, tamarack_api::CLIP_STD];
const HALF: [[f32; 3]; 2] = [[0.5; 3]; 2];

macro_rules! models {
    ($($model:ident, $pixels:expr;)*) => { $(
        mod $model {
            use super::*;
            const NAME: &str = stringify!($model);

            #[test]
            fn tokens_and_positions() {
                check_prepared(NAME);
            }

            #[test]
            fn pixels() {
                let [mean, std] = $pixels;
                check_pixels(NAME, mean, std);
            }

            #[test]
            fn rows_and_logits() {
                check_forward(NAME);
            }

            #[test]
            fn greedy_side_by_side() {
                check_greedy(NAME);
            }
        }
    )* };
}

models! {
    qwen2_vl, CLIP;
    gemma3, HALF;
    idefics3, HALF;
    smolvlm, HALF;
    paligemma, HALF;
    paligemma2, HALF;
    qwen2_5_vl, CLIP;
    qwen3_vl, HALF;
    pixtral, CLIP;
    mistral3, CLIP;
}
