//! How generations end.

use super::toy::{Bench, EOS, Reader, says, scrambled};
use crate::{GenerateParameters, exec::PAGE};
use std::sync::atomic::Ordering;

fn greedy() -> GenerateParameters {
    GenerateParameters { temperature: 0.0, ..Default::default() }
}

#[test]
fn texts_end_as_they_should() {
    let stop = |stops: &[&str]| stops.iter().map(|s| (*s).to_owned()).collect::<Vec<String>>();
    for (says_, stops, max_tokens, text, reason) in [
        ("hello there", stop(&[]), None, "hello there", "stop"),
        ("hello there", stop(&["o th"]), None, "hell", "stop"),
        ("hello there", stop(&["re", "lo"]), None, "hel", "stop"),
        ("hello there", stop(&["there!"]), None, "hello there", "stop"),
        ("hello there", stop(&["here is"]), Some(8), "hello ther", "length"),
        ("é€", stop(&[]), Some(2), "é\u{fffd}", "length"),
        ("hello", stop(&[]), Some(0), "", "length"),
    ] {
        let parameters = GenerateParameters { stop: stops, max_tokens, ..greedy() };
        let outcome = Bench::new(32, 8, says(says_)).run(&[2], parameters);
        assert_eq!((outcome.text.as_str(), outcome.reason().as_str()), (text, reason), "{says_} {max_tokens:?}");
    }
}

#[test]
fn the_end_of_a_sequence_can_be_ignored() {
    let parameters = GenerateParameters { ignore_eos: true, max_tokens: Some(6), ..greedy() };
    let outcome = Bench::new(32, 8, says("a")).run(&[2], parameters);
    assert_eq!((&outcome.tokens[1..], outcome.reason().as_str()), ([EOS; 5].as_slice(), "length"));
    assert_eq!(outcome.text, "a");
}

#[test]
fn a_context_is_full_when_it_is() {
    let outcome = Bench::new(32, 2, scrambled()).run(&[2; 20], greedy());
    assert_eq!((outcome.tokens.len(), outcome.reason().as_str()), (2 * PAGE - 20, "length"));
    let bench = Bench::new(32, 2, scrambled());
    for (prompt, parameters, expected) in [
        (vec![2; 32], greedy(), "a prompt of 32 tokens leaves no room in a context of 32: shorten it"),
        (vec![], greedy(), "the prompt is empty"),
        (vec![2, 263], greedy(), "token 263 is outside the vocabulary of 263"),
        (vec![2], GenerateParameters { top_p: 2.0, ..greedy() }, "top_p: expected 0 to 1, found 2"),
    ] {
        let e = bench.request(&prompt, parameters).map(|_| ()).unwrap_err().to_string();
        assert!(e.starts_with(expected), "{e}");
    }
}

#[test]
fn who_cancels_is_gone_within_a_step() {
    let mut bench = Bench::new(32, 32, scrambled());
    let mut readers: Vec<Reader> =
        (0..9).map(|i| bench.add(&[i + 2; 3], GenerateParameters { max_tokens: Some(60), ..greedy() })).collect();
    (0..5).for_each(|_| bench.turn());
    // The ninth still waits for a slot.
    let (gone, waiting) = (readers.remove(0), readers.pop().unwrap());
    drop(gone);
    readers[0].cancelled.store(true, Ordering::Relaxed);
    waiting.cancelled.store(true, Ordering::Relaxed);
    let steps = bench.log.lock().unwrap().steps.len();
    bench.turn();
    let rows: Vec<usize> = bench.log.lock().unwrap().steps[steps..].iter().map(|s| s.rows.len()).collect();
    assert_eq!(rows, [6]);
    for reader in [&mut readers[0], &mut { waiting }] {
        assert_eq!(reader.read().reason(), "cancelled");
    }
    bench.finish();
    for reader in &mut readers[1..] {
        assert_eq!(reader.read().reason(), "length");
    }
}

#[test]
fn a_failing_step_fails_its_own() {
    for refused in [true, false] {
        let mut bench = Bench::new(8, 32, scrambled());
        let alone = bench.run(&[2; 5], GenerateParameters { max_tokens: Some(40), ..greedy() });
        let number = bench.log.lock().unwrap().steps.len() + 3;
        {
            let mut log = bench.log.lock().unwrap();
            if refused { &mut log.fail_submit } else { &mut log.fail_collect }.insert(number);
        }
        let parameters = GenerateParameters { max_tokens: Some(40), ..greedy() };
        let mut hit = [bench.add(&[2; 5], parameters.clone()), bench.add(&[3; 5], parameters.clone())];
        (0..6).for_each(|_| bench.turn());
        let mut spared = bench.add(&[2; 5], parameters);
        bench.finish();
        let expected = if refused { format!("step {number} was refused") } else { format!("step {number} was lost") };
        for reader in &mut hit {
            let outcome = reader.read();
            assert_eq!(outcome.reason(), expected);
            assert!(outcome.tokens.len() < 5);
        }
        let outcome = spared.read();
        assert_eq!((&outcome.tokens, outcome.reason().as_str()), (&alone.tokens, "length"));
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let mut bench = Bench::new(8, 32, scrambled());
    bench.log.lock().unwrap().no_numbers = true;
    let reason = bench.run(&[2], GenerateParameters { top_k: 4, ..Default::default() }).reason();
    assert!(reason.starts_with("the logits of a step hold no number"), "{reason}");
}
