//! How a model is loaded.

use super::{Device, KvQuantize, ModelConfiguration, Progress};
use crate::checkpoint::Quantize;
use crate::exec::Lead;
use crate::gpu::Precision;
use crate::hub::Hub;
use std::{path::PathBuf, sync::Arc};

/// How a model is loaded. `LoadOptions::default()` is the best device, a cache of at most 8192 tokens,
/// and no report.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: Device,
    /// Threads that compute where it runs on the processor. `None` is one for each physical core. Models that ask for as
    /// many share them.
    pub threads: Option<usize>,
    /// The model's last layers that run on the GPU where the device is [`Device::Mixed`]; all of them put the whole model
    /// there. `None` is as many as it has room for, or none where the processor is faster: both are measured.
    pub gpu_layers: Option<usize>,
    /// Tokens that the cache holds, over all sequences. `None` is what the model was made for, 8192 at
    /// most.
    pub context: Option<usize>,
    /// To how many bits activations are rounded before they meet quantized weights. `None` is what suits
    /// the device.
    pub precision: Option<Precision>,
    /// Quantizes the float matrices of the model while it loads, as MLX would. `None` leaves them as they are.
    pub quantize: Option<Quantize>,
    /// Quantizes keys and values in the cache, from the token on that it says. `None` keeps them in f16. All generations share
    /// the cache's pages, so that this is the model's and not a generation's.
    pub kv: Option<KvQuantize>,
    /// Folders of low-rank adapters, in MLX's layout or PEFT's. Each is called as its folder, and generations choose one:
    /// [`crate::GenerateParameters::adapter`].
    pub adapters: Vec<PathBuf>,
    /// A smaller model with the same tokenizer, which proposes what the model is to say: generations that ask for it
    /// come faster, and the same ([`crate::GenerateParameters::draft_tokens`]).
    pub draft: Option<ModelConfiguration>,
    /// Refuses a model whose files have tensors that its architecture does not use. Otherwise they are left out and named in
    /// [`crate::model::ModelInfo::unused`], but for those without which the model would compute something else.
    pub strict: bool,
    /// Where models come from that are not on this machine. `None` is as the environment says.
    pub hub: Option<Hub>,
    /// Is told how far loading is, from any thread.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl LoadOptions {
    /// How sequences begin in the cache.
    pub(crate) fn lead(&self) -> Lead {
        self.kv.map(KvQuantize::lead).unwrap_or_default()
    }

    /// Where it runs.
    pub fn device(mut self, device: Device) -> LoadOptions {
        self.device = device;
        self
    }

    /// Threads that compute where it runs on the processor.
    pub fn threads(mut self, threads: usize) -> LoadOptions {
        self.threads = Some(threads);
        self
    }

    /// The model's last layers that run on the GPU where the device is [`Device::Mixed`].
    pub fn gpu_layers(mut self, layers: usize) -> LoadOptions {
        self.gpu_layers = Some(layers);
        self
    }

    /// Tokens that the cache holds, over all sequences.
    pub fn context(mut self, tokens: usize) -> LoadOptions {
        self.context = Some(tokens);
        self
    }

    /// To how many bits activations are rounded before they meet quantized weights.
    pub fn precision(mut self, precision: Precision) -> LoadOptions {
        self.precision = Some(precision);
        self
    }

    /// Quantizes the float matrices of the model while it loads.
    pub fn quantize(mut self, quantize: Quantize) -> LoadOptions {
        self.quantize = Some(quantize);
        self
    }

    /// Quantizes keys and values in the cache.
    pub fn kv(mut self, kv: KvQuantize) -> LoadOptions {
        self.kv = Some(kv);
        self
    }

    /// Loads the adapter in this folder, beside those that were named before.
    pub fn adapter(mut self, folder: impl Into<PathBuf>) -> LoadOptions {
        self.adapters.push(folder.into());
        self
    }

    /// A smaller model with the same tokenizer, which proposes what the model is to say.
    pub fn draft(mut self, model: ModelConfiguration) -> LoadOptions {
        self.draft = Some(model);
        self
    }

    /// Refuses a model whose files have tensors that its architecture does not use.
    pub fn strict(mut self) -> LoadOptions {
        self.strict = true;
        self
    }

    /// Where models come from that are not on this machine.
    pub fn hub(mut self, hub: Hub) -> LoadOptions {
        self.hub = Some(hub);
        self
    }
}
