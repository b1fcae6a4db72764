//! Ropes whose frequencies depend on the length of a sequence: keys are those that a prompt of the present length would have.

use super::toy::{Bench, Next, Toy, scrambled};
use crate::{GenerateParameters, PromptCache, exec::RopeLengths, model::Model};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Weak;
use tamarack_api::{LongRope, RopeSpec};

/// Where the frequencies change.
const AFTER: usize = 24;

fn long() -> RopeSpec {
    RopeSpec { long: Some(LongRope { after: AFTER, inv_freq: vec![0.5; 4], scale: None }), ..RopeSpec::new(8, 1e4) }
}

/// A toy with such a rope, whose keys say which frequencies they were made with.
fn bench(rope: RopeSpec, rows: usize, pages: usize, next: Next) -> Bench {
    let mut bench = Bench::new(rows, pages, next.clone());
    let ropes = RopeLengths::new(std::slice::from_ref(&rope));
    let toy = Toy::new(rows, pages, next).with_rope(rope);
    bench.log = toy.log.clone();
    bench.model = Model::new(Box::new(toy)).with_ropes(ropes);
    bench
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ignore_eos: true, ..Default::default() }
}

/// What follows where all keys are made for the length that a sequence has by then.
fn expected(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..n {
        let keys: Vec<u32> = tokens.iter().map(|t| Toy::key(Some(&long()), *t, tokens.len() as u32)).collect();
        tokens.push(scrambled()(&keys, 0, 0));
    }
    tokens.split_off(prompt.len())
}

#[test]
fn the_limit_is_passed_while_generating() {
    for length in [1, AFTER - 5, AFTER - 1, AFTER, AFTER + 1, AFTER + 9] {
        let prompt: Vec<u32> = (2..2 + length as u32).collect();
        for rows in [4, 8, 64] {
            let found = bench(long(), rows, 8, scrambled()).run(&prompt, greedy(40)).tokens;
            assert_eq!(found, expected(&prompt, 40), "{length} tokens, steps of {rows}");
        }
    }
}

#[test]
fn a_batch_passes_it_each_at_its_time() {
    let mut bench = bench(long(), 16, 12, scrambled());
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| (0..3 + 5 * i).map(|t| 2 + (t * 7 + i) % 200).collect()).collect();
    let mut readers: Vec<_> = prompts.iter().map(|p| bench.add(p, greedy(30))).collect();
    bench.finish();
    for (reader, prompt) in readers.iter_mut().zip(&prompts) {
        assert_eq!(reader.read().tokens, expected(prompt, 30), "{} tokens", prompt.len());
    }
}

#[test]
fn a_draft_model_passes_it_too() {
    for draft_tokens in 1..6 {
        let mut bench = bench(long(), 64, 8, scrambled());
        let draft = Toy::new(64, 8, scrambled()).with_rope(long());
        bench.model.draft = Some(Box::new(Model::new(Box::new(draft)).with_ropes(RopeLengths::new(&[long()]))));
        let prompt: Vec<u32> = (2..12).collect();
        let mut reader = bench.add(&prompt, GenerateParameters { draft_tokens, ..greedy(30) });
        bench.finish();
        let outcome = reader.read();
        assert_eq!(outcome.tokens, expected(&prompt, 30), "{draft_tokens} at a time");
        let info = outcome.end.unwrap().unwrap();
        assert!(info.accepted_draft_tokens + 2 >= info.proposed_draft_tokens, "it drafts for itself: {info:?}");
    }
}

/// Random turns from kept caches, longer and shorter than before, are as without a cache.
#[test]
fn kept_caches_are_used_where_their_keys_serve() {
    let mut rng = StdRng::seed_from_u64(13);
    let mut bench = bench(long(), 16, 40, scrambled());
    let caches: Vec<PromptCache> = (0..3).map(|_| PromptCache::new(Weak::new())).collect();
    let mut texts: Vec<Vec<u32>> = vec![vec![5]; 3];
    let mut cached = 0;
    for turn in 0..150 {
        let i = rng.random_range(0..3);
        let kept = rng.random_range(1..=texts[i].len().min(60));
        texts[i].truncate(kept);
        texts[i].extend((0..rng.random_range(0..12)).map(|_| rng.random_range(2..250)));
        let n = rng.random_range(1..20);
        let mut reader = bench.add_from(&texts[i], greedy(n), &caches[i]);
        bench.finish();
        let outcome = reader.read();
        let alone = self::bench(long(), 64, 40, scrambled()).run(&texts[i], greedy(n)).tokens;
        assert_eq!(outcome.tokens, alone, "turn {turn}: {} tokens and {n}", texts[i].len());
        cached += outcome.end.unwrap().unwrap().cached_prompt_tokens;
        texts[i].extend(outcome.tokens);
    }
    assert!(cached > 300, "{cached}");
}

#[test]
fn it_is_passed_where_pages_are_short_and_where_old_ones_are_dropped() {
    let mut bench = bench(long(), 16, 5, scrambled());
    let prompts: Vec<Vec<u32>> = (0..4).map(|i| (0..15).map(|t| 2 + t * 3 + i).collect()).collect();
    let mut readers: Vec<_> = prompts.iter().map(|p| bench.add(p, greedy(25))).collect();
    bench.finish();
    for (reader, prompt) in readers.iter_mut().zip(&prompts) {
        assert_eq!(reader.read().tokens, expected(prompt, 25));
    }

    // Of more tokens than there is room for, the keys that are left are those of the long factors.
    let mut bench = self::bench(long(), 64, 8, scrambled());
    let outcome = bench.run(&prompts[0], GenerateParameters { max_kv_size: Some(48), ..greedy(200) });
    assert_eq!((outcome.tokens.len(), &outcome.tokens[..30]), (200, &expected(&prompts[0], 30)[..]));
}
