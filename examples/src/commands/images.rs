//! Arguments about images.

use anyhow::anyhow;
use clap::Args;
use std::path::{Path, PathBuf};
use tamarack::{
    Image, LmInput, ModelContainer, UserInput,
    image::{ImageOptions, Pixels},
};

/// Images that come with a prompt.
#[derive(Args, Clone)]
pub struct Images {
    /// An image to ask about: a file, or a https: or data: address; may be given several times
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<String>,
    /// Pixels that an image has at most once it is prepared, where the model leaves a choice
    #[arg(long, value_name = "N")]
    max_pixels: Option<usize>,
    /// Whether a large or long image is looked at in parts, too, by models that can: else as the model's files say
    #[arg(long, value_name = "true|false")]
    image_crops: Option<bool>,
    /// Write what the model sees of the images, after resizing and cutting, to a PNG file
    #[arg(long, value_name = "FILE", requires = "images")]
    dump_image: Option<PathBuf>,
}

impl Images {
    /// They, wherever they are.
    pub fn sources(&self) -> impl Iterator<Item = Image> {
        let is_address = |text: &str| ["data:", "https:", "http:"].iter().any(|scheme| text.starts_with(scheme));
        self.images.iter().map(move |text| match is_address(text) {
            true => Image::Url(text.clone()),
            false => Image::Path(text.into()),
        })
    }

    /// How they are prepared.
    pub fn options(&self) -> ImageOptions {
        ImageOptions { max_pixels: self.max_pixels, crops: self.image_crops, ..ImageOptions::default() }
    }

    /// The prompt with them, prepared, and shown to who asked for it.
    pub async fn prepare(&self, container: &ModelContainer, input: UserInput) -> anyhow::Result<LmInput> {
        let mut input = self.sources().fold(input, UserInput::image);
        input.image_options = self.options();
        let input = container.prepare(input).await?;
        let seen = input.media.iter().flat_map(|media| &media.seen);
        for (i, pixels) in seen.enumerate() {
            if let Some(path) = &self.dump_image {
                write(&numbered(path, i), pixels)?;
            }
        }
        Ok(input)
    }
}

fn write(path: &Path, pixels: &Pixels) -> anyhow::Result<()> {
    pixels.write_png(path).map_err(|e| anyhow!(e))
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
