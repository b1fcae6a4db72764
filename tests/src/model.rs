//! Running a program step by step, without the engine.

use tamarack::{
    checkpoint::Checkpoint,
    exec::{Capacity, Draw, Executor, Pool, Sequence, Step, Token},
    plugins::Registry,
    program::{Program, Rule, lower, rewrite},
    weights::fold,
};

/// Records a checkpoint with the linked plugin that serves it.
pub fn program(checkpoint: &Checkpoint) -> Program {
    let _ = &tamarack_plugins::LINKED;
    let found = Registry::linked().find(checkpoint.config()["model_type"].as_str().unwrap_or_default());
    let recorded = found.and_then(|found| found.record_text(checkpoint, true));
    lower(&recorded.unwrap_or_else(|e| panic!("{e}")).0)
}

/// The program after `rules`.
pub fn rewritten(program: Program, rules: &[Rule], checkpoint: &Checkpoint) -> Program {
    let format = |p: &Program, w| fold(&p.weights, w, checkpoint).ok()?.format_of_all();
    rewrite(program, rules, &format).0
}

/// A capacity for tests.
pub fn capacity(tokens: usize) -> Capacity {
    Capacity { rows: 512, outputs: 64, pages: tokens.div_ceil(16) + 16, slots: 16 }
}

/// One conversation over an executor.
pub struct Run<'a> {
    /// What runs it.
    pub executor: &'a mut dyn Executor,
    /// Its pages.
    pub pool: Pool,
    /// Its place in the cache.
    pub sequence: Sequence,
}

impl Run<'_> {
    /// An empty conversation that will be `length` tokens long.
    pub fn new(executor: &mut dyn Executor, length: usize) -> Run<'_> {
        let pool = Pool::new(executor.capacity().pages);
        Run { executor, pool, sequence: Sequence::new(0, length) }
    }

    /// Feeds tokens in steps of `chunk` and returns the logits after each of the last `want`.
    pub fn feed(&mut self, tokens: &[u32], chunk: usize, want: usize) -> Vec<Vec<f32>> {
        let mut logits = Vec::new();
        let first = tokens.len() - want;
        let chunk = chunk.min(self.executor.capacity().rows);
        for (i, part) in tokens.chunks(chunk).enumerate() {
            let mut step = Step::default();
            let ids: Vec<Token> = part.iter().map(|t| Token::Id(*t)).collect();
            let draw = |j: usize| (i * chunk + j >= first).then_some(Draw { logits: true, ..Draw::default() });
            assert!(step.push(&mut self.sequence, &mut self.pool, &ids, draw), "out of pages");
            self.executor.submit(&step).unwrap_or_else(|e| panic!("{e}"));
            logits.extend(self.executor.collect().unwrap_or_else(|e| panic!("{e}")).logits);
        }
        logits
    }

    /// Feeds a prompt, then `n` greedy tokens; each step is submitted before the last one's token is
    /// read. Returns the tokens.
    pub fn greedy(&mut self, prompt: &[u32], chunk: usize, n: usize) -> Vec<u32> {
        let last = self.feed(prompt, chunk, 1).pop().expect("one row of logits");
        let mut tokens = vec![tamarack::reference::ops::sample(&last, 0.0, 0, 0)];
        for i in 1..n {
            let mut step = Step::default();
            let token = if i == 1 { Token::Id(tokens[0]) } else { Token::Sampled(0) };
            assert!(step.push(&mut self.sequence, &mut self.pool, &[token], |_| Some(Draw::default())));
            self.executor.submit(&step).unwrap_or_else(|e| panic!("{e}"));
            if i > 1 {
                tokens.extend(self.executor.collect().unwrap_or_else(|e| panic!("{e}")).tokens);
            }
        }
        if n > 1 {
            tokens.extend(self.executor.collect().unwrap_or_else(|e| panic!("{e}")).tokens);
        }
        tokens
    }
}
