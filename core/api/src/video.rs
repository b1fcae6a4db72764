//! Videos of a request, and which of their frames are looked at.

use crate::{Error, ProcessRequest, Result};
use serde::{Deserialize, Serialize};

/// What is known of a video before any of it is decoded. Since api 1.4.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct VideoInfo {
    /// Height and width of its frames, upright.
    pub size: [usize; 2],
    /// How many there are.
    pub frames: usize,
    /// How many there are of a second; none where nobody knows.
    pub fps: Option<f64>,
}

/// Which frames a user asks for; at most one of both. Since api 1.4.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sampling {
    /// So many of a second.
    pub fps: Option<f64>,
    /// So many of a video.
    pub frames: Option<usize>,
}

/// Which frames are looked at. Since api 1.4.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Frames {
    /// All.
    All,
    /// So many of a video.
    Count(usize),
    /// So many of a second.
    PerSecond(f64),
}

impl Sampling {
    /// Refuses what has no meaning.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |what: &str, found: String| Err(Error(format!("frames of a video: expected {what}, found {found}")));
        match (self.frames, self.fps) {
            (Some(n), Some(fps)) => wrong("a number of them or how many of a second", format!("{n} and {fps}")),
            (Some(0), None) => wrong("at least one", "0".to_owned()),
            (None, Some(fps)) if !(fps > 0.0 && fps.is_finite()) => wrong("some of a second", fps.to_string()),
            _ => Ok(()),
        }
    }
}

impl ProcessRequest {
    /// The same with the files of videos in place of those of images, for [`ProcessRequest::pixels`] among others.
    /// Since api 1.4.
    pub fn of_videos(&self) -> ProcessRequest {
        ProcessRequest { files: self.files.video(), ..self.clone() }
    }

    /// Which frames are looked at: as the user asks, or else as the files say if they, or `samples` where they do not,
    /// have frames sampled; `default` is what is said where files say nothing more. Of [`ProcessRequest::of_videos`].
    /// Since api 1.4.
    pub fn frames(&self, samples: bool, default: Frames) -> Frames {
        let file = |key| self.files.image(key);
        match (self.sampling.frames, self.sampling.fps) {
            (Some(n), _) => Frames::Count(n),
            (None, Some(fps)) => Frames::PerSecond(fps),
            (None, None) if !file("do_sample_frames").as_bool().unwrap_or(samples) => Frames::All,
            _ => match (file("num_frames").as_u64(), file("fps").as_f64()) {
                (Some(n), _) => Frames::Count(n as usize),
                (None, Some(fps)) => Frames::PerSecond(fps),
                _ => default,
            },
        }
    }

    /// A prompt with each `marker` replaced by what `text` makes of its video. Since api 1.4.
    pub fn expand_videos(&self, prompt: &str, marker: &str, text: impl Fn(usize) -> String) -> Result<String> {
        expand(prompt, marker, "videos", self.videos.len(), text)
    }
}

/// A text with each `marker` replaced, of which there have to be as many as there are `kind`s.
pub(crate) fn expand(
    prompt: &str,
    marker: &str,
    kinds: &str,
    count: usize,
    text: impl Fn(usize) -> String,
) -> Result<String> {
    let parts: Vec<&str> = prompt.split(marker).collect();
    let places = parts.len() - 1;
    if places != count {
        return Err(Error(format!(
            "the prompt has {places} places for {kinds} (`{marker}`), and {count} {kinds} came with it: one of them for each"
        )));
    }
    let rest = parts[1..].iter().enumerate().map(|(i, part)| text(i) + part);
    Ok(parts[0].to_owned() + &rest.collect::<String>())
}

impl VideoInfo {
    /// So many of its frames at even distances, in whole multiples of `multiple`: by the second as many as there are
    /// `least` to `most` of, as Qwen2-VL's video processor has it. Since api 1.4.
    pub fn evenly(&self, frames: Frames, multiple: usize, [least, most]: [usize; 2]) -> Result<Vec<usize>> {
        let (total, multiple) = (self.frames, multiple.max(1));
        let count = match frames {
            Frames::All => total,
            Frames::Count(n) => (n as f64 / multiple as f64).round_ties_even() as usize * multiple,
            Frames::PerSecond(fps) => {
                let most = most.min(total) / multiple * multiple;
                let wanted = total as f64 / self.known_fps()? * fps;
                (wanted.max(least as f64).min(most as f64) as usize) / multiple * multiple
            }
        };
        // The reference has no answer for fewer than a multiple; of those there are, then, all are looked at.
        let count = if count == 0 { total.min(multiple) } else { count };
        if count > total {
            return Err(Error(format!("{count} frames of a video that has {total}: ask for fewer")));
        }
        Ok((0..count).map(|i| (i as u128 * total as u128 / count as u128) as usize).collect())
    }

    /// How many of its frames a second has.
    ///
    /// # Errors
    /// Nobody knows.
    pub fn known_fps(&self) -> Result<f64> {
        let unknown = "frames by the second of a video of which nobody knows how many frames a second it has: say that, or \
                       ask for a number of frames";
        self.fps.ok_or_else(|| Error(unknown.to_owned()))
    }
}
