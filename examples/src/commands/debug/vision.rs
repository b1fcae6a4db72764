//! Every stage between an image and logits, under the names that they have in `transformers`.

use super::{LoadArgs, adapter, output};
use crate::commands::images::Images;
use anyhow::{anyhow, ensure};
use clap::Args;
use safetensors::{Dtype, tensor::TensorView};
use std::path::PathBuf;
use tamarack::{UserInput, exec::Media};

/// Writes what becomes of a prompt and its images, stage by stage.
#[derive(Args)]
#[command(after_help = "Example:
  tamarack debug vision ./my-model --image cat.jpg --prompt \"What is it?\" --device reference --out stages.safetensors

FILE holds `pixel_values` f32 [patches, width], `image_grid_thw` i32 [images, 3], `input_ids` i32 [tokens], `position_ids`
i32 [3, tokens], `image_embeds` f32 [rows, dim] and `logits` f32 [tokens, vocabulary].")]
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
        let media = media.ok_or_else(|| anyhow!("expected an image: name one with --image"))?;
        let mut stages = inputs(&tokens, &media);
        let rows: usize = media.images.iter().map(|i| i.tokens.len()).sum();
        let adapter = adapter(&container).await?;
        let computed = container.perform(move |context| {
            let embeddings = context.model.image_embeddings(&media)?;
            let logits = context.model.forward_input_with(adapter.as_deref(), &input, usize::MAX)?;
            Ok::<_, tamarack::Error>((embeddings, logits))
        });
        let (embeddings, logits) = computed.await??;
        ensure!(rows > 0 && !tokens.is_empty(), "the prompt has no tokens of images");
        stages.push(Stage::floats("image_embeds", vec![rows, embeddings.len() / rows], embeddings));
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
    let patches = || media.images.iter().map(|i| &i.patches);
    let pixels: Vec<f32> = patches().flat_map(|p| p.pixels.iter().copied()).collect();
    let count: usize = patches().map(|p| p.segments.iter().sum::<usize>()).sum();
    let grids: Vec<u32> = patches().flat_map(|p| p.grid.map(|n| n as u32)).collect();
    let positions = (0..3).flat_map(|axis| media.positions.iter().map(move |p| p[axis]));
    vec![
        Stage::floats("pixel_values", vec![count, pixels.len() / count.max(1)], pixels),
        Stage::numbers("image_grid_thw", vec![grids.len() / 3, 3], grids),
        Stage::numbers("input_ids", vec![tokens.len()], tokens.iter().copied()),
        Stage::numbers("position_ids", vec![3, media.positions.len()], positions),
    ]
}
