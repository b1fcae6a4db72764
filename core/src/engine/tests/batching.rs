//! Any number of generations together give what each gives alone.

use super::toy::{Bench, Outcome, Reader, VOCABULARY, says, scrambled};
use crate::{
    GenerateParameters,
    exec::{PAGE, Token},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeSet;

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ..Default::default() }
}

/// Prompts and parameters of every kind.
fn requests(rng: &mut StdRng) -> Vec<(Vec<u32>, GenerateParameters)> {
    let request = |i: usize| {
        let prompt = (0..rng.random_range(1..60)).map(|_| rng.random_range(2..VOCABULARY as u32)).collect();
        let mut parameters = greedy(rng.random_range(1..50));
        parameters.seed = Some(i as u64 + (3 << 32));
        parameters.prefill_step = [None, None, Some(7)][i / 3 % 3];
        match i % 3 {
            0 => parameters.temperature = 0.7,
            1 => (parameters.temperature, parameters.top_k) = (1.0, 3),
            _ => {}
        }
        (prompt, parameters)
    };
    (0..24).map(request).collect()
}

#[test]
fn together_as_alone() {
    let requests = requests(&mut StdRng::seed_from_u64(11));
    let alone: Vec<Outcome> =
        requests.iter().map(|(prompt, p)| Bench::new(64, 32, scrambled()).run(prompt, p.clone())).collect();
    for (outcome, (_, p)) in alone.iter().zip(&requests) {
        assert_eq!((outcome.tokens.len(), outcome.reason().as_str()), (p.max_tokens.unwrap(), "length"));
    }
    // With few rows prompts are cut into many steps; with few pages sequences wait, and give way.
    for (rows, pages) in [(64, 200), (8, 200), (13, 24), (64, 12), (9, 7)] {
        let mut bench = Bench::new(rows, pages, scrambled());
        let mut readers: Vec<Reader> = Vec::new();
        for (i, (prompt, p)) in requests.iter().enumerate() {
            readers.push(bench.add(prompt, p.clone()));
            (0..i % 4).for_each(|_| bench.turn());
        }
        bench.finish();
        for (i, (reader, alone)) in readers.iter_mut().zip(&alone).enumerate() {
            let together = reader.read();
            assert_eq!(together.tokens, alone.tokens, "request {i} with {rows} rows and {pages} pages");
            assert_eq!(together.text, alone.text, "request {i}");
            let info = together.end.unwrap().unwrap();
            assert_eq!((info.prompt_tokens, info.generation_tokens), (requests[i].0.len(), alone.tokens.len()));
        }
        let log = bench.log.lock().unwrap();
        assert!(log.steps.iter().all(|s| s.rows.len() <= rows && !s.rows.is_empty()));
        assert!(log.ahead.iter().all(|n| *n < 2), "three steps in flight");
    }
}

#[test]
fn full_caches_let_the_oldest_go_on() {
    // Each asks for all of the cache: nobody could run beside another if it were reserved.
    let mut bench = Bench::new(32, 8, scrambled());
    let parameters = GenerateParameters { max_tokens: None, ..greedy(0) };
    let mut readers: Vec<Reader> = (0..3).map(|i| bench.add(&[5 + i; 20], parameters.clone())).collect();
    (0..8).for_each(|_| bench.turn());
    assert!(readers.iter_mut().take(2).all(|r| r.read().tokens.len() > 2), "two run together");
    bench.finish();
    for reader in &mut readers {
        let info = reader.read().end.unwrap().unwrap();
        assert_eq!(info.prompt_tokens + info.generation_tokens, 8 * PAGE);
    }
}

#[test]
fn one_step_ahead() {
    let mut bench = Bench::new(32, 8, scrambled());
    bench.run(&[5, 6, 7], greedy(10));
    let log = bench.log.lock().unwrap();
    let tokens: Vec<Token> = log.steps.iter().flat_map(|s| s.rows.iter().map(|r| r.token)).collect();
    assert_eq!(tokens[..3], [5, 6, 7].map(Token::Id));
    assert!(tokens.len() == 12 && tokens[3..].iter().all(|t| matches!(t, Token::Sampled(_))), "{tokens:?}");
    assert_eq!(log.ahead, [[0].as_slice(), &[1; 9]].concat());
}

#[test]
fn what_the_host_samples_stays_in_one_batch() {
    let mut bench = Bench::new(32, 32, scrambled());
    // Without a seed it might draw the end.
    let filtered = GenerateParameters { temperature: 1.0, min_p: 0.1, ignore_eos: true, ..greedy(20) };
    let first = bench.add(&[9; 3], filtered.clone());
    bench.turn();
    let second = bench.add(&[8; 3], filtered);
    bench.finish();
    drop((first, second));
    let log = bench.log.lock().unwrap();
    assert_eq!(log.steps.len(), 21, "20 tokens each, the second begins a step later");
    assert!(log.ahead.iter().all(|n| *n == 0));
}

#[test]
fn a_long_prompt_holds_nobody_up() {
    let mut bench = Bench::new(16, 32, scrambled());
    let mut first = bench.add(&[5; 4], greedy(100));
    (0..4).for_each(|_| bench.turn());
    let second = bench.add(&[6; 200], greedy(2));
    let before = first.read().tokens.len();
    (0..12).for_each(|_| bench.turn());
    assert!(before + first.read().tokens.len() >= before + 11, "a token in each step");
    bench.finish();
    drop(second);
    let log = bench.log.lock().unwrap();
    let mixed = log.steps.iter().filter(|s| s.rows.iter().map(|r| r.first).collect::<BTreeSet<_>>().len() == 2);
    assert!(mixed.count() >= 13);
}

#[test]
fn who_comes_first_runs_first() {
    // Three pages: the first two take one each and one to grow by; the large one waits, and so does
    // the small one behind it.
    let mut bench = Bench::new(64, 4, scrambled());
    let prompts = [4, 4, 40, 1];
    let mut readers: Vec<Reader> = prompts.iter().map(|n| bench.add(&vec![5; *n], greedy(8))).collect();
    let mut order = Vec::new();
    while order.len() < prompts.len() {
        bench.turn();
        for (i, reader) in readers.iter_mut().enumerate() {
            if !order.contains(&i) && !reader.read().tokens.is_empty() {
                order.push(i);
            }
        }
    }
    assert_eq!(order, [0, 1, 2, 3]);
    bench.finish();
}

#[test]
fn a_row_that_was_run_ahead_is_thrown_away() {
    let mut bench = Bench::new(32, 8, says("hi"));
    let outcome = bench.run(&[2], greedy(100));
    assert_eq!((outcome.text.as_str(), outcome.reason().as_str()), ("hi", "stop"));
    assert_eq!(outcome.tokens.len(), 2, "the end-of-sequence token is not shown");
    let rows: usize = bench.log.lock().unwrap().steps.iter().map(|s| s.rows.len()).sum();
    assert_eq!(rows, 4, "the prompt, two tokens, and the row after the last");
    // Its slot and its pages serve the next one at once.
    assert_eq!(bench.run(&[2], greedy(100)).text, "hi");
}
