//! Images of every format, and what is no image: always an error that names it, never a panic.

use super::{folder, image, load, on_runtime, web::data_url};
use safetensors::SafeTensors;
use std::path::PathBuf;
use tamarack::{Device, Image, UserInput, image::Pixels};

fn odd(name: &str) -> PathBuf {
    folder("odd").join(name)
}

/// What Pillow reads. JPEG decoders may round otherwise: nowhere by more than `most`, and hardly on average.
#[test]
fn formats_are_read_as_pillow_reads_them() {
    let bytes = std::fs::read(odd("pixels.golden")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, tensor) in file.tensors() {
        let found = Image::Path(odd(&name)).decode().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(tensor.shape(), [found.height, found.width, 3], "{name}");
        let off: Vec<u8> = found.rgb.iter().zip(tensor.data()).map(|(a, b)| a.abs_diff(*b)).collect();
        let (largest, mean) =
            (off.iter().copied().max().unwrap(), off.iter().map(|o| f64::from(*o)).sum::<f64>() / off.len() as f64);
        let is_jpeg = name.ends_with(".jpg");
        assert!(
            if is_jpeg { largest <= 8 && mean < 1.0 } else { largest == 0 },
            "{name}: off by {largest}, mean {mean}"
        );
    }
    assert_eq!(file.tensors().len(), 10);
}

#[test]
fn bytes_addresses_and_pixels_are_images_too() {
    let bytes = std::fs::read(odd("cat.png")).unwrap();
    let expected = Image::Path(odd("cat.png")).decode().unwrap();
    assert_eq!(Image::Bytes(bytes.clone()).decode().unwrap(), expected);
    assert_eq!(Image::Named("cat".to_owned(), bytes.clone()).decode().unwrap(), expected);
    assert_eq!(Image::Pixels(expected.clone()).decode().unwrap(), expected);
    assert_eq!(Image::Url(data_url("image/png", &bytes)).decode().unwrap(), expected);
}

/// A BMP header that claims a size, and nothing behind it.
fn claims(width: i32, height: i32) -> Vec<u8> {
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([width, height].iter().flat_map(|n| n.to_le_bytes()));
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);
    bmp
}

/// A PNG header likewise.
fn claims_png(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend([width, height].iter().flat_map(|n| n.to_be_bytes()));
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = chunk.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec(), chunk, (!crc).to_be_bytes().to_vec(), b"\0\0\0\0IDAT".to_vec()].concat()
}

#[test]
fn what_is_no_image_is_an_error_that_says_so() {
    let cat = std::fs::read(image("cat.png")).unwrap();
    let mut corrupt = cat.clone();
    corrupt[200..240].fill(7);
    for (bytes, expected) in [
        (Vec::new(), "expected a JPEG, PNG, WebP, GIF or BMP image"),
        (b"hello, this is no picture".to_vec(), "expected a JPEG, PNG, WebP, GIF or BMP image"),
        (cat[..cat.len() / 2].to_vec(), "damaged"),
        (cat[..20].to_vec(), "damaged"),
        (corrupt, "damaged"),
        (claims(30_000, 30_000), "an image of 30000 x 30000 pixels: expected 1 to 100000000"),
        (claims_png(30_000, 30_000), "an image of 30000 x 30000 pixels: expected 1 to 100000000"),
        (claims_png(0, 5), ""),
        (claims(0, 0), ""),
        (claims(100, 100), "damaged"),
    ] {
        let e = Image::Bytes(bytes).decode().unwrap_err().to_string();
        assert!(e.starts_with("image: ") && e.contains(expected), "{e}");
    }
    for (image, expected) in [
        (Image::Path("nowhere.png".into()), "nowhere.png: "),
        (Image::Path(std::env::temp_dir()), "found no file"),
        (Image::Url("ftp://host/cat.png".into()), "expected an address that begins with data:"),
        (Image::Url("data:image/png;base64,???".into()), "expected data in base64"),
        (Image::Url("data:image/png".into()), "after a comma"),
        (Image::Pixels(Pixels { width: 2, height: 2, rgb: vec![0; 11] }), "found 11 bytes"),
        (Image::Pixels(Pixels { width: 0, height: 0, rgb: vec![] }), "found 0 bytes"),
        (Image::Pixels(Pixels { width: usize::MAX, height: 2, rgb: vec![0; 3] }), "found 3 bytes"),
    ] {
        let e = image.decode().unwrap_err().to_string();
        assert!(e.contains(expected), "{e}");
    }
}

