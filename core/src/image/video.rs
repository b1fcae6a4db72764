//! Videos: frames in files of their own, or an animated image. Sizes are looked at first, in headers; then the frames
//! that are wanted are decoded, few at a time.

use super::{
    Image, Pixels,
    address::{self, Address},
    decode, formats,
};
use crate::{Error, Result};
use image::{
    AnimationDecoder, DynamicImage, Frame, ImageDecoder, ImageError, ImageFormat,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
};
use rayon::prelude::*;
use std::{
    io::Cursor,
    path::{Path, PathBuf},
    time::Duration,
};
use tamarack_api::VideoInfo;

/// Frames of a video.
const MAX_FRAMES: usize = 10_000;
/// Pixels of all of them together.
const MAX_PIXELS: u64 = 4_000_000_000;
/// Pixels that are decoded at once.
const AT_ONCE: usize = 64 << 20;
/// What a frame lasts that claims no time: what browsers take.
const DELAY: Duration = Duration::from_millis(100);
/// The error for a file that cannot be read as a video.
const EXPECTED: &str = "expected a folder of frames, or an animated GIF, WebP or PNG";
/// What follows it where the file's format is unknown.
const OTHERWISE: &str = "found neither; other videos become frames by `ffmpeg -i FILE FOLDER/%05d.png`";

/// A video of a prompt.
///
/// ```
/// use tamarack::{UserInput, image::Video};
///
/// let question = UserInput::from("What happens?").video("wave.gif").video(Video::from("frames").at(25.0));
/// let frames = UserInput::from("And here?").video(Video::frames(["before.jpg", "after.jpg"]));
/// # assert_eq!((question.videos.len(), frames.videos.len()), (2, 1));
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Video {
    /// Where its frames are.
    pub source: VideoSource,
    /// How many of them a second has. None: as an animation says; else nobody knows, and what the model's processor
    /// takes for it counts, 24 mostly.
    pub fps: Option<f64>,
}

/// Where the frames of a video are, all of one size.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum VideoSource {
    /// A folder of images, which come in the order of their names (numbers in them as numbers), or an animated GIF,
    /// WebP or PNG.
    Path(PathBuf),
    /// What such a file holds.
    Bytes(Vec<u8>),
    /// The same, with what it is called in errors.
    Named(String, Vec<u8>),
    /// `data:`, `https:` or `http:`, for such a file.
    Url(String),
    /// One image for each frame.
    Frames(Vec<Image>),
}

/// A folder of frames, or a file.
impl<P: Into<PathBuf>> From<P> for Video {
    fn from(path: P) -> Video {
        Video { source: VideoSource::Path(path.into()), fps: None }
    }
}

impl Video {
    /// An address if the text begins as one (`data:`, `https:`, `http:`), and else a folder of frames or a file, by its path
    /// or its `file:` address.
    pub fn parse(text: &str) -> Video {
        match address::parse(text) {
            Address::Local(path) => Video::from(path),
            Address::Url(url) => Video { source: VideoSource::Url(url), fps: None },
        }
    }

    /// One image for each frame.
    pub fn frames(frames: impl IntoIterator<Item = impl Into<Image>>) -> Video {
        Video { source: VideoSource::Frames(frames.into_iter().map(Into::into).collect()), fps: None }
    }

    /// With so many frames in a second.
    pub fn at(self, fps: f64) -> Video {
        Video { fps: Some(fps), ..self }
    }

    /// What it is called in errors.
    pub fn name(&self) -> String {
        match &self.source {
            VideoSource::Path(path) => path.display().to_string(),
            VideoSource::Named(name, _) => name.clone(),
            VideoSource::Url(url) => address::name(url),
            VideoSource::Bytes(_) | VideoSource::Frames(_) => "video".to_owned(),
        }
    }
}

/// A video whose sizes are known.
pub(super) struct Opened {
    pub name: String,
    pub info: VideoInfo,
    frames: Decode,
}

/// How its frames are decoded.
enum Decode {
    Animation(ImageFormat, Vec<u8>),
    Images(Vec<Image>),
}

