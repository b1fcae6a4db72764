//! An executor of which everything is known: it keeps token ids where others keep keys and values, and
//! the next token is a function of all of them.

use super::super::{About, Request, Scheduler};
use crate::{
    Error, GenerateCompletionInfo, GenerateParameters, Generation, PromptCache, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, Executor, MemoryUse, PAGE, Step, StepResult, Token},
    model::{Model, ModelConfiguration, ModelInfo},
    text::fixtures,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, atomic::AtomicBool},
};
use tamarack_api::RopeSpec;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The byte-level tokenizer's: two special tokens, 256 bytes, five pairs.
pub const VOCABULARY: usize = 263;
pub const EOS: u32 = 1;

/// The token that follows others, given the seed and the count of draws (both 0 for a greedy one).
pub type Next = Arc<dyn Fn(&[u32], u32, u32) -> u32 + Send + Sync>;

/// What happened to an executor.
#[derive(Default)]
pub struct Log {
    pub steps: Vec<Step>,
    /// Steps that had not been collected when each step was submitted.
    pub ahead: Vec<usize>,
    pub fail_submit: BTreeSet<usize>,
    pub fail_collect: BTreeSet<usize>,
    pub no_numbers: bool,
    /// Whether the device is gone.
    pub lost: bool,
    pub dropped: bool,
}

pub struct Toy {
    capacity: Capacity,
    cache: Vec<u32>,
    sampled: Vec<u32>,
    done: VecDeque<(usize, StepResult)>,
    next: Next,
    /// What its keys depend on beside their token.
    rope: Option<RopeSpec>,
    pub log: Arc<Mutex<Log>>,
}

impl Toy {
    /// With keys that depend on the length of their sequence.
    pub fn with_rope(mut self, rope: RopeSpec) -> Toy {
        self.rope = Some(rope);
        self
    }

    /// What is kept of a token in a sequence of `length`: it shows which frequencies its key was rotated with.
    pub fn key(rope: Option<&RopeSpec>, token: u32, length: u32) -> u32 {
        let turned = rope.map_or(0, |rope| {
            let same = |n: u32| rope.frequencies_at(n as usize) == rope.frequencies_at(length as usize);
            (0..=length).find(|n| same(*n)).unwrap_or(length)
        });
        token + turned * 1024
    }

    pub fn new(rows: usize, pages: usize, next: Next) -> Toy {
        let capacity = Capacity { rows, outputs: 8, pages, slots: 8 };
        let (cache, sampled) = (vec![u32::MAX; pages * PAGE], vec![u32::MAX; capacity.slots]);
        Toy { capacity, cache, sampled, done: VecDeque::new(), next, rope: None, log: Arc::default() }
    }
}

impl Executor for Toy {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        step.check(&self.capacity, VOCABULARY)?;
        let mut log = self.log.lock().unwrap();
        let number = log.steps.len();
        log.steps.push(step.clone());
        log.ahead.push(self.done.len());
        if log.lost {
            return Err(lost());
        }
        if log.fail_submit.contains(&number) {
            return Err(Error::Device(format!("step {number} was refused")));
        }
        for row in &step.rows {
            let token = match row.token {
                Token::Id(id) => id,
                Token::Sampled(slot) => self.sampled[slot as usize],
            };
            self.cache[step.slot(row)] = Toy::key(self.rope.as_ref(), token, row.length);
        }
        let mut result = StepResult::default();
        for o in &step.outputs {
            let row = step.rows[o.row as usize];
            let tokens: Vec<u32> = (0..=row.index as usize).map(|i| self.cache[step.slot_at(&row, i)]).collect();
            let drawn = o.inv_temperature > 0.0 && !o.logits;
            let (seed, counter) = if drawn { (o.seed, o.counter) } else { (0, 0) };
            let next = (self.next)(&tokens, seed, counter);
            self.sampled[o.slot as usize] = next;
            let high = |id: usize| if log.no_numbers { f32::NAN } else { 5.0 - (id as f32 - next as f32).abs() };
            result.tokens.push(next);
            result.logits.push(if o.logits { (0..VOCABULARY).map(high).collect() } else { Vec::new() });
        }
        self.done.push_back((number, result));
        Ok(())
    }

    fn collect(&mut self) -> Result<StepResult> {
        let (number, result) = self.done.pop_front().expect("a step was submitted");
        let log = self.log.lock().unwrap();
        match log.fail_collect.contains(&number) {
            _ if log.lost => Err(lost()),
            true => Err(Error::Device(format!("step {number} was lost"))),
            false => Ok(result),
        }
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { kv: self.cache.len() as u64, ..MemoryUse::default() }
    }

    fn update(&mut self, _: &Checkpoint, _: &BTreeSet<String>) -> Result<()> {
        Err(Error::Request("a toy has no weights".to_owned()))
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        vec![[1, 0]]
    }

    fn read_cache(&mut self, _: usize, pages: &[u32]) -> Result<Vec<f32>> {
        Ok(pages.iter().flat_map(|p| &self.cache[*p as usize * PAGE..][..PAGE]).map(|t| *t as f32).collect())
    }

    fn write_cache(&mut self, _: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        for (page, rows) in pages.iter().zip(rows.chunks_exact(PAGE)) {
            rows.iter().enumerate().for_each(|(i, t)| self.cache[*page as usize * PAGE + i] = *t as u32);
        }
        Ok(())
    }

    fn device(&self) -> String {
        "toy".to_owned()
    }

    fn lost(&self) -> Option<Error> {
        self.log.lock().unwrap().lost.then(lost)
    }

    fn lose(&mut self) {
        self.log.lock().unwrap().lost = true;
    }
}

