//! SigLIP's image encoder, arXiv:2303.15343, which many vision-language models have as their tower: a vision transformer
//! over a square, whose patches know where they are by a learned table, without a class token. `x` is [patches, hidden].

use crate::{
    Activation, Medium, ProcessorConfig, Recipe, RecipeOp, Result, Tensor, TowerStep, Weights, segment_attention,
};

crate::config! {
    /// Its `vision_config`. Since api 1.3.
    pub struct Siglip {
        hidden_size: usize = 768,
        intermediate_size: usize = 3072,
        num_hidden_layers: usize = 12,
        num_attention_heads: usize = 12,
        num_channels: usize = 3,
        image_size: usize = 224,
        patch_size: usize = 16,
        layer_norm_eps: f32 = 1e-6,
        hidden_act: Activation = Activation::GeluTanh,
    }
}

impl Siglip {
    /// Patches on a side of the square.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }

    /// Records it, its last norm included. [patches, hidden]
    #[track_caller]
    pub fn forward(&self, w: &Weights, step: &TowerStep) -> Tensor {
        let (d, patch) = (self.hidden_size, [self.patch_size; 2]);
        // What pools all patches into one embedding is not looked at.
        w.ignore("head.*");
        w.ignore("embeddings.position_ids");
        let pixels = step.patches(self.num_channels * self.patch_size * self.patch_size);
        let embed = w.at("embeddings").patch_embedding("patch_embedding", d, self.num_channels, &patch);
        let places = w.at("embeddings").embedding("position_embedding", [self.side() * self.side(), d]);
        let mut x = embed.forward(pixels) + places.forward(step.ids());
        for i in 0..self.num_hidden_layers {
            x = self.block(&w.at("encoder.layers").at(i), x);
        }
        w.layer_norm("post_layernorm", d, self.layer_norm_eps).forward(x)
    }

    fn block(&self, w: &Weights, x: Tensor) -> Tensor {
        let norm = |name, x| w.layer_norm(name, self.hidden_size, self.layer_norm_eps).forward(x);
        let h = x + self.attention(&w.at("self_attn"), norm("layer_norm1", x));
        h + self.mlp(&w.at("mlp"), norm("layer_norm2", h))
    }

    fn attention(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, head_dim) = (self.hidden_size, self.hidden_size / self.num_attention_heads.max(1));
        let heads = ["q_proj", "k_proj", "v_proj"].map(|name| w.linear(name, [d, d]).forward(x).split_heads(head_dim));
        w.linear("out_proj", [d, d]).forward(segment_attention(heads, (head_dim as f32).powf(-0.5)).merge_heads())
    }

    fn mlp(&self, w: &Weights, x: Tensor) -> Tensor {
        let (d, ff) = (self.hidden_size, self.intermediate_size);
        w.linear("fc2", [d, ff]).forward(w.linear("fc1", [ff, d]).forward(x).activation(self.hidden_act))
    }

    /// How an image is prepared whose square of bytes is what `recipe` ends in; `merge` times `merge` patches become a token.
    /// Pixels at the end that fill no patch are cut off, as a convolution leaves them out.
    pub fn medium(&self, image: usize, mut recipe: Recipe, merge: usize, files: &ProcessorConfig) -> Result<Medium> {
        let (side, patch, square) = (self.side(), self.patch_size, recipe.len());
        recipe.push(RecipeOp::Crop { of: square, x: 0, y: 0, width: side * patch, height: side * patch });
        recipe.push(files.normalize(square + 1, [0.5; 3], [0.5; 3])?);
        recipe.push(RecipeOp::Patchify { of: square + 2, patch, merge, frames: 1 });
        let medium = Medium::still(image, [side, side], merge);
        let ids = medium.patch_positions.iter().map(|[row, column]| row * side as u32 + column).collect();
        Ok(Medium { recipe, ids, ..medium })
    }
}
