//! The same numbers as the engines that models come from.

use std::path::Path;
use tamarack::{
    checkpoint::Checkpoint,
    compare,
    cpu::CpuExecutor,
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    gpu::WgpuExecutor,
    program::{Program, RULES},
    reference::{Reference, ops},
};
use tamarack_tests::{
    cpu,
    gpu::{OFF, assert_close, close, precisions},
    model::{Run, program, rewritten},
    models::{self, Answer, Golden, certain},
};

/// Loads a program for steps of some capacity.
type Load = dyn Fn(Program, &Checkpoint, Capacity) -> tamarack::Result<Box<dyn Executor>>;

/// What a model runs on.
struct Target {
    name: String,
    load: Box<Load>,
    /// Allowed on a logit of the tiny models, whose spread is 1.7 and whose margins are 0.05 or more.
    tiny: f32,
    /// Allowed on a logit of SmolLM2, whose spread is 3.5: its golden weights were rounded to f16,
    /// which alone moves a logit by up to 0.04.
    smollm2: f32,
}

/// The oracle, the processor with each of its instruction sets, and every adapter in each of its precisions.
fn targets() -> Vec<Target> {
    let mut targets = vec![Target {
        name: "reference".to_owned(),
        load: Box::new(|p, c, capacity| Ok(Box::new(Reference::load(p, c, capacity)?))),
        tiny: 1e-3,
        smollm2: 0.06,
    }];
    for (name, settings) in cpu::settings() {
        targets.push(Target {
            name,
            load: Box::new(move |p, c, capacity| Ok(Box::new(CpuExecutor::load(settings, p, c, capacity)?))),
            tiny: OFF,
            smollm2: 0.15,
        });
    }
    for (name, gpu, tiny) in precisions() {
        let load = move |p, c: &_, capacity| Ok(Box::new(WgpuExecutor::load(gpu.clone(), p, c, capacity)?) as _);
        targets.push(Target { name, load: Box::new(load), tiny, smollm2: 0.15 });
    }
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
                if let Err(e) = close(&format!("{name}, in steps of {chunk}"), &logits, &golden.logits, target.tiny) {
                    panic!("{e}\n{}", first_difference(&target, program, &checkpoint, &golden.input_ids));
                }
            }
            let greedy = Run::new(executor.as_mut(), prompt).greedy(&golden.input_ids, prompt, golden.greedy.len());
            // Whatever is allowed on logits: the margins of the tiny models are 0.05 and more.
            let n = certain(&golden.margins, 2.0 * target.tiny.min(OFF));
            assert_eq!(greedy[..n], golden.greedy[..n], "{name}: greedy tokens");
        }
    }
}

/// Where a target begins to differ from the oracle; for the oracle itself, how to find that.
fn first_difference(target: &Target, program: &Program, checkpoint: &Checkpoint, tokens: &[u32]) -> String {
    let load = |program: Program| (target.load)(program, checkpoint, compare::capacity(tokens.len()));
    let compared = compare::with_executor(program, checkpoint, tokens, target.tiny / 10.0, &load);
    match compared.as_deref().map(|c| c.iter().find(|c| !c.is_within(target.tiny / 10.0))) {
        Ok(Some(c)) => {
            format!("the first result that differs from the oracle's: {} at {}", c.point.name, c.point.place)
        }
        Ok(None) => "the oracle agrees: see `tamarack debug compare --help`, with tests/goldens/modules.py".to_owned(),
        Err(e) => e.to_string(),
    }
}

/// The goldens of goldens/llama whose type is mistral, or not.
fn check_llamas(mistral: bool) {
    let is_mistral = |folder: &Path| folder.file_name().is_some_and(|n| n.to_string_lossy().starts_with("mistral"));
    let folders: Vec<_> = models::tiny("llama").into_iter().filter(|f| is_mistral(f) == mistral).collect();
    assert!(folders.len() > 1, "goldens/llama: {folders:?}");
    for folder in folders {
        check(&folder);
        check_ragged(&folder);
    }
}

#[test]
fn llama() {
    check_llamas(false);
}

#[test]
fn mistral() {
    check_llamas(true);
}