/// Of no format anything is made up where a file breaks off.
#[test]
fn what_breaks_off_is_damaged() {
    for name in ["alpha.png", "animated.gif", "cat.bmp", "cat.jpg", "cat.png", "cat.webp", "cmyk.jpg", "turned.jpg"] {
        let bytes = std::fs::read(odd(name)).unwrap();
        // The first frame of an animation is enough.
        let parts = if name == "animated.gif" { &[2, 3][..] } else { &[2, 5, 8, 11] };
        for twelfths in parts {
            let cut = bytes[..bytes.len() * twelfths / 12].to_vec();
            let e = Image::Named(name.to_owned(), cut).decode().unwrap_err().to_string();
            assert!(e.starts_with(&format!("{name}: the image is damaged: ")), "{twelfths}: {e}");
        }
        // What follows the end does not matter.
        let longer = [&bytes[..], b"more"].concat();
        assert_eq!(Image::Bytes(longer).decode().unwrap(), Image::Bytes(bytes).decode().unwrap(), "{name}");
    }
}

#[test]
fn prompts_and_images_have_to_fit() {
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let pad = "<|vision_start|><|image_pad|><|vision_end|>";
        let cat = || image("cat.png");
        let flat = Pixels { width: 2000, height: 4, rgb: vec![9; 24_000] };
        let parts = serde_json::json!([{ "type": "image" }, { "type": "image" }]);
        for (input, expected) in [
            (UserInput::raw(format!("{pad}{pad}")).image(cat()), "2 places for images (`<|image_pad|>`), and 1 images"),
            (UserInput::raw("none").image(cat()), "0 places for images"),
            (UserInput::raw(pad).image(Image::Pixels(flat)), "2000 x 4 pixels: expected sides of a ratio of 200"),
            (UserInput::raw(pad).image("nowhere.png"), "nowhere.png: "),
            (
                UserInput::messages([serde_json::json!({ "role": "user", "content": parts })]).image(cat()),
                "the conversation has 2 parts for images, 1 images came",
            ),
        ] {
            let e = container.prepare(input).await.unwrap_err().to_string();
            assert!(e.contains(expected), "{e}");
        }
        // A text may not pretend to be an image.
        let spoof = container.prepare(UserInput::from("<|image_pad|>")).await.unwrap();
        assert!(spoof.media.is_none());
        let e = container.prepare(UserInput::from("Say <|image_pad|>").image(cat())).await.unwrap_err().to_string();
        assert!(e.contains("2 places for images"), "{e}");
        // Pixels are bounded by what the user wants.
        let small = container.prepare(UserInput::from("?").image(cat()).max_pixels(4000)).await.unwrap();
        let media = small.media.unwrap();
        assert_eq!(media.images[0].patches.grid, [1, 2, 4]);
    });
}

#[test]
fn a_model_without_a_tower_takes_no_images() {
    on_runtime(async {
        let folder = tamarack_tests::models::folder("goldens/llama/tied");
        let configuration = tamarack::ModelConfiguration::directory(folder);
        let options = tamarack::LoadOptions::default().device(Device::Reference);
        let container = tamarack::load_container(&configuration, options).await.unwrap();
        // It has no tokenizer, either, which is what is found first.
        let e = container.prepare(UserInput::from("?").image(image("cat.png"))).await.unwrap_err().to_string();
        assert!(e.contains("tokenizer"), "{e}");
        assert_eq!(container.model_info().image_rows, 0);
    });
}