impl Opened {
    /// Reads headers; of an animation, which has none that counts frames, all of it, a frame at a time.
    pub fn open(video: Video) -> Result<Opened> {
        let name = video.name();
        let wrong = |what: String| Error::file(&name, what);
        if let Some(fps) = video.fps
            && !(fps > 0.0 && fps.is_finite())
        {
            return Err(wrong(format!("expected some frames in a second, found {fps}")));
        }
        let (info, frames) = match video.source {
            VideoSource::Path(path) if path.is_dir() => of_images(&name, listed(&path)?)?,
            VideoSource::Path(path) => of_file(&name, decode::read(&path)?)?,
            VideoSource::Bytes(bytes) | VideoSource::Named(_, bytes) => of_file(&name, bytes)?,
            VideoSource::Url(url) => of_file(&name, address::data(&url)?)?,
            VideoSource::Frames(images) => of_images(&name, images)?,
        };
        Ok(Opened { info: VideoInfo { fps: video.fps.or(info.fps), ..info }, name, frames })
    }

    /// The frames of these places, which ascend.
    pub fn decode<'a>(&'a self, wanted: &'a [usize]) -> Result<Box<dyn Iterator<Item = Result<Pixels>> + 'a>> {
        match &self.frames {
            Decode::Images(images) => {
                let [height, width] = self.info.size;
                let at_once = (AT_ONCE / (height * width).max(1)).clamp(1, 32);
                let decode = move |place: &usize| {
                    let image = &images[*place];
                    let frame = image.decode()?;
                    check_same(&image.name(), [frame.height, frame.width], [height, width])?;
                    Ok(frame)
                };
                let some = move |places: &[usize]| places.par_iter().map(decode).collect::<Vec<Result<Pixels>>>();
                Ok(Box::new(wanted.chunks(at_once).flat_map(some)))
            }
            Decode::Animation(format, bytes) => {
                let frames = animation(&self.name, *format, bytes)?.enumerate();
                let wanted = frames.filter(|(place, _)| wanted.binary_search(place).is_ok());
                Ok(Box::new(wanted.map(|(_, frame)| {
                    let frame = frame.map_err(|e| decode::undecodable(&self.name, &e))?;
                    Ok(decode::pixels(DynamicImage::ImageRgba8(frame.into_buffer())))
                })))
            }
        }
    }
}

/// A file that moves, or a single frame.
fn of_file(name: &str, bytes: Vec<u8>) -> Result<(VideoInfo, Decode)> {
    match animated(name, &bytes)? {
        Some(format) => of_animation(name, format, bytes),
        None => of_images(name, vec![Image::Named(name.to_owned(), bytes)]),
    }
}

/// The images of a folder.
fn listed(folder: &Path) -> Result<Vec<Image>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.is_file() {
            files.push(path);
        }
        check_count(&folder.display().to_string(), files.len(), 0)?;
    }
    files.sort_by_cached_key(|path| in_order(&path.file_name().unwrap_or_default().to_string_lossy()));
    Ok(files.into_iter().map(Image::Path).collect())
}

/// A name as what sorts as people count: frame9 before frame10.
fn in_order(name: &str) -> Vec<(String, u128)> {
    let mut parts = vec![(String::new(), 0u128)];
    let mut was_digit = false;
    for c in name.chars() {
        let (digit, last) = (c.to_digit(10), parts.len() - 1);
        match digit {
            Some(digit) => parts[last].1 = parts[last].1.saturating_mul(10).saturating_add(digit.into()),
            None if was_digit => parts.push((c.into(), 0)),
            None => parts[last].0.push(c),
        }
        was_digit = digit.is_some();
    }
    parts.push((name.to_owned(), 0));
    parts
}

fn of_images(name: &str, images: Vec<Image>) -> Result<(VideoInfo, Decode)> {
    let first = images.first().ok_or_else(|| Error::file(name, "expected frames, found none"))?.size()?;
    check_count(name, images.len(), first[0] * first[1])?;
    images.par_iter().try_for_each(|image| check_same(&image.name(), image.size()?, first))?;
    Ok((VideoInfo { size: first, frames: images.len(), fps: None }, Decode::Images(images)))
}

