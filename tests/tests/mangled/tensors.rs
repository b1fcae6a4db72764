//! Hostile safetensors files.

use tamarack_tests::files::{safetensors, safetensors_with};

use crate::Case;

pub fn good() -> Vec<u8> {
    safetensors(&[
        ("a.weight", "U32", &[2, 3], (0..24).collect()),
        ("a.scales", "F16", &[2, 1], vec![0, 0x3c, 0, 0x38]),
        ("a.biases", "F16", &[2, 1], vec![0, 0xbc, 0, 0]),
        ("norm.weight", "BF16", &[4], (0..8).collect()),
        ("odd.weight", "F16", &[2, 1, 3], (0..12).collect()),
        ("head.weight", "F32", &[2, 2], (0..16).collect()),
    ])
}

pub fn hostile() -> Vec<Case> {
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
    for length in [0u64, 1, 9, 100_000_001, 1 << 40, 1 << 63, u64::MAX - 7, u64::MAX] {
        cases.push((format!("header of {length}"), [&length.to_le_bytes()[..], b"{}"].concat()));
    }
    for n in 0..8 {
        cases.push((format!("{n} bytes"), vec![0; n]));
    }
    cases.push(("not UTF-8".into(), [&2u64.to_le_bytes()[..], b"\xff\xff"].concat()));
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
