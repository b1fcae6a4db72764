//! Images and videos with a tiny model, on every device and with plugins that are libraries.

use super::support::{goldens, run, tamarack, text};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{env, env::consts, fs, path::Path};
use tempfile::TempDir;

/// Every device that `--device` can name.
fn devices() -> Vec<String> {
    let listed = run(tamarack(&["devices", "--json"])).json("devices");
    let adapters = listed.as_array().expect("a list").len();
    (0..adapters).map(|i| i.to_string()).chain(["cpu".to_owned(), "reference".to_owned()]).collect()
}

/// The events of an answer.
fn answer(arguments: &[&str], plugins: Option<&Path>) -> Vec<Value> {
    let model = goldens("vision/qwen2_vl");
    let fixed =
        ["chat", "--json", "--temperature", "0", "--max-tokens", "2", "--context", "512", "--model", text(&model)];
    let mut command = tamarack(&[&fixed[..], arguments].concat());
    if let Some(folder) = plugins {
        command.env("TAMARACK_PLUGIN_PATH", folder);
    }
    let lines = run(command).expect("an answer");
    lines.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect()
}

/// The tokens of an answer.
fn said(events: &[Value]) -> Vec<u64> {
    events.iter().filter(|event| event["event"] == "token").filter_map(|event| event["id"].as_u64()).collect()
}

/// A folder with the model's plugins as libraries: that of the tower, and that of its text.
fn libraries() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["qwen2_vl", "qwen2"] {
        let name = format!("{}tamarack_{name}{}", consts::DLL_PREFIX, consts::DLL_SUFFIX);
        let program = env::current_exe().expect("a test has a path");
        let built = program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
        let built = built.unwrap_or_else(|| panic!("{name} is not beside {}", program.display()));
        fs::copy(built, folder.path().join(&name)).expect("copy");
    }
    folder
}

#[test]
fn two_images_and_a_video_are_answered_everywhere() {
    let [cat, cup, pan] = ["images/cat.png", "images/cup.png", "films/pan"].map(|name| goldens("vision").join(name));
    let images = ["--image", text(&cat), "--image", text(&cup), "What differs?"];
    let video = ["--video", text(&pan), "--video-fps", "5", "--sample-frames", "4", "What happens?"];
    let plugins = libraries();
    for asked in [&images[..], &video] {
        let expected = answer(&[asked, &["--device", "reference"]].concat(), None);
        assert_eq!(said(&expected).len(), 2, "{expected:?}");
        for device in devices() {
            let found = answer(&[asked, &["--device", &device]].concat(), None);
            assert_eq!(said(&found), said(&expected), "on {device}");
        }
        let found = answer(&[asked, &["--device", "0,cpu", "--gpu-layers", "1"]].concat(), None);
        assert_eq!(said(&found), said(&expected), "the last layer on the first adapter, the others on the processor");
        let found = answer(&[asked, &["--device", "reference"]].concat(), Some(plugins.path()));
        assert_eq!(said(&found), said(&expected), "as libraries");
        let plugin = found[0]["info"]["plugin"].as_str().unwrap_or_default();
        assert!(plugin.contains(text(plugins.path())), "{plugin}");
    }
}

#[test]
fn stages_and_pictures_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (out, seen) = (folder.path().join("stages.safetensors"), folder.path().join("seen.png"));
    let (model, pan, cup) =
        (goldens("vision/qwen2_vl"), goldens("vision/films/pan.webp"), goldens("vision/images/cup.png"));
    let asked = ["debug", "vision", text(&model), "--prompt", "?", "--image", text(&cup), "--video", text(&pan)];
    let how = ["--device", "reference", "--context", "512", "--dump-image", text(&seen), "--out", text(&out)];
    run(tamarack(&[&asked[..], &how].concat())).expect("stages");
    let bytes = fs::read(&out).unwrap();
    let stages = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = stages.names();
    names.sort_unstable();
    let expected = [
        "image_embeds",
        "image_grid_thw",
        "input_ids",
        "logits",
        "pixel_values",
        "pixel_values_videos",
        "position_ids",
        "video_embeds",
        "video_grid_thw",
    ];
    assert_eq!(names, expected);
    let shape = |name: &str| stages.tensor(name).unwrap().shape().to_vec();
    assert_eq!((shape("image_grid_thw"), shape("video_grid_thw")), (vec![1, 3], vec![1, 3]));
    let grid: Vec<u32> =
        stages.tensor("video_grid_thw").unwrap().data().as_chunks().0.iter().map(|n| u32::from_le_bytes(*n)).collect();
    assert_eq!(grid[0], 6, "eleven frames, two to a moment");
    let patches = grid.iter().product::<u32>() as usize;
    assert_eq!((shape("pixel_values_videos")[0], shape("video_embeds")[0]), (patches, patches / 4));
    // The image, and every frame.
    let pictures = fs::read_dir(folder.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "png"));
    assert_eq!(pictures.count(), 12);
}

