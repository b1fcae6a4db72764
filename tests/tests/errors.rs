//! What a user reads when a model cannot be loaded: what, where, expected, found, remedy.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env::consts::DLL_EXTENSION,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tamarack::{Device, LlmModelFactory, LoadOptions, ModelConfiguration, gpu::adapters, plugins::Registry};
use tamarack_api::Kind;
use tamarack_tests::{files::Gguf, models};

/// A tiny llama in a folder of its own, to be damaged.
struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    fn new() -> Model {
        let model = Model { folder: tempfile::tempdir().expect("a folder") };
        for name in ["config.json", "model.safetensors"] {
            fs::copy(tied().join(name), model.path().join(name)).expect("copied");
        }
        model
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn config(self, change: impl FnOnce(&mut Value)) -> Model {
        let path = self.path().join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut config);
        fs::write(path, config.to_string()).expect("written");
        self
    }

    /// With its tensors by name and shape; those that are new or of another shape hold zeros.
    fn tensors(self, change: impl FnOnce(&mut BTreeMap<String, Vec<usize>>)) -> Model {
        let path = self.path().join("model.safetensors");
        let bytes = fs::read(&path).expect("read");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut shapes = file.tensors().iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
        change(&mut shapes);
        let tensors = shapes.into_iter().map(|(name, shape)| {
            let data = match file.tensor(&name).ok().filter(|t| t.shape() == shape) {
                Some(tensor) => tensor.data().to_vec(),
                None => vec![0; shape.iter().product::<usize>() * 4],
            };
            (name, (shape, data))
        });
        let tensors: Vec<_> = tensors.collect();
        let views = tensors.iter().map(|(name, (shape, data))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("sizes agree"))
        });
        let bytes = safetensors::serialize(views, None).expect("serialised");
        fs::write(path, bytes).expect("written");
        self
    }

    /// Without a file.
    fn without(self, name: &str) -> Model {
        fs::remove_file(self.path().join(name)).expect("removed");
        self
    }

    /// With a file of any content.
    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Model {
        fs::write(self.path().join(name), bytes).expect("written");
        self
    }

    /// Why it cannot be loaded; its folder is `MODEL`.
    async fn error(self) -> String {
        error(self.path()).await.replace(&*self.path().to_string_lossy(), "MODEL")
    }
}

fn tied() -> PathBuf {
    models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("tied")
}

fn registry() -> Registry {
    let _ = tamarack_plugins::LINKED;
    Registry::linked()
}

fn reference() -> LoadOptions {
    LoadOptions::default().device(Device::Reference)
}

async fn error(path: &Path) -> String {
    error_with(registry(), path, reference()).await
}

async fn error_with(plugins: Registry, path: &Path, options: LoadOptions) -> String {
    let configuration = ModelConfiguration::parse(&path.to_string_lossy());
    match LlmModelFactory::new(plugins).load_container(&configuration, options).await {
        Ok(_) => panic!("{} loads", path.display()),
        Err(e) => e.to_string(),
    }
}

/// How the linked plugin's errors begin.
const LLAMA: &str = concat!("MODEL: llama (tamarack-llama ", env!("CARGO_PKG_VERSION"), ", linked): ");
const REMEDY: &str = ": do config.json and the weights belong together, and are all files there?";

#[tokio::test]
async fn a_model_that_is_whole_loads() {
    let whole = Model::new().config(|_| ()).tensors(|_| ());
    let configuration = ModelConfiguration::directory(whole.path());
    let loaded = LlmModelFactory::new(registry()).load_container(&configuration, reference()).await;
    assert!(loaded.is_ok(), "what the other tests change is damaged from the start: {:?}", loaded.err());
}

