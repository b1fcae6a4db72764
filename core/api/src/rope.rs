//! Rotary embeddings as data, and `config.json`'s many ways to describe them.
//!
//! The formulas are those of `transformers`' `modeling_rope_utils.py`: linear and dynamic scaling,
//! YaRN (arXiv:2309.00071), LongRoPE (arXiv:2402.13753) and Llama 3's.

use crate::{Config, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::f64::consts::PI;

/// Dimensions of a head that may rotate: more are an error of the file.
const MAX_DIM: usize = 1 << 16;

/// What is wrong with a rope that is not sound.
pub(crate) const UNSOUND: &str = "has frequencies that are not finite, none, or more than 32768";

/// Axes of a position: time, row and column in a text with images; row and column in a tower.
pub const AXES: usize = 3;

/// Which dimensions rotate together.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// (i, i + pairs)
    #[default]
    Half,
    /// (2i, 2i + 1)
    Adjacent,
}

/// A rotary embedding of the first `2 * inv_freq.len()` dimensions of each head.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeSpec {
    /// Radians per position, one per pair.
    pub inv_freq: Vec<f32>,
    /// Which dimensions make a pair.
    #[serde(default)]
    pub pairing: Pairing,
    /// Factor on cosines and sines.
    pub scale: f32,
    /// Frequencies for long sequences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongRope>,
    /// Frequencies that follow the sequence's length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<DynamicRope>,
    /// For each frequency the axis of the position that it turns by; absent: the first. Since api 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<Vec<u8>>,
}

/// What replaces the frequencies once a sequence is longer than `after`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongRope {
    /// Positions that the short frequencies serve.
    pub after: usize,
    /// Radians per position beyond.
    pub inv_freq: Vec<f32>,
    /// The factor on cosines and sines beyond, where it is another one. Since api 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// NTK-aware scaling: beyond `max` positions the base grows to
/// `base * (factor * length / max - (factor - 1)) ^ (d / (d - 2))`, d = 2 * pairs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynamicRope {
    /// The base up to `max`.
    pub base: f64,
    /// How strongly it grows.
    pub factor: f64,
    /// Positions that the plain base serves.
    pub max: usize,
}

impl RopeSpec {
    /// Plain rotary embedding of `dim` dimensions, 65,536 at most: with more, [`crate::Tensor::rope`] fails.
    pub fn new(dim: usize, base: f64) -> RopeSpec {
        RopeSpec {
            inv_freq: to_f32(&frequencies(dim, base)),
            pairing: Pairing::Half,
            scale: 1.0,
            long: None,
            dynamic: None,
            axis: None,
        }
    }

    /// With an axis of the position for each frequency.
    pub fn axis(self, axis: impl IntoIterator<Item = usize>) -> RopeSpec {
        RopeSpec { axis: Some(axis.into_iter().map(|a| a.min(255) as u8).collect()), ..self }
    }

    /// That of a tower: the first half of a head turns by the row of its patch, the second by the column, both by the same
    /// frequencies (Qwen2-VL, arXiv:2409.12191).
    pub fn axial(head_dim: usize, base: f64) -> RopeSpec {
        let half = RopeSpec::new(head_dim / 2, base).inv_freq;
        let axes = half.len();
        let inv_freq = [&half[..], &half[..]].concat();
        RopeSpec { inv_freq, ..RopeSpec::new(head_dim, base) }.axis((0..2 * axes).map(|i| i / axes.max(1)))
    }

    /// With this pairing.
    pub fn pairing(self, pairing: Pairing) -> RopeSpec {
        RopeSpec { pairing, ..self }
    }

    /// Dimensions that rotate.
    pub fn width(&self) -> usize {
        self.inv_freq.len() * 2
    }

    /// The frequencies for a sequence of `length` positions.
    pub fn frequencies_at(&self, length: usize) -> std::borrow::Cow<'_, [f32]> {
        if let Some(long) = self.long.as_ref().filter(|l| length > l.after) {
            return (&long.inv_freq).into();
        }
        match &self.dynamic {
            Some(d) if length > d.max => {
                let dim = self.width() as f64;
                let grown = d.factor * length as f64 / d.max as f64 - (d.factor - 1.0);
                to_f32(&frequencies(self.width(), d.base * grown.powf(dim / (dim - 2.0)))).into()
            }
            _ => (&self.inv_freq).into(),
        }
    }

    /// The factor on cosines and sines for a sequence of `length` positions.
    pub fn scale_at(&self, length: usize) -> f32 {
        self.long.as_ref().filter(|l| length > l.after).and_then(|l| l.scale).unwrap_or(self.scale)
    }

    pub(crate) fn is_sound(&self) -> bool {
        let long = self.long.iter().flat_map(|l| &l.inv_freq);
        let lengths = self.long.as_ref().is_none_or(|l| l.inv_freq.len() == self.inv_freq.len());
        let dynamic = self.dynamic.as_ref().is_none_or(|d| d.base.is_finite() && d.factor.is_finite() && d.max > 0);
        let finite = self.inv_freq.iter().chain(long).all(|f| f.is_finite());
        let fits = |axis: &Vec<u8>| axis.len() == self.inv_freq.len() && axis.iter().all(|a| usize::from(*a) < AXES);
        (1..=MAX_DIM / 2).contains(&self.inv_freq.len())
            && self.axis.as_ref().is_none_or(fits)
            && finite
            && lengths
            && dynamic
            && self.scale_at(usize::MAX).is_finite()
            && self.scale.is_finite()
    }
}

