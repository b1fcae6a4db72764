//! Where images and videos are among the tokens of a prompt.

use crate::{
    Error, Result,
    exec::{ImagePatches, Media, PlacedImage},
};
use std::sync::Arc;
use tamarack_api::{Medium, Processed};

/// Finds the tokens of every medium, and counts positions. Which of the media each placed one is comes along: videos
/// may have a token of their own, so that they and images are each in order, and not all together.
pub(super) fn place(tokens: &[u32], processed: &Processed) -> Result<(Media, Vec<usize>)> {
    let Processed { image_token, video_token, .. } = *processed;
    let is_apart = |medium: &Medium| video_token.is_some() && medium.video.is_some();
    let of = |apart| processed.media.iter().enumerate().filter(move |(_, m)| m.tokens > 0 && is_apart(m) == apart);
    for (kind, token, apart) in [("image", Some(image_token), false), ("video", video_token, true)] {
        let found = tokens.iter().filter(|t| Some(**t) == token).count();
        let expected = of(apart).try_fold(0usize, |n, (_, m)| n.checked_add(m.tokens)).unwrap_or(usize::MAX);
        if found != expected {
            let token = token.unwrap_or_default();
            return Err(Error::Request(format!(
                "the prompt has {found} {kind} tokens ({token}), its {kind}s make {expected}: does its text spell one \
                 out, or does the tokenizer lack it?"
            )));
        }
    }
    let prefix = if processed.is_prefix { tokens.len() } else { 0 };
    let (mut media, mut next) = (Media { prefix, ..Media::default() }, 0u32);
    let (mut rest, mut order) = ([of(false), of(true)], Vec::new());
    let mut current: Option<(&Medium, u32)> = None;
    for (i, token) in tokens.iter().enumerate() {
        let apart = Some(*token) == video_token;
        if !apart && *token != image_token {
            media.positions.push([next; 3]);
            next = next.saturating_add(1);
            continue;
        }
        if current.is_none()
            && let Some((index, medium)) = rest[usize::from(apart)].next()
        {
            current = Some((medium, next));
            order.push(index);
            let patches = Arc::new(ImagePatches::new(Vec::new(), &Medium::default()));
            let video = medium.video.filter(|_| apart);
            media.images.push(PlacedImage { tokens: Vec::new(), span: medium.span, video, patches });
        }
        let (Some((medium, first)), Some(placed)) = (current, media.images.last_mut()) else { continue };
        if is_apart(medium) != apart {
            let what = "tokens of images are among those of a video: does its text spell some out?";
            return Err(Error::Request(what.to_owned()));
        }
        let row = placed.tokens.len();
        placed.tokens.push(i as u32);
        match medium.positions.get(row) {
            Some(position) => media.positions.push(position.map(|p| first.saturating_add(p))),
            None => {
                media.positions.push([next; 3]);
                next = next.saturating_add(1);
            }
        }
        if placed.tokens.len() == medium.tokens {
            if !medium.positions.is_empty() {
                next = first.saturating_add(medium.advance);
            }
            current = None;
        }
    }
    media.next = next;
    Ok((media, order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tamarack_api::{in_time, smart_resize};

    /// What `transformers` gives for random sizes and mixes: see tests/goldens/vision.py.
    fn table(name: &str) -> Vec<Value> {
        table_of("tables.json", name)
    }

    fn table_of(file: &str, name: &str) -> Vec<Value> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/vision").join(file);
        let tables: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        tables[name].as_array().unwrap().clone()
    }

    #[test]
    fn sizes_are_those_of_transformers() {
        for row in table("smart_resize") {
            let row: Vec<usize> = serde_json::from_value(row).unwrap();
            let found = smart_resize([row[0], row[1]], row[2], row[3], row[4]).unwrap();
            assert_eq!(found, row[5..], "{row:?}");
        }
        for wrong in [[0, 5], [5, 0], [1, 201], [402, 2]] {
            assert!(smart_resize(wrong, 28, 3136, 1 << 20).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn positions_of_random_mixes_are_those_of_transformers() {
        for mix in table("mixes") {
            let grids: Vec<[usize; 3]> = serde_json::from_value(mix["grids"].clone()).unwrap();
            let tokens: Vec<u32> = serde_json::from_value(mix["tokens"].clone()).unwrap();
            let expected: Vec<[u32; 3]> = serde_json::from_value(mix["positions"].clone()).unwrap();
            let media = grids.iter().map(|[_, h, w]| Medium::still(0, [*h, *w], 2).spread(2)).collect();
            let image_token = mix["image_token"].as_u64().unwrap() as u32;
            let (media, _) = place(&tokens, &Processed { image_token, media, ..Processed::default() }).unwrap();
            assert_eq!(media.positions, expected, "{grids:?}");
            assert_eq!(media.next, expected.last().unwrap()[0] + 1);
        }
    }

    /// Images and videos in any order, each with a token of its own.
    #[test]
    fn positions_of_random_videos_are_those_of_transformers() {
        let mut videos = 0;
        for mix in table_of("films.json", "mixes") {
            let tokens: Vec<u32> = serde_json::from_value(mix["tokens"].clone()).unwrap();
            let expected: Vec<[u32; 3]> = serde_json::from_value(mix["positions"].clone()).unwrap();
            let given: Vec<[usize; 4]> = serde_json::from_value(mix["media"].clone()).unwrap();
            let seconds: Vec<f64> = serde_json::from_value(mix["seconds"].clone()).unwrap();
            let (mut media, mut seconds) = ([Vec::new(), Vec::new()], seconds.into_iter());
            for [is_video, t, h, w] in given {
                let medium = Medium::still(0, [h, w], 2).spread(2);
                media[is_video].extend(match is_video {
                    0 => vec![medium],
                    _ => in_time(vec![medium.of_video(0, &[0]); t], 4.0 * seconds.next().unwrap() as f32),
                });
                videos += is_video;
            }
            let token = |name: &str| mix[name].as_u64().unwrap() as u32;
            let (image_token, video_token) = (token("image_token"), Some(token("video_token")));
            let processed = Processed { image_token, video_token, media: media.concat(), ..Processed::default() };
            let (placed, order) = place(&tokens, &processed).unwrap();
            assert_eq!(placed.positions, expected, "{mix}");
            assert!(placed.images.iter().zip(&order).all(|(i, m)| i.video == processed.media[*m].video));
        }
        assert!(videos > 20, "{videos} videos");
    }

    /// Texts go on after all of a video: after its last moment, where that is later than its last row and column.
    #[test]
    fn what_follows_a_video_comes_after_it() {
        let moment = Medium::still(0, [2, 4], 2).spread(2).of_video(0, &[0]);
        let media = in_time(vec![moment; 4], 1.5);
        let processed = Processed { image_token: 8, video_token: Some(9), media, ..Processed::default() };
        let (media, _) = place(&[1, 9, 9, 9, 9, 9, 9, 9, 9, 2], &processed).unwrap();
        let times: Vec<u32> = media.positions.iter().map(|[t, ..]| *t).collect();
        assert_eq!((times, media.next), (vec![0, 1, 1, 2, 2, 4, 4, 5, 5, 6], 7));
        assert_eq!(media.positions[9], [6; 3]);
        let e = place(&[9, 9, 8], &processed).unwrap_err().to_string();
        assert!(e.starts_with("the prompt has 1 image tokens (8), its images make 0"), "{e}");
        let e = place(&[9; 7], &processed).unwrap_err().to_string();
        assert!(e.starts_with("the prompt has 7 video tokens (9), its videos make 8"), "{e}");
        let image = Medium::still(0, [2, 2], 2).spread(2);
        let processed = Processed { media: [&processed.media[..], &[image]].concat(), ..processed };
        let e = place(&[9, 8, 9, 9, 9, 9, 9, 9, 9], &processed).unwrap_err().to_string();
        assert!(e.starts_with("tokens of images are among those of a video"), "{e}");
    }

    #[test]
    fn positions_are_those_of_qwen2_vl() {
        // Two words, an image of 2 x 3, a word, an image without positions of its own, a word.
        let wide = Medium::still(0, [4, 6], 2).spread(2);
        let plain = Medium { tokens: 2, ..Medium::default() };
        let processed = Processed { image_token: 9, media: vec![wide, plain], ..Processed::default() };
        let tokens = [1, 2, 9, 9, 9, 9, 9, 9, 3, 9, 9, 4];
        let (media, _) = place(&tokens, &processed).unwrap();
        let expected = [
            [0; 3],
            [1; 3],
            [2, 2, 2],
            [2, 2, 3],
            [2, 2, 4],
            [2, 3, 2],
            [2, 3, 3],
            [2, 3, 4],
            [5; 3],
            [6; 3],
            [7; 3],
            [8; 3],
        ];
        assert_eq!((media.positions.as_slice(), media.next), (&expected[..], 9));
        assert_eq!(media.images[1].range(), 9..11);
        let e = place(&tokens[1..5], &processed).unwrap_err().to_string();
        assert!(e.starts_with("the prompt has 3 image tokens (9), its images make 8"), "{e}");
    }
}
