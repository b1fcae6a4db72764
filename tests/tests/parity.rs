//! The same numbers as the engines that models come from, on every executor.

use std::path::Path;
use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    gpu::WgpuExecutor,
    program::{Program, RULES},
    reference::{Reference, ops},
};
use tamarack_tests::{
    gpu::{assert_close, gpus},
    model::{Run, program, rewritten},
    models::{self, Answer, Golden, certain},
};

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn reference(program: &Program, checkpoint: &Checkpoint, capacity: Capacity) -> Box<dyn Executor> {
    Box::new(Reference::load(program.clone(), checkpoint, capacity).unwrap_or_else(|e| panic!("{e}")))
}

/// One for each adapter.
fn devices(program: &Program, checkpoint: &Checkpoint, capacity: Capacity) -> Vec<Box<dyn Executor>> {
    let load = |gpu| WgpuExecutor::load(gpu, program.clone(), checkpoint, capacity).unwrap_or_else(|e| panic!("{e}"));
    gpus().into_iter().map(|gpu| Box::new(load(gpu)) as Box<dyn Executor>).collect()
}

/// Logits of every prompt token, the prompt in one step, in uneven ones and token by token, and the
/// greedy tokens after it. Margins of the goldens are 0.05 and more, so tokens never depend on `tolerance`.
fn check(executor: &mut dyn Executor, golden: &Golden, tolerance: f32, what: &str) {
    let what = format!("{what} on {}", executor.device());
    let prompt = golden.input_ids.len();
    for chunk in [prompt, 7, 1] {
        let logits = Run::new(executor, prompt).feed(&golden.input_ids, chunk, prompt).concat();
        assert_close(&format!("{what}, in steps of {chunk}"), &logits, &golden.logits, tolerance);
    }
    let greedy = Run::new(executor, prompt).greedy(&golden.input_ids, prompt, golden.greedy.len());
    assert_eq!(greedy, golden.greedy, "{what}: greedy tokens");
}

/// A tiny model as recorded and rewritten on the oracle, and rewritten on every adapter.
fn check_tiny(folder: &Path) {
    let (checkpoint, golden) = (open(folder), Golden::read(folder));
    let capacity = Capacity { rows: 64, outputs: 64, pages: 8, slots: 1 };
    let recorded = program(&checkpoint);
    let short = rewritten(recorded.clone(), RULES, &checkpoint);
    let name = folder.display().to_string();
    for (form, program) in [("as recorded", &recorded), ("rewritten", &short)] {
        let what = format!("{name}, {form}");
        check(reference(program, &checkpoint, capacity).as_mut(), &golden, 1e-3, &what);
    }
    // Devices keep keys and values in f16.
    for mut device in devices(&short, &checkpoint, capacity) {
        check(device.as_mut(), &golden, 0.02, &name);
    }
}

#[test]
fn llama_and_mistral_equal_transformers() {
    models::tiny("llama").iter().for_each(|folder| check_tiny(folder));
}

#[test]
fn quantized_llama_equals_mlx() {
    models::tiny("mlx").iter().for_each(|folder| check_tiny(folder));
}

/// SmolLM2's answers to the prompts that `wanted` picks, `n` tokens of each.
fn check_answers(executor: &mut dyn Executor, tolerance: f32, wanted: impl Fn(&Answer) -> bool, n: usize) {
    for answer in models::smollm2_answers().iter().filter(|a| wanted(a)) {
        let what = format!("{:?} on {}", answer.text, executor.device());
        // Along the golden answer, so that every step counts that was no close call.
        let prompt = &answer.prompt_ids;
        let known = [prompt, &answer.greedy_ids[..n - 1]].concat();
        let logits = Run::new(executor, known.len()).feed(&known, 512, n);
        assert_close(&what, &logits[0], &answer.first_logits, tolerance);
        for (i, row) in logits.iter().enumerate().filter(|(i, _)| answer.margins[*i] > CLOSE) {
            assert_eq!(ops::sample(row, 0.0, 0, 0), answer.greedy_ids[i], "{what}: token {i}");
        }
        // And on its own, up to the first close call.
        let n = certain(&answer.margins, CLOSE).min(n);
        let greedy = Run::new(executor, prompt.len()).greedy(prompt, 512, n);
        assert_eq!(greedy, answer.greedy_ids[..n], "{what}");
    }
}

