//! Images from files and bytes. A header is read before anything is decoded: what it claims is checked.

use super::Pixels;
use crate::{Error, Result};
use image::{ImageDecoder, ImageReader, Limits};
use std::{io::Cursor, path::Path};

/// Bytes of a file.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// Pixels of an image, before it is resized.
const MAX_PIXELS: u64 = 100_000_000;
/// Bytes that a decoder may ask for.
const MAX_ALLOC: u64 = 1 << 30;

/// The bytes of a file, which is not read if it is too large.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !size.is_file() {
        return Err(Error::file(path, "expected an image, found no file"));
    }
    if size.len() > MAX_BYTES {
        let (found, most) = (size.len() >> 20, MAX_BYTES >> 20);
        return Err(Error::file(path, format!("expected an image of at most {most} MiB, found {found} MiB")));
    }
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

/// The pixels of an image, upright, in red, green and blue; of an animation the first frame. `name` says in errors which it is.
pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Pixels> {
    let wrong = |what: String| Error::file(name, what);
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| wrong(e.to_string()))?;
    if reader.format().is_none() {
        return Err(wrong("expected a JPEG, PNG, WebP, GIF or BMP image, found neither".to_owned()));
    }
    let mut decoder = reader.into_decoder().map_err(|e| wrong(format!("the image is damaged: {e}")))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(wrong(format!("an image of {width} x {height} pixels: expected 1 to {MAX_PIXELS} of them")));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    decoder.set_limits(limits).map_err(|e| wrong(e.to_string()))?;
    // What is no orientation is none.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image =
        image::DynamicImage::from_decoder(decoder).map_err(|e| wrong(format!("the image is damaged: {e}")))?;
    image.apply_orientation(orientation);
    // What is transparent shows what lies below, as in `load_image` of `transformers`.
    let image = image.into_rgb8();
    let [width, height] = [image.width(), image.height()].map(|n| n as usize);
    Ok(Pixels { width, height, rgb: image.into_raw() })
}