#[tokio::test]
async fn unknown_model_types() {
    let plugins = tempfile::tempdir().expect("a folder");
    let broken = plugins.path().join("broken").with_extension(DLL_EXTENSION);
    fs::write(&broken, "not a library").expect("written");
    let mut registry = registry();
    registry.load_dir(plugins.path());
    let model = Model::new().config(|c| c["model_type"] = json!("warp"));
    let (path, broken) = (model.path().display(), broken.display());
    let mut served: Vec<String> = registry.list().plugins.into_iter().flat_map(|p| p.model_types).collect();
    // A factory of language models names those, and none that takes images.
    served.retain(|t| registry.find(t).is_ok_and(|found| found.declaration().kind == Kind::Llm));
    served.sort();
    // The text of a `gemma3` is one plugin's, its images are another's.
    served.dedup();
    assert!(served.len() > 2 && served.contains(&"mistral".to_owned()), "{served:?}");
    let served = served.join(", ");
    assert_eq!(
        error_with(registry, model.path(), reference()).await,
        format!(
            "{path}: unsupported model_type `warp`: registered are {served}; a directory with a plugin for it \
             can be named in TAMARACK_PLUGIN_PATH; failed to load: {broken}: is not a dynamic library: take it \
             away, or copy it here again"
        )
    );
    for (model_type, found) in [(json!(null), "none"), (json!(3), "3")] {
        assert_eq!(
            Model::new().config(|c| c["model_type"] = model_type).error().await,
            format!("MODEL: config.json: expected a `model_type`, a text that names the architecture, found {found}")
        );
    }
}

#[tokio::test]
async fn absent_and_misshapen_tensors() {
    const Q: &str = "model.layers.1.self_attn.q_proj.weight";
    let absent = Model::new().tensors(|t| drop(t.remove(Q)));
    let expected = format!("{LLAMA}{Q}: expected [32, 32] by config.json, absent from the file{REMEDY}");
    assert_eq!(absent.error().await, expected);

    let misshapen = Model::new().tensors(|t| drop(t.insert(Q.into(), vec![16, 32])));
    let expected = format!("{LLAMA}{Q}: expected [32, 32] by config.json, file has [16, 32]{REMEDY}");
    assert_eq!(misshapen.error().await, expected);

    let many = Model::new().config(|c| c["num_hidden_layers"] = json!(5));
    let expected = format!(
        "{LLAMA}18 errors{REMEDY}
  model.layers.3.input_layernorm.weight: expected [32] by config.json, absent from the file
  model.layers.3.self_attn.q_proj.weight: expected [32, 32] by config.json, absent from the file
  model.layers.3.self_attn.k_proj.weight: expected [16, 32] by config.json, absent from the file
  model.layers.3.self_attn.v_proj.weight: expected [16, 32] by config.json, absent from the file
  model.layers.3.self_attn.o_proj.weight: expected [32, 32] by config.json, absent from the file
  and 13 more"
    );
    assert_eq!(many.error().await, expected);
}

/// What `transformers` leaves out with a warning, too: heads of other tasks, layers that predict further tokens, buffers.
#[tokio::test]
async fn unused_tensors_are_left_out_and_named() {
    let model = Model::new().tensors(|t| {
        t.insert("score.weight".into(), vec![1, 32]);
        t.insert("v_head.summary.weight".into(), vec![1, 32]);
        t.insert("v_head.summary.bias".into(), vec![1]);
        for i in 0..3 {
            t.insert(format!("model.layers.{i}.self_attn.masked_bias"), vec![1]);
            t.insert(format!("model.layers.{i}.self_attn.k_scale"), vec![1]);
        }
        // A layer that predicts a further token.
        for name in ["eh_proj.weight", "enorm.weight", "mlp.up_proj.weight"] {
            t.insert(format!("model.layers.3.{name}"), vec![32]);
        }
    });
    let expected = "12 tensors of 668 bytes: model.layers.*.self_attn.k_scale (3), model.layers.*.self_attn.masked_bias (3), \
                    model.layers.3.* (3), score.weight, v_head.* (2)";
    let load = |options| {
        let configuration = ModelConfiguration::directory(model.path());
        async move { LlmModelFactory::new(registry()).load_container(&configuration, options).await }
    };
    let container = load(reference()).await.unwrap();
    assert_eq!(container.model_info().unused.to_string(), expected);
    assert_eq!(container.model_info().unused.names().count(), 12);

    let e = load(reference().strict()).await.unwrap_err().to_string();
    let expected = "the architecture does not use 12 of the checkpoint's 41 tensors, the first is \
                    model.layers.0.self_attn.k_scale [1]: the model may be of another kind, or the plugin must `ignore` them";
    assert!(e.ends_with(expected), "{e}");
}

