//! The formats of files that are not decoded here. They are recognized by their first bytes, because names, addresses and servers
//! may say anything.

use crate::Error;
use image::{ImageFormat, guess_format};

/// Bytes at the beginning of a file that tell its format.
pub(super) const HEAD: usize = 1024;

const TO_PNG: &str = "convert it to PNG";
const TO_FRAMES: &str = "other videos become frames by `ffmpeg -i FILE FOLDER/%05d.png`";
const TO_PICTURE: &str = "make an image of it, a PNG say";
const NO_IMAGE: &str = "give the address of the image itself";

/// Signatures of formats: where they are, what they are, whose they are, and what helps.
const SIGNATURES: &[(usize, &[u8], &str, &str)] = &[
    (0, b"\xff\x0a", "a JPEG XL image", TO_PNG),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", TO_PNG),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", TO_PNG),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", TO_PNG),
    (0, b"II\xbc\x01", "a JPEG XR image", TO_PNG),
    (0, b"II*\0", "a TIFF image", TO_PNG),
    (0, b"MM\0*", "a TIFF image", TO_PNG),
    (0, b"II+\0", "a TIFF image", TO_PNG),
    (0, b"MM\0+", "a TIFF image", TO_PNG),
    (0, b"8BPS", "a Photoshop document", TO_PNG),
    (0, b"gimp xcf", "a GIMP image", TO_PNG),
    (0, b"\0\0\x01\0", "an icon (ICO)", TO_PNG),
    // Neither has a color map, so that five zeros follow, where a cursor has how many there are.
    (0, b"\0\0\x02\0\0\0\0\0", "a TGA image", TO_PNG),
    (0, b"\0\0\x0a\0\0\0\0\0", "a TGA image", TO_PNG),
    (0, b"\0\0\x02\0", "a cursor (CUR)", TO_PNG),
    (0, b"\x01\xda", "an SGI image", TO_PNG),
    (0, b"icns", "an icon (ICNS)", TO_PNG),
    (0, b"qoif", "a QOI image", TO_PNG),
    (0, b"DDS ", "a DDS texture", TO_PNG),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", TO_PNG),
    (0, b"#?RADIANCE", "a Radiance HDR image", TO_PNG),
    (0, b"#?RGBE", "a Radiance HDR image", TO_PNG),
    (0, b"farbfeld", "a farbfeld image", TO_PNG),
    (0, b"BPG\xfb", "a BPG image", TO_PNG),
    (0, b"FLIF", "a FLIF image", TO_PNG),
    (0, b"\x0a\x05\x01\x08", "a PCX image", TO_PNG),
    (0, b"AT&TFORM", "a DjVu document", TO_PICTURE),
    (0, b"%PDF-", "a PDF document", TO_PICTURE),
    (0, b"%!PS", "a PostScript document", TO_PICTURE),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document", TO_PICTURE),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile", TO_PICTURE),
    (40, b" EMF", "a Windows metafile", TO_PICTURE),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", TO_FRAMES),
    (8, b"AVI ", "an AVI video", TO_FRAMES),
    (0, b"FLV\x01", "an FLV video", TO_FRAMES),
    (0, b"OggS", "an Ogg file", TO_FRAMES),
    (0, b"\0\0\x01\xba", "an MPEG video", TO_FRAMES),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file", TO_FRAMES),
    (0, b"PK\x03\x04", "a ZIP archive", "take the image out of it"),
    (0, b"\x1f\x8b", "a file compressed by gzip", "decompress it"),
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands for the file", "get the file by `git lfs pull`"),
];

/// Brands of the ISO base media file format (ISO/IEC 14496-12), and whose they are. One that says only that there are images
/// comes after those that say which.
const BRANDS: &[(&[u8], &str, &str)] = &[
    (b"avif", "an AVIF image", TO_PNG),
    (b"avis", "an AVIF image", TO_PNG),
    (b"heic", "a HEIC image", TO_PNG),
    (b"heix", "a HEIC image", TO_PNG),
    (b"heim", "a HEIC image", TO_PNG),
    (b"heis", "a HEIC image", TO_PNG),
    (b"hevc", "a HEIC image", TO_PNG),
    (b"hevx", "a HEIC image", TO_PNG),
    (b"crx ", "a raw image of a camera", TO_PNG),
    (b"mif1", "a HEIF image", TO_PNG),
    (b"msf1", "a HEIF image", TO_PNG),
    (b"qt  ", "a QuickTime video", TO_FRAMES),
];

/// The format of a file that begins like this, if it is one that is read here.
pub(super) fn supported(head: &[u8]) -> Option<ImageFormat> {
    let format = guess_format(head).ok()?;
    let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp];
    formats.contains(&format).then_some(format)
}

