//! Hundreds of damaged and hostile model files, made here from tiny good ones: each opens, or fails
//! with an error. None panics, none makes us allocate what it merely claims.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tamarack::Result;
use tamarack::checkpoint::gguf;
use tamarack::checkpoint::{Checkpoint, Mapping};
use tamarack_tests::files::{Gguf, safetensors, safetensors_with};

/// Far above what tiny files need, far below what they claim.
const MAX_PEAK: usize = 64 << 20;

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator unchanged; counting touches atomics only.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// One file to be.
type Case = (String, Vec<u8>);

/// Opens and, if that succeeds, reads all there is. Says whether it opened.
fn try_out(name: &str, open: impl Fn() -> Result<Checkpoint>) -> bool {
    PEAK.store(NOW.load(Relaxed), Relaxed);
    let before = NOW.load(Relaxed);
    let opened = match open() {
        Ok(model) => {
            read_all(&model);
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 4000, "{name}: the error is endless");
            false
        }
    };
    let peak = PEAK.load(Relaxed) - before;
    assert!(peak < MAX_PEAK, "{name}: allocated {peak} bytes");
    opened
}

fn read_all(model: &Checkpoint) {
    let _ = model.config().to_string();
    for (_, tensor) in model.tensors() {
        let mut out = vec![0.0; tensor.cols()];
        (0..tensor.rows()).for_each(|row| tensor.row(row, &mut out));
        // A damaged scale is an error here; no more is asked.
        let _ = tensor.pack(0..tensor.rows(), &mut vec![], &mut vec![]);
    }
}

fn try_gguf(cases: &[Case]) -> usize {
    let open = |bytes: &Vec<u8>| Checkpoint::from_gguf(Path::new("m"), &[Mapping::from_bytes("m", bytes.clone())]);
    cases.iter().filter(|(name, bytes)| try_out(name, || open(bytes))).count()
}

fn try_safetensors(cases: &[Case]) -> usize {
    let config = json!({ "quantization": { "bits": 3, "group_size": 32 } });
    let open = |bytes: &Vec<u8>| {
        Checkpoint::from_safetensors(Path::new("m"), config.clone(), &[Mapping::from_bytes("m", bytes.clone())])
    };
    cases.iter().filter(|(name, bytes)| try_out(name, || open(bytes))).count()
}