/// One more than may be where `dim` is absurd: enough to be refused.
fn frequencies(dim: usize, base: f64) -> Vec<f64> {
    (0..(dim / 2).min(MAX_DIM / 2 + 1)).map(|i| base.powf(-2.0 * i as f64 / dim as f64)).collect()
}

fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|f| *f as f32).collect()
}

/// What one rope object and the root of `config.json` say together.
struct Source<'a> {
    root: &'a Value,
    object: &'a Value,
    path: String,
}

impl Config {
    /// The rope of heads of `head_dim` dimensions, as `rope_scaling` with `rope_theta` (older files) or
    /// `rope_parameters` (newer ones) describe it. `theta` is the base where the file names none.
    pub fn rope(&self, head_dim: usize, theta: f64) -> Result<RopeSpec> {
        self.partial_rope(head_dim, theta, 1.0)
    }

    /// [`Config::rope`] over the first `part` of each head where the file has no `partial_rotary_factor`.
    pub fn partial_rope(&self, head_dim: usize, theta: f64, part: f64) -> Result<RopeSpec> {
        let root = self.json();
        let path = if root["rope_scaling"].is_object() { "rope_scaling" } else { "rope_parameters" };
        Source { root, object: &root[path], path: path.to_owned() }.sound_rope(head_dim, theta, part)
    }

    /// The rope of the layers of one type, `full_attention` say, where `rope_parameters` has an object
    /// for each type.
    pub fn layer_rope(&self, layer_type: &str, head_dim: usize, theta: f64) -> Result<Option<RopeSpec>> {
        let object = &self.json()["rope_parameters"][layer_type];
        if !object.is_object() {
            return Ok(None);
        }
        let path = format!("rope_parameters.{layer_type}");
        Source { root: self.json(), object, path }.sound_rope(head_dim, theta, 1.0).map(Some)
    }
}

