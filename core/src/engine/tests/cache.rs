//! What one generation has computed serves the next.

use super::toy::{Bench, Outcome, Toy, VOCABULARY, scrambled};
use crate::{Error, GenerateParameters, PromptCache, exec::PAGE};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Weak;

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), temperature: 0.0, ..Default::default() }
}

fn rows(bench: &Bench) -> usize {
    bench.log.lock().unwrap().steps.iter().map(|s| s.rows.len()).sum()
}

/// The outcome, how many rows were computed for it, and how many tokens it says were there.
fn run(bench: &mut Bench, prompt: &[u32], cache: &PromptCache) -> (Outcome, usize, usize) {
    let before = rows(bench);
    let mut reader = bench.add_from(prompt, greedy(10), cache);
    bench.finish();
    let outcome = reader.read();
    let cached = outcome.end.as_ref().unwrap().as_ref().unwrap().cached_prompt_tokens;
    (outcome, rows(bench) - before, cached)
}

fn alone(prompt: &[u32]) -> Vec<u32> {
    Bench::new(32, 32, scrambled()).run(prompt, greedy(10)).tokens
}

#[test]
fn a_common_beginning_is_not_computed_again() {
    let mut bench = Bench::new(32, 32, scrambled());
    let cache = PromptCache::new(Weak::new());
    let first: Vec<u32> = (2..42).collect();
    let (outcome, computed, cached) = run(&mut bench, &first, &cache);
    assert_eq!((outcome.tokens.clone(), cached), (alone(&first), 0));
    // The last token was chosen and not fed, unless a step ran ahead.
    assert!((49..=50).contains(&computed) && cache.len() >= 49, "{computed}");

    let next = [&first[..], &outcome.tokens, &[77, 78, 79]].concat();
    let kept = cache.len();
    let (outcome, computed, cached) = run(&mut bench, &next, &cache);
    assert_eq!((outcome.tokens, cached), (alone(&next), kept));
    assert!(computed <= next.len() - kept + 10, "{computed}");

    // Another continuation of the first twenty, and the very same prompt again.
    let other = [&first[..20], &[90; 9]].concat();
    let (outcome, _, cached) = run(&mut bench, &other, &cache);
    assert_eq!((outcome.tokens, cached), (alone(&other), 20));
    let (outcome, _, cached) = run(&mut bench, &other, &cache);
    assert_eq!((outcome.tokens, cached), (alone(&other), other.len() - 1), "the last token gives the logits");

    assert_eq!(cache.trim(usize::MAX), other.len() + 10 - usize::from(cache.len() < other.len() + 10));
    let (outcome, _, cached) = run(&mut bench, &other, &cache);
    assert_eq!((outcome.tokens, cached), (alone(&other), 0));
}

#[test]
fn random_conversations_are_as_without() {
    let mut rng = StdRng::seed_from_u64(8);
    for pages in [64, 9] {
        let mut bench = Bench::new(16, pages, scrambled());
        let caches: Vec<PromptCache> = (0..3).map(|_| PromptCache::new(Weak::new())).collect();
        let mut histories = vec![vec![3; 5]; 3];
        for _ in 0..40 {
            let i = rng.random_range(0..3);
            let history = &mut histories[i];
            if rng.random_bool(0.3) {
                history.truncate(rng.random_range(1..=history.len()));
            }
            history.extend((0..rng.random_range(1..6)).map(|_| rng.random_range(2..VOCABULARY as u32)));
            history.truncate(6 * PAGE);
            let (outcome, ..) = run(&mut bench, history, &caches[i]);
            assert_eq!(outcome.tokens, alone(history), "{pages} pages");
            history.extend(outcome.tokens);
        }
    }
}

#[test]
fn a_cache_that_is_in_use_is_left_alone() {
    let mut bench = Bench::new(32, 32, scrambled());
    let cache = PromptCache::new(Weak::new());
    let prompt: Vec<u32> = (2..30).collect();
    let mut readers: Vec<_> = (0..3).map(|_| bench.add_from(&prompt, greedy(10), &cache)).collect();
    bench.finish();
    readers.iter_mut().for_each(|r| assert_eq!(r.read().tokens, alone(&prompt)));
    assert!(cache.len() >= prompt.len() + 9);
}

/// Whoever had something on a lost device is told, and nothing of it is used again.
#[test]
fn a_lost_device_takes_all_that_was_kept_along() {
    let mut bench = Bench::new(32, 32, scrambled());
    let [kept, used] = [(); 2].map(|()| PromptCache::new(Weak::new()));
    run(&mut bench, &[5; 40], &kept);
    let mut running = [bench.add_from(&[6; 30], greedy(50), &used), bench.add(&[7; 9], greedy(50))];
    (0..5).for_each(|_| bench.turn());
    bench.model.lose_device();
    bench.finish();
    for reader in &mut running {
        let outcome = reader.read();
        assert!(!outcome.tokens.is_empty());
        assert!(matches!(outcome.end, Some(Err(Error::DeviceLost(_)))), "{:?}", outcome.end);
    }
    assert_eq!(bench.model.pool.free(), 32);
    assert!(kept.peek(|_, sequence| sequence.is_none()) && used.is_empty());
    // A toy has no files from which it could be loaded anew, and that goes on like this.
    for _ in 0..2 {
        let reason = bench.run(&[3; 3], greedy(5)).reason();
        assert_eq!(reason, "toy: the device was lost, and the model has no files to be loaded from");
    }
    // On another device its caches hold nothing, and are of use again.
    let toy = Toy::new(32, 32, scrambled());
    bench.log = toy.log.clone();
    bench.model.executor = Box::new(toy);
    for (prompt, cache) in [([5; 40], &kept), ([6; 40], &used)] {
        let (outcome, _, cached) = run(&mut bench, &prompt, cache);
        assert_eq!((outcome.tokens, cached), (alone(&prompt), 0));
        assert!(cache.len() >= 49);
    }
}

#[test]
fn caches_give_way_to_those_who_run() {
    let mut bench = Bench::new(32, 8, scrambled());
    let [old, new] = [(); 2].map(|()| PromptCache::new(Weak::new()));
    run(&mut bench, &[5; 40], &old);
    run(&mut bench, &[6; 30], &new);
    let long = vec![7; 5 * PAGE];
    assert_eq!(bench.run(&long, greedy(10)).tokens, alone(&long));
    let (_, _, cached) = run(&mut bench, &[5; 40], &old);
    assert_eq!(cached, 0, "the one that was used longest ago went first");
    // One that nobody has any more goes before all others.
    drop(old);
    run(&mut bench, &[6; 30], &new);
    bench.run(&vec![7; 4 * PAGE], greedy(10));
    let (_, _, cached) = run(&mut bench, &[6; 30], &new);
    assert_eq!(cached, 29);
}