/// Writes each case as `file` into a directory that is good otherwise.
fn try_directory(file: &str, cases: &[Case]) -> usize {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in good_directory() {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    std::fs::create_dir(dir.path().join("folder.safetensors")).unwrap();
    let opened = cases.iter().filter(|(name, bytes)| {
        std::fs::write(dir.path().join(file), bytes).unwrap();
        try_out(name, || Checkpoint::open(dir.path()))
    });
    opened.count()
}

/// `flips` copies with up to three bits flipped among the first `head` bytes, and `cuts` cut short.
fn damaged(what: &str, good: &[u8], head: usize, flips: usize, cuts: usize) -> Vec<Case> {
    let mut rng = StdRng::seed_from_u64(good.len() as u64);
    let head = head.min(good.len());
    let flipped = (0..flips).map(|i| {
        let mut bytes = good.to_vec();
        for _ in 0..=i % 3 {
            bytes[rng.random_range(0..head)] ^= 1 << rng.random_range(0..8);
        }
        (format!("{what}, flip {i}"), bytes)
    });
    let cut = (0..cuts).map(|i| {
        let end = if i % 4 == 3 { good.len() - 1 - i } else { head * i / cuts };
        (format!("{what}, cut to {end}"), good[..end].to_vec())
    });
    flipped.chain(cut).collect()
}

/// A llama with a quantized table, so that block types are read too.
fn good_gguf() -> Gguf {
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

fn hostile_gguf_headers() -> Vec<Case> {
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

fn hostile_gguf_contents() -> Vec<Case> {
    let good = good_gguf;
    let mut cases = vec![];
    let mut add = |name: String, file: Gguf| cases.push((name, file.bytes()));
    let with = |key: &str, value: gguf::Value| {
        let mut file = good();
        file.pairs.retain(|(k, _)| k != key);
        file.pairs.push((key.into(), value));
        file
    };
    let sizes = ["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv"];
    let others = ["attention.key_length", "feed_forward_length", "rope.dimension_count", "attention.sliding_window"];
    for key in sizes.iter().chain(&others).map(|key| format!("llama.{key}")) {
        for n in [0, 1, 7, u32::MAX as u64] {
            add(format!("{key} {n}"), with(&key, gguf::Value::U64(n)));
        }
        for items in [0, 1, 3] {
            let list = gguf::Value::Array((0..items).map(gguf::Value::U64).collect());
            add(format!("{key} a list of {items}"), with(&key, list));
        }
        add(format!("{key} negative"), with(&key, gguf::Value::I64(-1)));
        add(format!("{key} text"), with(&key, gguf::Value::String("32".into())));
        add(format!("{key} infinite"), with(&key, gguf::Value::F64(f64::INFINITY)));
    }
    for n in [0, 1, 3, 33, 1 << 16, 1 << 31] {
        add(format!("alignment {n}"), with("general.alignment", gguf::Value::U64(n)));
        add(format!("split.count {n}"), with("split.count", gguf::Value::U64(n)));
        add(format!("split.no {n}"), with("split.no", gguf::Value::U64(n)));
        add(format!("eos {n}"), with("tokenizer.ggml.eos_token_id", gguf::Value::U64(n)));
    }
    for arch in ["", "gemma2", "gemma3", "phi3", "qwen2", "starcoder2", "../llama"] {
        add(format!("architecture {arch:?}"), good().renamed(arch));
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
fn overlapping_gguf() -> Vec<Case> {
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

#[test]
fn files_of_every_kind() {
    // One test, so that the allocations of one case are not counted in another.
    let good = good_gguf().bytes();
    assert_eq!(try_gguf(&[("good".into(), good.clone())]), 1);
    let mut cases = damaged("gguf", &good, 1500, 400, 60);
    cases.extend(damaged("gguf data", &good, good.len(), 40, 0));
    try_gguf(&cases);
    let mut total = cases.len();
    for (cases, may_open) in [(hostile_gguf_headers(), 0), (hostile_gguf_contents(), 80), (overlapping_gguf(), 0)] {
        let opened = try_gguf(&cases);
        assert!(opened <= may_open, "{opened} of {} hostile files open", cases.len());
        total += cases.len();
    }

    let good = good_safetensors();
    assert_eq!(try_safetensors(&[("good".into(), good.clone())]), 1);
    let cases = damaged("safetensors", &good, good.len() - 300, 400, 60);
    try_safetensors(&cases);
    total += cases.len();
    let cases = hostile_safetensors();
    assert_eq!(try_safetensors(&cases), 0, "a hostile file opens");
    total += cases.len();

    for (file, cases, may_open) in [
        ("model.safetensors.index.json", index_cases(), 60),
        ("config.json", config_cases(), 150),
        ("generation_config.json", damaged("generation config", b"{\"eos_token_id\": [1, 2]}", 99, 20, 8), 99),
    ] {
        let opened = try_directory(file, &cases);
        assert!(opened <= may_open, "{file}: {opened} of {} damaged files open", cases.len());
        total += cases.len();
    }
    println!("{total} mangled files");
    assert!(total >= 200);
}

fn good_safetensors() -> Vec<u8> {
    safetensors(&[
        ("a.weight", "U32", &[2, 3], (0..24).collect()),
        ("a.scales", "F16", &[2, 1], vec![0, 0x3c, 0, 0x38]),
        ("a.biases", "F16", &[2, 1], vec![0, 0xbc, 0, 0]),
        ("norm.weight", "BF16", &[4], (0..8).collect()),
        ("odd.weight", "F16", &[2, 1, 3], (0..12).collect()),
        ("head.weight", "F32", &[2, 2], (0..16).collect()),
    ])
}

fn good_directory() -> Vec<(&'static str, Vec<u8>)> {
    let map = json!({ "a.weight": "one.safetensors", "head.weight": "one.safetensors" });
    vec![
        ("config.json", config(json!(3), json!(32)).to_string().into_bytes()),
        ("model.safetensors.index.json", json!({ "weight_map": map }).to_string().into_bytes()),
        ("one.safetensors", good_safetensors()),
    ]
}

fn config(bits: Value, group: Value) -> Value {
    json!({ "model_type": "llama", "quantization": { "bits": bits, "group_size": group, "b": false } })
}

fn hostile_safetensors() -> Vec<Case> {
    let entry = |dtype: &str, shape: &str, start: &str, end: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |entry: String| format!(r#"{{"t":{entry}}}"#);
    let (max, big) = ("18446744073709551615", "18446744073709551616");
    let half = "2305843009213693951";
    let mut headers = vec![
        "".into(),
        "{".into(),
        "[]".into(),
        "null".into(),
        "[".repeat(200_000),
        r#"{"t":"#.repeat(100_000),
        r#"{"\ud800":1}"#.into(),
        r#"{"__metadata__":{"a":1}}"#.into(),
        r#"{"__metadata__":{},"__metadata__":{}}"#.into(),
        one("1".into()),
        one("{}".into()),
        one(entry("F33", "[2]", "0", "8")),
        one(entry("F32", "[2]", "0", "4")),
        one(entry("F32", "[2]", "8", "0")),
        one(entry("F32", "[2]", "4", "12")),
        one(entry("F32", "[2]", "-8", "0")),
        one(entry("F32", "[2]", "0", "8.0")),
        one(entry("F32", "[-2]", "0", "8")),
        one(entry("F32", "2", "0", "8")),
        one(entry("F32", "[2", "0", "8")),
        one(entry("F32", "[2]", "0", max)),
        one(entry("F32", "[2]", max, max)),
        one(entry("F32", "[2]", "0", big)),
        one(entry("F4", "[1]", "0", "1")),
        one(entry("F32", &format!("[{max}]"), "0", "8")),
        one(entry("F32", &format!("[{max},{max}]"), "0", "8")),
        one(entry("U8", &format!("[{half}]"), "0", half)),
        one(entry("F32", "[4294967296,4294967296,4294967296]", "0", "8")),
    ];
    // Two over each other, one twice, a hole between two.
    let a = entry("F32", "[2]", "0", "8");
    headers.push(format!(r#"{{"a":{a},"b":{a}}}"#));
    headers.push(format!(r#"{{"a":{a},"b":{}}}"#, entry("F32", "[1]", "4", "8")));
    headers.push(format!(r#"{{"a":{a},"b":{}}}"#, entry("F32", "[1]", "12", "16")));
    headers.push(format!(r#"{{"a":{a},"a":{}}}"#, entry("F32", "[1]", "8", "12")));
    // Each size is possible, their sum wraps round to the size of the file.
    let parts: Vec<_> = (0..8u64)
        .map(|i| (i * ((1 << 61) - 1), (i + 1) * ((1 << 61) - 1)))
        .map(|(s, e)| entry("U8", "[2305843009213693951]", &s.to_string(), &e.to_string()))
        .collect();
    let parts: Vec<_> = parts.iter().enumerate().map(|(i, entry)| format!(r#""t{i}":{entry}"#)).collect();
    headers.push(format!("{{{}}}", parts.join(",")));
    let mut cases: Vec<Case> = headers
        .into_iter()
        .map(|h| (format!("header {}", h.chars().take(80).collect::<String>()), safetensors_with(&h, &[0; 8])))
        .collect();
    for length in [0, 1, 9, 100_000_001, 1 << 40, 1 << 63, u64::MAX - 7, u64::MAX] {
        cases.push((format!("header of {length}"), [&le(length)[..], b"{}"].concat()));
    }
    for n in 0..8 {
        cases.push((format!("{n} bytes"), vec![0; n]));
    }
    cases.push(("not UTF-8".into(), [&le(2)[..], b"\xff\xff"].concat()));
    cases.push(("more data than promised".into(), safetensors_with("{}", &[0; 8])));
    cases.extend(hostile_mlx());
    cases
}

/// Parts of a quantized tensor that do not fit each other.
fn hostile_mlx() -> Vec<Case> {
    let parts = |weight: &[usize], scales: &[usize], dtype: &str, biases: &[usize]| {
        let bytes = |shape: &[usize], size: usize| vec![1; shape.iter().product::<usize>() * size];
        let size = if dtype == "U8" { 1 } else { 2 };
        safetensors(&[
            ("w.weight", "U32", weight, bytes(weight, 4)),
            ("w.scales", dtype, scales, bytes(scales, size)),
            ("w.biases", dtype, biases, bytes(biases, size)),
        ])
    };
    let cases = [
        ("words", parts(&[2, 4], &[2, 1], "F16", &[2, 1])),
        ("rows", parts(&[2, 3], &[3, 1], "F16", &[3, 1])),
        ("ranks", parts(&[2, 3], &[2], "F16", &[2])),
        ("scalars", parts(&[], &[], "F16", &[])),
        ("biases", parts(&[2, 3], &[2, 1], "F16", &[1, 2])),
        ("scale type", parts(&[2, 3], &[2, 1], "U8", &[2, 1])),
        ("no groups", parts(&[2, 0], &[2, 0], "F16", &[2, 0])),
    ];
    let without = safetensors(&[("w.weight", "U32", &[2, 3], vec![0; 24]), ("w.scales", "F16", &[2, 1], vec![0; 4])]);
    cases.into_iter().chain([("no biases", without)]).map(|(name, bytes)| (format!("mlx: {name}"), bytes)).collect()
}

fn index_cases() -> Vec<Case> {
    let (_, good) = good_directory().remove(1);
    let mut cases = damaged("index", &good, good.len(), 60, 12);
    let targets =
        ["", ".", "..", "/", "../one.safetensors", "a/b.safetensors", "a\\b.safetensors", "c:one.safetensors"];
    let files =
        ["none.safetensors", "folder.safetensors", "config.json", "model.safetensors.index.json", "\u{0}.safetensors"];
    for target in targets.iter().chain(&files) {
        let json = json!({ "weight_map": { "head.weight": target } });
        cases.push((format!("index to {target:?}"), json.to_string().into_bytes()));
    }
    for json in [json!(null), json!([]), json!({}), json!({ "weight_map": [] }), json!({ "weight_map": { "t": 1 } })] {
        cases.push((format!("index {json}"), json.to_string().into_bytes()));
    }
    let many: serde_json::Map<_, _> =
        (0..5000).map(|i| (format!("t{i}"), json!(format!("f{i}.safetensors")))).collect();
    cases.push(("index of 5000 absent files".into(), json!({ "weight_map": many }).to_string().into_bytes()));
    cases.push(("index nested".into(), "{\"weight_map\":".repeat(100_000).into_bytes()));
    cases
}

fn config_cases() -> Vec<Case> {
    let (_, good) = good_directory().remove(0);
    let mut cases = damaged("config", &good, good.len(), 100, 12);
    let values =
        [json!(null), json!(0), json!(-3), json!(1e300), json!(u64::MAX), json!("3"), json!([3]), json!(3.5), json!(7)];
    for value in values {
        cases.push((format!("bits {value}"), config(value.clone(), json!(32)).to_string().into_bytes()));
        cases.push((format!("group {value}"), config(json!(3), value).to_string().into_bytes()));
    }
    for json in
        [json!(null), json!(3), json!({}), json!({ "quantization": [] }), json!({ "quantization": { "bits": 3 } })]
    {
        cases.push((format!("config {json}"), json.to_string().into_bytes()));
    }
    cases.push(("config nested".into(), "[".repeat(1_000_000).into_bytes()));
    cases.push(("config not UTF-8".into(), b"{\"a\":\"\xff\"}".to_vec()));
    cases
}
