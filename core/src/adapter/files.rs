//! Adapters in files.

use super::{
    Adapter, LowRank,
    config::{self, Patterns},
};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, Mapping, Tensor, read_json},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// What says how an adapter was made.
const CONFIG: &str = "adapter_config.json";

/// The parts of a module that were found.
#[derive(Default)]
struct Parts {
    a: Option<Tensor>,
    b: Option<Tensor>,
    magnitude: Option<Tensor>,
}

impl Adapter {
    /// The adapter in `folder`, in MLX's layout or PEFT's, called as its folder.
    ///
    /// # Errors
    /// A file is absent, damaged or has what is not supported; the message names it.
    pub fn open(folder: &Path) -> Result<Adapter> {
        let path = folder.join(CONFIG);
        let config = read_json(&path)?;
        let wrong = |what: String| Error::file(&path, what);
        let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let name = name.unwrap_or_else(|| folder.to_string_lossy().into_owned());
        let is_peft = config["peft_type"].is_string();
        if is_peft { config::refuse_unsupported(&config) } else { config::refuse_other_mlx(&config) }.map_err(wrong)?;
        let file = folder.join(if is_peft { "adapter_model.safetensors" } else { "adapters.safetensors" });
        if is_peft && !file.exists() && folder.join("adapter_model.bin").exists() {
            let remedy = "save the adapter as safetensors: PeftModel.save_pretrained(.., safe_serialization=True)";
            return Err(Error::file(
                folder,
                format!("expected adapter_model.safetensors, found adapter_model.bin: {remedy}"),
            ));
        }
        let tensors = Checkpoint::from_safetensors(&file, json!({}), &[Mapping::open(&file)?])?;
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        // PEFT adds the model's own weight where an adapted layer is tied to the embedding.
        let own = tensors.tensors().filter(|(name, _)| !name.ends_with(".base_layer.weight"));
        for (name, tensor) in own {
            let (module, part) = if is_peft { peft_name(name) } else { mlx_name(name) }
                .filter(|_| tensor.shape().len() <= 2)
                .ok_or_else(|| Error::file(&file, format!("{name}: {}", config::reason(name))))?;
            let parts = modules.entry(module.to_owned()).or_default();
            *match part {
                Part::A => &mut parts.a,
                Part::B => &mut parts.b,
                Part::Magnitude => &mut parts.magnitude,
            } = Some(tensor.clone());
        }
        let patterns = Patterns::of(&config).map_err(wrong)?;
        let modules = modules.into_iter().map(|(module, parts)| {
            let low = parts
                .low_rank(is_peft, &config, &patterns, &module)
                .map_err(|e| Error::file(&file, format!("{module}: {e}")))?;
            Ok((module, low))
        });
        let modules = modules.collect::<Result<BTreeMap<_, _>>>()?;
        if is_peft {
            patterns.warn_of_unused(&path);
        }
        if modules.is_empty() {
            return Err(Error::file(&file, "expected low-rank matrices, found none".to_owned()));
        }
        Ok(Adapter { name, modules })
    }
}

impl Parts {
    fn low_rank(self, is_peft: bool, config: &Value, patterns: &Patterns, module: &str) -> Result<LowRank, String> {
        let (Some(a), Some(b)) = (self.a, self.b) else {
            return Err("expected two low-rank matrices, found one".into());
        };
        // MLX has [inputs, rank] and [rank, outputs], PEFT the transpose of both.
        let (a, b) = if is_peft { (matrix(&a)?, matrix(&b)?) } else { (transposed(&a)?, transposed(&b)?) };
        let rank = a.0;
        if b.1 != rank || rank == 0 {
            return Err(format!("expected matrices of one rank, found {rank} and {}", b.1));
        }
        let magnitude = self.magnitude.map(|m| values(&m));
        if magnitude.as_ref().is_some_and(|m| m.len() != b.0) {
            return Err(format!("expected a magnitude of {} elements", b.0));
        }
        let scale = if is_peft { peft_scale(config, patterns, module, rank) } else { mlx_scale(config) }?;
        Ok(LowRank { a: a.2, b: b.2, rank, scale, magnitude })
    }
}

enum Part {
    A,
    B,
    Magnitude,
}

fn mlx_name(name: &str) -> Option<(&str, Part)> {
    let (module, part) = name.rsplit_once('.')?;
    let part = match part {
        "lora_a" => Part::A,
        "lora_b" => Part::B,
        "m" => Part::Magnitude,
        _ => return None,
    };
    Some((module, part))
}

fn peft_name(name: &str) -> Option<(&str, Part)> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let ends = [
        (".lora_A.weight", Part::A),
        (".lora_B.weight", Part::B),
        (".lora_magnitude_vector.weight", Part::Magnitude),
        (".lora_magnitude_vector", Part::Magnitude),
    ];
    ends.into_iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, part)))
}

fn mlx_scale(config: &Value) -> Result<f32, String> {
    let scale = config["lora_parameters"]["scale"].as_f64();
    scale.map(|s| s as f32).ok_or_else(|| format!("{CONFIG}: expected lora_parameters.scale, found none"))
}

fn peft_scale(config: &Value, patterns: &Patterns, module: &str, rank: usize) -> Result<f32, String> {
    let wanted = patterns.rank(module)?;
    if wanted.is_some_and(|wanted| wanted != rank) {
        let wanted = wanted.unwrap_or_default();
        return Err(format!("{CONFIG}: rank_pattern says rank {wanted}, the matrices have {rank}"));
    }
    let alpha = patterns.alpha(module)?.or_else(|| config["lora_alpha"].as_f64());
    let alpha = alpha.ok_or_else(|| format!("{CONFIG}: expected lora_alpha, found none"))?;
    let rank = rank as f64;
    Ok((alpha / if config["use_rslora"] == true { rank.sqrt() } else { rank }) as f32)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.rows() * tensor.cols()];
    values.chunks_exact_mut(tensor.cols().max(1)).enumerate().for_each(|(i, row)| tensor.row(i, row));
    values
}

/// Rows, columns and values.
fn matrix(tensor: &Tensor) -> Result<(usize, usize, Vec<f32>), String> {
    match tensor.shape() {
        [rows, cols] => Ok((*rows, *cols, values(tensor))),
        shape => Err(format!("expected a matrix, found {shape:?}")),
    }
}

fn transposed(tensor: &Tensor) -> Result<(usize, usize, Vec<f32>), String> {
    let (rows, cols, values) = matrix(tensor)?;
    let turned = (0..cols).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| values[r * cols + c]);
    Ok((cols, rows, turned.collect()))
}