/// Without these the model would compute something else, and nobody would know why.
#[tokio::test]
async fn unused_tensors_of_what_is_computed_are_an_error() {
    for (name, shape) in [
        ("model.norm.bias", vec![32]),
        ("model.layers.1.self_attn.q_norm.weight", vec![8]),
        ("model.layers.1.self_attn.q_proj.weight_scale", vec![1]),
    ] {
        let e = Model::new().tensors(|t| drop(t.insert(name.into(), shape))).error().await;
        let start = format!("{LLAMA}the architecture does not use 1 tensor of ");
        assert!(e.starts_with(&start) && e.contains(&format!(": {name}, which would change")), "{e}");
    }
    for (layers, expected) in
        [(2, "9 tensors of 39.2 KiB: model.layers.2.* (9)"), (0, "27 tensors of 117.8 KiB: model.layers.* (27)")]
    {
        let e = Model::new().config(|c| c["num_hidden_layers"] = json!(layers)).error().await;
        let expected = format!(
            "{LLAMA}the architecture does not use {expected}, which would change what the model computes: config.json was not \
             understood (is its number of layers right?), or the model is of another kind; a plugin can `ignore` them"
        );
        assert_eq!(e, expected);
    }
}

#[tokio::test]
async fn fields_that_are_missing_or_wrong() {
    // It is 4096 then.
    for (field, value) in [("hidden_size", None), ("hidden_size", Some(json!(null)))] {
        let model = Model::new().config(|c| {
            let fields = c.as_object_mut().expect("an object");
            fields.remove(field);
            fields.extend(value.map(|value| (field.to_owned(), value)));
        });
        let expected = "29 errors: do config.json and the weights belong together, and are all files there?\n  \
                        model.embed_tokens.weight: expected [97, 4096] by config.json, file has [97, 32]";
        let e = model.error().await;
        assert!(e.starts_with(&format!("{LLAMA}{expected}")), "{e}");
    }
    for (field, value, expected) in [
        (
            "hidden_act",
            json!("mish"),
            "hidden_act: unknown variant `mish`, expected one of `silu`, `swish`, `gelu`, `gelu_python`, `gelu_accurate`, \
             `gelu_fast`, `gelu_new`, `gelu_python_tanh`, `gelu_pytorch_tanh`, `gelu_tanh`, `relu`, `sigmoid`, `tanh`, \
             `quick_gelu`",
        ),
        ("hidden_size", json!("wide"), r#"hidden_size: invalid type: string "wide", expected usize"#),
        ("rms_norm_eps", json!([1]), "rms_norm_eps: invalid type: sequence, expected f32"),
        ("vocab_size", json!(-1), "vocab_size: invalid value: integer `-1`, expected usize"),
        ("rope_theta", json!(-1), "rope_parameters.rope_theta: expected a positive number, found -1"),
        (
            "rope_scaling",
            json!({ "rope_type": "spiral" }),
            "rope_scaling.rope_type: unknown rope `spiral`: known are default, linear, dynamic, llama3, yarn, longrope",
        ),
        ("rope_scaling", json!({ "rope_type": "linear" }), "rope_scaling.factor: missing"),
    ] {
        let model = Model::new().config(|c| {
            c[field] = value;
            c["rope_parameters"] = json!(null);
        });
        assert_eq!(model.error().await, format!("{LLAMA}config.json: {expected}"));
    }
}

/// Numbers that no model has: nothing is allocated by them, and no loop runs to them.
#[tokio::test]
async fn absurd_fields() {
    let most = i32::MAX;
    let begun = Instant::now();
    for (fields, expected) in [
        (json!({ "head_dim": 1u64 << 40 }), "config.json: head_dim: expected 2147483647 at most, found 1099511627776"),
        (
            json!({ "num_attention_heads": u64::MAX }),
            "config.json: num_attention_heads: expected 2147483647 at most, found 18446744073709551615",
        ),
        (
            json!({ "head_dim": most }),
            "config.json: rope_parameters: a rope over 2147483646 of 2147483647 dimensions: expected 2 to 65536",
        ),
        (
            json!({ "partial_rotary_factor": 0 }),
            "config.json: rope_parameters: a rope over 0 of 8 dimensions: expected 2 to 65536",
        ),
        (
            json!({ "rope_scaling": { "rope_type": "linear", "factor": 0 } }),
            "config.json: rope_scaling: has frequencies that are not finite, none, or more than 32768",
        ),
        (json!({ "num_hidden_layers": most }), "at least 64 errors: do config.json"),
        (json!({ "num_hidden_layers": 0 }), "the architecture does not use 27 tensors of "),
        (
            json!({ "hidden_size": most, "num_attention_heads": most, "num_key_value_heads": most, "head_dim": 65536 }),
            "29 errors",
        ),
        (json!({ "num_key_value_heads": 0 }), "6 errors"),
        (json!({ "vocab_size": most }), "model.embed_tokens.weight: expected [2147483647, 32] by config.json"),
    ] {
        let model = Model::new().config(|c| c.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone()));
        let e = model.error().await;
        assert!(e.starts_with(&format!("{LLAMA}{expected}")), "{fields}: {e}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn damaged_files() {
    let gguf = Gguf::llama().bytes();
    let part = |n: usize| Model::new().file("model.gguf", &gguf[..n]);
    for (bytes, expected) in [
        (0, "the file is empty: download it again"),
        (100, "expected 11 tensors after offset 16, the rest of the file has room for 2: is it complete?"),
        (
            gguf.len() - 100,
            "blk.0.ffn_norm.weight: [32] from offset 39392 reaches past the file's 39420 bytes: is it complete?",
        ),
    ] {
        let model = part(bytes);
        let path = model.path().join("model.gguf");
        assert_eq!(error(&path).await, format!("{}: {expected}", path.display()));
    }
    let whole = fs::read(tied().join("model.safetensors")).expect("read");
    let half = Model::new().file("model.safetensors", &whole[..whole.len() - 32]);
    let e = half.error().await;
    assert!(e.starts_with("MODEL/model.safetensors: expected ") && e.ends_with(": is it complete?"), "{e}");
    let config = Model::new().file("config.json", r#"{"model_type": "#);
    assert_eq!(config.error().await, "MODEL/config.json: not JSON: EOF while parsing a value at line 1 column 15");
}

#[tokio::test]
async fn paths_with_no_model() {
    let none = || Model::new().without("config.json").without("model.safetensors");
    for (model, expected) in [
        (none(), "MODEL: expected config.json and *.safetensors, found nothing"),
        (
            none().file("notes.txt", ""),
            "MODEL: expected config.json and *.safetensors, found no config.json: is this a model's folder?",
        ),
        (
            none().file("a.gguf", ""),
            "MODEL: expected config.json and *.safetensors, found a.gguf: to read it, open that file",
        ),
        (
            Model::new().without("model.safetensors"),
            "MODEL: expected *.safetensors files, found none: is the model complete?",
        ),
    ] {
        assert_eq!(model.error().await, expected);
    }
    for path in ["/absent/model", "/absent/model.gguf"] {
        assert_eq!(
            error(Path::new(path)).await,
            format!(
                "{path}: there is no such file or folder: expected a model's folder, a .gguf file or the id of a model \
                 on the hub, ORGANISATION/NAME"
            )
        );
    }
    let model = Model::new().file("poem.txt", "a poem");
    let path = model.path().join("poem.txt");
    let expected = "expected a GGUF file or a model directory: the file does not begin with `GGUF`";
    assert_eq!(error(&path).await, format!("{}: {expected}", path.display()));
}

#[tokio::test]
async fn contexts_that_do_not_fit() {
    for (tokens, expected) in [
        (0, "context: expected at least 1 token, found 0"),
        (1 << 40, "context: expected 2147483647 tokens at most, found 1099511627776"),
    ] {
        assert_eq!(error_with(registry(), &tied(), reference().context(tokens)).await, expected);
    }
    let e = error_with(registry(), &tied(), reference().context(1 << 30)).await;
    let needed =
        "a context of 1073741824 tokens needs 393216 MiB of cache (384 bytes a token), this machine has room for ";
    assert!(e.starts_with(needed) && e.ends_with(" tokens: ask for a smaller context"), "{e}");

    // On an adapter it is a binding that is full first: 64 bytes a token in each layer.
    for (i, adapter) in adapters().iter().enumerate() {
        let limits = adapter.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let tokens = (most / 64 + 16) as usize / 16 * 16;
        let options = LoadOptions::default().device(Device::Named(i.to_string())).context(tokens);
        let (name, need, fit) = (adapter.get_info().name, tokens * 64, most / 64);
        assert_eq!(
            error_with(registry(), &tied(), options).await,
            format!(
                "{name}: a context of {tokens} tokens needs {need} bytes of cache in each layer, a binding holds \
                 {most}: ask for a context of at most {fit} tokens"
            )
        );
    }
}
