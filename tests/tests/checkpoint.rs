//! Model files of every format, from disk to rows.

use std::path::Path;

use serde_json::{Value, json};
use tamarack::Result;
use tamarack::checkpoint::gguf;
use tamarack::checkpoint::{Checkpoint, Mapping, Tensor, unpack};
use tamarack_kernels::Format;
use tamarack_tests::files::{Gguf, safetensors};

fn open_gguf(file: &Gguf) -> Result<Checkpoint> {
    Checkpoint::from_gguf(Path::new("m.gguf"), &[Mapping::from_bytes("m.gguf", file.bytes())])
}

fn rows(tensor: &Tensor) -> Vec<f32> {
    let mut out = vec![0.0; tensor.rows() * tensor.cols()];
    out.chunks_exact_mut(tensor.cols()).enumerate().for_each(|(row, out)| tensor.row(row, out));
    out
}

/// What the device gets, read back.
fn packed(tensor: &Tensor) -> Vec<f32> {
    let (mut quants, mut scales) = (vec![], vec![]);
    tensor.pack(0..tensor.rows(), &mut quants, &mut scales).unwrap();
    let mut out = vec![0.0; tensor.rows() * tensor.cols()];
    unpack(tensor.format(), tensor.cols(), &quants, &scales, &mut out);
    out
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn error(result: Result<Checkpoint>) -> String {
    result.err().expect("an error").to_string()
}

/// A folder with `config`, the parts of a golden case under a module's name, and whatever else.
fn folder_of(case: &str, module: &str, config: &Value, others: &[(&str, Value)], more: &[&str]) -> tempfile::TempDir {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let bytes =
        ["foreign.safetensors", "foreign_zeros.safetensors"].map(|name| std::fs::read(goldens.join(name)).unwrap());
    let mut parts = vec![];
    for bytes in &bytes {
        for (name, view) in safetensors::SafeTensors::deserialize(bytes).unwrap().tensors() {
            if let Some(rest) = name.strip_prefix(case).filter(|rest| rest.starts_with('.') && *rest != ".values") {
                parts.push((format!("{module}{rest}"), view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    let number = |name: &&str| (format!("{module}.{name}"), safetensors::Dtype::F32, vec![], f32s([0.5]));
    parts.extend(more.iter().map(number));
    let views = parts.iter().map(|(name, dtype, shape, data)| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("model.safetensors", safetensors::serialize(views, None).unwrap());
    write("config.json", config.to_string().into_bytes());
    others.iter().for_each(|(name, content)| write(name, content.to_string().into_bytes()));
    folder
}

/// The values of a golden case.
fn values_of(case: &str) -> Vec<f32> {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let bytes =
        ["foreign.safetensors", "foreign_zeros.safetensors"].map(|name| std::fs::read(goldens.join(name)).unwrap());
    let files = bytes.iter().map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let view = files.filter_map(|file| Some(file.tensor(&format!("{case}.values")).ok()?.data().to_vec())).next();
    view.unwrap().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Methods that config.json leaves out, and numbers about activations beside weights, which are no tensors of the model.
#[test]
fn what_quantizers_say_beside_config_json_is_heard() {
    let v2 = json!({ "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2" });
    let gptq = json!({ "quantization_config": { "quant_method": "gptq", "bits": 4, "group_size": 64 } });
    let modelopt = json!({ "producer": { "name": "modelopt" }, "quantization": { "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8" } });
    let round = json!({ "quant_method": "auto-round", "packing_format": "auto_round" });
    let scales = &["input_scale", "k_scale", "v_scale", "q_scale", "prob_output_scale", "output_scale"][..];
    for (case, config, file, content, more) in [
        ("gptq_as_it_is_4", json!({}), "quantize_config.json", v2.clone(), &[][..]),
        ("gptq_as_it_is_4", gptq, "quantize_config.json", v2, &[]),
        ("gptq_as_it_is_3", json!({}), "quantization_config.json", round, &[]),
        ("modelopt", json!({}), "hf_quant_config.json", modelopt, scales),
    ] {
        let folder = folder_of(case, "model.layers.0.mlp.up_proj", &config, &[(file, content)], more);
        let model = Checkpoint::open(folder.path()).unwrap();
        let names: Vec<&str> = model.tensors().map(|(name, _)| name).collect();
        assert_eq!(names, ["model.layers.0.mlp.up_proj.weight"], "{case} {file}");
        let (found, wanted) = (rows(model.get(names[0]).unwrap()), values_of(case));
        let off = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(off < 1e-6, "{case} {file}: off by {off}");
    }
    let config = json!({ "quantization_config": { "quant_method": "quark" } });
    let folder = folder_of("ct_fp8", "model.layers.0.self_attn.k_proj", &config, &[], scales);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().tensors().count(), 1);
}

#[test]
fn numbers_beside_matrices_of_a_gguf_are_factors_or_refused() {
    let plain = open_gguf(&Gguf::llama()).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    let one = |value: f32| Gguf::llama().floats("blk.0.ffn_up.scale", &[1], [value]);
    let model = open_gguf(&one(0.375).floats("blk.0.ffn_up.input_scale", &[1], [9.0])).unwrap();
    assert_eq!(model.tensors().count(), plain.tensors().count());
    let (tensor, wanted) = (model.get(name).unwrap(), rows(plain.get(name).unwrap()));
    let wanted: Vec<f32> = wanted.into_iter().map(|v| v * 0.375).collect();
    assert_eq!((rows(tensor), packed(tensor)), (wanted.clone(), wanted));
    for (file, message) in [
        (
            Gguf::llama().floats("blk.0.ffn_up.scale", &[3], [1.0; 3]),
            "blk.0.ffn_up.scale: expected one number, or one for each expert",
        ),
        (one(f32::NAN), "blk.0.ffn_up.scale: expected finite numbers, found NaN"),
        (
            Gguf::llama().floats("blk.0.ffn_on.scale", &[1], [1.0]),
            "blk.0.ffn_on.scale: architecture `llama` has no such tensor",
        ),
    ] {
        let error = error(open_gguf(&file));
        assert!(error.contains(message), "{error}");
    }
}

/// By their texts as well as by their keys; gpt-oss' `<|end|>` ends no generation, where the others are there.
#[test]
fn tokens_that_end_a_generation_are_in_the_config() {
    for (tokens, wanted) in [
        (&["t0", "<|im_end|>", "t2", "t3", "t4", "</s>", "t6", "t7"][..], json!([2, 1, 3, 5])),
        (&["t0", "<|end|>", "<|return|>", "<|call|>", "t4", "t5", "t6", "t7"], json!([2, 3])),
        (&["t0", "<|end|>", "<|return|>", "t3", "t4", "t5", "t6", "t7"], json!([2, 1, 3])),
        // The table has fewer rows than there are tokens.
        (&["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "<|eot_id|>"], json!([2, 3])),
    ] {
        let model = open_gguf(&Gguf::llama().tokens(tokens)).unwrap();
        assert_eq!(model.config()["eos_token_id"], wanted, "{tokens:?}");
    }
}

#[test]
fn types_of_ropes_that_llama_cpp_does_not_know_are_refused() {
    let error = error(open_gguf(&Gguf::llama().text("llama.rope.scaling.type", "su")));
    assert!(error.contains("llama.rope.scaling.type: expected none, linear, yarn or longrope, found `su`"), "{error}");
}

#[test]
fn a_gguf_becomes_a_huggingface_model() {
    let model = open_gguf(&Gguf::llama()).unwrap();
    let want = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "vocab_size": 8, "tie_word_embeddings": true, "eos_token_id": [2, 3],
    });
    assert_eq!(*model.config(), want);
    let names: Vec<_> = model.tensors().map(|(name, _)| name.trim_start_matches("model.layers.0.")).collect();
    let want = [
        "model.embed_tokens.weight",
        "input_layernorm.weight",
        "mlp.down_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "post_attention_layernorm.weight",
        "self_attn.k_proj.weight",
        "self_attn.o_proj.weight",
        "self_attn.q_proj.weight",
        "self_attn.v_proj.weight",
        "model.norm.weight",
    ];
    assert_eq!(names, want);
    assert!(model.metadata().unwrap().array("tokenizer.ggml.tokens").is_some());
}

/// transformers' and llama.cpp's definition: `w.reshape(heads, 2, d / 2, ..).swapaxes(1, 2)` was stored.
#[test]
fn rows_of_q_and_k_are_put_back() {
    let stored: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let file = Gguf::llama().floats("blk.0.attn_q.bias", &[32], stored);
    let model = open_gguf(&file).unwrap();
    let q = model.get("model.layers.0.self_attn.q_proj.weight").unwrap();
    let bias = model.get("model.layers.0.self_attn.q_proj.bias").unwrap();
    let (d, mut want) = (16, vec![]);
    for head in 0..2 {
        for half in 0..2 {
            want.extend((0..d / 2).map(|pair| (head * d + 2 * pair + half) as f32));
        }
    }
    let spread: Vec<f32> = want.iter().flat_map(|v| [*v; 32]).collect();
    assert_eq!((rows(q), packed(q)), (spread.clone(), spread));
    assert_eq!((rows(bias), packed(bias)), (want.clone(), want));
    let v = model.get("model.layers.0.self_attn.v_proj.weight").unwrap();
    assert_eq!(rows(v)[32], 1.0);
}

#[test]
fn a_part_of_the_rows_packs_to_that_part_of_the_words() {
    let blocks = (0..8u8).flat_map(|r| [0x00, 0x38 + r].into_iter().chain((0..16).map(move |i| i * 16 + r)));
    let mut file = Gguf::llama();
    file.tensors[0].type_id = 2;
    file.tensors[0].bytes = blocks.collect();
    let model = open_gguf(&file).unwrap();
    let table = model.get("model.embed_tokens.weight").unwrap();
    assert_eq!(table.kind().to_string(), "Q4_0");
    assert_eq!(table.bytes(), 8 * 18);
    assert_eq!(rows(table), packed(table));
    let (mut all, mut part) = ((vec![], vec![]), (vec![], vec![]));
    table.pack(0..8, &mut all.0, &mut all.1).unwrap();
    table.pack(3..5, &mut part.0, &mut part.1).unwrap();
    assert_eq!(part.0, all.0[3 * 4..5 * 4]);
    assert_eq!(part.1, all.1[3..5]);
}

#[test]
fn gemma_norms_lose_the_one_that_was_added() {
    let file = Gguf::llama().renamed("gemma3").floats("blk.0.post_ffw_norm.weight", &[32], [1.25; 32]);
    let model = open_gguf(&file).unwrap();
    let norm = model.get("model.layers.0.post_feedforward_layernorm.weight").unwrap();
    assert_eq!((rows(norm), packed(norm)), (vec![0.25; 32], vec![0.25; 32]));
    assert_eq!(norm.format(), Format::F32);
    let config = model.config();
    assert_eq!(config["model_type"], "gemma3_text");
    assert_eq!(config["layer_types"], json!(["sliding_attention"]));
    assert_eq!(config["rope_local_base_freq"], json!(10000.0));
    assert!(model.get("model.layers.0.pre_feedforward_layernorm.weight").is_some());
}

#[test]
fn rope_scaling_comes_from_tensors_and_metadata() {
    let with = |file: Gguf| open_gguf(&file).unwrap().config().clone();
    let factors = Gguf::llama().floats("rope_freqs.weight", &[8], (1..9).map(|i| i as f32));
    let config = with(factors);
    let want = json!({ "rope_type": "factors", "factors": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] });
    assert_eq!(config["rope_scaling"], want);

    let long = Gguf::llama()
        .floats("rope_factors_long.weight", &[2], [4.0, 8.0])
        .floats("rope_factors_short.weight", &[2], [1.0, 1.5])
        .number("llama.rope.scaling.original_context_length", 64);
    let config = with(long);
    let want = json!({ "rope_type": "longrope", "long_factor": [4.0, 8.0], "short_factor": [1.0, 1.5] });
    assert_eq!(config["rope_scaling"], want);
    assert_eq!(config["original_max_position_embeddings"], 64);

    let mut linear = Gguf::llama().text("llama.rope.scaling.type", "linear");
    linear.pairs.push(("llama.rope.scaling.factor".into(), gguf::Value::F64(8.0)));
    assert_eq!(with(linear)["rope_scaling"], json!({ "rope_type": "linear", "factor": 8.0 }));
}

#[test]
fn metadata_tells_mistral_and_mixtral_from_llama() {
    let mistral = Gguf::llama().number("llama.attention.sliding_window", 4096);
    let config = open_gguf(&mistral).unwrap().config().clone();
    assert_eq!((&config["model_type"], &config["sliding_window"]), (&json!("mistral"), &json!(4096)));
    let mixtral = Gguf::llama().number("llama.expert_count", 8);
    let message = error(open_gguf(&mixtral));
    assert!(message.contains("blk.0.ffn_down.weight: architecture `llama` has no such tensor"), "{message}");
}

#[test]
fn errors_of_a_gguf_name_the_tensor_or_key() {
    let llama = Gguf::llama();
    let twice = llama.tensors[1].clone();
    let mut duplicate = llama.clone();
    duplicate.tensors.push(twice);
    for (file, want) in [
        (llama.clone().renamed("frobnicate"), "`frobnicate` is not supported; supported are llama, granite"),
        (llama.clone().tensor("blk.0.attn_k.bias", &[256], 29, vec![0; 56]), "blk.0.attn_k.bias: type IQ1_M (29)"),
        (llama.clone().tensor("blk.0.attn_k.bias", &[31], 8, vec![0; 34]), "blk.0.attn_k.bias: expected a last"),
        (llama.clone().tensor("blk.0.attn_k.bias", &[64], 8, vec![0; 34]), "blk.0.attn_k.bias: [64] from offset"),
        (llama.clone().floats("blk.0.attn_k.bias", &[9], [0.0; 9]), "9 rows are not heads of 16 rows"),
        (llama.clone().floats("blk.0.mystery.weight", &[1], [0.0]), "blk.0.mystery.weight: architecture `llama`"),
        (duplicate, "blk.0.attn_q.weight: the tensor is there twice"),
        (llama.clone().number("llama.block_count", 1), "llama.block_count: the key is there twice"),
        (llama.clone().number("general.alignment", 3), "general.alignment: expected a power of two"),
        (llama.clone().number("split.count", 2), "split.count: the model has 2 files, found 1"),
        (Gguf::default(), "general.architecture: expected text, found none"),
        (Gguf::default().text("general.architecture", "llama"), "llama.block_count: expected a positive integer"),
    ] {
        let message = error(open_gguf(&file));
        assert!(message.starts_with("m.gguf: ") && message.contains(want), "{message}\nlacks: {want}");
    }
}

#[test]
fn a_split_gguf_opens_from_any_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Gguf::llama().number("split.count", 2).number("split.no", 0).number("split.tensors.count", 11);
    let mut second = Gguf::default().number("split.count", 2).number("split.no", 1);
    second.tensors = first.tensors.split_off(4);
    let path = |i| dir.path().join(format!("m-0000{i}-of-00002.gguf"));
    std::fs::write(path(1), first.bytes()).unwrap();
    let message = error(Checkpoint::open(&path(1)));
    assert!(message.contains("m-00002-of-00002.gguf: absent"), "{message}");
    std::fs::write(path(2), second.bytes()).unwrap();
    for i in [1, 2] {
        let model = Checkpoint::open(&path(i)).unwrap();
        assert_eq!(model.tensors().count(), 11);
        assert_eq!(model.config()["model_type"], "llama");
    }
    std::fs::write(path(2), first.bytes()).unwrap();
    assert!(error(Checkpoint::open(&path(1))).contains("split.no: expected 1, found 0"));
}

fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

fn text(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[test]
fn a_directory_of_float_and_quantized_tensors() {
    let quantized = text(json!({ "model_type": "llama", "quantization": { "bits": 8, "group_size": 32 } }));
    let words: Vec<u8> = (0..64).collect();
    let file = safetensors(&[
        ("a.weight", "U32", &[2, 8], words),
        ("a.scales", "F32", &[2, 1], f32s([0.5, 0.25])),
        ("a.biases", "F32", &[2, 1], f32s([-1.0, 2.0])),
        ("a.bias", "BF16", &[2], vec![0x80, 0x3f, 0, 0x40]),
        ("conv.weight", "F16", &[1, 1, 3], vec![0, 0x3c, 0, 0x40, 0, 0x42]),
        ("ids", "I64", &[1], vec![0; 8]),
        ("empty", "F32", &[0, 4], vec![]),
        ("scalar", "F32", &[], f32s([7.0])),
    ]);
    let dir = directory(&[
        ("config.json", quantized),
        ("generation_config.json", b"{".to_vec()),
        ("model.safetensors", file),
        ("consolidated.safetensors", b"not looked at".to_vec()),
    ]);
    let model = Checkpoint::open(dir.path()).unwrap();
    assert!(model.generation_config().is_none());
    let names: Vec<_> = model.tensors().map(|(name, tensor)| format!("{name} {}", tensor.kind())).collect();
    assert_eq!(names, ["a.bias bf16", "a.weight mlx 8-bit g32", "conv.weight f16", "scalar f32"]);
    assert_eq!(model.unreadable("ids"), Some("type I64 is not supported"));
    assert!(model.unreadable("empty").is_some() && model.unreadable("a.weight").is_none());
    let a = model.get("a.weight").unwrap();
    assert_eq!((a.shape(), a.bytes()), (&[2, 32][..], 64 + 8 + 8));
    let want: Vec<f32> =
        (0..64u8).map(f32::from).map(|q| if q < 32.0 { 0.5 * q - 1.0 } else { 0.25 * q + 2.0 }).collect();
    assert_eq!((rows(a), packed(a)), (want.clone(), want));
    for (name, want) in [("a.bias", &[1.0f32, 2.0][..]), ("conv.weight", &[1.0, 2.0, 3.0]), ("scalar", &[7.0])] {
        let tensor = model.get(name).unwrap();
        assert_eq!((&rows(tensor)[..], &packed(tensor)[..]), (want, want), "{name}");
    }
    // Three 16-bit elements a row do not fill words.
    assert_eq!(model.get("conv.weight").unwrap().format(), Format::F32);
    assert_eq!(model.get("a.bias").unwrap().format(), Format::Bf16);
}

#[test]
fn an_index_says_which_file_holds_what() {
    let one =
        |name: &str, value| safetensors(&[(name, "F32", &[1], f32s([value])), ("both", "F32", &[1], f32s([value]))]);
    let index = |map: Value| text(json!({ "metadata": {}, "weight_map": map }));
    let files = |map: Value| {
        directory(&[
            ("config.json", b"{}".to_vec()),
            ("one.safetensors", one("a", 1.0)),
            ("two.safetensors", one("b", 2.0)),
            ("model.safetensors.index.json", index(map)),
        ])
    };
    let good = json!({ "a": "one.safetensors", "b": "two.safetensors", "both": "two.safetensors" });
    let dir = files(good);
    let model = Checkpoint::open(dir.path()).unwrap();
    let values: Vec<_> = model.tensors().map(|(name, tensor)| (name, rows(tensor)[0])).collect();
    assert_eq!(values, [("a", 1.0), ("b", 2.0), ("both", 2.0)]);
    // A tensor that the named file lacks is taken from the file that has it.
    let dir = files(
        json!({ "a": "two.safetensors", "b": "two.safetensors", "both": "one.safetensors", "c": "one.safetensors" }),
    );
    let model = Checkpoint::open(dir.path()).unwrap();
    let values: Vec<_> = model.tensors().map(|(name, tensor)| (name, rows(tensor)[0])).collect();
    assert_eq!(values, [("a", 1.0), ("b", 2.0), ("both", 1.0)]);
    for (map, want) in [
        (json!({ "a": "../one.safetensors" }), "a: expected a .safetensors file in this folder"),
        (json!({ "a": "/etc/passwd" }), "a: expected a .safetensors file in this folder"),
        (json!({ "a": 3 }), "a: expected a .safetensors file in this folder, found 3"),
        (json!(["a"]), "expected an object `weight_map`"),
    ] {
        let message = error(Checkpoint::open(files(map).path()));
        assert!(message.contains(want), "{message}\nlacks: {want}");
    }
}

#[test]
fn errors_of_a_directory_name_file_and_tensor() {
    let file = safetensors(&[("x.qweight", "I32", &[1], vec![0; 4]), ("y", "F32", &[1], vec![0; 4])]);
    let packed = safetensors(&[("x.weight", "U32", &[1, 4], vec![0; 16]), ("x.scales", "U8", &[1, 1], vec![0])]);
    let gptq = text(json!({ "quantization_config": { "quant_method": "gptq", "bits": 4, "group_size": 128 } }));
    let hqq = text(json!({ "quantization_config": { "quant_method": "hqq" } }));
    let foreign = safetensors(&[("x.W_q", "U8", &[4], vec![0; 4])]);
    let mode = text(json!({ "quantization": { "bits": 4, "group_size": 32, "mode": "mxfp9" } }));
    let empty = || b"{}".to_vec();
    let half = file[..file.len() - 3].to_vec();
    for (files, want) in [
        (
            vec![("model.safetensors", file.clone())],
            "expected config.json and *.safetensors, found no config.json: is this a model's folder?",
        ),
        (vec![("m.gguf", vec![])], "expected config.json and *.safetensors, found m.gguf: to read it, open that file"),
        (vec![("config.json", b"[]".to_vec())], "config.json: expected a JSON object"),
        (vec![("config.json", empty())], "expected *.safetensors files, found none"),
        (vec![("config.json", gptq), ("model.safetensors", file)], "x.weight: expected `x.scales` beside its weight"),
        (vec![("config.json", hqq), ("model.safetensors", foreign)], "x.W_q: quantization `hqq` is not supported; use"),
        (vec![("config.json", mode), ("m.safetensors", packed.clone())], "x.weight: quantization mode `mxfp9`"),
        (vec![("config.json", empty()), ("m.safetensors", packed)], "x.weight: config.json has no `quantization`"),
        (vec![("config.json", empty()), ("m.safetensors", half)], "expected 8 bytes of tensors, file has 5"),
        (vec![("config.json", empty()), ("m.safetensors", vec![])], "m.safetensors: the file is empty"),
    ] {
        let message = error(Checkpoint::open(directory(&files).path()));
        assert!(message.contains(want), "{message}\nlacks: {want}");
    }
    assert!(error(Checkpoint::open(Path::new("/nowhere/m.gguf"))).contains("/nowhere/m.gguf"));
}

#[test]
fn a_file_that_is_something_else_is_called_that() {
    let config = || ("config.json", b"{}".to_vec());
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n".to_vec();
    for (name, bytes, want) in [
        ("model.safetensors", pointer.clone(), "model.safetensors: this is a Git LFS pointer"),
        ("model.safetensors", b"<!DOCTYPE html><title>Log in</title>".to_vec(), "this is an HTML page"),
        ("model.safetensors", b"\n  <HTML>".to_vec(), "this is an HTML page"),
        ("model.safetensors", vec![], "the file is empty: download it again"),
        ("model.safetensors", b"GGUF\x03\0\0\0\0\0\0\0\0".to_vec(), "the file is a GGUF file"),
        ("model.safetensors", b"PK\x03\x04\x14\0\0\0\0\0".to_vec(), "the file is a ZIP archive"),
        ("model.safetensors.index.json", pointer.clone(), "index.json: this is a Git LFS pointer"),
    ] {
        let message = error(Checkpoint::open(directory(&[config(), (name, bytes)]).path()));
        assert!(message.contains(want), "{message}\nlacks: {want}");
    }
    for (config, want) in [
        (pointer, "config.json: this is a Git LFS pointer"),
        (b"\xff\xfe{\0}\0".to_vec(), "the file is text in UTF-16: save it as UTF-8"),
        (vec![], "config.json: the file is empty"),
    ] {
        let message = error(Checkpoint::open(directory(&[("config.json", config)]).path()));
        assert!(message.contains(want), "{message}\nlacks: {want}");
    }
}

#[test]
fn other_float_types_are_read_and_the_rest_is_named() {
    let doubles: Vec<u8> = [0.1f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = safetensors(&[
        ("double", "F64", &[2], doubles),
        ("eight", "F8_E4M3", &[2], vec![0x38, 0xb9]),
        ("five", "F8_E5M2", &[2], vec![0x3c, 0xbd]),
        ("flags", "BOOL", &[2], vec![0, 1]),
    ]);
    let model = |config: Value| {
        let dir = directory(&[("config.json", text(config)), ("model.safetensors", file.clone())]);
        Checkpoint::open(dir.path()).unwrap()
    };
    let plain = model(json!({}));
    let values = |name| rows(plain.get(name).unwrap());
    assert_eq!(values("double"), [0.1, -2.0]);
    assert_eq!(values("eight"), [1.0, -1.125]);
    assert_eq!(values("five"), [1.0, -1.25]);
    assert_eq!(plain.unreadable("flags"), Some("type BOOL is not supported"));
    // What config.json calls quantized means nothing without scales.
    let quantized = model(json!({ "quantization_config": { "quant_method": "fp8" } }));
    assert_eq!(quantized.unreadable("eight"), Some("type F8_E4M3 without a scale beside it"));
}

/// A real file against an independent conversion of it: `TAMARACK_GGUF` is the file, `TAMARACK_HF`
/// the directory that a converter made of it in f32. Too large to keep.
#[test]
#[ignore = "needs TAMARACK_GGUF and TAMARACK_HF"]
fn a_real_gguf_and_the_directory_converted_from_it_agree() {
    let open = |key| Checkpoint::open(Path::new(&std::env::var_os(key).expect(key))).unwrap();
    let (gguf, directory) = (open("TAMARACK_GGUF"), open("TAMARACK_HF"));
    let names = |model: &Checkpoint| model.tensors().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&gguf), names(&directory));
    for (name, got) in gguf.tensors() {
        let want = directory.get(name).unwrap();
        assert_eq!(got.shape(), want.shape(), "{name}");
        assert!(rows(got) == rows(want), "{name}: {}", got.kind());
        let largest = rows(want).iter().fold(0f32, |m, v| m.max(v.abs()));
        let off = packed(got).iter().zip(rows(want)).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= largest / 1000.0, "{name}: {} {off} of {largest}", got.kind());
    }
    for (key, want) in directory.config().as_object().unwrap() {
        if let Some(got) = gguf.config().get(key) {
            assert_eq!(got, want, "{key}");
        }
    }
}
