//! Tiny model files, written by hand.

use tamarack::checkpoint::gguf::Value;

/// A GGUF file to be.
#[derive(Clone, Default)]
pub struct Gguf {
    /// Key-values.
    pub pairs: Vec<(String, Value)>,
    /// Tensors.
    pub tensors: Vec<GgufTensor>,
}

/// One tensor of it.
#[derive(Clone)]
pub struct GgufTensor {
    /// Its GGUF name.
    pub name: String,
    /// Dimensions, slowest first.
    pub shape: Vec<u64>,
    /// The number of its type.
    pub type_id: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Gguf {
    /// A llama of one layer: width 32, 2 heads of 16 and one key-value head, 8 tokens. Every
    /// element of a matrix is its stored row's number.
    pub fn llama() -> Gguf {
        let mut file = Gguf::default().text("general.architecture", "llama");
        for (key, n) in [
            ("block_count", 1),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("context_length", 128),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            file = file.number(&format!("llama.{key}"), n);
        }
        for (key, x) in [("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 10000.0)] {
            file.pairs.push((format!("llama.{key}"), Value::F64(x)));
        }
        file = file.number("tokenizer.ggml.eos_token_id", 2).number("tokenizer.ggml.eot_token_id", 3);
        let tokens = (0..8).map(|i| Value::String(format!("t{i}"))).collect();
        file.pairs.push(("tokenizer.ggml.tokens".into(), Value::Array(tokens)));
        for (name, rows, cols) in [
            ("token_embd", 8, 32),
            ("blk.0.attn_q", 32, 32),
            ("blk.0.attn_k", 16, 32),
            ("blk.0.attn_v", 16, 32),
            ("blk.0.attn_output", 32, 32),
            ("blk.0.ffn_gate", 64, 32),
            ("blk.0.ffn_up", 64, 32),
            ("blk.0.ffn_down", 32, 64),
        ] {
            let values = (0..rows * cols).map(|i| (i / cols) as f32);
            file = file.floats(&format!("{name}.weight"), &[rows, cols], values);
        }
        for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
            file = file.floats(&format!("{name}.weight"), &[32], (0..32).map(|_| 1.5));
        }
        file
    }

    /// With an integer.
    pub fn number(mut self, key: &str, n: u64) -> Gguf {
        self.pairs.push((key.into(), Value::U64(n)));
        self
    }

    /// With a text.
    pub fn text(mut self, key: &str, text: &str) -> Gguf {
        self.pairs.push((key.into(), Value::String(text.into())));
        self
    }

    /// With these tokens in place of its own.
    pub fn tokens(mut self, tokens: &[&str]) -> Gguf {
        let key = "tokenizer.ggml.tokens";
        let tokens = tokens.iter().map(|token| Value::String((*token).into())).collect();
        self.pairs.retain(|(other, _)| other != key);
        self.pairs.push((key.into(), Value::Array(tokens)));
        self
    }

    /// With a tensor of f32.
    pub fn floats(self, name: &str, shape: &[u64], values: impl IntoIterator<Item = f32>) -> Gguf {
        self.tensor(name, shape, 0, values.into_iter().flat_map(f32::to_le_bytes).collect())
    }

    /// With a tensor of any type.
    pub fn tensor(mut self, name: &str, shape: &[u64], type_id: u32, bytes: Vec<u8>) -> Gguf {
        self.tensors.push(GgufTensor { name: name.into(), shape: shape.to_vec(), type_id, bytes });
        self
    }

    /// With another architecture: every key's prefix changes too.
    pub fn renamed(mut self, arch: &str) -> Gguf {
        for (key, value) in &mut self.pairs {
            match key.strip_prefix("llama.") {
                Some(rest) => *key = format!("{arch}.{rest}"),
                None if key == "general.architecture" => *value = Value::String(arch.into()),
                None => {}
            }
        }
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            write_text(key, &mut out);
            out.extend(type_of(value).to_le_bytes());
            write_value(value, &mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            write_text(&tensor.name, &mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.bytes.len() as u64).next_multiple_of(32);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.bytes);
        }
        out
    }
}

fn type_of(value: &Value) -> u32 {
    match value {
        Value::F64(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 4,
        Value::I64(_) => 11,
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::F64(x) => out.extend((*x as f32).to_le_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::String(s) => write_text(s, out),
        Value::Array(items) => {
            out.extend(items.first().map_or(4, type_of).to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| write_value(item, out));
        }
        Value::U64(n) => out.extend((*n as u32).to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A safetensors file of (name, type, shape, bytes), one after the other.
pub fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [end, end + bytes.len()];
        end = offsets[1];
        header.insert((*name).into(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.3.clone()).collect();
    safetensors_with(&serde_json::Value::Object(header).to_string(), &data)
}

/// A safetensors file of any header and data.
pub fn safetensors_with(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}
