//! Videos: which frames are looked at, how fast they are, and what is none.

use super::{answer, folder, image, load, on_runtime};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tamarack::{
    ChatSession, Device, GenerateParameters, Image, ModelContainer, UserInput, Video,
    exec::Media,
    image::{Pixels, Sampling, VideoSource},
    plugins::Registry,
};
use tamarack_api::{ProcessRequest, Processed, VideoInfo};

fn film(name: &str) -> PathBuf {
    folder("films").join(name)
}

/// What `transformers` gives for random videos: see goldens/vision_video.py.
fn table(name: &str) -> Vec<Value> {
    let tables: Value = serde_json::from_slice(&fs::read(folder("films.json")).unwrap()).unwrap();
    tables[name].as_array().unwrap().clone()
}

fn processed(model_type: &str, row: &Value, prompt: &str, files: Value) -> Processed {
    let sampling = &row["sampling"];
    let (fps, frames) = (sampling["fps"].as_f64(), sampling["num_frames"].as_u64().map(|n| n as usize));
    let mut request = ProcessRequest {
        prompt: prompt.to_owned(),
        max_patches: 1 << 20,
        videos: vec![VideoInfo {
            size: serde_json::from_value(row["size"].clone()).unwrap(),
            frames: row["frames"].as_u64().unwrap() as usize,
            fps: row["fps"].as_f64(),
        }],
        sampling: Sampling { fps, frames },
        ..ProcessRequest::default()
    };
    request.files.video = files;
    let config = json!({ "model_type": model_type, "vision_config": { "image_size": 364, "patch_size": 14 } });
    Registry::linked().find(model_type).unwrap().process(&config, request).unwrap_or_else(|e| panic!("{row}: {e}"))
}

fn wanted(row: &Value) -> Vec<usize> {
    serde_json::from_value(row["wanted"].clone()).unwrap()
}

#[test]
fn frames_and_sizes_are_those_of_transformers() {
    for (model_type, patch) in [("qwen2_vl", 14), ("qwen2_5_vl", 14), ("qwen3_vl", 16)] {
        let name = if patch == 14 { "qwen2_vl" } else { model_type };
        for row in table(name) {
            let files = json!({ "patch_size": patch });
            let found = processed(model_type, &row, "<|video_pad|>", files);
            let frames: Vec<usize> = found.media.iter().flat_map(|m| m.frames.clone()).collect();
            assert_eq!(frames, wanted(&row), "{model_type}: {row}");
            let grid = [found.media.len(), found.media[0].grid[1], found.media[0].grid[2]];
            assert_eq!(json!(grid), row["grid"], "{model_type}: {row}");
            if model_type == "qwen3_vl" {
                let times: Vec<&str> =
                    found.prompt.split('<').filter_map(|part| part.strip_suffix(" seconds>")).collect();
                assert_eq!(json!(times), row["times"], "{row}");
            }
        }
    }
    for row in table("smolvlm") {
        let by_file = json!({
            "video_sampling": { "fps": row["sampling"]["fps"], "max_frames": row["sampling"]["num_frames"], "video_size": { "longest_edge": 512 } }
        });
        let asked = json!({ "sampling": {}, "size": row["size"], "frames": row["frames"], "fps": row["fps"] });
        let found = processed("smolvlm", &asked, "<video>", by_file);
        let frames: Vec<usize> = found.media.iter().flat_map(|m| m.frames.clone()).collect();
        assert_eq!(frames, wanted(&row), "smolvlm: {row}");
    }
}

/// Each frame as Pillow reads it, as fast as the file says.
#[test]
fn animations_are_read_as_pillow_reads_them() {
    let bytes = fs::read(film("pixels.golden")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    on_runtime(async {
        let container = load("qwen2_5_vl", Device::Reference).await;
        for (name, tensor) in file.tensors() {
            let [frames, height, width, _] = *tensor.shape() else { panic!("{name}") };
            let still = |rgb: &[u8]| Image::Pixels(Pixels { width, height, rgb: rgb.to_vec() });
            let stills = Video::frames(tensor.data().chunks(height * width * 3).map(still)).at(5.0);
            let held = Video { source: VideoSource::Bytes(fs::read(film(&name)).unwrap()), fps: None };
            let mut found = Vec::new();
            for video in [stills, film(&name).into(), held] {
                let input = container.prepare(UserInput::from("?").video(video)).await;
                found.push(input.unwrap_or_else(|e| panic!("{name}: {e}")));
            }
            assert_eq!(found[1], found[2], "{name}");
            let [expected, media] = [0, 1].map(|i| found[i].media.clone().unwrap());
            assert_eq!(expected.images.len(), frames.div_ceil(2), "{name}");
            assert_eq!((&found[0].tokens, &expected.positions), (&found[1].tokens, &media.positions), "{name}");
            // The decoder of WebP is off by one where it blends frames.
            let bytes = |media: &Media| media.seen.iter().flat_map(|frame| frame.rgb.clone()).collect::<Vec<u8>>();
            let off = bytes(&expected).into_iter().zip(bytes(&media)).map(|(a, b)| a.abs_diff(b)).max();
            assert!(off <= Some(if name.ends_with(".webp") { 2 } else { 0 }), "{name}: off by {off:?}");
            assert_eq!(expected.seen.len(), frames, "{name}");
        }
    });
    assert_eq!(file.tensors().len(), 3);
}

/// Names are sorted as people count.
#[test]
fn a_folder_is_a_video() {
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let frames = (1..=11).map(|i| film("pan").join(format!("frame{i}.png")));
        let listed = container.prepare(UserInput::from("?").video(Video::frames(frames))).await.unwrap();
        let folder = container.prepare(UserInput::from("?").video(film("pan"))).await.unwrap();
        assert_eq!(listed, folder);
        // A still is a video of one frame.
        let still = container.prepare(UserInput::from("?").video(image("cat.png"))).await.unwrap();
        assert_eq!(still.media.unwrap().images.len(), 1);
        // So many frames, and no more pixels than that.
        let mut few = UserInput::from("?").video(film("pan")).max_pixels(800);
        few.sampling.frames = Some(4);
        let media = container.prepare(few).await.unwrap().media.unwrap();
        let grids: Vec<[usize; 3]> = media.images.iter().map(|i| i.patches.grid).collect();
        assert_eq!(grids, [[1, 2, 2]; 2]);
    });
}

