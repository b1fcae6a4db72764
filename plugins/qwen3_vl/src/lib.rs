//! Qwen3-VL, arXiv:2511.21631: a tower whose table of positions is stretched over each image, and which gives the first
//! layers of the text model, Qwen3, what its own layers see on the way (DeepStack, arXiv:2406.04334).
//! `x` is [patches, hidden].

use tamarack_api::*;

config! {
    struct TowerConfig {
        depth: usize = 27,
        hidden_size: usize = 1152,
        // That of the text model.
        out_hidden_size: usize = 3584,
        intermediate_size: usize = 4304,
        num_heads: usize = 16,
        in_channels: usize = 3,
        patch_size: usize = 16,
        spatial_merge_size: usize = 2,
        temporal_patch_size: usize = 2,
        // A square.
        num_position_embeddings: usize = 2304,
        deepstack_visual_indexes: Vec<usize> = vec![8, 16, 24],
        hidden_act: Activation = Activation::GeluTanh,
    }
}

/// What names of the tower's tensors begin with, here and there.
const TOWER: [&str; 3] = ["model.visual", "visual", "vision_tower"];
/// Where an image stands in a prompt, and where a video does, whose moments are put between two more.
const IMAGE: &str = "<|image_pad|>";
const VIDEO: &str = "<|video_pad|>";
const START: &str = "<|vision_start|>";
const END: &str = "<|vision_end|>";
/// Frames that a video has in a second, where nobody knows.
const DEFAULT_FPS: f64 = 24.0;

struct Block<'a> {
    c: &'a TowerConfig,
    rope: &'a RopeSpec,
}

