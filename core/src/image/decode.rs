//! Images from files and bytes. A header is read before anything is decoded: what it claims is checked.

use super::{
    Pixels,
    formats::{self, HEAD},
};
use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, metadata::Orientation};
use std::{
    io::{BufRead, Cursor, Read, Seek},
    path::Path,
};

/// Bytes of a file.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// Pixels of an image, before it is resized.
const MAX_PIXELS: u64 = 100_000_000;
/// Bytes that a decoder may ask for.
const MAX_ALLOC: u64 = 1 << 30;

/// The bytes of a file, which is not read if it is too large.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    check_file(path)?;
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

/// Refuses what is no file, or too large a one.
pub(super) fn check_file(path: &Path) -> Result<()> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !size.is_file() {
        return Err(Error::file(path, "expected an image, found no file"));
    }
    if size.len() > MAX_BYTES {
        let (found, most) = (size.len() >> 20, MAX_BYTES >> 20);
        return Err(Error::file(path, format!("expected an image of at most {most} MiB, found {found} MiB")));
    }
    Ok(())
}

/// Checks how many pixels a header claims.
pub(super) fn check_size(name: &str, [width, height]: [u32; 2]) -> Result<()> {
    match u64::from(width) * u64::from(height) {
        1..=MAX_PIXELS => Ok(()),
        _ => {
            Err(Error::file(name, format!("an image of {width} x {height} pixels: expected 1 to {MAX_PIXELS} of them")))
        }
    }
}

/// What a decoder may take.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    limits
}

/// That an image is not all there, or not what it should be.
fn damaged(name: &str, e: &dyn std::fmt::Display) -> Error {
    Error::file(name, format!("the image is damaged: {e}"))
}

/// That an image cannot be decoded: formats have features that are rare, so not every such image is damaged.
pub(super) fn undecodable(name: &str, e: &ImageError) -> Error {
    match e {
        ImageError::Unsupported(e) => Error::file(name, format!("{e}: convert it to an ordinary PNG")),
        e => damaged(name, e),
    }
}

/// A decoder that has read a header, and how the image is turned.
fn header<'a>(name: &str, mut file: impl BufRead + Seek + 'a) -> Result<(impl ImageDecoder + 'a, Orientation)> {
    let mut head = Vec::with_capacity(HEAD);
    let read = file.by_ref().take(HEAD as u64).read_to_end(&mut head).and_then(|_| file.rewind());
    read.map_err(|e| Error::io(name, e))?;
    let format = formats::supported(&head)
        .ok_or_else(|| formats::refuse(name, &head, "expected a JPEG, PNG, WebP, GIF or BMP image", "found neither"))?;
    let mut decoder = ImageReader::with_format(file, format).into_decoder().map_err(|e| undecodable(name, &e))?;
    check_size(name, decoder.dimensions().into())?;
    decoder.set_limits(limits()).map_err(|e| undecodable(name, &e))?;
    // What is no orientation is none.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((decoder, orientation))
}

/// Height and width of an image, upright, of which only the header is read.
pub(super) fn size(name: &str, file: impl BufRead + Seek) -> Result<[usize; 2]> {
    let (decoder, orientation) = header(name, file)?;
    let [width, height] = <[u32; 2]>::from(decoder.dimensions()).map(|n| n as usize);
    let is_turned = matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    Ok(if is_turned { [width, height] } else { [height, width] })
}

/// The pixels of an image, upright, in red, green and blue; of an animation the first frame. `name` says in errors
/// which it is.
pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Pixels> {
    let (decoder, orientation) = header(name, Cursor::new(bytes))?;
    if formats::supported(bytes) == Some(ImageFormat::Jpeg) && !has_end(bytes) {
        return Err(damaged(name, &"it breaks off"));
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| undecodable(name, &e))?;
    image.apply_orientation(orientation);
    Ok(pixels(image))
}

/// Whether a JPEG comes to its end marker: the decoder makes gray of what is missing. Segments say how long they are; in the
/// coded data between them 0 follows a 0xff, or the number of a restart (ITU-T T.81, B.1.1).
fn has_end(jpeg: &[u8]) -> bool {
    let mut at = 0;
    while let Some([first, second]) = jpeg.get(at..at + 2) {
        at += match [*first, *second] {
            [0xff, 0xd9] => return true,
            // Coded data, restarts, the start.
            [0xff, 0x00 | 0x01 | 0xd0..=0xd8] => 2,
            [0xff, 0xff] => 1,
            [0xff, _] => match jpeg.get(at + 2..at + 4) {
                Some(length) => 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
            _ => 1,
        };
    }
    false
}

/// What is transparent shows what lies below, as in `load_image` of `transformers`.
pub(super) fn pixels(image: DynamicImage) -> Pixels {
    let image = image.into_rgb8();
    let [width, height] = [image.width(), image.height()].map(|n| n as usize);
    Pixels { width, height, rgb: image.into_raw() }
}
