//! Arguments about images and videos.

use super::output;
use crate::errors::Usage;
use clap::{ArgGroup, Args};
use std::path::{Path, PathBuf};
use tamarack::{
    ChatSession, Image, LmInput, ModelContainer, UserInput, Video,
    image::{ImageOptions, Pixels, Sampling},
};

/// Images and videos that come with a prompt.
#[derive(Args, Clone)]
#[command(group = ArgGroup::new("media").multiple(true).args(["images", "videos"]))]
pub struct Images {
    /// An image to ask about: a file, or a https:, data: or file: address; may be given several times
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<String>,
    /// A video to ask about: a folder of frames, in the order of their names, or an animated GIF, WebP or PNG, also by a
    /// https:, data: or file: address; may be given several times
    #[arg(long = "video", value_name = "PATH")]
    videos: Vec<String>,
    /// Frames that a second of the videos has; else as an animation says, or as the model's processor assumes of frames in a
    /// folder (24)
    #[arg(long, value_name = "N", requires = "videos")]
    video_fps: Option<f64>,
    /// Look at so many frames of a second; else as the model's files say
    #[arg(long, value_name = "N", requires = "videos", conflicts_with = "sample_frames")]
    sample_fps: Option<f64>,
    /// Look at so many frames of a video
    #[arg(long, value_name = "N", requires = "videos")]
    sample_frames: Option<usize>,
    /// Pixels that an image, or a frame, has at most once it is prepared, where the model leaves a choice
    #[arg(long, value_name = "N")]
    max_pixels: Option<usize>,
    /// Whether a large or long image is looked at in parts, too, by models that can: else as the model's files say
    #[arg(long, value_name = "true|false")]
    image_crops: Option<bool>,
    /// Write what the model sees of images and frames, after resizing and cutting, to a PNG file, or several: out.png,
    /// out-2.png, ...
    #[arg(long, value_name = "FILE", requires = "media")]
    dump_image: Option<PathBuf>,
}

impl Images {
    /// They, wherever they are.
    fn sources(&self) -> impl Iterator<Item = Image> {
        self.images.iter().map(|text| Image::parse(text))
    }

    fn videos(&self) -> impl Iterator<Item = Video> {
        self.videos.iter().map(|text| Video { fps: self.video_fps, ..Video::parse(text) })
    }

    /// How they are prepared.
    fn options(&self) -> (ImageOptions, Sampling) {
        let options = ImageOptions { max_pixels: self.max_pixels, crops: self.image_crops, ..ImageOptions::default() };
        (options, Sampling { fps: self.sample_fps, frames: self.sample_frames })
    }

    /// Gives them to the first question of a conversation.
    pub fn begin(&self, chat: &mut ChatSession) {
        self.sources().for_each(|image| chat.add_image(image));
        self.videos().for_each(|video| chat.add_video(video));
        (*chat.image_options_mut(), *chat.sampling_mut()) = self.options();
    }

    /// The prompt with them, prepared, and shown to who asked for it.
    pub async fn prepare(&self, container: &ModelContainer, input: UserInput) -> anyhow::Result<LmInput> {
        let input = self.sources().fold(input, UserInput::image);
        let mut input = self.videos().fold(input, UserInput::video);
        (input.image_options, input.sampling) = self.options();
        let input = container.prepare(input).await?;
        if let (Some(path), Some(media)) = (&self.dump_image, &input.media) {
            dump(path, &media.seen)?;
        }
        Ok(input)
    }

    /// Refuses what a conversation has no place for.
    pub fn check_conversation(&self) -> Result<(), Usage> {
        match self.dump_image {
            Some(_) => Err(Usage("--dump-image goes with one prompt: name it, or pipe it in".to_owned())),
            None => Ok(()),
        }
    }
}

/// Writes pictures, and says where they are.
fn dump(path: &Path, seen: &[Pixels]) -> anyhow::Result<()> {
    for (i, pixels) in seen.iter().enumerate() {
        pixels.write_png(numbered(path, i))?;
    }
    let (first, last) = (path.display(), numbered(path, seen.len().saturating_sub(1)));
    match seen.len() {
        1 => output::note(format_args!("What the model sees: {first}")),
        count => output::note(format_args!("What the model sees: {count} pictures, {first} to {}", last.display())),
    }
    Ok(())
}

/// `out.png`, `out-2.png`, ...
fn numbered(path: &Path, i: usize) -> PathBuf {
    if i == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{extension}", i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_numbered() {
        let name = |i| numbered(Path::new("a/out.png"), i).display().to_string();
        assert_eq!([name(0), name(1)], ["a/out.png", "a/out-2.png"]);
        assert_eq!(numbered(Path::new("out"), 2), Path::new("out-3"));
    }
}