impl Block<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.layer_norm(name, self.c.hidden_size, 1e-6).forward(x);
        let h = x + self.attention(&w.at("attn"), norm("norm1", x));
        h + self.mlp(&w.at("mlp"), norm("norm2", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.hidden_size / self.c.num_heads.max(1));
        let [q, k, v] = w.linear("qkv", [3 * d, d]).forward(x).split([d; 3]).map(|x| x.split_heads(head_dim));
        let seen = segment_attention([q.rope(self.rope), k.rope(self.rope), v], (head_dim as f32).powf(-0.5));
        w.linear("proj", [d, d]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let x = w.linear("linear_fc1", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("linear_fc2", [d, ff]).forward(x)
    }
}

impl TowerConfig {
    /// Each patch's place in the table, between four of its entries.
    fn positions(&self, w: &Weights, step: &TowerStep) -> Tensor {
        let table = w.embedding("pos_embed", [self.num_position_embeddings, self.hidden_size]);
        let (taps, shares) = (step.input("taps", 4), step.input("shares", 4));
        let tap = |i| table.forward(taps.slice(1, i, 1).reshape(&[Sym::Patches.into()])) * shares.slice(1, i, 1);
        tap(0) + tap(1) + tap(2) + tap(3)
    }

    /// Patches that become a token, with a norm of each of them or of all together.
    fn merge(&self, w: &Weights, x: Tensor, together: bool) -> Tensor {
        let n = self.spatial_merge_size * self.spatial_merge_size;
        let merged = self.hidden_size * n;
        let x = match together {
            true => w.layer_norm("norm", merged, 1e-6).forward(x.merge_rows(n)),
            false => w.layer_norm("norm", self.hidden_size, 1e-6).forward(x).merge_rows(n),
        };
        let x = w.linear("linear_fc1", [merged, merged]).forward(x).gelu();
        w.linear("linear_fc2", [self.out_hidden_size, merged]).forward(x)
    }
}

struct Qwen3Vl;

impl Architecture for Qwen3Vl {
    fn declaration(&self) -> Declaration {
        Declaration { watches: true, ..Declaration::vlm("qwen3_vl", &["qwen3_vl"]) }
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Qwen3Vl {
    fn text(&self, config: &Config) -> Result<TextModel> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let mut text = TextModel::new("qwen3", config, &TOWER).defaults(json!({ "rope_theta": 5e5 }));
        let rope = if text.config["rope_scaling"].is_object() { "rope_scaling" } else { "rope_parameters" };
        let mut sections = json!({ "mrope_section": [24, 20, 20] });
        if let (Some(own), Some(found)) = (sections.as_object_mut(), text.config[rope].as_object()) {
            own.extend(found.clone());
        }
        // Whatever the file says: `transformers` does not look.
        sections["mrope_interleaved"] = true.into();
        text.config[rope] = sections;
        text.config["deepstack_layers"] = c.deepstack_visual_indexes.len().into();
        Ok(text)
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let w = w.at(TOWER.into_iter().find(|t| w.at(t).has("merger.norm.weight")).unwrap_or(TOWER[0]));
        let patch = [c.temporal_patch_size, c.patch_size, c.patch_size];
        let x = step.patches(c.in_channels * patch.iter().product::<usize>());
        let x = w.patch_embedding("patch_embed.proj", c.hidden_size, c.in_channels, &patch).forward(x);
        let mut x = x + c.positions(&w, step);
        let rope = RopeSpec::axial(c.hidden_size / c.num_heads.max(1), 10_000.0);
        let mut parts = Vec::new();
        for i in 0..c.depth {
            x = Block { c: &c, rope: &rope }.forward(&w.at("blocks").at(i), x);
            if let Some(n) = c.deepstack_visual_indexes.iter().position(|layer| *layer == i) {
                parts.push(c.merge(&w.at("deepstack_merger_list").at(n), x, true));
            }
        }
        parts.insert(0, c.merge(&w.at("merger"), x, false));
        Ok(concat(&parts))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let sizes = [c.patch_size, c.spatial_merge_size, c.temporal_patch_size];
        let side = c.num_position_embeddings.isqrt();
        let images = Blocks::new(&request.files, sizes, CLIP_MEAN, CLIP_STD)?.images(request, [3136, 1_003_520])?;
        let images: Vec<Medium> = images.into_iter().map(|image| interpolated(image, side)).collect();
        let blocks = Blocks::new(&request.files.video(), sizes, [0.5; 3], [0.5; 3])?;
        let of_videos = request.of_videos();
        let video = |(i, video): (usize, &VideoInfo)| {
            let frames = sampled(video, &of_videos)?;
            let moments = blocks.moments(i, &frames, fitted(video, frames.len(), &blocks, &of_videos)?);
            Ok(moments.into_iter().map(|moment| interpolated(moment, side)).collect())
        };
        let videos = request.videos.iter().enumerate().map(video).collect::<Result<Vec<Vec<Medium>>>>()?;
        let prompt = request.expand(IMAGE, |i| IMAGE.repeat(images[i].tokens))?;
        let prompt = request.expand_videos(&prompt, VIDEO, |i| {
            let fps = request.videos[i].fps.unwrap_or(DEFAULT_FPS);
            videos[i].iter().map(|moment| timed(moment, fps)).collect()
        })?;
        let [image_token, video_token] =
            [config.token("image_token_id", 151_655)?, config.token("video_token_id", 151_656)?];
        let media = images.into_iter().chain(videos.into_iter().flatten()).collect();
        Ok(Processed { prompt, image_token, video_token: Some(video_token), media, ..Processed::default() })
    }
}

/// What stands for a moment of a video in a prompt: the mean of its first and last frame's times, and its tokens.
fn timed(moment: &Medium, fps: f64) -> String {
    let [first, last] = [moment.frames.first(), moment.frames.last()].map(|at| at.map_or(0.0, |at| *at as f64 / fps));
    format!("<{:.1} seconds>{START}{}{END}", (first + last) / 2.0, VIDEO.repeat(moment.tokens))
}

/// The frames that are looked at, the first and the last among them.
fn sampled(video: &VideoInfo, request: &ProcessRequest) -> Result<Vec<usize>> {
    let [least, most] = [request.files.size("min_frames", 4)?, request.files.size("max_frames", 768)?];
    let count = match request.frames(true, Frames::PerSecond(2.0)) {
        Frames::All => return Ok((0..video.frames).collect()),
        Frames::Count(n) => n.min(video.frames),
        Frames::PerSecond(fps) => {
            let wanted = video.frames as f64 / video.fps.unwrap_or(DEFAULT_FPS) * fps;
            (wanted as usize).max(least).min(most).min(video.frames)
        }
    };
    // As numpy rounds: the last one is exact.
    let step = video.frames.saturating_sub(1) as f64 / count.saturating_sub(1).max(1) as f64;
    Ok((0..count).map(|i| (i as f64 * step).round_ties_even() as usize).collect())
}

/// Height and width of so many frames; limits are on the pixels of all of them.
fn fitted(video: &VideoInfo, frames: usize, blocks: &Blocks, request: &ProcessRequest) -> Result<[usize; 2]> {
    if frames < blocks.frames {
        return Err(format!("a video of {frames} frames: expected {} at least", blocks.frames).into());
    }
    let limits = |edge, default| request.files.size_in("size", edge, default);
    let (least, most) = (limits("shortest_edge", 131_072)?, limits("longest_edge", 786_432)?);
    // What a user asks for is of one frame, and so is what the tower has room for.
    let of_all = |n: usize| n.saturating_mul(frames);
    let least = request.options.min_pixels.map_or(least, of_all);
    let room = request.max_patches.saturating_mul(blocks.patch * blocks.patch);
    let most = request.options.max_pixels.map_or(most, of_all).min(of_all(room));
    let ([height, width], side) = (video.size, blocks.side() as f64);
    // A side below that of a block becomes as long.
    let [height, width] = match height.min(width).max(1) as f64 {
        shorter if shorter < side => [height, width].map(|n| (n as f64 * (side / shorter)) as usize),
        _ => [height, width],
    };
    smart_resize_frames([height, width], [frames, blocks.frames], blocks.side(), least, most)
}

/// With the entries of a square table that each patch lies between, and the share of each: corners fall on corners.
fn interpolated(mut medium: Medium, side: usize) -> Medium {
    let most = side.saturating_sub(1);
    let axis = |at: u32, size: usize| {
        let at = at as f32 * most as f32 / size.saturating_sub(1).max(1) as f32;
        let below = at.floor();
        [0.0, 1.0].map(|tap| (((below + tap) as usize).min(most), 1.0 - (at - below - tap).abs()))
    };
    let (mut taps, mut shares) = (Vec::new(), Vec::new());
    for [row, column] in &medium.patch_positions {
        for (y, upper) in axis(*row, medium.grid[1]) {
            for (x, left) in axis(*column, medium.grid[2]) {
                taps.push((y * side + x) as f32);
                shares.push(upper * left);
            }
        }
    }
    medium.inputs = [("taps".to_owned(), taps), ("shares".to_owned(), shares)].into();
    medium
}

register!(Qwen3Vl);
