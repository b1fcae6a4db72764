//! Hostile GGUF files.

use tamarack::checkpoint::gguf::Value;
use tamarack_tests::files::Gguf;

use crate::Case;

/// A llama with a quantized table, so that block types are read too.
pub fn good() -> Gguf {
    let mut file = Gguf::llama();
    file.tensors[0].type_id = 8;
    file.tensors[0].bytes = (0..8 * 34).map(|i| i as u8).collect();
    file
}

fn le(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// A header by hand: counts, then whatever.
fn header(version: u32, tensors: u64, pairs: u64, rest: &[&[u8]]) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes()[..], &le(tensors), &le(pairs), &rest.concat()].concat()
}

pub fn headers() -> Vec<Case> {
    let huge = [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 62, 1 << 40, 1 << 32];
    let pad = [0u8; 64];
    let mut cases = vec![];
    let mut add = |name: String, bytes: Vec<u8>| cases.push((name, bytes));
    for version in [0, 1, 2, 4, 0x0300_0000, 0x0003_0000, u32::MAX] {
        add(format!("version {version}"), header(version, 0, 0, &[]));
    }
    for n in huge {
        add(format!("{n} tensors"), header(3, n, 0, &[&pad]));
        add(format!("{n} pairs"), header(3, 0, n, &[&pad]));
        add(format!("{n} of both"), header(3, n, n, &[&pad]));
        add(format!("key of {n}"), header(3, 0, 1, &[&le(n), &pad]));
        add(format!("text of {n}"), header(3, 0, 1, &[&le(1), b"k", &8u32.to_le_bytes(), &le(n), &pad]));
        for item in [0u32, 7, 8, 9, 12, 13] {
            let list = [&le(1)[..], b"k", &9u32.to_le_bytes(), &item.to_le_bytes(), &le(n), &pad].concat();
            add(format!("list of {n} of {item}"), header(3, 0, 1, &[&list]));
        }
        add(format!("tensor name of {n}"), header(3, 1, 0, &[&le(n), &pad]));
        for rank in [1u32, 2, 4] {
            let dims = le(n).repeat(rank as usize);
            let info = [&le(1)[..], b"t", &rank.to_le_bytes(), &dims, &[0; 12], &pad].concat();
            add(format!("{rank} dimensions of {n}"), header(3, 1, 0, &[&info]));
        }
        let info = [&le(1)[..], b"t", &1u32.to_le_bytes(), &le(4), &[0; 4], &le(n & !31), &pad].concat();
        add(format!("offset {n}"), header(3, 1, 0, &[&info]));
    }
    let nested = [&9u32.to_le_bytes()[..], &le(1)].concat();
    for depth in [2, 3, 100, 100_000] {
        let list = [&le(1)[..], b"k", &9u32.to_le_bytes(), &nested.repeat(depth)].concat();
        add(format!("lists {depth} deep"), header(3, 0, 1, &[&list]));
    }
    for rank in [0u32, 5, u32::MAX] {
        let info = [&le(1)[..], b"t", &rank.to_le_bytes(), &pad].concat();
        add(format!("rank {rank}"), header(3, 1, 0, &[&info]));
    }
    let text = |bytes: &[u8]| [&le(bytes.len() as u64)[..], bytes].concat();
    add("key not UTF-8".into(), header(3, 0, 1, &[&text(b"\xff\xfe"), &pad]));
    add("text not UTF-8".into(), header(3, 0, 1, &[&text(b"k"), &8u32.to_le_bytes(), &text(b"\xed\xa0\x80")]));
    add("name not UTF-8".into(), header(3, 1, 0, &[&text(b"\xc0\x80"), &pad]));
    add("endless key".into(), header(3, 0, 1, &[&text(&vec![b'k'; 70_000]), &pad]));
    add("bool of 2".into(), header(3, 0, 1, &[&text(b"k"), &7u32.to_le_bytes(), &[2], &pad]));
    add("value type 13".into(), header(3, 0, 1, &[&text(b"k"), &13u32.to_le_bytes(), &pad]));
    add("nothing".into(), vec![]);
    cases
}

