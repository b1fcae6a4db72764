//! All that a plugin sees.
//!
//! A plugin describes; the host computes. An [`Architecture`] runs once when a model is loaded and
//! records a graph: from `config.json` and the names and shapes of the checkpoint's tensors to
//! [`Tensor`]s, which are handles without data. The host fuses, plans and runs what was recorded.
//!
//! ```
//! use tamarack_api::*;
//!
//! /// One norm and a tied head: the smallest language model.
//! struct Bigram;
//!
//! config! { struct BigramConfig { hidden_size: usize, vocab_size: usize, eps as "rms_norm_eps": f32 = 1e-6 } }
//!
//! impl Architecture for Bigram {
//!     fn declaration(&self) -> Declaration {
//!         Declaration::llm("bigram", &["bigram"])
//!     }
//!     fn text(&self, config: &Config, w: &Weights, step: &Step) -> Result<Tensor> {
//!         let c = BigramConfig::parse(config)?;
//!         let embed = w.embedding("embed_tokens", [c.vocab_size, c.hidden_size]);
//!         let x = w.rms_norm("norm", c.hidden_size, c.eps).forward(embed.forward(step.tokens()));
//!         Ok(embed.as_linear().forward(step.outputs(x)))
//!     }
//! }
//! register!(Bigram);
//!
//! let index = [("embed_tokens.weight", vec![16, 4]), ("norm.weight", vec![4])];
//! let index = index.map(|(name, shape)| (name.to_owned(), shape)).into_iter().collect();
//! let config = Config::from(serde_json::json!({ "hidden_size": 4, "vocab_size": 16 }));
//! let graph = record(&Bigram, &config, index)?;
//! assert_eq!(format!("{:?}", graph.shape(graph.output)), "[outputs, 16]");
//! # Ok::<(), Error>(())
//! ```

mod architecture;
mod check;
mod config;
mod custom;
mod dim;
mod encoding;
mod error;
mod graph;
mod index;
mod infer;
mod media;
mod moe;
mod plain;
pub mod plugin;
mod recipe;
mod recorder;
mod rope;
mod siglip;
mod tensor;
mod video;
mod vision;
mod weights;

pub use architecture::{Architecture, Declaration, Kind, Registration, registered};
pub use config::{Config, PerLayer, parse_field};
pub use custom::{Constant, Custom, CustomId, CustomOp, custom};
pub use dim::{Dim, Sym};
pub use error::{Error, Result};
pub use graph::{
    API, Activation, AttentionSpec, CacheSpec, Graph, Node, NodeId, Op, RopeId, WeightExpr, WeightId, WeightNode,
};
pub use index::Index;
pub use media::{Blocks, Medium, in_time, smart_resize, smart_resize_frames};
pub use moe::{
    ExpertSpec, Experts, Gate, GroupScore, Groups, Others, Route, RouteSpec, Scoring, moe_experts, moe_route,
};
pub use plain::{Plain, PlainRow};
pub use recipe::{Filter, Recipe, RecipeOp, Value};
pub use recorder::{record, record_tower, record_with_images, tensors};
pub use rope::{DynamicRope, LongRope, Pairing, RopeSpec};
pub use siglip::Siglip;
pub use tensor::{Kv, Step, Tensor, attention, concat, kv, latent_attention, segment_attention, window_attention};
pub use video::{Frames, Sampling, VideoInfo};
pub use vision::{
    CLIP_MEAN, CLIP_STD, ImageOptions, ProcessRequest, Processed, ProcessorConfig, TextModel, TowerStep, VisionLanguage,
};
pub use weights::{Conv1d, Embedding, LatentHeads, LayerNorm, Linear, RmsNorm, Weight, Weights, Xielu};

/// For parts of a configuration that a file leaves out.
pub use serde_json::json;

#[doc(hidden)]
pub mod private {
    pub use inventory;
}