/// The format of an animated image; none for one that does not move.
fn animated(name: &str, bytes: &[u8]) -> Result<Option<ImageFormat>> {
    let (format, file) = (formats::supported(bytes), Cursor::new(bytes));
    let is_animated = match format {
        Some(ImageFormat::Gif) => true,
        Some(ImageFormat::WebP) => WebPDecoder::new(file).map_err(|e| decode::undecodable(name, &e))?.has_animation(),
        Some(ImageFormat::Png) => {
            PngDecoder::new(file).and_then(|d| d.is_apng()).map_err(|e| decode::undecodable(name, &e))?
        }
        Some(ImageFormat::Jpeg | ImageFormat::Bmp) => false,
        _ => return Err(formats::refuse(name, &bytes[..bytes.len().min(formats::HEAD)], EXPECTED, OTHERWISE)),
    };
    Ok(format.filter(|_| is_animated))
}

fn of_animation(name: &str, format: ImageFormat, bytes: Vec<u8>) -> Result<(VideoInfo, Decode)> {
    let (mut size, mut count, mut lasts) = ([0; 2], 0, Duration::ZERO);
    for frame in animation(name, format, &bytes)? {
        let frame = frame.map_err(|e| decode::undecodable(name, &e))?;
        size = [frame.buffer().height(), frame.buffer().width()].map(|n| n as usize);
        count += 1;
        check_count(name, count, size[0] * size[1])?;
        let delay = Duration::from(frame.delay());
        lasts += if delay.is_zero() { DELAY } else { delay };
    }
    if count == 0 {
        return Err(Error::file(name, "expected frames, found none"));
    }
    let fps = Some(count as f64 / lasts.as_secs_f64());
    Ok((VideoInfo { size, frames: count, fps }, Decode::Animation(format, bytes)))
}

/// The frames of an animation, whole ones, one after the other.
fn animation<'a>(
    name: &str,
    format: ImageFormat,
    bytes: &'a [u8],
) -> Result<Box<dyn Iterator<Item = Result<Frame, ImageError>> + 'a>> {
    let wrong = |e: ImageError| decode::undecodable(name, &e);
    fn checked<D: ImageDecoder>(name: &str, mut decoder: D) -> Result<D> {
        decode::check_size(name, decoder.dimensions().into())?;
        decoder.set_limits(decode::limits()).map_err(|e| decode::undecodable(name, &e))?;
        Ok(decoder)
    }
    let bytes = Cursor::new(bytes);
    Ok(match format {
        ImageFormat::Gif => Box::new(checked(name, GifDecoder::new(bytes).map_err(wrong)?)?.into_frames()),
        ImageFormat::WebP => Box::new(checked(name, WebPDecoder::new(bytes).map_err(wrong)?)?.into_frames()),
        _ => {
            let decoder = checked(name, PngDecoder::new(bytes).map_err(wrong)?)?;
            Box::new(decoder.apng().map_err(wrong)?.into_frames())
        }
    })
}

fn check_count(name: &str, frames: usize, pixels: usize) -> Result<()> {
    let all = frames as u64 * pixels as u64;
    if frames > MAX_FRAMES {
        return Err(Error::file(name, format!("expected a video of at most {MAX_FRAMES} frames, found more")));
    }
    if all > MAX_PIXELS {
        let what = format!("{frames} frames of {pixels} pixels: expected {MAX_PIXELS} at most in all: leave some out");
        return Err(Error::file(name, what));
    }
    Ok(())
}

fn check_same(name: &str, [height, width]: [usize; 2], [rows, columns]: [usize; 2]) -> Result<()> {
    if [height, width] == [rows, columns] {
        return Ok(());
    }
    let what =
        format!("a frame of {width} x {height} pixels: expected {columns} x {rows}, the size of the video's first");
    Err(Error::file(name, what))
}
