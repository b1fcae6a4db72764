//! Which quantizer wrote which tensors. The tensors that are there decide, module by module; the
//! configuration says only what they leave open.

use std::collections::BTreeMap;

use safetensors::Dtype as Stored;
use serde_json::Value;

use super::{Part, awq, bitsandbytes, compressed, gptq, scaled_bytes};
use crate::checkpoint::tensor::Tensor;

/// What is stored in files, by name.
type Parts = BTreeMap<String, Part>;

/// What has scales beside weights, but is not quantized here: activations, and keys and values in the cache. ModelOpt, Quark, AutoFP8 and
/// compressed-tensors all have some of them.
const ACTIVATIONS: [&str; 12] =
    ["input", "output", "activation", "act", "q", "k", "v", "kv", "qk", "qkv", "prob", "prob_output"];
/// What is said of them.
const SAID: [&str; 6] = ["_global_scale", "_scale_inv", "_scale_ub", "_scale", "_zero_point", "_amax"];
/// The same as modules: `X.input_quantizer._amax`.
const QUANTIZERS: [&str; 6] = ["input", "output", "q_bmm", "k_bmm", "v_bmm", "softmax"];

/// Whether `name` is about activations alone.
fn is_of_activations(name: &str) -> bool {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    let within = module.rsplit('.').next().and_then(|module| module.strip_suffix("_quantizer"));
    let said = SAID.iter().find_map(|said| last.strip_suffix(said));
    said.is_some_and(|what| ACTIVATIONS.contains(&what)) || within.is_some_and(|what| QUANTIZERS.contains(&what))
}

/// The `quantization_config` of a config.json.
#[derive(Clone, Copy)]
pub(in crate::checkpoint) struct Config<'a>(Option<&'a Value>);

impl<'a> Config<'a> {
    /// Finds it in `config`.
    pub fn of(config: &'a Value) -> Config<'a> {
        let found = config.get("quantization_config").or_else(|| config.pointer("/text_config/quantization_config"));
        Config(found.filter(|q| q.get("quant_method").is_some()))
    }

    /// `quant_method`
    pub fn method(self) -> Option<&'a str> {
        self.text("quant_method")
    }

    /// Whether AutoRound wrote the file, under any of its names (vLLM also knows it as Intel's Neural Compressor).
    pub fn is_auto_round(self) -> bool {
        let method = self.method().unwrap_or_default().to_lowercase().replace('_', "-");
        method.rsplit('/').next().is_some_and(|name| ["auto-round", "autoround", "inc"].contains(&name))
    }

    /// A field that is true or false.
    pub fn flag(self, key: &str) -> Option<bool> {
        self.0?.get(key)?.as_bool()
    }

    /// A field that is text.
    pub fn text(self, key: &str) -> Option<&'a str> {
        self.0?.get(key)?.as_str()
    }

    /// A field that is a whole number; -1 and other negative ones are none.
    pub fn number(self, key: &str) -> Option<usize> {
        usize::try_from(self.0?.get(key)?.as_u64()?).ok()
    }

    /// What compressed-tensors says of the weights of its first group.
    fn of_weights(self, key: &str) -> Option<&'a Value> {
        self.0?.get("config_groups")?.as_object()?.values().find_map(|group| group.get("weights")?.get(key))
    }

    /// A whole number of those.
    pub fn weights(self, key: &str) -> Option<usize> {
        usize::try_from(self.of_weights(key)?.as_u64()?).ok()
    }

    /// Rows and columns of a block.
    pub fn block(self) -> Option<(usize, usize)> {
        self.pair("weight_block_size").or_else(|| pair(self.of_weights("block_structure")?))
    }

    /// A field that is a pair of whole numbers.
    fn pair(self, key: &str) -> Option<(usize, usize)> {
        pair(self.0?.get(key)?)
    }
}

fn pair(value: &Value) -> Option<(usize, usize)> {
    let [a, b] = &value.as_array()?[..] else { return None };
    Some((usize::try_from(a.as_u64()?).ok()?, usize::try_from(b.as_u64()?).ok()?))
}

