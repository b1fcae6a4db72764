//! The same numbers as the engines that models come from.

use std::path::Path;
use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Executor},
    program::{Program, RULES},
    reference::Reference,
};
use tamarack_tests::{
    gpu::assert_close,
    model::{Run, program, rewritten},
    models::{self, Answer, Golden, certain},
};

/// Allowed on a logit of the tiny models, whose spread is 1.7 and whose margins are 0.05 or more.
const TOLERANCE: f32 = 1e-3;

/// What a model runs on: its name for messages, and how to load a program there.
type Load = fn(Program, &Checkpoint, Capacity) -> Box<dyn Executor>;
const EXECUTORS: &[(&str, Load)] =
    &[("reference", |p, c, capacity| Box::new(Reference::load(p, c, capacity).unwrap_or_else(|e| panic!("{e}"))))];

/// The model in `folder` on every executor, as recorded and rewritten.
fn loaded(folder: &Path) -> Vec<(String, Box<dyn Executor>)> {
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|e| panic!("{e}"));
    let recorded = program(&checkpoint);
    let short = rewritten(recorded.clone(), RULES, &checkpoint);
    let capacity = Capacity { rows: 64, outputs: 64, pages: 8, slots: 1 };
    let forms = [("as recorded", recorded), ("rewritten", short)];
    let name = |executor: &str, form: &str| format!("{} on {executor}, {form}", folder.display());
    forms
        .iter()
        .flat_map(|(form, p)| EXECUTORS.iter().map(|(e, load)| (name(e, form), load(p.clone(), &checkpoint, capacity))))
        .collect()
}

/// Logits of every prompt token, whole and cut into uneven chunks, and the greedy tokens after it.
fn check(folder: &Path) {
    let golden = Golden::read(folder);
    let prompt = golden.input_ids.len();
    for (name, mut executor) in loaded(folder) {
        for chunk in [prompt, 7, 1] {
            let logits = Run::new(executor.as_mut(), prompt).feed(&golden.input_ids, chunk, prompt).concat();
            assert_close(&format!("{name}, in steps of {chunk}"), &logits, &golden.logits, TOLERANCE);
        }
        let greedy = Run::new(executor.as_mut(), prompt).greedy(&golden.input_ids, prompt, golden.greedy.len());
        assert_eq!(greedy, golden.greedy, "{name}: greedy tokens");
    }
}

#[test]
fn llama_and_mistral_equal_transformers() {
    models::tiny("llama").iter().for_each(|folder| check(folder));
}

#[test]
fn quantized_llama_equals_mlx() {
    models::tiny("mlx").iter().for_each(|folder| check(folder));
}

/// Bounds on the real model, whose logits have a spread of 3.5: the golden weights were rounded to f16, which alone
/// moves a logit by up to 0.04.
const FIRST_LOGITS: f32 = 0.06;
const CLEAR: f32 = 0.05;

/// SmolLM2's answers to the prompts that `wanted` picks, up to `n` tokens.
fn check_smollm2(wanted: impl Fn(&Answer) -> bool, n: usize) {
    let checkpoint = Checkpoint::open(&models::smollm2()).unwrap_or_else(|e| panic!("{e}"));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    for (name, load) in EXECUTORS {
        let mut executor = load(short.clone(), &checkpoint, Capacity { rows: 512, outputs: 1, pages: 66, slots: 1 });
        for answer in models::smollm2_answers().iter().filter(|a| wanted(a)) {
            let (prompt, text) = (&answer.prompt_ids, &answer.text);
            let what = format!("SmolLM2 on {name}, answering {text:?}");
            let logits = Run::new(executor.as_mut(), prompt.len()).feed(prompt, 512, 1).concat();
            assert_close(&what, &logits, &answer.first_logits, FIRST_LOGITS);
            let n = certain(&answer.margins, CLEAR).min(n);
            let greedy = Run::new(executor.as_mut(), prompt.len()).greedy(prompt, 512, n);
            assert_eq!(greedy, answer.greedy_ids[..n], "{what}");
        }
    }
}

#[test]
fn smollm2_answers_as_in_transformers() {
    check_smollm2(|a| a.first_eos == Some(7), 8);
}

#[test]
#[ignore = "takes minutes"]
fn smollm2_answers_all_prompts_as_in_transformers() {
    check_smollm2(|_| true, 32);
}
