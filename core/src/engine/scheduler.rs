//! Which rows go into the next step.
//!
//! Sequences that generate give a row each, then prompts fill the step. While a step runs, the next
//! one is submitted, so that the device never waits for the host; a row that was run for a sequence
//! which turns out to have ended is thrown away. Steps run in order, so the pages of an ended sequence
//! can be given away at once.

use super::{
    Request,
    request::Window,
    task::{Room, Task},
};
use crate::{
    Error, Result,
    exec::{Capacity, PAGE, Pool, Sequence, Step, StepResult},
    generate::StopReason,
    model::Model,
};
use std::collections::VecDeque;

/// Steps that are submitted and not collected, at most.
const IN_FLIGHT: usize = 2;

/// All generations of one model.
pub(super) struct Scheduler {
    capacity: Capacity,
    /// In the order in which they came.
    waiting: VecDeque<Task>,
    /// In the same order.
    pub(super) running: Vec<Running>,
    flights: VecDeque<Flight>,
    slots: Vec<u32>,
    next_id: u64,
}

/// A task with a place in the cache.
pub(super) struct Running {
    id: u64,
    pub task: Task,
    pub sequence: Sequence,
}

/// A step that was submitted.
#[derive(Default)]
struct Flight {
    /// Those who have rows in it.
    members: Vec<u64>,
    /// Those who get tokens from it, in the order of its outputs, and how many.
    outputs: Vec<(u64, usize)>,
    /// Whether somebody in it waits for the host to look at its tokens.
    is_awaited: bool,
}

impl Scheduler {
    /// A scheduler of nothing.
    pub fn new(capacity: Capacity) -> Scheduler {
        let slots = (0..capacity.slots.min(capacity.outputs).min(capacity.rows) as u32).rev().collect();
        let (waiting, running, flights) = (VecDeque::new(), Vec::new(), VecDeque::new());
        Scheduler { capacity, waiting, running, flights, slots, next_id: 0 }
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.flights.is_empty()
    }

    /// Takes a request on.
    pub fn add(&mut self, request: Request) {
        let task = Task::new(request);
        match task.is_full() {
            true => task.finish(StopReason::Length),
            false => self.waiting.push_back(task),
        }
    }

    /// Submits a step if there is one to submit, and collects one if there is nothing better to do.
    pub fn turn(&mut self, model: &mut Model) {
        self.recover(model);
        self.end_cancelled(model);
        self.admit(model);
        // Going ahead of a token that the host chooses would leave its sequence out, and from then on
        // half of the sequences would run in every other step.
        let may_submit = self.flights.len() < IN_FLIGHT && !self.flights.iter().any(|f| f.is_awaited);
        let submitted = may_submit && self.submit(model);
        if !submitted || self.flights.len() == IN_FLIGHT {
            self.collect(model);
        }
    }

    /// Collects all steps: from then on the host knows every token.
    pub fn drain(&mut self, model: &mut Model) {
        while !self.flights.is_empty() {
            self.collect(model);
        }
    }

    /// Cancels all generations.
    pub fn end_all(&mut self, model: &mut Model) {
        while !self.running.is_empty() {
            self.remove(0, model).finish(StopReason::Cancelled);
        }
        self.waiting.drain(..).for_each(|task| task.finish(StopReason::Cancelled));
    }

    /// Has what all generations know computed anew, since the model is another one. No step is under way.
    pub fn start_anew(&mut self, model: &mut Model) {
        while let Some(last) = self.running.len().checked_sub(1) {
            let task = self.remove(last, model);
            self.waiting.push_front(task);
        }
        // What prompt caches hold is the old model's.
        while model.reclaim() {}
    }

    /// If the model's device was lost: ends all that had something there, and has the model loaded anew for those who wait or
    /// are still to come. A draft model's loss ends nothing.
    pub fn recover(&mut self, model: &mut Model) {
        if !model.is_lost() {
            return;
        }
        if let Some(error) = model.executor.lost() {
            self.flights.clear();
            while !self.running.is_empty() {
                self.abort(0, again(&error), model);
            }
            while model.reclaim() {}
        }
        for Running { task, .. } in &mut self.running {
            task.set_draft(false);
            if let (Some(sequence), Some(draft)) = (task.draft.take(), &mut model.draft) {
                draft.pool.release(sequence);
            }
        }
        if let Err(e) = model.reload() {
            tracing::error!("{e}");
            self.waiting.drain(..).for_each(|task| task.fail(again(&e)));
        }
    }