#[test]
fn what_cannot_be_seen_is_said() {
    let model = goldens("vision/gemma3");
    let (pan, nowhere) = (goldens("vision/films/pan"), "nowhere.gif");
    let chat = |model: &Path, more: &[&str]| {
        let fixed = ["chat", "--device", "reference", "--context", "512", "--model", text(model), "?"];
        run(tamarack(&[&fixed[..], more].concat()))
    };
    let qwen = goldens("vision/qwen2_vl");
    for (outcome, code, message) in [
        (chat(&model, &["--video", text(&pan)]), 1, "gemma3 takes no videos"),
        (chat(&qwen, &["--video", nowhere]), 1, "nowhere.gif: "),
        (chat(&qwen, &["--video", text(&qwen)]), 1, "chat_template.jinja: expected a JPEG"),
        (chat(&qwen, &["--video-fps", "5"]), 2, "--video"),
        (chat(&qwen, &["--video", nowhere, "--sample-fps", "1", "--sample-frames", "2"]), 2, "cannot be used with"),
        (chat(&qwen, &["--dump-image", "out.png"]), 2, "--image"),
    ] {
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "expected {message}, found {}", outcome.stderr);
    }
}

/// The same image by its path, by addresses, and by data in every form.
#[test]
fn images_have_addresses() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let cat = goldens("vision/images/cat.png");
    let folder = tempfile::tempdir().unwrap();
    let spaced = folder.path().join("a cat 100%.png");
    fs::copy(&cat, &spaced).unwrap();
    let asked = |image: &str| {
        let events = answer(&["--device", "cpu", "--image", image, "?"], None);
        (said(&events), events.last().unwrap()["prompt_tokens"].clone())
    };
    let (expected, encoded) = (asked(text(&cat)), STANDARD.encode(fs::read(&cat).unwrap()));
    let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let here = fs::canonicalize(&cat).unwrap().display().to_string();
    for image in [
        format!("file://{here}"),
        format!("FILE://localhost{here}"),
        format!("file://{}", text(&spaced).replace('%', "%25").replace(' ', "%20")),
        format!("data:image/png;base64,{}\n", lines.join("\n")),
        format!("data:image/png;base64,{}", encoded.trim_end_matches('=')),
        format!(
            "data:image/jpeg;charset=utf-8;base64,{}",
            encoded.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D")
        ),
        format!("DATA:;base64,{}", encoded.replace('+', "-").replace('/', "_")),
    ] {
        assert_eq!(asked(&image), expected, "{}", &image[..image.len().min(60)]);
    }
}

/// Whatever a name, an address or a server says that it is.
#[test]
fn formats_that_are_not_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let avif = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B";
    fs::write(folder.path().join("cat.png"), avif).unwrap();
    fs::write(folder.path().join("page.jpg"), "<!DOCTYPE html>\n<html><body>Not found</body></html>").unwrap();
    let [png, page] = ["cat.png", "page.jpg"].map(|name| folder.path().join(name));
    let data = "data:image/png;base64,AAAAIGZ0eXBoZWljAAAAAG1pZjFoZWlj";
    for (image, expected) in [
        (text(&png), "found an AVIF image: convert it to PNG"),
        (text(&page), "found an HTML page: give the address of the image itself"),
        (data, "found a HEIC image: convert it to PNG"),
        (
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E",
            "found an SVG drawing: make an image of it",
        ),
    ] {
        let model = goldens("vision/qwen2_vl");
        let fixed = ["chat", "--device", "cpu", "--context", "512", "--model", text(&model), "--image", image, "?"];
        let outcome = run(tamarack(&fixed));
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains(expected) && !outcome.stderr.contains("damaged"), "{}", outcome.stderr);
    }
}

/// All tokens of a prompt of PaliGemma's see each other: more of them than a step has outputs. See tests/goldens/vision_long.py.
#[test]
fn debug_vision_takes_what_chat_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model, cat) =
        (folder.path().join("stages.safetensors"), goldens("vision/paligemma"), goldens("vision/images/cat.png"));
    let golden = fs::read(model.join("long.golden")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&golden).unwrap();
    let prompt = header.metadata().as_ref().unwrap()["prompt"].clone();
    let asked = ["--device", "reference", "--context", "512", "--image", text(&cat)];
    run(tamarack(&[&["debug", "vision", text(&model), "--prompt", &prompt, "--out", text(&out)], &asked[..]].concat()))
        .expect("stages");
    let chat = ["chat", "--temperature", "0", "--max-tokens", "1", "--json", "--model", text(&model), &prompt];
    let events = run(tamarack(&[&chat[..], &asked].concat())).expect("an answer");
    let said = said(&events.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>());
    let stages = fs::read(&out).unwrap();
    let logits = |bytes: &[u8]| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensor = file.tensor("logits").unwrap();
        let floats: Vec<f32> = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (tensor.shape().to_vec(), floats)
    };
    let ((shape, found), (expected_shape, expected)) = (logits(&stages), logits(&golden));
    assert_eq!(shape, expected_shape);
    assert!(shape[0] > 64, "{shape:?}");
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 2e-3, "{difference}");
    let last = &found[found.len() - shape[1]..];
    let likely = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
    assert_eq!(said, [likely as u64]);
}
