//! SmolVLM's videos, arXiv:2504.05299: frames are images, each after its time.

use super::{AROUND, IMAGE, LONGEST, scaled};
use tamarack_api::*;

/// Where a video stands in a prompt.
const VIDEO: &str = "<video>";
/// Frames that a video has in a second, where nobody knows.
const DEFAULT_FPS: f64 = 24.0;

/// A prompt with videos, and their frames, `merge` times `merge` of whose patches become a token.
pub fn process(request: &ProcessRequest, tower: &Siglip, merge: usize) -> Result<(String, Vec<Medium>)> {
    let request = request.of_videos();
    let tile = request.files.size_in("max_image_size", "longest_edge", 364)?;
    if tile != tower.image_size {
        let size = tower.image_size;
        return Err(format!("videos: max_image_size.longest_edge: expected the tower's {size}, found {tile}").into());
    }
    let sampling = request.files.image("video_sampling");
    let longest = match sampling["video_size"]["longest_edge"].as_u64() {
        Some(edge) => edge as usize,
        None => request.files.size_in("size", "longest_edge", 4 * 364)?,
    };
    let filter = request.files.filter(Filter::Lanczos3)?;
    let resize = |of, [height, width]: [usize; 2]| RecipeOp::Resize { of, width, height, filter };
    let (mut media, mut texts) = (Vec::new(), Vec::new());
    for (i, video) in request.videos.iter().enumerate() {
        let recipe = vec![resize(0, scaled(video.size, longest.min(LONGEST))), resize(1, [tile; 2])];
        let frame = tower.medium(0, recipe, merge, &request.files)?;
        let frames = sampled(video, &request)?;
        texts.push(text(video, &frames, &IMAGE.repeat(frame.tokens)));
        media.extend(frames.into_iter().map(|at| frame.clone().of_video(i, &[at])));
    }
    let prompt = request.expand_videos(&request.prompt, VIDEO, |i| texts[i].clone())?;
    Ok((prompt, media))
}

/// The frames that are looked at: so many of a second, but no more than some number; of a long video the first and last
/// second are left out.
fn sampled(video: &VideoInfo, request: &ProcessRequest) -> Result<Vec<usize>> {
    let (files, asked) = (&request.files, request.sampling);
    let file = |key: &str, new: &str| {
        let old = &files.image("video_sampling")[key];
        if old.is_null() { files.image(new).as_f64() } else { old.as_f64() }
    };
    let most = asked.frames.map(|n| n as f64).or(file("max_frames", "num_frames"));
    let by_second = asked.fps.or(file("fps", "fps"));
    // What a chat template's caller does, samples where the files say how.
    if most.is_none() && by_second.is_none() {
        return Ok((0..video.frames).collect());
    }
    let (fps, total) = (video.known_fps()?, video.frames as f64);
    let (duration, by_second, most) = (total / fps, by_second.unwrap_or(f64::INFINITY), most.unwrap_or(f64::INFINITY));
    let count = (by_second * duration).round_ties_even().min(most).clamp(1.0, total) as usize;
    let is_long = duration - 2.0 > most * by_second;
    let (first, last) =
        if is_long { (fps.floor(), (total - fps).floor().min(total - 1.0)) } else { (0.0, total - 1.0) };
    let (first, last) = if first < last { (first, last) } else { (0.0, total - 1.0) };
    let step = (last - first) / count.saturating_sub(1).max(1) as f64;
    let at = |i: usize| if i + 1 == count && count > 1 { last } else { i as f64 * step + first };
    let mut frames: Vec<usize> = (0..count).map(|i| at(i) as usize).collect();
    frames.dedup();
    Ok(frames)
}

/// What stands for a video in a prompt.
fn text(video: &VideoInfo, frames: &[usize], tokens: &str) -> String {
    let fps = video.fps.unwrap_or(DEFAULT_FPS);
    let time = |frame: usize| (frame as f64 / fps) as u64;
    let last = frames.last().map_or(0, |frame| time(*frame));
    let whole = video.fps.map_or(last, |fps| (video.frames as f64 / fps) as u64);
    let (count, [h, m, s]) = (words(frames.len()), [whole / 3600, whole / 60 % 60, whole % 60]);
    let frame = |frame: &usize| {
        let (m, s) = (time(*frame) / 60, time(*frame) % 60);
        format!("\nFrame from {m:02}:{s:02}:{AROUND}<global-img>{tokens}{AROUND}")
    };
    let intro =
        format!("You are provided the following series of {count} frames from a {h}:{m:02}:{s:02} [H:MM:SS] video.\n");
    intro + &frames.iter().map(frame).collect::<String>() + "\n\n"
}

/// A number below a million in English.
fn words(n: usize) -> String {
    const ONES: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let rest = |n: usize, before: &str| if n == 0 { String::new() } else { format!("{before}{}", words(n)) };
    match n {
        0..20 => ONES[n].to_owned(),
        20..100 => TENS[n / 10 - 2].to_owned() + &rest(n % 10, "-"),
        100..1000 => format!("{} hundred{}", ONES[n / 100], rest(n % 100, " and ")),
        _ => format!("{} thousand{}", words(n / 1000), rest(n % 1000, if n % 1000 < 100 { " and " } else { ", " })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As num2words spells them.
    #[test]
    fn numbers_are_english() {
        for (n, expected) in [
            (8, "eight"),
            (20, "twenty"),
            (64, "sixty-four"),
            (100, "one hundred"),
            (115, "one hundred and fifteen"),
            (1000, "one thousand"),
            (2001, "two thousand and one"),
            (12345, "twelve thousand, three hundred and forty-five"),
        ] {
            assert_eq!(words(n), expected);
        }
    }
}