    fn end_cancelled(&mut self, model: &mut Model) {
        while let Some(at) = self.running.iter().position(|r| r.task.is_cancelled()) {
            self.retire(at, model).finish(StopReason::Cancelled);
        }
        while let Some(at) = self.waiting.iter().position(Task::is_cancelled) {
            if let Some(task) = self.waiting.remove(at) {
                task.finish(StopReason::Cancelled);
            }
        }
    }

    /// Gives places to those who wait, in their order, as long as the cache has room for what they know
    /// and a page for each sequence to grow by.
    fn admit(&mut self, model: &mut Model) {
        while let Some(slot) = self.slots.last() {
            let Some(mut task) = self.waiting.pop_front() else { return };
            task.set_draft(model.draft.is_some());
            let promised: usize =
                self.running.iter().map(|r| r.task.pages_wanted(&r.sequence, 0, &model.pool) + 1).sum();
            let adapter = match model.adapter_number(task.adapter()) {
                Ok(adapter) => adapter,
                Err(e) => {
                    task.fail(e);
                    continue;
                }
            };
            let sequence = task.begin(*slot, adapter, &model.ropes, &mut model.pool);
            let (wanted, to_come) = (task.pages_wanted(&sequence, 1, &model.pool), task.to_come(&sequence, 1));
            let fits = |pool: &Pool| wanted + promised <= pool.free() && !pool.lacks(&sequence, to_come);
            while !fits(&model.pool) && model.reclaim() {}
            if fits(&model.pool) {
                self.slots.pop();
                task.begun(&sequence);
                self.running.push(Running { id: self.next_id, task, sequence });
                self.next_id += 1;
                continue;
            }
            // It waits with nothing in its hands, so that those who run can go on.
            model.pool.release(sequence);
            task.check_in(None);
            if !self.running.is_empty() {
                return self.waiting.push_front(task);
            }
            let (least, free) = (task.pages_alone(&model.pool), model.pool.free());
            if least <= free { self.waiting.push_front(task) } else { task.fail(no_room(least, free)) }
        }
    }

    /// Whether a step was submitted.
    fn submit(&mut self, model: &mut Model) -> bool {
        self.propose(model);
        let (step, flight) = self.step(model);
        if step.rows.is_empty() {
            self.make_room(model);
            return false;
        }
        match model.executor.submit(&step) {
            Ok(()) => self.flights.push_back(flight),
            Err(e) => self.fail(&flight.members, &e, model),
        }
        true
    }

    /// Rows of all who have some, as far as they and their pages fit.
    fn step(&mut self, model: &mut Model) -> (Step, Flight) {
        let (mut step, mut flight) = (Step::default(), Flight::default());
        let mut failed = Vec::new();
        model.images.turn();
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        // Those who generate come first: a long prompt must not make them wait.
        order.sort_by_key(|i| self.running[*i].task.tokens().len() > self.running[*i].sequence.fed() + 1);
        for i in order {
            let Running { id, task, sequence } = &mut self.running[i];
            let Capacity { rows, outputs, .. } = self.capacity;
            let rows = rows - step.rows.len();
            if task.has_outgrown(sequence, &model.ropes) {
                sequence.restart(task.tokens().len());
            }
            let longest = model.ropes.longest(sequence.admitted as usize);
            let known = match model.see(sequence, task.most(rows), rows) {
                Ok(known) => known,
                Err(e) => {
                    failed.push((*id, e));
                    continue;
                }
            };
            let room = Room { rows, outputs: outputs - step.outputs.len(), known, longest };
            let Some(feed) = task.feed(sequence, room) else { continue };
            while model.pool.lacks(sequence, feed.tokens.len()) && model.reclaim() {}
            let first = feed.tokens.len() - feed.draws.len();
            let draw = |i: usize| feed.draws.get(i.checked_sub(first)?).copied();
            if step.push(sequence, &mut model.pool, &feed.tokens, draw) {
                task.submitted(&feed);
                if let Some(Window { most, .. }) = task.window() {
                    sequence.rotate(Window::KEPT, most);
                }
                flight.members.push(*id);
                if !feed.draws.is_empty() {
                    flight.outputs.push((*id, feed.draws.len()));
                    flight.is_awaited |= task.waits();
                }
            }
        }
        for (id, e) in failed {
            if let Some(at) = self.running.iter().position(|r| r.id == id) {
                self.abort(at, e, model);
            }
        }
        (step, flight)
    }