pub fn contents() -> Vec<Case> {
    let mut cases = vec![];
    let mut add = |name: String, file: Gguf| cases.push((name, file.bytes()));
    let with = |key: &str, value: Value| {
        let mut file = good();
        file.pairs.retain(|(k, _)| k != key);
        file.pairs.push((key.into(), value));
        file
    };
    let sizes = ["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv"];
    let others = ["attention.key_length", "feed_forward_length", "rope.dimension_count", "attention.sliding_window"];
    for key in sizes.iter().chain(&others).map(|key| format!("llama.{key}")) {
        for n in [0, 1, 7, u32::MAX as u64] {
            add(format!("{key} {n}"), with(&key, Value::U64(n)));
        }
        for items in [0, 1, 3] {
            let list = Value::Array((0..items).map(Value::U64).collect());
            add(format!("{key} a list of {items}"), with(&key, list));
        }
        add(format!("{key} negative"), with(&key, Value::I64(-1)));
        add(format!("{key} text"), with(&key, Value::String("32".into())));
        add(format!("{key} infinite"), with(&key, Value::F64(f64::INFINITY)));
    }
    for n in [0, 1, 3, 33, 1 << 16, 1 << 31] {
        add(format!("alignment {n}"), with("general.alignment", Value::U64(n)));
        add(format!("split.count {n}"), with("split.count", Value::U64(n)));
        add(format!("split.no {n}"), with("split.no", Value::U64(n)));
        add(format!("eos {n}"), with("tokenizer.ggml.eos_token_id", Value::U64(n)));
    }
    for arch in ["", "gemma2", "gemma3", "phi3", "qwen2", "starcoder2", "../llama"] {
        add(format!("architecture {arch:?}"), good().renamed(arch));
    }
    for layers in [4096, u32::MAX as u64] {
        let file = with("llama.block_count", Value::U64(layers)).renamed("gemma3");
        add(format!("gemma3 of {layers} layers"), file);
    }
    for id in (0..45).chain([u32::MAX]) {
        let mut file = good();
        file.tensors[1].type_id = id;
        add(format!("type {id}"), file);
    }
    for name in ["blk.0.attn_q.weight", "blk.4294967296.attn_q.weight", "blk..", "", ".", "token_embd", "\u{1F9A5}"] {
        add(format!("tensor {name:?}"), good().floats(name, &[32, 32], [0.0; 1024]));
    }
    for (what, shape) in [("vector", &[32][..]), ("odd", &[3]), ("cube", &[2, 4, 4]), ("matrix", &[4, 8])] {
        add(format!("factors: {what}"), good().floats("rope_freqs.weight", shape, [1.0; 32]));
        add(format!("a bias: {what}"), good().floats("blk.0.attn_q.bias", shape, [1.0; 32]));
    }
    add("factors: not numbers".into(), good().floats("rope_freqs.weight", &[4], [f32::NAN; 4]));
    add("long factors alone".into(), good().floats("rope_factors_long.weight", &[4], [1.0; 4]));
    let mut broken = good();
    broken.tensors[0].bytes.fill(0xff);
    add("scales that are not numbers".into(), broken);
    cases
}

/// Tensors over each other: the offset of the second, rewritten.
pub fn overlapping() -> Vec<Case> {
    let file = Gguf::llama().floats("blk.0.attn_k.bias", &[16], [0.0; 16]);
    let bytes = file.bytes();
    let name = b"blk.0.attn_k.bias";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8 + 4;
    let offsets = [0, 32, 1, 17, 1 << 20, u64::MAX - 31, u64::MAX];
    let moved = offsets.map(|offset| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&le(offset));
        (format!("a tensor moved to {offset}"), bytes)
    });
    moved.to_vec()
}
