//! The same numbers as the engines that models come from.

use std::path::Path;
use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Executor},
    gpu::{Gpu, WgpuExecutor, adapters},
    program::{Program, RULES},
    reference::Reference,
};
use tamarack_tests::{
    gpu::assert_close,
    model::{Run, program, rewritten},
    models::{self, Answer, Golden, certain},
};

/// What a model runs on.
struct Target {
    name: String,
    load: Box<dyn Fn(Program, &Checkpoint, Capacity) -> tamarack::Result<Box<dyn Executor>>>,
    /// Allowed on a logit of the tiny models, whose spread is 1.7 and whose margins are 0.05 or more.
    tiny: f32,
    /// Allowed on a logit of SmolLM2, whose spread is 3.5: its golden weights were rounded to f16,
    /// which alone moves a logit by up to 0.04.
    smollm2: f32,
}

/// The oracle, and every adapter; devices keep keys and values in f16.
fn targets() -> Vec<Target> {
    let mut targets = vec![Target {
        name: "reference".to_owned(),
        load: Box::new(|p, c, capacity| Ok(Box::new(Reference::load(p, c, capacity)?))),
        tiny: 1e-3,
        smollm2: 0.06,
    }];
    for adapter in adapters() {
        targets.push(Target {
            name: adapter.get_info().name,
            load: Box::new(move |p, c, capacity| {
                Ok(Box::new(WgpuExecutor::load(Gpu::open(&adapter)?, p, c, capacity)?))
            }),
            tiny: 2e-2,
            smollm2: 0.15,
        });
    }
    assert!(targets.len() > 1, "no adapter found: install a software Vulkan, as tests/run does");
    targets
}

impl Target {
    fn executor(&self, program: &Program, checkpoint: &Checkpoint, capacity: Capacity) -> Box<dyn Executor> {
        (self.load)(program.clone(), checkpoint, capacity).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

/// Logits of every prompt token, whole and cut into uneven chunks, and the greedy tokens after it; as
/// recorded and rewritten.
fn check(folder: &Path) {
    let golden = Golden::read(folder);
    let prompt = golden.input_ids.len();
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|e| panic!("{e}"));
    let recorded = program(&checkpoint);
    let short = rewritten(recorded.clone(), RULES, &checkpoint);
    let capacity = Capacity { rows: 64, outputs: 64, pages: 8, slots: 1 };
    for target in targets() {
        for (form, program) in [("rewritten", &short), ("as recorded", &recorded)] {
            let name = format!("{} on {}, {form}", folder.display(), target.name);
            let mut executor = target.executor(program, &checkpoint, capacity);
            for chunk in [prompt, 7, 1] {
                let logits = Run::new(executor.as_mut(), prompt).feed(&golden.input_ids, chunk, prompt).concat();
                assert_close(&format!("{name}, in steps of {chunk}"), &logits, &golden.logits, target.tiny);
            }
            let greedy = Run::new(executor.as_mut(), prompt).greedy(&golden.input_ids, prompt, golden.greedy.len());
            let n = certain(&golden.margins, 2.0 * target.tiny);
            assert_eq!(greedy[..n], golden.greedy[..n], "{name}: greedy tokens");
        }
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

/// The smallest golden margin at which another token is an error.
const CLEAR: f32 = 0.05;

/// SmolLM2's answers to the prompts that `wanted` picks, up to `n` tokens.
fn check_smollm2(wanted: impl Fn(&Answer) -> bool, n: usize) {
    let checkpoint = Checkpoint::open(&models::smollm2()).unwrap_or_else(|e| panic!("{e}"));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    for target in targets() {
        let name = &target.name;
        let mut executor =
            target.executor(&short, &checkpoint, Capacity { rows: 512, outputs: 1, pages: 66, slots: 1 });
        for answer in models::smollm2_answers().iter().filter(|a| wanted(a)) {
            let (prompt, text) = (&answer.prompt_ids, &answer.text);
            let what = format!("SmolLM2 on {name}, answering {text:?}");
            let logits = Run::new(executor.as_mut(), prompt.len()).feed(prompt, 512, 1).concat();
            assert_close(&what, &logits, &answer.first_logits, target.smollm2);
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
