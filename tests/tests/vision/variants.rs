//! The same models under the names and spellings of other files.

use super::{Case, folder, on_runtime};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tamarack::{Device, LoadOptions, ModelConfiguration, ModelContainer};
use tamarack_tests::gpu::close;
use tempfile::TempDir;

/// A model's files, to be changed.
pub struct Variant {
    model: &'static str,
    pub config: Value,
    /// `processor_config.json` and `preprocessor_config.json`; null: no such file.
    pub processor: Value,
    pub preprocessor: Value,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Variant {
    pub fn of(model: &'static str) -> Variant {
        let read = |name: &str| std::fs::read(folder(model).join(name)).unwrap();
        let json = |name: &str| serde_json::from_slice(&read(name)).unwrap();
        let bytes = read("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, t): (String, TensorView<'_>)| (name, t.dtype(), t.shape().to_vec(), t.data().to_vec());
        Variant {
            model,
            config: json("config.json"),
            processor: json("processor_config.json"),
            preprocessor: Value::Null,
            tensors: file.tensors().into_iter().map(tensor).collect(),
        }
    }

    /// The image processor in a file of its own, as it was before transformers 5.
    pub fn with_preprocessor(mut self) -> Variant {
        self.preprocessor = self.processor["image_processor"].take();
        self.processor.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_processor"));
        self
    }

    /// Names that begin with the first of a pair begin with the second; the first pair that fits counts.
    pub fn renamed(mut self, names: &[(&str, &str)]) -> Variant {
        for (name, ..) in &mut self.tensors {
            let found = names.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
            *name = found.unwrap_or_else(|| panic!("{name}: no new name"));
        }
        self
    }

    /// The weight of a convolution with its channels last, as MLX has it.
    pub fn with_channels_last(mut self, name: &str) -> Variant {
        let (_, dtype, shape, data) = self.tensors.iter_mut().find(|t| t.0 == name).unwrap();
        assert_eq!(*dtype, Dtype::F16);
        let (channels, inner) = (shape[1], shape[2..].iter().product::<usize>());
        let one = |filter: &[u8]| {
            let at = |c: usize, i: usize| [filter[(c * inner + i) * 2], filter[(c * inner + i) * 2 + 1]];
            (0..inner).flat_map(|i| (0..channels).flat_map(move |c| at(c, i))).collect::<Vec<u8>>()
        };
        *data = data.chunks(channels * inner * 2).flat_map(one).collect();
        shape.remove(1);
        shape.push(channels);
        self
    }

    /// Loads it on the oracle, from a folder that lasts as long as what is returned.
    pub async fn load(&self) -> tamarack::Result<(ModelContainer, TempDir)> {
        let (to, from) = (tempfile::tempdir().unwrap(), folder(self.model));
        for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            std::fs::copy(from.join(name), to.path().join(name)).unwrap();
        }
        let files = [
            ("config.json", &self.config),
            ("processor_config.json", &self.processor),
            ("preprocessor_config.json", &self.preprocessor),
        ];
        for (name, json) in files.into_iter().filter(|(_, json)| !json.is_null()) {
            std::fs::write(to.path().join(name), json.to_string()).unwrap();
        }
        let views = self.tensors.iter().map(|(n, d, s, b)| (n, TensorView::new(*d, s.clone(), b).unwrap()));
        std::fs::write(to.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        let configuration = ModelConfiguration::directory(to.path());
        let options = LoadOptions::default().device(Device::Reference).context(512);
        Ok((tamarack::load_container(&configuration, options).await?, to))
    }

    /// Tokens and logits of one prompt are those of the model.
    pub fn check(self) {
        on_runtime(async {
            let (container, _folder) = self.load().await.unwrap_or_else(|e| panic!("{e}"));
            let case = Case::named(self.model, "one");
            let input = container.prepare(case.input()).await.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(input.tokens, case.words("input_ids"));
            let logits = container.perform(move |c| c.model.forward_input(&input, 512)).await.unwrap().unwrap();
            close(self.model, &logits, &case.floats("logits"), 2e-3).unwrap_or_else(|e| panic!("{e}"));
        });
    }
}