/// One module's parts.
pub(in crate::checkpoint) struct Module<'a> {
    /// Its name, without `.weight`.
    pub path: &'a str,
    /// The configuration.
    pub config: Config<'a>,
    parts: &'a mut Parts,
}

impl Module<'_> {
    /// Whether there is a part.
    pub fn has(&self, kind: &str) -> bool {
        self.parts.contains_key(&format!("{}{kind}", self.path))
    }

    /// Takes a part, if it is there.
    pub fn take(&mut self, kind: &str) -> Option<Part> {
        self.parts.remove(&format!("{}{kind}", self.path))
    }

    /// Takes a part of one of these types.
    pub fn need(&mut self, kind: &str, dtypes: &[Stored]) -> Result<Part, String> {
        let path = self.path;
        let part = self.take(kind).ok_or_else(|| format!("expected `{path}{kind}` beside its weight, found none"))?;
        match dtypes.contains(&part.dtype) {
            true => Ok(part),
            false => Err(format!("expected `{path}{kind}` as {dtypes:?}, found {}", part.dtype)),
        }
    }
}

/// Joins what it knows among `parts` into tensors, and leaves the rest. The message of an error names
/// the tensor.
pub(in crate::checkpoint) fn join(config: Config, parts: &mut Parts) -> Result<Vec<Tensor>, String> {
    let marks: Vec<(String, Join)> = parts.iter().filter_map(|(name, part)| mark(name, part, parts)).collect();
    let mut tensors = Vec::with_capacity(marks.len());
    for (path, join) in marks {
        let name = format!("{path}.weight");
        tensors.push(join(Module { path: &path, config, parts }).map_err(|message| match message {
            message if message.starts_with(&path) => message,
            message => format!("{name}: {message}"),
        })?);
    }
    if config.method().is_some() {
        if let Some(name) = parts.keys().find(|name| name.ends_with("pre_quant_scale")) {
            let remedy = "use the float original, or a file that was quantized without AWQ";
            return Err(format!(
                "{name}: activations that are divided before they are quantized are not supported; {remedy}"
            ));
        }
        parts.retain(|name, _| !is_of_activations(name));
    }
    Ok(tensors)
}

/// Makes the tensor of one module.
type Join = fn(Module) -> Result<Tensor, String>;

/// Whether a part is the codes of a module, and whose.
fn mark(name: &str, part: &Part, parts: &Parts) -> Option<(String, Join)> {
    let beside = |path: &str, kind: &str| parts.contains_key(&format!("{path}{kind}"));
    let found = |path: &str, join: Join| Some((path.to_owned(), join));
    if let Some(path) = name.strip_suffix(".qweight") {
        let outputs = |name: String| parts.get(&name).and_then(|part| part.shape.last().copied());
        let is_gptq = outputs(name.to_owned()) == outputs(format!("{path}.scales"));
        return found(path, if is_gptq { gptq::join } else { awq::join });
    }
    if let Some(path) = name.strip_suffix(".weight_packed") {
        return found(path, compressed::join);
    }
    if let Some(path) = name.strip_suffix("_blocks").filter(|path| beside(path, "_scales")) {
        return found(path, scaled_bytes::gpt_oss);
    }
    let path = name.strip_suffix(".weight")?;
    match part.dtype {
        _ if beside(path, ".weight.absmax") => found(path, bitsandbytes::four_bits),
        Stored::I8 if beside(path, ".SCB") => found(path, bitsandbytes::eight_bits),
        Stored::I8 if beside(path, ".weight_scale") => found(path, scaled_bytes::integers),
        Stored::U8 if beside(path, ".weight_scale_2") => found(path, compressed::modelopt),
        Stored::F8_E4M3 if beside(path, ".weight_scale_inv") || beside(path, ".weight_scale") => {
            found(path, scaled_bytes::floats)
        }
        _ => None,
    }
}
