//! A draft model changes how fast tokens come, and not which.

use super::toy::{Bench, Next, Outcome, Reader, Toy, VOCABULARY, says, scrambled};
use crate::{GenerateCompletionInfo, GenerateParameters, model::Model};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// Wrong whenever the number of tokens is a multiple of `every`.
fn mostly(next: Next, every: usize) -> Next {
    Arc::new(move |tokens, seed, counter| {
        let right = next(tokens, seed, counter);
        if tokens.len().is_multiple_of(every) { (right + 1) % VOCABULARY as u32 } else { right }
    })
}

fn bench(rows: usize, pages: usize, next: Next, draft: Next) -> Bench {
    let mut bench = Bench::new(rows, pages, next);
    bench.model.draft = Some(Box::new(Model::new(Box::new(Toy::new(rows, pages, draft)))));
    bench
}

fn info(outcome: &Outcome) -> &GenerateCompletionInfo {
    outcome.end.as_ref().unwrap().as_ref().unwrap()
}

#[test]
fn what_is_right_is_accepted_and_nothing_else() {
    let greedy = GenerateParameters { max_tokens: Some(60), temperature: 0.0, ..Default::default() };
    let alone = Bench::new(64, 32, scrambled()).run(&[9; 7], greedy.clone());
    for (every, least) in [(1_000_000, 47), (5, 30), (2, 20), (1, 0)] {
        for draft_tokens in [1, 4, 9] {
            let mut bench = bench(64, 32, scrambled(), mostly(scrambled(), every));
            let found = bench.run(&[9; 7], GenerateParameters { draft_tokens, ..greedy.clone() });
            assert_eq!(found.tokens, alone.tokens, "{draft_tokens} at a time, wrong every {every}");
            let info = info(&found);
            assert!(info.accepted_draft_tokens <= info.proposed_draft_tokens, "{info:?}");
            let steps = bench.log.lock().unwrap().steps.len();
            assert_eq!(steps + info.accepted_draft_tokens, 60, "each step gives one token and what was accepted");
            if draft_tokens == 4 {
                assert!(info.accepted_draft_tokens >= least, "wrong every {every}: {info:?}");
            }
        }
    }
    let mut off = bench(64, 32, scrambled(), scrambled());
    let found = off.run(&[9; 7], GenerateParameters { draft_tokens: 0, ..greedy });
    assert_eq!(
        (found.tokens, info(&Outcome { end: found.end, ..Default::default() }).proposed_draft_tokens),
        (alone.tokens, 0)
    );
}

#[test]
fn together_and_however_tokens_are_chosen() {
    let mut rng = StdRng::seed_from_u64(21);
    let request = |i: u64| {
        let prompt: Vec<u32> = (0..rng.random_range(1..50)).map(|_| rng.random_range(2..VOCABULARY as u32)).collect();
        let p = GenerateParameters { max_tokens: Some(rng.random_range(1..40)), seed: Some(i), ..Default::default() };
        let p = match i % 4 {
            0 => GenerateParameters { temperature: 0.0, ..p },
            1 => GenerateParameters { temperature: 0.9, ..p },
            2 => GenerateParameters { temperature: 1.0, top_k: 3, ..p },
            _ => GenerateParameters { temperature: 0.0, presence_penalty: Some(3.0), draft_tokens: 2, ..p },
        };
        (prompt, p)
    };
    let requests: Vec<_> = (0..16).map(request).collect();
    let alone: Vec<_> =
        requests.iter().map(|(q, p)| Bench::new(64, 32, scrambled()).run(q, p.clone()).tokens).collect();
    for (rows, pages) in [(64, 128), (10, 128), (32, 12)] {
        let mut bench = bench(rows, pages, scrambled(), mostly(scrambled(), 3));
        let mut readers: Vec<Reader> = Vec::new();
        for (i, (prompt, p)) in requests.iter().enumerate() {
            readers.push(bench.add(prompt, p.clone()));
            (0..i % 3).for_each(|_| bench.turn());
        }
        bench.finish();
        for (i, (reader, alone)) in readers.iter_mut().zip(&alone).enumerate() {
            assert_eq!(&reader.read().tokens, alone, "request {i} with {rows} rows and {pages} pages");
        }
    }
}

#[test]
fn ends_are_found_among_accepted_tokens() {
    let p = GenerateParameters { temperature: 0.0, draft_tokens: 6, ..Default::default() };
    let mut bench = bench(32, 8, says("hello there"), says("hello there"));
    let outcome = bench.run(&[2], p.clone());
    assert_eq!((outcome.text.as_str(), outcome.reason().as_str()), ("hello there", "stop"));
    let outcome = bench.run(&[2], GenerateParameters { stop: vec!["o th".to_owned()], ..p.clone() });
    assert_eq!((outcome.text.as_str(), outcome.reason().as_str()), ("hell", "stop"));
    let outcome = bench.run(&[2], GenerateParameters { max_tokens: Some(5), ..p });
    assert_eq!((outcome.tokens.len(), outcome.reason().as_str()), (5, "length"));
}

#[test]
fn a_draft_model_that_fails_costs_speed_alone() {
    let p = GenerateParameters { max_tokens: Some(30), temperature: 0.0, ..Default::default() };
    let alone = Bench::new(64, 32, scrambled()).run(&[9; 7], p.clone()).tokens;
    for refused in [true, false] {
        let mut bench = Bench::new(64, 32, scrambled());
        let draft = Toy::new(64, 32, scrambled());
        {
            let mut log = draft.log.lock().unwrap();
            if refused { &mut log.fail_submit } else { &mut log.fail_collect }.insert(7);
        }
        bench.model.draft = Some(Box::new(Model::new(Box::new(draft))));
        assert_eq!(bench.run(&[9; 7], p.clone()).tokens, alone);
    }
    // Its own cache is too small for the prompt.
    let mut bench = Bench::new(64, 32, scrambled());
    bench.model.draft = Some(Box::new(Model::new(Box::new(Toy::new(64, 2, scrambled())))));
    let long = Bench::new(64, 32, scrambled()).run(&[9; 70], p.clone()).tokens;
    assert_eq!(bench.run(&[9; 70], p).tokens, long);
}