#[test]
fn quantized_llama_equals_mlx() {
    models::tiny("mlx").iter().for_each(|folder| check(folder));
}

/// A test for each model type, and the list of them.
macro_rules! model_types {
    ($($name:ident)*) => {
        const MODEL_TYPES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                check_type(stringify!($name));
            }
        )*
    };
}

// What goldens/architectures has, in its order: a folder without a test is an error.
model_types! {
    apertus
    cohere
    cohere2
    deepseek_v2
    deepseek_v3
    ernie4_5
    exaone4
    gemma
    gemma2
    gemma3
    gemma3_text
    gemma3n
    gemma3n_text
    glm4
    glm4_moe
    gpt_oss
    granite
    helium
    hunyuan_v1_dense
    internlm2
    lfm2
    minicpm
    mixtral
    olmo
    olmo2
    olmoe
    phi
    phi3
    phimoe
    qwen2
    qwen2_moe
    qwen3
    qwen3_moe
    seed_oss
    smollm3
    stablelm
    starcoder2
}

#[test]
fn every_golden_is_compared() {
    let folders: Vec<String> = models::types().collect();
    assert_eq!(folders, MODEL_TYPES);
}

/// Every golden of a model type: alone, in pieces, and among other sequences.
fn check_type(model_type: &str) {
    for folder in models::tiny(&format!("architectures/{model_type}")) {
        check(&folder);
        check_ragged(&folder);
    }
}

/// Five sequences of different lengths in the same steps: a prompt each, then three tokens more.
fn check_ragged(folder: &Path) {
    const LENGTHS: [usize; 5] = [1, 24, 5, 17, 9];
    let (checkpoint, golden) = (Checkpoint::open(folder).unwrap_or_else(|e| panic!("{e}")), Golden::read(folder));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    let text = [&golden.input_ids[..], &golden.greedy].concat();
    let texts: Vec<&[u32]> = LENGTHS.iter().enumerate().map(|(i, n)| &text[i..][..n + 3]).collect();
    for target in targets() {
        let capacity = Capacity { rows: 64, outputs: 8, pages: 16, slots: 5 };
        let mut executor = target.executor(&short, &checkpoint, capacity);
        for (i, rows) in along(executor.as_mut(), &texts).iter().enumerate() {
            let alone = along(executor.as_mut(), &texts[i..=i]).remove(0);
            let name = format!("{} on {}, sequence {i} among others", folder.display(), target.name);
            assert_close(&name, &rows.concat(), &alone.concat(), target.tiny);
        }
    }
}

/// The logits after all but the last three tokens of each text, and after each of those three.
fn along(executor: &mut dyn Executor, texts: &[&[u32]]) -> Vec<Vec<Vec<f32>>> {
    let mut pool = Pool::new(executor.capacity().pages);
    let sequence = |(i, text): (usize, &&[u32])| Sequence::new(i as u32, text.len());
    let mut sequences: Vec<Sequence> = texts.iter().enumerate().map(sequence).collect();
    let mut rows = vec![Vec::new(); texts.len()];
    for left in (0..=3).rev() {
        let mut step = Step::default();
        for (sequence, text) in sequences.iter_mut().zip(texts) {
            let next = &text[sequence.len()..text.len() - left];
            let ids: Vec<Token> = next.iter().map(|t| Token::Id(*t)).collect();
            let last = |i| (i + 1 == ids.len()).then_some(Draw { logits: true, ..Draw::default() });
            assert!(step.push(sequence, &mut pool, &ids, last), "out of pages");
        }
        executor.submit(&step).unwrap_or_else(|e| panic!("{e}"));
        let result = executor.collect().unwrap_or_else(|e| panic!("{e}"));
        rows.iter_mut().zip(result.logits).for_each(|(rows, row)| rows.push(row));
    }
    rows
}

/// Between logits that are closer than this, either token may win.
const CLOSE: f32 = 0.05;

/// SmolLM2 on every target, with the tolerance on its logits.
fn smollm2() -> impl Iterator<Item = (String, Box<dyn Executor>, f32)> {
    let checkpoint = Checkpoint::open(&models::smollm2()).unwrap_or_else(|e| panic!("{e}"));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    let capacity = Capacity { rows: 512, outputs: 32, pages: 66, slots: 8 };
    targets().into_iter().map(move |t| (t.name.clone(), t.executor(&short, &checkpoint, capacity), t.smollm2))
}

