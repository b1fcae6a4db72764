//! What `adapter_config.json` says, and what of it is not supported.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::{cell::Cell, path::Path};

/// How to make a model of an adapter that is of no supported kind.
const MERGE: &str = "merge it into its model with PEFT's merge_and_unload() and load that";

/// Steps that matching one pattern may take: names of modules are short, and a pattern is a stranger's.
const MAX_BACKTRACKING: usize = 100_000;
const MAX_PATTERN: usize = 1 << 12;

/// Values of `init_lora_weights` that leave the model's own weights as they are.
const PLAIN_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];
/// Those that change them (peft, `tuners/lora/layer.py`), by how they begin.
const CHANGING_INITS: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// Options of PEFT that change what an adapter computes, all off in a plain LoRA or DoRA.
const OFF: [(&str, &str); 14] = [
    ("modules_to_save", "layers that are saved in full"),
    ("trainable_token_indices", "rows of the embedding"),
    ("layer_replication", "layers that are repeated"),
    ("target_parameters", "adapters of parameters that are no linear layers"),
    ("lora_bias", "biases of the low-rank matrices"),
    ("fan_in_fan_out", "weights that are stored transposed"),
    ("use_qalora", "QALoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "Arrow routing"),
    ("velora_config", "VeLoRA"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
    ("megatron_config", "Megatron's parallel layers"),
];

/// Refuses a PEFT adapter that is more than LoRA or DoRA of linear layers.
pub(super) fn refuse_unsupported(config: &Value) -> Result<(), String> {
    let kind = config["peft_type"].as_str().unwrap_or_default();
    if !kind.eq_ignore_ascii_case("lora") {
        return Err(format!("expected `peft_type` LORA, found `{kind}`: {MERGE}"));
    }
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if let Some((key, what)) = OFF.iter().find(|(key, _)| !is_off(&config[key])) {
        return Err(format!("`{key}` ({what}) is not supported: {MERGE}"));
    }
    match config["bias"].as_str() {
        None | Some("none") => {}
        Some(bias) => return Err(format!("`bias` is `{bias}`, adapters of biases are not supported: {MERGE}")),
    }
    let Some(init) = config["init_lora_weights"].as_str().map(str::to_lowercase) else { return Ok(()) };
    if CHANGING_INITS.iter().any(|known| init.starts_with(known)) {
        let remedy = "save it once more by PEFT's save_pretrained(.., path_initial_model_for_weight_conversion=..), which \
                      makes a plain LoRA of it";
        return Err(format!("`init_lora_weights` is `{init}`, which changes the model's own weights: {remedy}"));
    }
    if PLAIN_INITS.contains(&&*init) {
        return Ok(());
    }
    Err(format!("`init_lora_weights` is `{init}`, which is not known here: {MERGE}"))
}

/// Refuses an adapter of mlx-lm that is neither LoRA nor DoRA.
pub(super) fn refuse_other_mlx(config: &Value) -> Result<(), String> {
    match config["fine_tune_type"].as_str().unwrap_or("lora") {
        "lora" | "dora" => Ok(()),
        "full" => {
            Err("`fine_tune_type` is `full`: these are whole weights, not an adapter; fuse them with mlx_lm.fuse"
                .into())
        }
        other => Err(format!("expected `fine_tune_type` lora or dora, found `{other}`")),
    }
}

/// Why a tensor of an adapter is not supported, by its name.
pub(super) fn reason(name: &str) -> String {
    let what = match name {
        _ if name.contains("lora_embedding_") => "an adapter of an embedding",
        _ if name.contains(".experts.") || name.contains("switch_mlp") => "an adapter of stacked experts",
        _ if name.ends_with("lora_B.bias") => "the bias of a low-rank matrix",
        _ if name.ends_with(".bias") => "a bias",
        _ if name.contains("lora_") => "an adapter of a layer that is not linear",
        _ => "a weight that is saved in full",
    };
    format!("{what} is not supported: {MERGE}")
}

/// `rank_pattern` and `alpha_pattern`: regular expressions over the paths of modules, of which the first that fits counts
/// (peft, `utils/other.py`, `get_pattern_key`).
pub(super) struct Patterns {
    rank: Vec<Pattern>,
    alpha: Vec<Pattern>,
}

struct Pattern {
    key: &'static str,
    text: String,
    regex: Regex,
    value: f64,
    is_used: Cell<bool>,
}

impl Patterns {
    pub fn of(config: &Value) -> Result<Patterns, String> {
        let read = |key: &'static str| {
            let all = config[key].as_object().into_iter().flatten();
            all.map(|(text, value)| Pattern::new(key, text, value)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Patterns { rank: read("rank_pattern")?, alpha: read("alpha_pattern")? })
    }

    /// The rank of a module, if a pattern has it.
    pub fn rank(&self, module: &str) -> Result<Option<usize>, String> {
        Ok(first(&self.rank, module)?.map(|value| value as usize))
    }

    /// The alpha of a module, if a pattern has it.
    pub fn alpha(&self, module: &str) -> Result<Option<f64>, String> {
        first(&self.alpha, module)
    }

    /// Warns of patterns that no module fits: they were meant for one.
    pub fn warn_of_unused(&self, path: &Path) {
        for Pattern { key, text, .. } in self.rank.iter().chain(&self.alpha).filter(|p| !p.is_used.get()) {
            tracing::warn!("{}: `{key}`: no adapted module fits {text:?}", path.display());
        }
    }
}

impl Pattern {
    fn new(key: &'static str, text: &str, value: &Value) -> Result<Pattern, String> {
        let wrong = |why: String| format!("`{key}`: {text:?}: {why}");
        if text.len() > MAX_PATTERN {
            return Err(format!("`{key}`: expected patterns of {MAX_PATTERN} bytes at most, found {}", text.len()));
        }
        // `re.match` begins at the beginning, and `$` also fits before a last line break, which no path has.
        let whole = format!(r"^(.*\.)?({text})$");
        let regex = RegexBuilder::new(&whole).backtrack_limit(MAX_BACKTRACKING).build();
        let regex = regex.map_err(|e| wrong(format!("not a regular expression: {e}")))?;
        let value = value.as_f64().ok_or_else(|| wrong(format!("expected a number, found {value}")))?;
        Ok(Pattern { key, text: text.to_owned(), regex, value, is_used: Cell::new(false) })
    }
}

/// The value of the first pattern that fits. The others that fit are in use all the same.
fn first(patterns: &[Pattern], module: &str) -> Result<Option<f64>, String> {
    for pattern in patterns {
        let fits = pattern.regex.is_match(module);
        if fits.map_err(|e| format!("`{}`: {:?}: {e}", pattern.key, pattern.text))? {
            pattern.is_used.set(true);
            return Ok(Some(pattern.value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As Python's `re.match(rf"(.*\.)?({key})$", module)` has it.
    #[test]
    fn patterns_are_regular_expressions() {
        let module = "model.layers.11.self_attn.q_proj";
        for (pattern, fits) in [
            ("q_proj", true),
            ("proj", false),
            ("self_attn.q_proj", true),
            (r"^model\.layers\.11\.self_attn\.q_proj", true),
            (r"^layers\.11\.self_attn\.q_proj", false),
            ("model.layers.11.self_attn.q_proj", true),
            (r"layers\.1[0-5]\..*", true),
            (r"layers\.(1|2)\.self_attn\.q_proj", false),
            ("k_proj|q_proj", true),
            (r".*\.(?!k_proj)\w+", true),
            ("[qkv]_proj", true),
            ("Q_PROJ", false),
        ] {
            let patterns = Patterns::of(&json!({ "alpha_pattern": { pattern: 3 } })).unwrap();
            assert_eq!(patterns.alpha(module), Ok(fits.then_some(3.0)), "{pattern}");
            assert_eq!(patterns.alpha[0].is_used.get(), fits);
        }
        let both = json!({ "rank_pattern": { "k_proj": 2, "q_proj": 4, ".*": 8 } });
        assert_eq!(Patterns::of(&both).unwrap().rank(module), Ok(Some(4)));
    }

    #[test]
    fn patterns_of_strangers_are_bounded() {
        let error = |pattern: &str| Patterns::of(&json!({ "alpha_pattern": { pattern: 3 } })).err().unwrap();
        assert!(error("(").contains("`alpha_pattern`: \"(\": not a regular expression"));
        assert!(error(&"a".repeat(5000)).contains("4096 bytes at most"));
        let slow = Patterns::of(&json!({ "alpha_pattern": { r"(?=a)(a*)*\1b": 3 } })).unwrap();
        let found = slow.alpha(&"a".repeat(64));
        assert!(found.is_err() || found == Ok(None), "{found:?}");
    }

    #[test]
    fn what_changes_the_model_is_refused_with_a_remedy() {
        let refusal = |fields: Value| {
            let mut config = json!({ "peft_type": "LORA", "bias": "none" });
            config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            refuse_unsupported(&config)
        };
        for init in [json!(true), json!(false), json!(null), json!("gaussian"), json!("eva"), json!("orthogonal")] {
            assert_eq!(refusal(json!({ "init_lora_weights": init })), Ok(()));
        }
        for init in ["pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga"] {
            let error = refusal(json!({ "init_lora_weights": init })).unwrap_err();
            assert!(error.contains("init_lora_weights") && error.contains("path_initial_model_for_weight_conversion"));
        }
        for (fields, wanted) in [
            (json!({ "init_lora_weights": "mica" }), "`mica`, which is not known here"),
            (json!({ "modules_to_save": ["lm_head"] }), "`modules_to_save` (layers that"),
            (json!({ "trainable_token_indices": [1] }), "`trainable_token_indices` (rows"),
            (json!({ "layer_replication": [[0, 1]] }), "`layer_replication`"),
            (json!({ "lora_bias": true }), "`lora_bias`"),
            (json!({ "fan_in_fan_out": true }), "`fan_in_fan_out`"),
            (json!({ "bias": "all" }), "`bias` is `all`"),
            (json!({ "peft_type": "IA3" }), "found `IA3`"),
            (json!({ "peft_type": "PROMPT_TUNING" }), "found `PROMPT_TUNING`"),
        ] {
            let error = refusal(fields).unwrap_err();
            assert!(error.contains(wanted) && error.contains("merge_and_unload()"), "{error}\nlacks: {wanted}");
        }
    }
}