fn parameters() -> GenerateParameters {
    GenerateParameters { max_tokens: Some(3), temperature: 0.0, ignore_eos: true, ..GenerateParameters::default() }
}

async fn runs(container: &ModelContainer) -> usize {
    container.perform(|context| context.model.tower_runs()).await.unwrap()
}

/// Moments are computed once, and what follows them again only if they come at other times.
#[test]
fn moments_are_told_apart_by_what_they_show_and_when() {
    on_runtime(async {
        let container = load("qwen2_5_vl", Device::Reference).await;
        let cache = container.prompt_cache();
        let ask = async |fps: f64| {
            let input = UserInput::from("What happens?").video(Video::from(film("pan")).at(fps));
            let input = container.prepare(input).await.unwrap();
            let stream = container.generate_from(input, parameters(), &cache).await.unwrap();
            let (_, info) = stream.text().await.unwrap();
            (info.cached_prompt_tokens, info.prompt_tokens)
        };
        assert_eq!((ask(5.0).await.0, runs(&container).await), (0, 6));
        let (cached, prompt) = ask(5.0).await;
        assert_eq!((cached, runs(&container).await), (prompt - 1, 6), "the same video: the tower does not run again");
        let (cached, _) = ask(1.0).await;
        assert_eq!(runs(&container).await, 6, "the same frames");
        assert!(cached > 0 && cached < prompt / 2, "{cached} of {prompt} tokens are where they were");
        let mut session = ChatSession::new(container.clone()).parameters(parameters());
        session.add_video(film("pan.webp"));
        session.add_image(image("cat.png"));
        session.respond("What happens?").await.unwrap();
        session.respond("And then?").await.unwrap();
        assert_eq!(session.turns().len(), 4);
        assert_eq!(runs(&container).await, 6 + 6 + 1);
    });
}

/// What came with a question that failed stays for another try, unless it is forgotten.
#[test]
fn a_conversation_goes_on_without_a_video_that_is_none() {
    on_runtime(async {
        let mut session = ChatSession::new(load("qwen2_vl", Device::Reference).await).parameters(parameters());
        session.add_video("nowhere.gif");
        for _ in 0..2 {
            let e = session.respond("What happens?").await.unwrap_err().to_string();
            assert!(e.starts_with("nowhere.gif: "), "{e}");
        }
        session.forget_media();
        session.respond("And now?").await.unwrap();
        assert_eq!(session.turns().len(), 2);
    });
}

#[test]
fn who_takes_no_videos_says_so() {
    on_runtime(async {
        for model in ["gemma3", "idefics3", "paligemma", "pixtral", "mistral3"] {
            let container = load(model, Device::Reference).await;
            let e = container.prepare(UserInput::raw("?").video(film("pan"))).await.unwrap_err().to_string();
            let model_type = if model == "pixtral" { "llava" } else { model };
            assert!(e.ends_with(&format!("{model_type} takes no videos: give it frames as images")), "{e}");
        }
        let container = load("smolvlm", Device::Reference).await;
        let both = UserInput::from("?").video(film("pan.webp")).image(image("cat.png"));
        let e = container.prepare(both).await.unwrap_err().to_string();
        assert!(e.contains("images and videos in one prompt"), "{e}");
    });
}

/// A GIF of one color that claims a size, with so many frames.
fn gif(width: u16, height: u16, frames: usize) -> Vec<u8> {
    let sizes: Vec<u8> = [width, height].iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut gif = [b"GIF89a", &sizes[..], &[0x80, 0, 0, 0, 0, 0, 255, 255, 255]].concat();
    for _ in 0..frames {
        // One pixel, whose code and end are in one byte of LZW.
        gif.extend([0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0]);
    }
    gif.push(0x3b);
    gif
}