fn lost() -> Error {
    Error::DeviceLost("toy: the device was lost: it broke".to_owned())
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.log.lock().unwrap().dropped = true;
    }
}

/// A byte's token that depends on everything before it.
pub fn scrambled() -> Next {
    Arc::new(|tokens, seed, counter| {
        let mix = |h: u32, x: u32| (h ^ x).wrapping_mul(0x9E37_79B1).rotate_left(13);
        2 + tokens.iter().fold(mix(mix(7, seed), counter), |h, t| mix(h, *t)) % 256
    })
}

/// Says `text` after a prompt of one token, then nothing but end-of-sequence tokens.
pub fn says(text: &str) -> Next {
    let tokens = fixtures::tokenizer(&fixtures::byte_level()).encode(text, false).unwrap();
    Arc::new(move |before, _, _| tokens.get(before.len() - 1).copied().unwrap_or(EOS))
}

/// A scheduler over a toy.
pub struct Bench {
    pub model: Model,
    pub scheduler: Scheduler,
    pub log: Arc<Mutex<Log>>,
    info: ModelInfo,
}

/// The reading end of a request.
pub struct Reader {
    pub events: UnboundedReceiver<Result<Generation>>,
    pub cancelled: Arc<AtomicBool>,
}

/// What came out of a generation.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tokens: Vec<u32>,
    pub text: String,
    pub end: Option<Result<GenerateCompletionInfo>>,
}

pub fn info(capacity: Capacity) -> ModelInfo {
    ModelInfo {
        image_rows: 0,
        unused: Default::default(),
        model_type: "toy".to_owned(),
        plugin: "toy".to_owned(),
        device: "toy".to_owned(),
        is_software: true,
        parameters: 0,
        bytes: 0,
        vocabulary: VOCABULARY,
        context: capacity.pages * PAGE,
        step_rows: capacity.rows,
    }
}

pub fn configuration() -> ModelConfiguration {
    let mut configuration = ModelConfiguration::directory("toy");
    configuration.eos_token_ids.insert(EOS);
    configuration
}

impl Bench {
    pub fn new(rows: usize, pages: usize, next: Next) -> Bench {
        let toy = Toy::new(rows, pages, next);
        let (log, capacity) = (toy.log.clone(), toy.capacity());
        let model = Model::new(Box::new(toy));
        Bench { model, scheduler: Scheduler::new(capacity), log, info: info(capacity) }
    }

    pub fn request(&self, prompt: &[u32], parameters: GenerateParameters) -> Result<(Request, Reader)> {
        let (send, events) = unbounded_channel();
        let tokenizer = fixtures::tokenizer(&fixtures::byte_level());
        let (configuration, tokenizer) = (configuration(), Some(&tokenizer));
        let about = About { configuration: &configuration, tokenizer, info: &self.info };
        let request = Request::new(prompt.to_vec().into(), parameters, Default::default(), None, &about, send)?;
        let cancelled = request.cancelled.clone();
        Ok((request, Reader { events, cancelled }))
    }

    /// A request that begins from a prompt cache and leaves there what it computes.
    pub fn add_from(&mut self, prompt: &[u32], parameters: GenerateParameters, cache: &PromptCache) -> Reader {
        let (mut request, reader) = self.request(prompt, parameters).unwrap();
        request.cache = Some(cache.clone());
        self.scheduler.add(request);
        reader
    }

    pub fn add(&mut self, prompt: &[u32], parameters: GenerateParameters) -> Reader {
        let (request, reader) = self.request(prompt, parameters).unwrap();
        self.scheduler.add(request);
        reader
    }

    pub fn turn(&mut self) {
        self.scheduler.turn(&mut self.model);
    }

    /// Until nothing is left to do; everything must have been given back then.
    pub fn finish(&mut self) {
        for turn in 0.. {
            if self.scheduler.is_idle() {
                break;
            }
            assert!(turn < 100_000, "it goes on and on");
            self.turn();
        }
        let held = |cache: &PromptCache| cache.peek(|_, sequence| sequence.map_or(0, |s| s.pages().len()));
        let held: usize = self.model.caches.iter().map(held).sum();
        assert_eq!(self.model.pool.free() + held, self.model.capacity().pages, "pages are lost");
        if let Some(draft) = &self.model.draft {
            assert_eq!(draft.pool.free(), draft.capacity().pages, "pages of the draft model are lost");
        }
    }

    /// One generation by itself.
    pub fn run(&mut self, prompt: &[u32], parameters: GenerateParameters) -> Outcome {
        let mut reader = self.add(prompt, parameters);
        self.finish();
        reader.read()
    }
}

impl Reader {
    /// Everything that has come so far.
    pub fn read(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        while let Ok(event) = self.events.try_recv() {
            assert!(outcome.end.is_none(), "something came after the end");
            match event {
                Ok(Generation::Token(token)) => outcome.tokens.push(token),
                Ok(Generation::Chunk(text)) => outcome.text += &text,
                Ok(Generation::Info(info)) => outcome.end = Some(Ok(info)),
                Ok(other) => panic!("{other:?} in what is no conversation"),
                Err(e) => outcome.end = Some(Err(e)),
            }
        }
        outcome
    }
}

impl Outcome {
    /// `stop`, `length`, `cancelled`, or the error.
    pub fn reason(&self) -> String {
        match &self.end {
            Some(Ok(info)) => info.stop_reason.to_string(),
            Some(Err(e)) => e.to_string(),
            None => "goes on".to_owned(),
        }
    }
}
