//! Speculative decoding, arXiv:2211.17192: a small model says what it expects to come next, and the large one checks all
//! of it in one step.
//!
//! A token is accepted if it is the one that the large model chooses by itself, so what comes out is what would come
//! out without. Both models draw with the same random numbers, which makes them agree as often as they can.

use super::{Scheduler, scheduler::Running};
use crate::{
    Result,
    exec::{Draw, Sequence, Step, Token},
    model::Model,
};

impl Scheduler {
    /// Lets the draft model propose what comes next in every sequence that waits for its next step. A draft model that
    /// fails costs speed and nothing else.
    pub(super) fn propose(&mut self, model: &mut Model) {
        let vocabulary = model.vocabulary() as u32;
        let Some(draft) = &mut model.draft else { return };
        let wanting = self.running.iter_mut().filter(|r| r.task.may_propose(&r.sequence) > 0);
        let mut wanting: Vec<&mut Running> = wanting.collect();
        match propose(&mut wanting, draft) {
            Ok(proposals) => {
                for (Running { task, .. }, tokens) in wanting.into_iter().zip(proposals) {
                    task.propose(tokens.into_iter().take_while(|t| *t < vocabulary).collect());
                }
            }
            Err(e) => {
                tracing::warn!("the draft model: {e}");
                for Running { task, .. } in wanting {
                    task.set_draft(false);
                    task.draft.take().into_iter().for_each(|sequence| draft.pool.release(sequence));
                }
            }
        }
    }
}

/// What `draft` proposes for each of `wanting`: a step for each token, all of them submitted before the first is read.
fn propose(wanting: &mut [&mut Running], draft: &mut Model) -> Result<Vec<Vec<u32>>> {
    let mut members = Vec::new();
    for (i, running) in wanting.iter_mut().enumerate() {
        if catch_up(running, draft)? {
            members.push(i);
        }
    }
    let mut steps: Vec<Vec<usize>> = Vec::new();
    let mut submitted = Ok(());
    for round in 0.. {
        let mut step = Step::default();
        members.retain(|i| push(wanting[*i], round, draft, &mut step));
        if members.is_empty() {
            break;
        }
        submitted = draft.executor.submit(&step);
        if submitted.is_err() {
            break;
        }
        steps.push(members.clone());
    }
    let results: Vec<_> = steps.iter().map(|_| draft.executor.collect()).collect();
    submitted?;
    let mut proposals = vec![Vec::new(); wanting.len()];
    for (members, result) in steps.iter().zip(results) {
        members.iter().zip(result?.tokens).for_each(|(i, token)| proposals[*i].push(token));
    }
    Ok(proposals)
}

/// Feeds all that the draft model has not seen, but for the last token. `false` if there is no room for it.
fn catch_up(Running { task, sequence, .. }: &mut Running, draft: &mut Model) -> Result<bool> {
    let mut own = task.draft.take().unwrap_or_else(|| Sequence::new(sequence.slot, task.tokens().len()));
    let known = &task.tokens()[..task.tokens().len() - 1];
    // What it proposed and is not what came has to go.
    own.truncate(known.len(), &mut draft.pool);
    if !draft.ropes.is_same(own.admitted as usize, task.tokens().len()) {
        own.restart(task.tokens().len());
    }
    while own.fed() < known.len() {
        let next = known[own.fed()..].iter().take(draft.capacity().rows);
        let next: Vec<Token> = next.map(|t| Token::Id(*t)).collect();
        let mut step = Step::default();
        if !step.push(&mut own, &mut draft.pool, &next, |_| None) {
            draft.pool.release(own);
            return Ok(false);
        }
        let done = draft.executor.submit(&step).and_then(|()| draft.executor.collect());
        if let Err(e) = done {
            draft.pool.release(own);
            return Err(e);
        }
    }
    task.draft = Some(own);
    Ok(true)
}

/// Adds a sequence's row to the draft model's step, if it may propose one more token.
fn push(Running { task, sequence, .. }: &mut Running, round: usize, draft: &mut Model, step: &mut Step) -> bool {
    let last = task.tokens()[task.tokens().len() - 1];
    let draw = Draw { logits: false, ..task.draw(round) };
    let may = round < task.may_propose(sequence);
    let token = if round == 0 { Token::Id(last) } else { Token::Sampled(sequence.slot) };
    let Some(own) = task.draft.as_mut().filter(|_| may) else { return false };
    step.push(own, &mut draft.pool, &[token], |_| Some(draw))
}
