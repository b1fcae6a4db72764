//! Images and videos: decoded, prepared by a plugin's recipe, and placed among the tokens of a prompt.

mod address;
mod decode;
mod fetch;
mod formats;
mod place;
mod prepare;
mod recipe;
mod resize;
mod video;

pub(crate) use address::is_address;
pub(crate) use fetch::{fetch_image, fetch_video};
pub(crate) use prepare::{Processor, fetch_all};
pub use tamarack_api::{ImageOptions, Sampling};
pub use video::{Video, VideoSource};

use crate::{Error, Result};
use address::Address;
use std::{io::Cursor, path::PathBuf};

/// An image of a prompt, wherever it is.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Image {
    /// A file: JPEG, PNG, WebP, GIF (its first frame) or BMP.
    Path(PathBuf),
    /// What such a file holds.
    Bytes(Vec<u8>),
    /// The same, with what it is called in errors.
    Named(String, Vec<u8>),
    /// `data:`, `https:` or `http:`. Never a file: who asks may not be who may read files, and [`Image::parse`] makes a path of
    /// a `file:` address.
    Url(String),
    /// Pixels.
    Pixels(Pixels),
}

/// A decoded image.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green and blue of each pixel, row after row.
    pub rgb: Vec<u8>,
}

impl Image {
    /// An address if the text begins as one (`data:`, `https:`, `http:`), and else a file, by its path or its `file:` address.
    ///
    /// ```
    /// use tamarack::Image;
    ///
    /// assert_eq!(Image::parse("https://host/cat.png"), Image::Url("https://host/cat.png".to_owned()));
    /// assert_eq!(Image::parse("cat.png"), Image::Path("cat.png".into()));
    /// ```
    pub fn parse(text: &str) -> Image {
        match address::parse(text) {
            Address::Local(path) => Image::Path(path),
            Address::Url(url) => Image::Url(url),
        }
    }

    /// What it is called in errors.
    pub fn name(&self) -> String {
        match self {
            Image::Path(path) => path.display().to_string(),
            Image::Bytes(_) => "image".to_owned(),
            Image::Named(name, _) => name.clone(),
            Image::Url(url) => address::name(url),
            Image::Pixels(_) => "pixels".to_owned(),
        }
    }

    /// Its height and width, upright: what its header claims.
    fn size(&self) -> Result<[usize; 2]> {
        let name = self.name();
        match self {
            Image::Path(path) => {
                decode::check_file(path)?;
                let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
                decode::size(&name, std::io::BufReader::new(file))
            }
            Image::Bytes(bytes) | Image::Named(_, bytes) => decode::size(&name, Cursor::new(bytes)),
            Image::Url(url) => decode::size(&name, Cursor::new(address::data(url)?)),
            Image::Pixels(pixels) => Ok([pixels.height, pixels.width]),
        }
    }

    /// Its pixels, upright. Takes a while: not for a thread that serves others.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::File`] if it is no image, is damaged, or is too large.
    pub fn decode(&self) -> Result<Pixels> {
        match self {
            Image::Path(path) => decode::decode(&self.name(), &decode::read(path)?),
            Image::Bytes(bytes) | Image::Named(_, bytes) => decode::decode(&self.name(), bytes),
            Image::Url(url) => decode::decode(&self.name(), &address::data(url)?),
            Image::Pixels(pixels) => {
                let expected = pixels.width.checked_mul(pixels.height).and_then(|n| n.checked_mul(3));
                if pixels.rgb.is_empty() || expected != Some(pixels.rgb.len()) {
                    let Pixels { width, height, rgb } = pixels;
                    let found = rgb.len();
                    return Err(Error::Request(format!(
                        "pixels: {width} x {height} of three bytes, found {found} bytes"
                    )));
                }
                Ok(pixels.clone())
            }
        }
    }
}

/// A file.
impl<P: Into<PathBuf>> From<P> for Image {
    fn from(path: P) -> Image {
        Image::Path(path.into())
    }
}

impl Pixels {
    /// A part.
    fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Result<Pixels, String> {
        let inside = |from: usize, len: usize, all: usize| from.checked_add(len).is_some_and(|end| end <= all);
        if !inside(x, width, self.width) || !inside(y, height, self.height) {
            let (w, h) = (self.width, self.height);
            return Err(format!("{width} x {height} pixels at {x}, {y} are not inside {w} x {h}"));
        }
        let lines = self.rgb.chunks_exact(self.width * 3).skip(y).take(height);
        let rgb = lines.flat_map(|line| &line[x * 3..(x + width) * 3]).copied().collect();
        Ok(Pixels { width, height, rgb })
    }

    /// Writes it as a PNG file.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be.
    pub fn write_png(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let (path, [width, height]) = (path.as_ref(), [self.width, self.height].map(|n| n as u32));
        let format = image::ImageFormat::Png;
        image::save_buffer_with_format(path, &self.rgb, width, height, image::ColorType::Rgb8, format)
            .map_err(|e| Error::file(path, e.to_string()))
    }
}

/// Without the bytes.
impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {} pixels", self.width, self.height)
    }
}