/// The refusal of a file that begins like this, where `expected` was expected; `otherwise` is said of one that nobody knows.
pub(super) fn refuse(name: &str, head: &[u8], expected: &str, otherwise: &str) -> Error {
    let message = match known(head) {
        Some((what, remedy)) => format!("{expected}, found {what}: {remedy}"),
        None if head.is_empty() => format!("{expected}, found an empty file"),
        None => format!("{expected}, {otherwise}"),
    };
    Error::file(name, message)
}

/// What a file that begins like this is called, and what helps.
fn known(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let signature =
        SIGNATURES.iter().find(|(at, bytes, ..)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    signature
        .map(|(.., what, remedy)| (*what, *remedy))
        .or_else(|| media(head))
        .or_else(|| netpbm(head))
        .or_else(|| markup(head))
}

/// What a file is by the brands that its first box names, the major one and those that it is compatible with.
fn media(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let length = u32::from_be_bytes(*head.first_chunk()?) as usize;
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    let named = head.get(8..length.clamp(8, head.len()))?.as_chunks::<4>().0;
    let brand = BRANDS.iter().find(|(brand, ..)| named.iter().any(|n| n == brand));
    Some(brand.map_or(("an MP4 video", TO_FRAMES), |(_, what, remedy)| (*what, *remedy)))
}

/// PBM, PGM, PPM and PAM: `P1` to `P7`, and white space.
fn netpbm(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let is_one = matches!(head, [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace());
    is_one.then_some(("a Netpbm image", TO_PNG))
}

/// Drawings and pages, which begin with whatever declarations and comments they like.
fn markup(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = String::from_utf8_lossy(head).to_lowercase();
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with('<') {
        return None;
    }
    // A page may have drawings in it, but no drawing begins as a page.
    let of = |tag: &str| text.contains(tag);
    if of("<!doctype html") || of("<html") {
        Some(("an HTML page", NO_IMAGE))
    } else if of("<svg") {
        Some(("an SVG drawing", TO_PICTURE))
    } else {
        Some(("XML", NO_IMAGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_not_read_are_called_by_their_names() {
        let heif = b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf";
        let avif = b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiafMA1B";
        let of_another_box = b"\0\0\0\x14ftypmif1\0\0\0\0mif1\0\0\0\x08avif";
        for (head, expected) in [
            (&b"\0\0\0\x20ftypavif\0\0\0\0avifmif1"[..], "found an AVIF image: convert it to PNG"),
            (avif, "found an AVIF image"),
            (heif, "found a HEIC image"),
            (of_another_box, "found a HEIF image"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "found an MP4 video: other videos become frames by `ffmpeg"),
            (b"\xff\xff\xff\xffftypqt  ", "found a QuickTime video"),
            (b"\xff\x0a\xfa\x1f", "found a JPEG XL image"),
            (b"MM\0*\0\0\0\x08", "found a TIFF image"),
            (b"8BPS\0\x01", "found a Photoshop document"),
            (b"\0\0\x01\0\x01\0", "found an icon (ICO)"),
            (b"\0\0\x02\0\0\0\0\0\0\0\0\0", "found a TGA image"),
            (b"\0\0\x02\0\x01\0\x20\x20", "found a cursor (CUR)"),
            (b"%PDF-1.7\n", "found a PDF document: make an image of it"),
            (b"P6\n3 2\n255\n", "found a Netpbm image"),
            (b"P6", "found another"),
            (b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- a cat -->\n<SVG xmlns=\"..\">", "found an SVG drawing"),
            (b"\n<!DOCTYPE html><svg>", "found an HTML page: give the address of the image itself"),
            (b"{\"error\": \"<svg\"}", "found another"),
            (b"", "found an empty file"),
        ] {
            let e = refuse("a.png", head, "expected a PNG image", "found another").to_string();
            assert!(e.starts_with("a.png: expected a PNG image, ") && e.contains(expected), "{e}");
            assert!(!e.contains("damaged") && supported(head).is_none(), "{e}");
        }
    }

    /// Whatever the decoders' library knows of and this program does not read has a name here.
    #[test]
    fn no_format_that_is_guessed_goes_without_a_name() {
        let heads: [&[u8]; 10] = [
            b"II*\0",
            b"DDS ",
            b"\0\0\x01\0",
            b"#?RADIANCE",
            b"\x76\x2f\x31\x01",
            b"P3\n",
            b"farbfeld",
            b"\0\0\0 ftypavif",
            b"qoif",
            b"\x0a\x05\x01\x08",
        ];
        for head in heads {
            assert!(known(head).is_some(), "{head:?}");
        }
    }
}
