//! Every stage between an image and logits, under the names that they have in `transformers`.

use super::{LoadArgs, adapter, output};
use crate::commands::images::Images;
use anyhow::{anyhow, ensure};
use clap::Args;
use safetensors::{Dtype, tensor::TensorView};
use std::path::PathBuf;
use tamarack::{
    UserInput,
    exec::{Media, PlacedImage},
};

/// Writes what becomes of a prompt and its images and videos, stage by stage.
#[derive(Args)]
#[command(after_help = "Example:
  tamarack debug vision ./my-model --image cat.jpg --prompt \"What is it?\" --device reference --out stages.safetensors

FILE holds `pixel_values` f32 [patches, width], `image_grid_thw` i32 [images, 3], `input_ids` i32 [tokens], `position_ids`
i32 [3, tokens], `image_embeds` f32 [rows, dim] and `logits` f32 [tokens, vocabulary]. With --video there are
`pixel_values_videos`, `video_grid_thw` and `video_embeds` likewise, where the model has a token for videos.")]
pub struct Vision {
    /// A directory, a .gguf file or the id of a model on the hub
    model: String,
    #[command(flatten)]
    images: Images,
    /// What to ask
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Take the prompt as it is, without a chat template
    #[arg(long)]
    raw: bool,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    load: LoadArgs,
}

/// One tensor of the file.
struct Stage {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stage {
    fn floats(name: &'static str, shape: Vec<usize>, values: impl IntoIterator<Item = f32>) -> Stage {
        Stage { name, dtype: Dtype::F32, shape, bytes: values.into_iter().flat_map(f32::to_le_bytes).collect() }
    }

    fn numbers(name: &'static str, shape: Vec<usize>, values: impl IntoIterator<Item = u32>) -> Stage {
        Stage { name, dtype: Dtype::I32, shape, bytes: values.into_iter().flat_map(u32::to_le_bytes).collect() }
    }
}

impl Vision {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<()> {
        let container = self.load.load(&self.model).await?;
        let prompt = self.prompt.clone();
        let input = if self.raw { UserInput::raw(prompt) } else { UserInput::from(prompt) };
        let input = self.images.prepare(&container, input).await?;
        let (media, tokens) = (input.media.clone(), input.tokens.clone());
        let media = media.ok_or_else(|| anyhow!("expected an image or a video: name one with --image or --video"))?;
        let mut stages = inputs(&tokens, &media);
        let of_media: Vec<(bool, usize)> = media.images.iter().map(|i| (i.video.is_some(), i.tokens.len())).collect();
        let rows: usize = of_media.iter().map(|(_, rows)| rows).sum();
        let adapter = adapter(&container).await?;
        let computed = container.perform(move |context| {
            let embeddings = context.model.image_embeddings(&media)?;
            let logits = context.model.forward_input_with(adapter.as_deref(), &input, usize::MAX)?;
            Ok::<_, tamarack::Error>((embeddings, logits))
        });
        let (embeddings, logits) = computed.await??;
        ensure!(rows > 0 && !tokens.is_empty(), "the prompt has no tokens of images");
        let (width, mut parts, mut rest) = (embeddings.len() / rows, [Vec::new(), Vec::new()], &embeddings[..]);
        for (is_video, rows) in of_media {
            let (own, after) = rest.split_at(rows * width);
            parts[usize::from(is_video)].extend_from_slice(own);
            rest = after;
        }
        for (name, values) in ["image_embeds", "video_embeds"].into_iter().zip(parts).filter(|(_, v)| !v.is_empty()) {
            stages.push(Stage::floats(name, vec![values.len() / width, width], values));
        }
        stages.push(Stage::floats("logits", vec![tokens.len(), logits.len() / tokens.len()], logits));
        self.write(&stages)
    }

    fn write(&self, stages: &[Stage]) -> anyhow::Result<()> {
        let fail = |e: &dyn std::fmt::Display| anyhow!("{}: {e}", self.out.display());
        let shapes: Vec<String> = stages.iter().map(|s| format!("{} {:?}", s.name, s.shape)).collect();
        let mut tensors = Vec::new();
        for stage in stages {
            let Stage { name, dtype, shape, bytes } = stage;
            tensors.push((*name, TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| fail(&e))?));
        }
        let bytes = safetensors::serialize(tensors, None).map_err(|e| fail(&e))?;
        std::fs::write(&self.out, bytes).map_err(|e| fail(&e))?;
        output::text(&format!("{}: {}\n", self.out.display(), shapes.join(", ")))
    }
}

/// What comes before any computation.
fn inputs(tokens: &[u32], media: &Media) -> Vec<Stage> {
    let of = |is_video| media.images.iter().filter(|i| i.video.is_some() == is_video).collect::<Vec<_>>();
    let positions = (0..3).flat_map(|axis| media.positions.iter().map(move |p| p[axis]));
    let mut stages = patches(["pixel_values", "image_grid_thw"], &of(false));
    stages.extend(patches(["pixel_values_videos", "video_grid_thw"], &of(true)));
    stages.push(Stage::numbers("input_ids", vec![tokens.len()], tokens.iter().copied()));
    stages.push(Stage::numbers("position_ids", vec![3, media.positions.len()], positions));
    stages
}

/// Patches, and how many there are of each image or video.
fn patches([pixels, grid]: [&'static str; 2], images: &[&PlacedImage]) -> Vec<Stage> {
    if images.is_empty() {
        return Vec::new();
    }
    let values: Vec<f32> = images.iter().flat_map(|i| i.patches.pixels.iter().copied()).collect();
    let count: usize = images.iter().flat_map(|i| &i.patches.segments).sum();
    // Moments of a video follow each other.
    let videos = images.chunk_by(|a, b| a.video.is_some() && a.video == b.video);
    let grids = videos.flat_map(|moments| {
        let [_, rows, columns] = moments[0].patches.grid;
        [moments.iter().map(|m| m.patches.grid[0]).sum(), rows, columns].map(|n| n as u32)
    });
    let grids: Vec<u32> = grids.collect();
    vec![
        Stage::floats(pixels, vec![count, values.len() / count.max(1)], values),
        Stage::numbers(grid, vec![grids.len() / 3, 3], grids),
    ]
}
