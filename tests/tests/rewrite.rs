//! Every rule keeps what a program computes: alone, left out, and together with all others.

use tamarack::{
    exec::{Draw, Executor, Pool, Sequence, Step, Token},
    program::{Op, Program, RULES, Rule},
    reference::Reference,
};
use tamarack_tests::{
    gpu::assert_close,
    model::{Run, capacity, rewritten},
    zoo,
};

const PROMPT: [u32; 23] = [3, 14, 15, 9, 26, 5, 35, 8, 9, 79, 3, 23, 8, 46, 26, 4, 33, 8, 32, 7, 9, 50, 2];

fn logits(program: Program, chunk: usize) -> Vec<f32> {
    let checkpoint = zoo::checkpoint();
    let mut reference = Reference::load(program, &checkpoint, capacity(64)).unwrap_or_else(|e| panic!("{e}"));
    Run::new(&mut reference, PROMPT.len()).feed(&PROMPT, chunk, PROMPT.len()).concat()
}

fn only(keep: impl Fn(&str) -> bool) -> Vec<Rule> {
    RULES.iter().filter(|r| keep(r.name)).map(|r| Rule { name: r.name, apply: r.apply }).collect()
}

#[test]
fn each_rule_alone_and_left_out_computes_the_same() {
    let checkpoint = zoo::checkpoint();
    let recorded = zoo::program(&checkpoint);
    let want = logits(recorded.clone(), PROMPT.len());
    let spread = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(spread > 1.0, "flat logits prove nothing: {spread}");
    let all = rewritten(recorded.clone(), RULES, &checkpoint);
    assert_close("all rules", &logits(all, PROMPT.len()), &want, 2e-5);
    for rule in RULES {
        let alone = rewritten(recorded.clone(), &only(|n| n == rule.name), &checkpoint);
        assert_ne!(alone, rewritten(recorded.clone(), &[], &checkpoint), "{}: nothing here to rewrite", rule.name);
        assert_close(rule.name, &logits(alone, PROMPT.len()), &want, 2e-5);
        let without = rewritten(recorded.clone(), &only(|n| n != rule.name), &checkpoint);
        assert_close(&format!("all but {}", rule.name), &logits(without, PROMPT.len()), &want, 2e-5);
    }
}

#[test]
fn chunks_and_single_tokens_agree() {
    let checkpoint = zoo::checkpoint();
    let program = rewritten(zoo::program(&checkpoint), RULES, &checkpoint);
    let want = logits(program.clone(), PROMPT.len());
    for chunk in [7, 1] {
        assert_close(&format!("in chunks of {chunk}"), &logits(program.clone(), chunk), &want, 2e-5);
    }
}

#[test]
fn ragged_sequences_do_not_see_each_other() {
    let checkpoint = zoo::checkpoint();
    let program = rewritten(zoo::program(&checkpoint), RULES, &checkpoint);
    let mut reference = Reference::load(program.clone(), &checkpoint, capacity(256)).unwrap_or_else(|e| panic!("{e}"));
    let prompts: Vec<&[u32]> = vec![&PROMPT[..1], &PROMPT[..17], &PROMPT[3..8], &PROMPT, &PROMPT[20..]];
    let mut pool = Pool::new(reference.capacity().pages);
    let mut step = Step::default();
    for (i, prompt) in prompts.iter().enumerate() {
        let tokens: Vec<Token> = prompt.iter().map(|t| Token::Id(*t)).collect();
        let draw = |j| (j + 1 == prompt.len()).then_some(Draw { logits: true, ..Draw::default() });
        assert!(step.push(&mut Sequence::new(i as u32, prompt.len()), &mut pool, &tokens, draw));
    }
    reference.submit(&step).unwrap_or_else(|e| panic!("{e}"));
    let together = reference.collect().unwrap_or_else(|e| panic!("{e}")).logits;
    for (prompt, got) in prompts.iter().zip(together) {
        let mut alone = Reference::load(program.clone(), &checkpoint, capacity(64)).unwrap_or_else(|e| panic!("{e}"));
        let want = Run::new(&mut alone, prompt.len()).feed(prompt, 512, 1).concat();
        assert_close("a sequence among others", &got, &want, 1e-5);
    }
}

#[test]
fn a_llama_layer_is_six_operations() {
    let folder = tamarack_tests::models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("tied");
    let checkpoint = tamarack::checkpoint::Checkpoint::open(&folder).unwrap_or_else(|e| panic!("{e}"));
    let program = rewritten(tamarack_tests::model::program(&checkpoint), RULES, &checkpoint);
    let names: Vec<&str> = program.nodes.iter().filter(|n| !n.op.is_view()).map(|n| n.op.name()).collect();
    let layer = ["matmul", "prepare", "attend", "matmul", "glu matmul", "matmul"];
    let layers = program.caches.len();
    let want = [&["tokens", "embedding"][..], &layer.repeat(layers), &["outputs", "matmul"]].concat();
    assert_eq!(names, want);
    assert!(program.nodes.iter().all(|n| !matches!(n.op, Op::Norm { .. })), "every norm is part of a product");
}