#[test]
fn what_is_no_video_is_an_error_that_says_so() {
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let bytes = |bytes: Vec<u8>| Video { source: VideoSource::Bytes(bytes), fps: None };
        let webp = fs::read(film("pan.webp")).unwrap();
        let mut corrupt = fs::read(film("dot.png")).unwrap();
        corrupt[300..360].fill(0x55);
        let empty = tempfile::tempdir().unwrap();
        let mixed = tempfile::tempdir().unwrap();
        fs::copy(image("cat.png"), mixed.path().join("1.png")).unwrap();
        fs::copy(image("cup.png"), mixed.path().join("2.png")).unwrap();
        let noise = tempfile::tempdir().unwrap();
        fs::copy(image("cat.png"), noise.path().join("1.png")).unwrap();
        fs::write(noise.path().join("notes.txt"), "no frame").unwrap();
        let cut = tempfile::tempdir().unwrap();
        let cat = fs::read(image("cat.png")).unwrap();
        fs::write(cut.path().join("1.png"), &cat[..cat.len() / 2]).unwrap();
        for (video, name, expected) in [
            (bytes(b"\0\0\0\x18ftypmp42".to_vec()), "video", "other videos become frames by `ffmpeg"),
            (bytes(Vec::new()), "video", "expected a folder of frames"),
            (bytes(webp[..webp.len() / 2].to_vec()), "video", "damaged"),
            (bytes(fs::read(film("dot.gif")).unwrap()[..300].to_vec()), "video", "damaged"),
            (bytes(fs::read(film("dot.png")).unwrap()[..300].to_vec()), "video", "damaged"),
            (bytes(corrupt), "video", "damaged"),
            (bytes(gif(30_000, 30_000, 1)), "video", "30000 x 30000 pixels: expected 1 to 100000000"),
            (bytes(gif(0, 7, 1)), "video", "0 x 7 pixels"),
            (bytes(gif(7, 7, 0)), "video", "damaged"),
            (bytes(gif(1, 1, 10_001)), "video", "at most 10000 frames, found more"),
            (Video::frames(Vec::<Image>::new()), "video", "expected frames, found none"),
            (empty.path().into(), "", "expected frames, found none"),
            (mixed.path().into(), "2.png", "a frame of 61 x 103 pixels: expected 131 x 87"),
            (noise.path().into(), "notes.txt", "expected a JPEG, PNG"),
            (cut.path().into(), "1.png", "damaged"),
            ("nowhere.gif".into(), "nowhere.gif", "No such file"),
            (Video::from(film("pan")).at(0.0), "pan", "expected some frames in a second, found 0"),
            (Video::from(film("pan")).at(f64::NAN), "pan", "expected some frames in a second, found NaN"),
        ] {
            let e = container.prepare(UserInput::from("?").video(video)).await.unwrap_err().to_string();
            assert!(e.contains(name) && e.contains(expected), "expected {expected}, found {e}");
        }
        let pad = "<|vision_start|><|video_pad|><|vision_end|>";
        for (sampling, expected) in [
            (Sampling { frames: Some(0), fps: None }, "expected at least one, found 0"),
            (Sampling { frames: Some(12), fps: None }, "12 frames of a video that has 11"),
            (Sampling { frames: None, fps: Some(-1.0) }, "expected some of a second, found -1"),
            (Sampling { frames: Some(2), fps: Some(1.0) }, "a number of them or how many of a second"),
            (Sampling { frames: None, fps: Some(1.0) }, "nobody knows how many frames a second it has"),
        ] {
            let mut input = UserInput::raw(pad).video(film("pan"));
            input.sampling = sampling;
            let e = container.prepare(input).await.unwrap_err().to_string();
            assert!(e.contains(expected), "{e}");
        }
        for (input, expected) in [
            (UserInput::raw("none").video(film("pan")), "0 places for videos (`<|video_pad|>`), and 1 videos"),
            (UserInput::raw(format!("{pad}{pad}")).video(film("pan")), "2 places for videos"),
            (UserInput::raw(format!("<|image_pad|>{pad}")).video(film("pan")), "1 places for images"),
        ] {
            let e = container.prepare(input).await.unwrap_err().to_string();
            assert!(e.contains(expected), "{e}");
        }
        // Qwen3-VL has no answer for a single frame.
        let container = load("qwen3_vl", Device::Reference).await;
        let e = container.prepare(UserInput::from("?").video(image("cat.png"))).await.unwrap_err().to_string();
        assert!(e.contains("a video of 1 frames: expected 2 at least"), "{e}");
    });
}

/// One frame after the other is decoded: many of them, larger than what is wanted, take no more memory than what is
/// made of them.
#[test]
fn a_long_video_is_looked_at_in_parts() {
    on_runtime(async {
        let container = load("qwen2_vl", Device::Cpu).await;
        let mut input = UserInput::from("?").video(Video { source: VideoSource::Bytes(gif(64, 64, 2000)), fps: None });
        input.sampling.frames = Some(30);
        let input = container.prepare(input).await.unwrap();
        assert_eq!(input.media.as_ref().unwrap().images.len(), 15);
        assert_eq!(answer(&container, input, 3).await.len(), 3);
    });
}