    /// Nobody has a row that fits. If no step is on its way, then the cache is full: the last one to
    /// be admitted gives its pages up and waits, to be computed anew.
    fn make_room(&mut self, model: &mut Model) {
        if !self.flights.is_empty() || self.running.is_empty() {
            return;
        }
        let task = self.remove(self.running.len() - 1, model);
        task.check_in(None);
        if self.running.is_empty() {
            let error = no_room(task.pages_alone(&model.pool), model.pool.free());
            task.fail(error);
        } else {
            self.waiting.push_front(task);
        }
    }

    fn collect(&mut self, model: &mut Model) {
        let Some(flight) = self.flights.pop_front() else { return };
        let outputs = flight.outputs.iter().map(|(_, count)| count).sum();
        let result = model.executor.collect().and_then(|r| whole(r, outputs));
        match result {
            Ok(mut result) => {
                let mut at = 0;
                for (id, count) in &flight.outputs {
                    let (tokens, logits) = (&result.tokens[at..at + count], &mut result.logits[at..at + count]);
                    self.take(*id, tokens, logits, model);
                    at += count;
                }
            }
            Err(e) => self.fail(&flight.members, &e, model),
        }
    }

    /// Gives tokens to whom they belong. One that has ended in the meantime needs them no more.
    fn take(&mut self, id: u64, tokens: &[u32], logits: &mut [Vec<f32>], model: &mut Model) {
        let Some(at) = self.running.iter().position(|r| r.id == id) else { return };
        let Running { task, sequence, .. } = &mut self.running[at];
        match task.take(tokens, logits) {
            // What was proposed and is not what came has to go, and the last token is still to be fed.
            Ok(None) if tokens.len() > 1 => {
                sequence.truncate(task.tokens().len() - 1, &mut model.pool);
            }
            Ok(None) => {}
            Ok(Some(reason)) => self.retire(at, model).finish(reason),
            Err(e) => self.abort(at, e, model),
        }
    }

    fn fail(&mut self, members: &[u64], error: &Error, model: &mut Model) {
        tracing::error!("a step failed: {error}");
        while let Some(at) = self.running.iter().position(|r| members.contains(&r.id)) {
            self.abort(at, again(error), model);
        }
    }

    /// Ends a task with an error. Nothing that it has computed is kept.
    fn abort(&mut self, at: usize, error: Error, model: &mut Model) {
        let task = self.remove(at, model);
        task.check_in(None);
        task.fail(error);
    }

    /// Ends a task and keeps what it has computed, if it has a prompt cache.
    fn retire(&mut self, at: usize, model: &mut Model) -> Task {
        if let Some(cache) = self.running[at].task.cache().cloned() {
            let Running { task, sequence, .. } = &mut self.running[at];
            // A row that was run ahead, and proposals, may be in it.
            let known = task.tokens().len().min(sequence.fed());
            if sequence.truncate(known, &mut model.pool) {
                let kept = std::mem::replace(sequence, Sequence::new(sequence.slot, 0));
                task.check_in(Some(kept));
                model.remember(&cache);
            }
        }
        self.remove(at, model)
    }

    fn remove(&mut self, at: usize, model: &mut Model) -> Task {
        let Running { mut task, sequence, .. } = self.running.remove(at);
        self.slots.push(sequence.slot);
        model.pool.release(sequence);
        if let (Some(sequence), Some(draft)) = (task.draft.take(), &mut model.draft) {
            draft.pool.release(sequence);
        }
        task
    }
}

/// Refuses a result that is not one of the step.
fn whole(result: StepResult, outputs: usize) -> Result<StepResult> {
    let (tokens, logits) = (result.tokens.len(), result.logits.len());
    if (tokens, logits) == (outputs, outputs) {
        return Ok(result);
    }
    Err(Error::Device(format!("a step of {outputs} outputs gave {tokens} tokens and {logits} rows of logits")))
}

/// The same error for each of several readers.
fn again(error: &Error) -> Error {
    match error {
        Error::DeviceLost(message) => Error::DeviceLost(message.clone()),
        Error::Memory(message) => Error::Memory(message.clone()),
        Error::Request(message) => Error::Request(message.clone()),
        other => Error::Device(other.to_string()),
    }
}

fn no_room(wanted: usize, free: usize) -> Error {
    Error::Memory(format!("the sequence takes {wanted} pages of {PAGE} tokens, and the cache has {free} free"))
}
