//! Whole programs through wgpu agree with the oracle, on every adapter.

use tamarack::{
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    gpu::WgpuExecutor,
    program::{Program, RULES},
    reference::{Reference, ops},
};
use tamarack_tests::{
    gpu::{assert_close, gpus, precisions},
    model::{Run, capacity, rewritten},
    zoo,
};

const CAPACITY: Capacity = Capacity { rows: 64, outputs: 64, pages: 64, slots: 8 };

fn prompt(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 7 + i * seed + seed) % zoo::VOCAB as u32).collect()
}

/// The zoo as recorded and rewritten, with what the oracle says of a prompt.
fn programs() -> Vec<(&'static str, Program)> {
    let checkpoint = zoo::checkpoint();
    let recorded = zoo::program(&checkpoint);
    vec![("rewritten", rewritten(recorded.clone(), RULES, &checkpoint)), ("as recorded", recorded)]
}

fn oracle(program: &Program) -> Reference {
    Reference::load(program.clone(), &zoo::checkpoint(), capacity(1024)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn prefill_chunks_and_single_tokens() {
    for (name, program) in programs() {
        let tokens = prompt(3, 61);
        let want = Run::new(&mut oracle(&program), 61).feed(&tokens, 61, 61).concat();
        for (device, gpu, off) in precisions() {
            let device = format!("{name} on {device}");
            let mut wgpu = WgpuExecutor::load(gpu, program.clone(), &zoo::checkpoint(), CAPACITY)
                .unwrap_or_else(|e| panic!("{e}"));
            for chunk in [61, 7, 1] {
                let got = Run::new(&mut wgpu, 61).feed(&tokens, chunk, 61).concat();
                assert_close(&format!("{device} in chunks of {chunk}"), &got, &want, off);
            }
        }
    }
}

#[test]
fn long_caches_are_split() {
    let (_, program) = programs().swap_remove(0);
    let tokens = prompt(5, 600);
    let want = Run::new(&mut oracle(&program), 600).feed(&tokens, 600, 4);
    for (name, gpu, off) in precisions() {
        let mut wgpu =
            WgpuExecutor::load(gpu, program.clone(), &zoo::checkpoint(), CAPACITY).unwrap_or_else(|e| panic!("{e}"));
        let mut run = Run::new(&mut wgpu, 600);
        run.feed(&tokens[..416], 64, 0);
        let got = run.feed(&tokens[416..], 1, 4);
        assert_close(&format!("a split cache on {name}"), &got.concat(), &want.concat(), off);
    }
}

#[test]
fn ragged_steps_of_every_size() {
    let (_, program) = programs().swap_remove(0);
    for (name, gpu, off) in precisions() {
        let mut wgpu =
            WgpuExecutor::load(gpu, program.clone(), &zoo::checkpoint(), CAPACITY).unwrap_or_else(|e| panic!("{e}"));
        let lengths = [1usize, 5, 17, 2, 30];
        let mut pool = Pool::new(CAPACITY.pages);
        let mut sequences: Vec<Sequence> = (0..lengths.len()).map(|i| Sequence::new(i as u32, 40)).collect();
        let prompts: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(i, n)| prompt(i as u32 + 1, n + 3)).collect();
        let mut got = vec![Vec::new(); lengths.len()];
        // All prompts in one step, then three more tokens each, together.
        for round in 0..4 {
            let mut step = Step::default();
            for (i, sequence) in sequences.iter_mut().enumerate() {
                let range = if round == 0 { 0..lengths[i] } else { lengths[i] + round - 1..lengths[i] + round };
                let tokens: Vec<Token> = prompts[i][range].iter().map(|t| Token::Id(*t)).collect();
                let draw = |j| (j + 1 == tokens.len()).then_some(Draw { logits: true, ..Draw::default() });
                assert!(step.push(sequence, &mut pool, &tokens, draw));
            }
            wgpu.submit(&step).unwrap_or_else(|e| panic!("{e}"));
            let result = wgpu.collect().unwrap_or_else(|e| panic!("{e}"));
            for (i, logits) in result.logits.into_iter().enumerate() {
                assert_eq!(result.tokens[i], ops::sample(&logits, 0.0, 0, 0), "sampled on the device");
                got[i].extend(logits);
            }
        }
        for (prompt, got) in prompts.iter().zip(got) {
            let want = Run::new(&mut oracle(&program), 40).feed(prompt, 64, 4).concat();
            assert_close(&format!("one of five sequences on {name}"), &got, &want, off);
        }
    }
}

#[test]
fn the_next_step_runs_before_this_ones_token_is_read() {
    let (_, program) = programs().swap_remove(0);
    let want = Run::new(&mut oracle(&program), 0).greedy(&prompt(2, 9), 64, 12);
    for gpu in gpus() {
        let mut wgpu =
            WgpuExecutor::load(gpu, program.clone(), &zoo::checkpoint(), CAPACITY).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(Run::new(&mut wgpu, 0).greedy(&prompt(2, 9), 64, 12), want);
    }
}

#[test]
fn a_llama_layer_takes_five_dispatches() {
    let folder = tamarack_tests::models::tiny("llama").into_iter().find(|p| p.ends_with("tied")).expect("tied");
    let checkpoint = tamarack::checkpoint::Checkpoint::open(&folder).unwrap_or_else(|e| panic!("{e}"));
    let program = rewritten(tamarack_tests::model::program(&checkpoint), RULES, &checkpoint);
    let layers = program.caches.len();
    for gpu in gpus() {
        let mut wgpu =
            WgpuExecutor::load(gpu, program.clone(), &checkpoint, CAPACITY).unwrap_or_else(|e| panic!("{e}"));
        // Beside the layers: the embedding, the head, and two for sampling.
        for (length, each) in [(100, 5), (1000, 6)] {
            let names = wgpu.dispatches(1, 1, length).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(names.len(), layers * each + 4, "a cache of {length} tokens: {names:?}");
        }
    }
}
