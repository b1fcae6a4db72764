//! Qwen2.5-VL, arXiv:2502.13923: Qwen2-VL with a tower most of whose layers see windows of an image and not all of it.
//! `x` is [patches, hidden].

use tamarack_api::*;

config! {
    struct TowerConfig {
        depth: usize = 32,
        hidden_size: usize = 3584,
        // That of the text model.
        out_hidden_size: usize = 3584,
        intermediate_size: usize = 3420,
        num_heads: usize = 16,
        in_channels as "in_channels" | "in_chans": usize = 3,
        patch_size: usize = 14,
        spatial_merge_size: usize = 2,
        temporal_patch_size: usize = 2,
        // By how much positions in time grow in a second of a video.
        tokens_per_second: f32 = 4.0,
        // In pixels.
        window_size: usize = 112,
        fullatt_block_indexes: Vec<usize> = vec![7, 15, 23, 31],
        hidden_act: Activation = Activation::Silu,
    }
}

/// What names of the tower's tensors begin with, here and there.
const TOWER: [&str; 3] = ["visual", "model.visual", "vision_tower"];
/// Where an image stands in a prompt, and where a video does.
const IMAGE: &str = "<|image_pad|>";
const VIDEO: &str = "<|video_pad|>";

struct Block<'a> {
    c: &'a TowerConfig,
    rope: &'a RopeSpec,
    windowed: bool,
}

impl Block<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.rms_norm(name, self.c.hidden_size, 1e-6).forward(x);
        let h = x + self.attention(&w.at("attn"), norm("norm1", x));
        h + self.mlp(&w.at("mlp"), norm("norm2", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.hidden_size, self.c.hidden_size / self.c.num_heads.max(1));
        let [q, k, v] = w.linear("qkv", [3 * d, d]).forward(x).split([d; 3]).map(|x| x.split_heads(head_dim));
        let heads = [q.rope(self.rope), k.rope(self.rope), v];
        let attend = if self.windowed { window_attention } else { segment_attention };
        w.linear("proj", [d, d]).forward(attend(heads, (head_dim as f32).powf(-0.5)).merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.hidden_size, self.c.intermediate_size);
        let gate = w.linear("gate_proj", [ff, d]).forward(x).activation(self.c.hidden_act);
        w.linear("down_proj", [d, ff]).forward(gate * w.linear("up_proj", [ff, d]).forward(x))
    }
}

struct Qwen25Vl;

impl Architecture for Qwen25Vl {
    fn declaration(&self) -> Declaration {
        Declaration { watches: true, ..Declaration::vlm("qwen2_5_vl", &["qwen2_5_vl"]) }
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Qwen25Vl {
    fn text(&self, config: &Config) -> Result<TextModel> {
        // Those of Qwen2.5-VL's configuration class, where Qwen2's are others.
        let defaults = json!({
            "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80, "num_attention_heads": 64,
            "num_key_value_heads": 8, "vocab_size": 152_064, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_window_layers": 80,
        });
        Ok(TextModel::new("qwen2", config, &TOWER).defaults(defaults))
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let w = w.at(TOWER.into_iter().find(|t| w.at(t).has("merger.ln_q.weight")).unwrap_or(TOWER[0]));
        let patch = [c.temporal_patch_size, c.patch_size, c.patch_size];
        let x = step.patches(c.in_channels * patch.iter().product::<usize>());
        let mut x = w.patch_embedding("patch_embed.proj", c.hidden_size, c.in_channels, &patch).forward(x);
        let rope = RopeSpec::axial(c.hidden_size / c.num_heads.max(1), 10_000.0);
        for i in 0..c.depth {
            let windowed = !c.fullatt_block_indexes.contains(&i);
            x = Block { c: &c, rope: &rope, windowed }.forward(&w.at("blocks").at(i), x);
        }
        let (w, merged) = (w.at("merger"), c.hidden_size * c.spatial_merge_size * c.spatial_merge_size);
        let x = w.rms_norm("ln_q", c.hidden_size, 1e-6).forward(x);
        let x = x.merge_rows(c.spatial_merge_size * c.spatial_merge_size);
        let x = w.linear("mlp.0", [merged, merged]).forward(x).gelu();
        Ok(w.linear("mlp.2", [c.out_hidden_size, merged]).forward(x))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let sizes = [c.patch_size, c.spatial_merge_size, c.temporal_patch_size];
        let blocks = Blocks::new(&request.files, sizes, CLIP_MEAN, CLIP_STD)?;
        let images = blocks.images(request, [3136, 1_003_520])?;
        let images: Vec<Medium> = images.into_iter().map(|image| c.in_windows(image, &blocks)).collect();
        let blocks = Blocks::new(&request.files.video(), sizes, CLIP_MEAN, CLIP_STD)?;
        let videos = blocks.videos(&request.of_videos(), [100_352, 602_112])?;
        let video = |(moments, video): (Vec<Medium>, &VideoInfo)| {
            let moments: Vec<Medium> = moments.into_iter().map(|moment| c.in_windows(moment, &blocks)).collect();
            in_time(moments.clone(), c.interval(&moments, video, blocks.frames))
        };
        let videos: Vec<Vec<Medium>> = videos.into_iter().zip(&request.videos).map(video).collect();
        let prompt = request.expand(IMAGE, |i| IMAGE.repeat(images[i].tokens))?;
        let tokens = |i: usize| videos[i].iter().map(|m| m.tokens).sum();
        let prompt = request.expand_videos(&prompt, VIDEO, |i| VIDEO.repeat(tokens(i)))?;
        let [image_token, video_token] =
            [config.token("image_token_id", 151_655)?, config.token("video_token_id", 151_656)?];
        let media = images.into_iter().chain(videos.into_iter().flatten()).collect();
        Ok(Processed { prompt, image_token, video_token: Some(video_token), media, ..Processed::default() })
    }
}

impl TowerConfig {
    /// By how much positions in time grow from moment to moment; as f32, like that of `transformers`.
    fn interval(&self, moments: &[Medium], video: &VideoInfo, frames: usize) -> f32 {
        let looked_at: usize = moments.iter().map(|m| m.frames.len()).sum();
        let by_second = video.fps.map_or(24.0, |fps| looked_at as f64 / video.frames as f64 * fps);
        self.tokens_per_second * (frames as f64 / by_second) as f32
    }

    /// Window by window, each a square of tokens but for those at the right and lower edges.
    fn in_windows(&self, mut medium: Medium, blocks: &Blocks) -> Medium {
        let side = (self.window_size / blocks.side().max(1)).max(1);
        let [_, rows, columns] = medium.grid.map(|n| n / blocks.merge.max(1));
        for (top, left) in (0..rows).step_by(side).flat_map(|t| (0..columns).step_by(side).map(move |l| (t, l))) {
            let before = medium.order.len();
            for row in top..rows.min(top + side) {
                medium.order.extend((left..columns.min(left + side)).map(|column| (row * columns + column) as u32));
            }
            medium.windows.push((medium.order.len() - before) * blocks.merge * blocks.merge);
        }
        medium
    }
}

register!(Qwen25Vl);