impl Source<'_> {
    fn sound_rope(&self, head_dim: usize, theta: f64, part: f64) -> Result<RopeSpec> {
        let rope = self.rope(head_dim, theta, part)?;
        if rope.is_sound() { Ok(rope) } else { Err(Error(format!("config.json: {}: {UNSOUND}", self.path))) }
    }

    fn rope(&self, head_dim: usize, theta: f64, part: f64) -> Result<RopeSpec> {
        let base = self.either("rope_theta")?.unwrap_or(theta);
        let partial = self.either("partial_rotary_factor")?.unwrap_or(part);
        let dim = (head_dim as f64 * partial) as usize / 2 * 2;
        if !(2..=MAX_DIM).contains(&dim) {
            let message = format!("a rope over {dim} of {head_dim} dimensions: expected 2 to {MAX_DIM}");
            return Err(Error(format!("config.json: {}: {message}", self.path)));
        }
        if !(base > 0.0 && base.is_finite()) {
            return Err(self.wrong("rope_theta", &format!("expected a positive number, found {base}")));
        }
        let plain = RopeSpec::new(dim, base);
        match self.kind() {
            "default" | "mrope" => self.with_sections(plain),
            "linear" => {
                let factor = self.need("factor")? as f32;
                Ok(RopeSpec { inv_freq: plain.inv_freq.iter().map(|f| f / factor).collect(), ..plain })
            }
            // Hunyuan's "dynamic": the base grows once and for all.
            "dynamic" if self.number("alpha")?.is_some_and(|alpha| alpha != 0.0) => {
                let dim_f = dim as f64;
                Ok(RopeSpec::new(dim, base * self.need("alpha")?.powf(dim_f / (dim_f - 2.0))))
            }
            "dynamic" => {
                let max = self.positions("max_position_embeddings")?.unwrap_or(2048.0) as usize;
                Ok(RopeSpec { dynamic: Some(DynamicRope { base, factor: self.need("factor")?, max }), ..plain })
            }
            "llama3" => Ok(RopeSpec { inv_freq: self.llama3(&frequencies(dim, base))?, ..plain }),
            // Phi-3's first name for it.
            "yarn" if self.object["short_factor"].is_array() => self.longrope(dim, base, plain),
            "yarn" => self.yarn(dim, base, plain),
            "longrope" | "su" => self.longrope(dim, base, plain),
            // GGUF stores Llama 3's scaling as one divisor per frequency, and may have a factor on cosines and sines besides.
            "factors" => {
                let scale = self.number("attention_factor")?.unwrap_or(1.0) as f32;
                Ok(RopeSpec { inv_freq: self.divided("factors", dim, base)?, scale, ..plain })
            }
            other => Err(self.wrong(
                "rope_type",
                &format!("unknown rope `{other}`: known are default, linear, dynamic, llama3, yarn, longrope"),
            )),
        }
    }

    /// Frequencies for time, row and column: each section's together, or taking turns (Qwen3-VL), time having what is left.
    fn with_sections(&self, plain: RopeSpec) -> Result<RopeSpec> {
        let sections = &self.object["mrope_section"];
        if sections.is_null() {
            return Ok(plain);
        }
        let n = plain.inv_freq.len();
        let sizes: Option<Vec<usize>> = sections
            .as_array()
            .and_then(|a| a.iter().map(|v| Some(v.as_u64()?.min(MAX_DIM as u64) as usize)).collect());
        let sizes = sizes.filter(|s| s.len() == AXES && s.iter().sum::<usize>() == n);
        let sizes = sizes.ok_or_else(|| {
            self.wrong("mrope_section", &format!("expected {AXES} numbers of sum {n}, found {sections}"))
        })?;
        if self.object["mrope_interleaved"].as_bool() == Some(true) {
            return Ok(
                plain.axis((0..n).map(|i| if i % AXES > 0 && i < AXES * sizes[i % AXES] { i % AXES } else { 0 }))
            );
        }
        Ok(plain.axis(sizes.iter().enumerate().flat_map(|(axis, n)| std::iter::repeat_n(axis, *n))))
    }

    fn kind(&self) -> &str {
        self.object["rope_type"].as_str().or(self.object["type"].as_str()).unwrap_or("default")
    }

    /// Wavelengths beyond the original context are divided by `factor`, short ones kept, those
    /// between blended.
    fn llama3(&self, inv_freq: &[f64]) -> Result<Vec<f32>> {
        let (factor, low, high) = (self.need("factor")?, self.need("low_freq_factor")?, self.need("high_freq_factor")?);
        let original = self.original()?.ok_or(self.wrong("original_max_position_embeddings", "missing"))?;
        let scaled = inv_freq.iter().map(|f| {
            let turns = original * f / (2.0 * PI);
            let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (keep * f + (1.0 - keep) * f / factor) as f32
        });
        Ok(scaled.collect())
    }

    fn yarn(&self, dim: usize, base: f64, plain: RopeSpec) -> Result<RopeSpec> {
        let original = self.original()?.ok_or(self.wrong("original_max_position_embeddings", "missing"))?;
        let factor = match self.number("factor")? {
            Some(f) => f,
            None => self.positions("max_position_embeddings")?.unwrap_or(original) / original,
        };
        let turns_at = |turns: f64| dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
        let mut low = turns_at(self.number("beta_fast")?.unwrap_or(32.0));
        let mut high = turns_at(self.number("beta_slow")?.unwrap_or(1.0));
        if self.object["truncate"].as_bool().unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let blend = |(i, f): (usize, &f64)| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            (f / factor * ramp + f * (1.0 - ramp)) as f32
        };
        let magnitude = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let (all, some) = (self.number("mscale_all_dim")?.unwrap_or(0.0), self.number("mscale")?.unwrap_or(0.0));
        let scale = match self.number("attention_factor")? {
            Some(f) => f,
            None if all != 0.0 && some != 0.0 => magnitude(some) / magnitude(all),
            None => magnitude(1.0),
        };
        let inv_freq = frequencies(dim, base).iter().enumerate().map(blend).collect();
        Ok(RopeSpec { inv_freq, scale: scale as f32, ..plain })
    }

    fn longrope(&self, dim: usize, base: f64, plain: RopeSpec) -> Result<RopeSpec> {
        let max = self.positions("max_position_embeddings")?.unwrap_or(0.0);
        let original = self.original()?.unwrap_or(max);
        let factor = self.number("factor")?.unwrap_or(max / original);
        let scale = match self.number("attention_factor")? {
            Some(f) => f,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        let long =
            LongRope { after: original as usize, inv_freq: self.divided("long_factor", dim, base)?, scale: None };
        Ok(RopeSpec {
            inv_freq: self.divided("short_factor", dim, base)?,
            scale: scale as f32,
            long: Some(long),
            ..plain
        })
    }

    fn divided(&self, key: &str, dim: usize, base: f64) -> Result<Vec<f32>> {
        let factors: Option<Vec<f64>> =
            self.object[key].as_array().and_then(|a| a.iter().map(|v| v.as_f64()).collect());
        match factors {
            Some(f) if f.len() == dim / 2 => {
                Ok(frequencies(dim, base).iter().zip(f).map(|(v, f)| (v / f) as f32).collect())
            }
            _ => Err(self.wrong(key, &format!("expected {} numbers, found {}", dim / 2, self.object[key]))),
        }
    }

    fn original(&self) -> Result<Option<f64>> {
        self.positions("original_max_position_embeddings")
    }

    /// A count of positions: the root wins over the rope object, and the whole context is the last resort.
    fn positions(&self, key: &str) -> Result<Option<f64>> {
        let root = |key: &str| self.root[key].as_f64();
        Ok(root(key).or(self.number(key)?).or(root("max_position_embeddings")))
    }

    /// A number of the rope object, or else of the root.
    fn either(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.number(key)?.or(self.root[key].as_f64()))
    }

    fn need(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.wrong(key, "missing"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match &self.object[key] {
            Value::Null => Ok(None),
            v => v.as_f64().map(Some).ok_or_else(|| self.wrong(key, &format!("expected a number, found {v}"))),
        }
    }

    fn wrong(&self, key: &str, what: &str) -> Error {
        Error(format!("config.json: {}.{key}: {what}", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rope(config: Value) -> RopeSpec {
        Config::from(config).rope(8, 10_000.0).unwrap()
    }

    #[test]
    fn old_and_new_spellings_agree() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64});
        let mut new = scaling.clone();
        new["rope_theta"] = json!(5e5);
        let mut oldest = scaling.clone();
        oldest["type"] = oldest["rope_type"].take();
        let old = rope(json!({"rope_theta": 5e5, "rope_scaling": scaling, "max_position_embeddings": 512}));
        assert_eq!(old, rope(json!({"rope_parameters": new})));
        assert_eq!(old, rope(json!({"rope_theta": 5e5, "rope_scaling": oldest})));
        assert_ne!(old, rope(json!({"rope_theta": 5e5})));
    }

    #[test]
    fn divisors_may_come_with_a_factor_on_cosines_and_sines() {
        let scaling = |magnitude: Value| {
            json!({"rope_scaling": {"rope_type": "factors", "factors": [1.0, 2.0, 4.0, 8.0],
            "attention_factor": magnitude}})
        };
        let (plain, scaled) = (rope(scaling(Value::Null)), rope(scaling(json!(1.5))));
        assert_eq!((plain.scale, scaled.scale), (1.0, 1.5));
        assert_eq!(plain.inv_freq, scaled.inv_freq);
    }

    #[test]
    fn absent_and_null_scaling_are_plain() {
        assert_eq!(rope(json!({})), RopeSpec::new(8, 10_000.0));
        assert_eq!(rope(json!({"rope_scaling": null, "rope_theta": 7.0})), RopeSpec::new(8, 7.0));
        assert_eq!(rope(json!({"partial_rotary_factor": 0.5})).width(), 4);
    }

    #[test]
    fn long_sequences_change_frequencies() {
        let config = json!({"max_position_embeddings": 64, "original_max_position_embeddings": 16, "rope_scaling":
            {"type": "su", "short_factor": [1, 1, 1, 1], "long_factor": [1, 2, 3, 4]}});
        let su = rope(config);
        assert_eq!(*su.frequencies_at(16), *su.inv_freq);
        assert_eq!(su.frequencies_at(17)[3], su.inv_freq[3] / 4.0);
        assert!((su.scale - (1.0f32 + 4f32.ln() / 16f32.ln()).sqrt()).abs() < 1e-6);
        let ntk = rope(json!({"max_position_embeddings": 16, "rope_scaling": {"type": "dynamic", "factor": 2.0}}));
        assert_eq!(*ntk.frequencies_at(16), *ntk.inv_freq);
        let base = 10_000.0 * (2.0f64 * 32.0 / 16.0 - 1.0).powf(8.0 / 6.0);
        assert_eq!(*ntk.frequencies_at(32), *RopeSpec::new(8, base).inv_freq);
    }

    #[test]
    fn errors_name_the_path() {
        for (config, message) in [
            (json!({"rope_scaling": {"type": "linear"}}), "config.json: rope_scaling.factor: missing"),
            (
                json!({"rope_scaling": {"type": "linear", "factor": "x"}}),
                "rope_scaling.factor: expected a number, found \"x\"",
            ),
            (json!({"rope_parameters": {"rope_type": "spiral"}}), "rope_parameters.rope_type: unknown rope `spiral`"),
            (
                json!({"rope_scaling": {"type": "su", "short_factor": [1]}}),
                "rope_scaling.long_factor: expected 4 numbers",
            ),
        ] {
            let e = Config::from(config).rope(8, 1e4).unwrap_err().to_string();
            assert!(e.contains(message), "{e}");
        }
    }
}
