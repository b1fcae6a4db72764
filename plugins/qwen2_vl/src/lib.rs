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
/// Where an image stands in a prompt.
const IMAGE: &str = "<|image_pad|>";

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
        Declaration::vlm("qwen2_vl", &["qwen2_vl"])
    }

    fn vision(&self) -> Option<&dyn VisionLanguage> {
        Some(self)
    }
}

impl VisionLanguage for Qwen2Vl {
    fn text(&self, config: &Config) -> Result<TextModel> {
        Ok(TextModel::new("qwen2", config, &TOWER))
    }

    fn tower(&self, config: &Config, w: &Weights, step: &TowerStep) -> Result<Tensor> {
        let c = TowerConfig::parse(&config.at("vision_config"))?;
        let w = w.at(TOWER.into_iter().find(|t| w.at(t).has("merger.ln_q.weight")).unwrap_or(TOWER[0]));
        let patch = [c.temporal_patch_size, c.patch_size, c.patch_size];
        let x = step.patches(c.in_channels * patch.iter().product::<usize>());
        let mut x = w.patch_embedding("patch_embed.proj", c.embed_dim, c.in_channels, &patch).forward(x);
        let rope = axial_rope(c.embed_dim / c.num_heads.max(1));
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
        let files = &request.files;
        let (patch, merge) = (files.size("patch_size", c.patch_size)?, files.size("merge_size", c.spatial_merge_size)?);
        let frames = files.size("temporal_patch_size", c.temporal_patch_size)?;
        // Areas, in spite of their names.
        let area = |name, edge: &str, default| {
            files.size(name, files.image("size")[edge].as_u64().map_or(default, |n| n as usize))
        };
        let most = request.options.max_pixels.map_or_else(|| area("max_pixels", "longest_edge", 1_003_520), Ok)?;
        let least = request.options.min_pixels.map_or_else(|| area("min_pixels", "shortest_edge", 3136), Ok)?;
        let most = most.min(request.max_patches * patch * patch);
        let image = |(i, size): (usize, &[usize; 2])| {
            let [height, width] = smart_resize(*size, patch * merge, least, most)?;
            let recipe = vec![
                RecipeOp::Resize { of: 0, width, height, filter: files.filter(Filter::Bicubic)? },
                files.normalize(1, CLIP_MEAN, CLIP_STD)?,
                RecipeOp::Patchify { of: 2, patch, merge, frames },
            ];
            Ok(Medium { recipe, ..Medium::still(i, [height / patch, width / patch], merge).spread(merge) })
        };
        let media = request.images.iter().enumerate().map(image).collect::<Result<Vec<Medium>>>()?;
        let prompt = request.expand(IMAGE, |i| IMAGE.repeat(media[i].tokens))?;
        Ok(Processed { prompt, image_token: config.token("image_token_id", 151_655)?, media, ..Processed::default() })
    }
}

/// The first half of a head turns by the row of its patch, the second by the column, both by the same frequencies.
fn axial_rope(head_dim: usize) -> RopeSpec {
    let quarter = head_dim / 4;
    let half = RopeSpec::new(head_dim / 2, 10_000.0).inv_freq;
    let inv_freq = [&half[..], &half[..]].concat();
    RopeSpec { inv_freq, ..RopeSpec::new(head_dim, 10_000.0) }.axis((0..2 * quarter).map(|i| i / quarter.max(1)))
}

register!(Qwen2Vl);
