//! The models that tests read, and what other engines computed with them (`goldens/README.md`).

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The SmolLM2-135M-Instruct GGUF: `$TAMARACK_SMOLLM2`, or where `tests/fetch-models` puts it.
pub fn smollm2() -> PathBuf {
    let fetched = folder("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("TAMARACK_SMOLLM2").map_or(fetched, PathBuf::from);
    assert!(path.is_file(), "{}: no such file: run tests/fetch-models, or tests/run, which does", path.display());
    path
}

/// The Gemma 3 270M GGUF: `$TAMARACK_GEMMA`, or where `tests/fetch-models gemma` puts it.
pub fn gemma() -> PathBuf {
    let fetched = folder("../models/gemma-3-270m-q4_k_m.gguf");
    let path = std::env::var_os("TAMARACK_GEMMA").map_or(fetched, PathBuf::from);
    assert!(path.is_file(), "{}: no such file: run tests/fetch-models gemma", path.display());
    path
}

/// The tiny models under `goldens/FAMILY`, sorted by name.
pub fn tiny(family: &str) -> Vec<PathBuf> {
    let folder = folder("goldens").join(family);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut models: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).filter(|p| p.is_dir()).collect();
    models.sort();
    assert!(!models.is_empty(), "{}: no model in it", folder.display());
    models
}

/// The model types under `goldens/architectures`, sorted.
pub fn types() -> impl Iterator<Item = String> {
    let mut types: Vec<String> = tiny("architectures")
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    types.sort();
    types.into_iter()
}

/// What the engine that a tiny model came from computed with it, in f32.
pub struct Golden {
    /// The prompt.
    pub input_ids: Vec<u32>,
    /// [prompt tokens, vocab], row after row.
    pub logits: Vec<f32>,
    /// The tokens that follow, each the most likely one.
    pub greedy: Vec<u32>,
    /// How far the logit of each greedy token was above the next best.
    pub margins: Vec<f32>,
}

impl Golden {
    /// Reads `golden.safetensors` of a tiny model's folder.
    pub fn read(model: &Path) -> Golden {
        let path = model.join("golden.safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Golden {
            input_ids: words(&file, "input_ids"),
            logits: words(&file, "logits").into_iter().map(f32::from_bits).collect(),
            greedy: words(&file, "greedy"),
            margins: words(&file, "margins").into_iter().map(f32::from_bits).collect(),
        }
    }

    /// Logits in a row.
    pub fn vocab(&self) -> usize {
        self.logits.len() / self.input_ids.len()
    }
}

/// One of the prompts that `transformers` answered with SmolLM2-135M-Instruct.
#[derive(Deserialize)]
pub struct Answer {
    /// The conversation; empty where the prompt is raw text.
    #[serde(default)]
    pub messages: Vec<serde_json::Value>,
    /// The text that was tokenized.
    pub rendered: String,
    /// Its tokens.
    pub prompt_ids: Vec<u32>,
    /// The 32 tokens that follow, end-of-sequence tokens among them.
    pub greedy_ids: Vec<u32>,
    /// How far the logit of each greedy token was above the next best.
    pub margins: Vec<f32>,
    /// Which greedy token is the first end of sequence.
    pub first_eos: Option<usize>,
    /// The greedy tokens up to there, as text.
    pub text: String,
    /// The logits of the first greedy step.
    #[serde(skip)]
    pub first_logits: Vec<f32>,
}

/// What `transformers` answered to four conversations and two raw prompts, the last one long.
pub fn smollm2_answers() -> Vec<Answer> {
    #[derive(Deserialize)]
    struct File {
        items: Vec<Answer>,
    }
    let name = |extension| folder("goldens/SmolLM2-135M-Instruct").with_extension(extension);
    let text = std::fs::read_to_string(name("json")).expect("answers");
    let bytes = std::fs::read(name("safetensors")).expect("logits");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("logits");
    let mut items = serde_json::from_str::<File>(&text).expect("answers").items;
    for (i, item) in items.iter_mut().enumerate() {
        item.first_logits = words(&file, &format!("first_logits_{i}")).into_iter().map(f32::from_bits).collect();
    }
    items
}

/// A text, and the negative log likelihood of each token after the first by `transformers`.
#[derive(Deserialize)]
pub struct Predicted {
    /// The tokens.
    #[serde(rename = "nll_ids")]
    pub ids: Vec<u32>,
    /// Of each but the first.
    pub nll: Vec<f32>,
}

/// The text of the SmolLM2 golden.
pub fn smollm2_text() -> Predicted {
    let bytes = std::fs::read(folder("goldens/SmolLM2-135M-Instruct.safetensors")).expect("logits");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("logits");
    Predicted { ids: words(&file, "nll_ids"), nll: words(&file, "nll").into_iter().map(f32::from_bits).collect() }
}

/// What `transformers` wrote after a prompt, with Gemma 3 270M.
#[derive(Deserialize)]
pub struct Continuation {
    /// The text.
    pub prompt: String,
    /// Its tokens.
    pub prompt_ids: Vec<u32>,
    /// The tokens that follow, each the most likely one.
    pub greedy_ids: Vec<u32>,
    /// How far the logit of each of them was above the next best.
    pub margins: Vec<f32>,
    /// They as text.
    pub text: String,
}

/// The golden of Gemma 3 270M: continuations, and a text with its likelihoods.
pub fn gemma_golden() -> (Vec<Continuation>, Predicted) {
    #[derive(Deserialize)]
    struct File {
        items: Vec<Continuation>,
        #[serde(flatten)]
        text: Predicted,
    }
    let text = std::fs::read_to_string(folder("goldens/gemma-3-270m.json")).expect("the golden");
    let file: File = serde_json::from_str(&text).expect("the golden");
    (file.items, file.text)
}

/// The length of the prefix over which greedy tokens must agree for certain: up to the first step whose
/// margin is within `tolerance`.
pub fn certain(margins: &[f32], tolerance: f32) -> usize {
    margins.iter().position(|m| *m <= tolerance).unwrap_or(margins.len())
}

/// The 32-bit words of a tensor of f32 or i32, or the lower ones of i64.
fn words(file: &safetensors::SafeTensors, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    if tensor.dtype() == safetensors::Dtype::I64 {
        return tensor.data().as_chunks().0.iter().map(|word| u64::from_le_bytes(*word) as u32).collect();
    }
    tensor.data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// A folder of this crate.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goldens_are_whole() {
        for model in tiny("llama").into_iter().chain(tiny("mlx")) {
            let golden = Golden::read(&model);
            let name = model.display();
            assert_eq!(golden.logits.len(), golden.vocab() * golden.input_ids.len(), "{name}");
            let last = golden.logits.rchunks(golden.vocab()).next().expect("rows");
            let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).expect("logits");
            assert_eq!(golden.greedy[0] as usize, best, "{name}");
            assert_eq!(certain(&golden.margins, 0.05), golden.greedy.len(), "{name}");
        }
    }

    #[test]
    fn answers_are_whole() {
        for answer in smollm2_answers() {
            assert_eq!(answer.first_logits.len(), 49152, "{}", answer.rendered);
            assert_eq!(answer.greedy_ids.len(), answer.margins.len(), "{}", answer.rendered);
        }
    }
}