/// SmolLM2's answers to the prompts that `wanted` picks, `n` tokens of each.
fn check_answers(wanted: impl Fn(&Answer) -> bool, n: usize) {
    for (name, mut executor, tolerance) in smollm2() {
        for answer in models::smollm2_answers().iter().filter(|a| wanted(a)) {
            let what = format!("SmolLM2 on {name}, answering {:?}", answer.text);
            // Along the golden answer, so that every step counts that was no close call.
            let prompt = &answer.prompt_ids;
            let known = [prompt, &answer.greedy_ids[..n - 1]].concat();
            let logits = Run::new(executor.as_mut(), known.len()).feed(&known, 512, n);
            assert_close(&what, &logits[0], &answer.first_logits, tolerance);
            for (i, row) in logits.iter().enumerate().filter(|(i, _)| answer.margins[*i] > CLOSE) {
                assert_eq!(ops::sample(row, 0.0, 0, 0), answer.greedy_ids[i], "{what}: token {i}");
            }
            // And on its own, up to the first close call.
            let n = certain(&answer.margins, CLOSE).min(n);
            let greedy = Run::new(executor.as_mut(), prompt.len()).greedy(prompt, 512, n);
            assert_eq!(greedy, answer.greedy_ids[..n], "{what}");
        }
    }
}

#[test]
fn smollm2_names_the_capital_as_in_transformers() {
    check_answers(|a| a.text.ends_with("Paris."), 8);
}

#[test]
#[ignore = "takes minutes"]
fn smollm2_answers_every_prompt_as_in_transformers() {
    check_answers(|_| true, 32);
}

/// The logits before each of `n` greedy tokens after each prompt, all prompts in the same steps.
fn together(executor: &mut dyn Executor, prompts: &[&[u32]], n: usize) -> Vec<Vec<Vec<f32>>> {
    let mut pool = Pool::new(executor.capacity().pages);
    let sequence = |(i, prompt): (usize, &&[u32])| Sequence::new(i as u32, prompt.len());
    let mut sequences: Vec<Sequence> = prompts.iter().enumerate().map(sequence).collect();
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

/// Eight pieces of `text`, of different lengths.
fn check_eight(name: &str, executor: &mut dyn Executor, text: &[u32], n: usize) {
    let prompts: Vec<&[u32]> = (0..8).map(|i| &text[i..][..3 * i + 1]).collect();
    for (i, rows) in together(executor, &prompts, n).iter().enumerate() {
        let alone = together(executor, &prompts[i..=i], n).remove(0);
        for (step, (row, alone)) in rows.iter().zip(&alone).enumerate() {
            let (token, best) = (ops::sample(row, 0.0, 0, 0), ops::sample(alone, 0.0, 0, 0));
            if token != best {
                let ahead = alone[best as usize] - alone[token as usize];
                assert!(ahead < CLOSE, "prompt {i} on {name}, token {step}: {token}, alone {best}, {ahead} ahead");
                break; // after a close call the two are different texts
            }
        }
    }
}

#[test]
fn eight_prompts_together_answer_as_alone() {
    let folder = models::tiny("llama").remove(0);
    let (checkpoint, golden) = (Checkpoint::open(&folder).unwrap_or_else(|e| panic!("{e}")), Golden::read(&folder));
    let short = rewritten(program(&checkpoint), RULES, &checkpoint);
    let text = [&golden.input_ids[..], &golden.greedy].concat();
    for target in targets() {
        let capacity = Capacity { rows: 128, outputs: 8, pages: 24, slots: 8 };
        check_eight(&target.name, target.executor(&short, &checkpoint, capacity).as_mut(), &text, 16);
    }
}

#[test]
#[ignore = "takes minutes"]
fn eight_prompts_to_smollm2_together_answer_as_alone() {
    let long = models::smollm2_answers().pop().expect("a long prompt").prompt_ids;
    for (name, mut executor, _) in smollm2() {
        check_eight(&name, executor.as_mut(), &long, 8);
    }
}
