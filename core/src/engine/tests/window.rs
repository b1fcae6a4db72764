//! Caches that drop their oldest tokens.

use super::toy::{Bench, scrambled};
use crate::{GenerateParameters, exec::PAGE};

fn parameters(max_kv_size: usize, max_tokens: usize) -> GenerateParameters {
    let max_kv_size = Some(max_kv_size);
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, max_kv_size, ..Default::default() }
}

#[test]
fn generations_go_on_past_the_context() {
    // A context of 96 tokens, a prompt of 130 and an answer of 200.
    let mut bench = Bench::new(64, 6, scrambled());
    let prompt: Vec<u32> = (0..130).map(|i| 2 + i % 250).collect();
    let outcome = bench.run(&prompt, parameters(40, 200));
    assert_eq!((outcome.tokens.len(), outcome.reason().as_str()), (200, "length"));
    let log = bench.log.lock().unwrap();
    let rows: Vec<_> = log.steps.iter().flat_map(|s| s.rows.iter().map(|r| (*r, s.pages[r.table as usize]))).collect();
    assert!(rows.iter().enumerate().all(|(i, (row, _))| row.position[0] as usize == i), "every token, at its position");
    assert!(rows.iter().all(|(_, first)| *first == rows[0].1), "the first page is kept");
    let decoded = &rows[130..];
    assert!(decoded.iter().all(|(row, _)| (row.index as usize) <= 40), "no more than was asked for");
    assert!(decoded[20..].iter().all(|(row, _)| row.index as usize > 40 - PAGE), "and no less but for a page");
}

#[test]
fn what_fits_is_as_without() {
    let plain = Bench::new(64, 16, scrambled()).run(&[5; 20], parameters(200, 100));
    let expected =
        Bench::new(64, 16, scrambled()).run(&[5; 20], GenerateParameters { max_kv_size: None, ..parameters(200, 100) });
    assert_eq!(plain.tokens, expected.tokens);
    let bench = Bench::new(64, 2, scrambled());
    let e = bench.request(&[5], parameters(64, 9)).map(|_| ()).unwrap_err().to_string();
    assert_eq!(e, "max_kv_size: expected a context of 48 tokens at least, found 32");
}

#[test]
fn several_share_a_small_cache() {
    let mut bench = Bench::new(32, 12, scrambled());
    let mut readers: Vec<_> = (0..4).map(|i| bench.add(&[3 + i; 50], parameters(32, 80))).collect();
    bench.finish();
    for reader in &mut readers {
        assert_eq!(reader.read().tokens.len(), 80);
    }
}
