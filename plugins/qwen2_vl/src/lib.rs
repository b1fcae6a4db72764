//! Qwen2-VL, arXiv:2409.12191: a tower over patches of any number, positions in time, row and column, and Qwen2 as its
//! text model. `x` is [patches, embed].

use tamarack_api::*;

config! {
    struct TowerConfig {
        depth: usize = 32,
        embed_dim: usize = 1280,
        // That of the text model.
        hidden_size: usize = 3584,
        num_heads: usize = 16,
        mlp_ratio: f64 = 4.0,
        in_channels as "in_channels" | "in_chans": usize = 3,
        patch_size: usize = 14,
        spatial_merge_size: usize = 2,
        temporal_patch_size: usize = 2,
        hidden_act: Activation = Activation::QuickGelu,
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
}

impl Block<'_> {
    fn forward(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.layer_norm(name, self.c.embed_dim, 1e-6).forward(x);
        let h = x + self.attention(&w.at("attn"), norm("norm1", x));
        h + self.mlp(&w.at("mlp"), norm("norm2", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.c.embed_dim, self.c.embed_dim / self.c.num_heads.max(1));
        let [q, k, v] = w.linear("qkv", [3 * d, d]).forward(x).split([d; 3]).map(|x| x.split_heads(head_dim));
        let seen = segment_attention([q.rope(self.rope), k.rope(self.rope), v], (head_dim as f32).powf(-0.5));
        w.linear("proj", [d, d]).forward(seen.merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.c.embed_dim, (self.c.embed_dim as f64 * self.c.mlp_ratio) as usize);
        w.linear("fc2", [d, ff]).forward(w.linear("fc1", [ff, d]).forward(x).activation(self.c.hidden_act))
    }
}

struct Qwen2Vl;

impl Architecture for Qwen2Vl {
    fn declaration(&self) -> Declaration {
        Declaration { watches: true, ..Declaration::vlm("qwen2_vl", &["qwen2_vl"]) }
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Qwen2Vl {
    fn text(&self, config: &Config) -> Result<TextModel> {
        // Those of Qwen2-VL's configuration class, where Qwen2's are others.
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
        let mut x = w.patch_embedding("patch_embed.proj", c.embed_dim, c.in_channels, &patch).forward(x);
        let rope = RopeSpec::axial(c.embed_dim / c.num_heads.max(1), 10_000.0);
        for i in 0..c.depth {
            x = Block { c: &c, rope: &rope }.forward(&w.at("blocks").at(i), x);
        }
        let (w, merged) = (w.at("merger"), c.embed_dim * c.spatial_merge_size * c.spatial_merge_size);
        let x = w.layer_norm("ln_q", c.embed_dim, 1e-6).forward(x);
        let x = x.merge_rows(c.spatial_merge_size * c.spatial_merge_size);
        let x = w.linear("mlp.0", [merged, merged]).forward(x).gelu();
        Ok(w.linear("mlp.2", [c.hidden_size, merged]).forward(x))
    }

    fn process(&self, config: &Config, request: &ProcessRequest) -> Result<Processed> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let sizes = [c.patch_size, c.spatial_merge_size, c.temporal_patch_size];
        let blocks = |files: &ProcessorConfig| Blocks::new(files, sizes, CLIP_MEAN, CLIP_STD);
        let images = blocks(&request.files)?.images(request, [3136, 1_003_520])?;
        let videos = blocks(&request.files.video())?.videos(&request.of_videos(), [100_352, 602_112])?;
        let videos: Vec<Vec<Medium>> = videos.into_iter().map(|moments| in_time(moments, 1.0)).collect();
        let prompt = request.expand(IMAGE, |i| IMAGE.repeat(images[i].tokens))?;
        let tokens = |i: usize| videos[i].iter().map(|m| m.tokens).sum();
        let prompt = request.expand_videos(&prompt, VIDEO, |i| VIDEO.repeat(tokens(i)))?;
        let [image_token, video_token] =
            [config.token("image_token_id", 151_655)?, config.token("video_token_id", 151_656)?];
        let media = images.into_iter().chain(videos.into_iter().flatten()).collect();
        Ok(Processed { prompt, image_token, video_token: Some(video_token), media, ..Processed::default() })
    }
}

register!(Qwen2Vl);