/// Between logits that are closer than this, either token may win.
const CLOSE: f32 = 0.05;

const SMOLLM2: Capacity = Capacity { rows: 512, outputs: 32, pages: 66, slots: 8 };

/// SmolLM2 on the oracle and on every adapter, with the tolerance of each on a logit: rounding the
/// golden weights to f16 alone moves one by up to 0.04.
fn smollm2() -> Vec<(Box<dyn Executor>, f32)> {
    let checkpoint = open(&models::smollm2());
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    let oracle = reference(&short, &checkpoint, SMOLLM2);
    let devices = devices(&short, &checkpoint, SMOLLM2);
    [(oracle, 0.06)].into_iter().chain(devices.into_iter().map(|d| (d, 0.15))).collect()
}

#[test]
fn smollm2_names_the_capital_as_in_transformers() {
    for (mut executor, tolerance) in smollm2() {
        check_answers(executor.as_mut(), tolerance, |a| a.text.ends_with("Paris."), 8);
    }
}

#[test]
#[ignore = "takes minutes"]
fn smollm2_answers_every_prompt_as_in_transformers() {
    for (mut executor, tolerance) in smollm2() {
        check_answers(executor.as_mut(), tolerance, |_| true, 32);
    }
}

/// The rows of logits after each of `n` greedy tokens of each prompt, all prompts in the same steps.
fn together(executor: &mut dyn Executor, prompts: &[&[u32]], n: usize) -> Vec<Vec<Vec<f32>>> {
    let mut pool = Pool::new(executor.capacity().pages);
    let mut sequences: Vec<Sequence> =
        prompts.iter().enumerate().map(|(i, p)| Sequence::new(i as u32, p.len())).collect();
    let mut next: Vec<Vec<Token>> = prompts.iter().map(|p| p.iter().map(|t| Token::Id(*t)).collect()).collect();
    let mut rows = vec![Vec::new(); prompts.len()];
    for _ in 0..n {
        let mut step = Step::default();
        for (sequence, tokens) in sequences.iter_mut().zip(&next) {
            let last = |i| (i + 1 == tokens.len()).then_some(Draw { logits: true, ..Draw::default() });
            assert!(step.push(sequence, &mut pool, tokens, last), "out of pages");
        }
        executor.submit(&step).unwrap_or_else(|e| panic!("{e}"));
        let result = executor.collect().unwrap_or_else(|e| panic!("{e}"));
        for (i, row) in result.logits.into_iter().enumerate() {
            next[i] = vec![Token::Id(result.tokens[i])];
            rows[i].push(row);
        }
    }
    rows
}

fn check_eight(executor: &mut dyn Executor, text: &[u32], n: usize) {
    let prompts: Vec<&[u32]> = (0..8).map(|i| &text[i..][..3 * i + 1]).collect();
    for (i, rows) in together(executor, &prompts, n).iter().enumerate() {
        let alone = together(executor, &prompts[i..=i], n).remove(0);
        for (step, (row, alone)) in rows.iter().zip(&alone).enumerate() {
            let what = format!("prompt {i}, token {step} on {}", executor.device());
            let (token, best) = (ops::sample(row, 0.0, 0, 0), ops::sample(alone, 0.0, 0, 0));
            if token != best {
                let margin = alone[best as usize] - alone[token as usize];
                assert!(margin < CLOSE, "{what}: {token} together, {best} alone, ahead by {margin}");
                break;
            }
        }
    }
}

#[test]
fn eight_prompts_together_answer_as_alone() {
    let folder = models::tiny("llama").remove(0);
    let (checkpoint, golden) = (open(&folder), Golden::read(&folder));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    let capacity = Capacity { rows: 128, outputs: 8, pages: 24, slots: 8 };
    let text = [&golden.input_ids[..], &golden.greedy].concat();
    check_eight(reference(&short, &checkpoint, capacity).as_mut(), &text, 16);
    devices(&short, &checkpoint, capacity).iter_mut().for_each(|device| check_eight(device.as_mut(), &text, 16));
}

#[test]
#[ignore = "takes minutes"]
fn eight_prompts_to_smollm2_together_answer_as_alone() {
    let long = models::smollm2_answers().pop().expect("prompts").prompt_ids;
    for (mut executor, _) in smollm2() {
        check_eight(executor.as_mut(), &long, 8);
    }
}
