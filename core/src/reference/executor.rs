//! Running a program node by node.

use super::{cache::Kept, fused, moe, ops};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    exec::{Capacity, Executor, ImagePatches, MemoryUse, PAGE, Step, StepResult, Token, rope_table},
    program::{Cache, Op, Program, custom},
    weights::{Matrix, fold},
};
use std::collections::{BTreeSet, HashMap, VecDeque};
use tamarack_api::WeightId;

/// Runs a program in plain f32 on the processor. Weights stay in the checkpoint and are decoded row
/// by row, each time they are used.
pub struct Reference {
    pub(super) program: Program,
    pub(super) weights: HashMap<WeightId, Matrix>,
    pub(super) vectors: HashMap<WeightId, Vec<f32>>,
    pub(super) caches: Vec<Kept>,
    capacity: Capacity,
    sampled: Vec<u32>,
    last_use: Vec<usize>,
    done: VecDeque<StepResult>,
    tower: Option<Box<Reference>>,
    /// Rows that the tower has made.
    images: Vec<f32>,
}

/// What the nodes of one step share.
pub(super) struct Context<'a> {
    pub step: &'a Step,
    pub tokens: Vec<u32>,
    pub ropes: Vec<Vec<[f32; 2]>>,
    /// What a tower's step comes with.
    pub image: Option<Seen<'a>>,
}

/// An image, and the step whose sequences are its windows.
pub(super) struct Seen<'a> {
    pub image: &'a ImagePatches,
    pub windows: Step,
}

impl Context<'_> {
    /// The step as a cache sees it.
    pub fn step_of(&self, cache: &Cache) -> &Step {
        self.image.as_ref().filter(|_| cache.windowed).map_or(self.step, |seen| &seen.windows)
    }
}

impl Reference {
    /// Prepares a program for steps up to `capacity`.
    pub fn load(program: Program, checkpoint: &Checkpoint, capacity: Capacity) -> Result<Reference> {
        custom::check_plain(&program)?;
        let slots = capacity.pages * PAGE;
        let caches = program.caches.iter().map(|c| Kept::new(*c, slots)).collect();
        let mut last_use: Vec<usize> = (0..program.nodes.len()).collect();
        for (i, node) in program.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|j| last_use[*j] = i);
        }
        let mut reference = Reference {
            weights: HashMap::new(),
            vectors: HashMap::new(),
            caches,
            capacity,
            sampled: vec![0; capacity.slots],
            last_use,
            done: VecDeque::new(),
            tower: None,
            images: Vec::new(),
            program,
        };
        reference.fold(checkpoint)?;
        Ok(reference)
    }

    /// With a tower, and room for as many rows as it makes of what it takes at most.
    pub fn with_tower(mut self, tower: Reference) -> Reference {
        self.images = vec![0.0; tower.capacity.outputs * tower.vocabulary()];
        self.tower = Some(Box::new(tower));
        self
    }

    /// Bytes of a slot of a cache.
    pub fn slot_bytes(cache: &Cache) -> usize {
        Kept::values(cache) * size_of::<f32>()
    }

    /// What [`Executor::memory`] will say of the same arguments.
    pub fn estimate(program: &Program, checkpoint: &Checkpoint, capacity: &Capacity) -> Result<MemoryUse> {
        let (slots, mut values) = (capacity.pages * PAGE, 0);
        for id in program.used_weights().1 {
            let vector = fold(&program.weights, id, checkpoint)?;
            values += vector.rows() * vector.cols();
        }
        let kv: usize = program.caches.iter().map(|c| slots * Kept::values(c)).sum();
        let bytes = |values: usize| (values * size_of::<f32>()) as u64;
        Ok(MemoryUse { weights: bytes(values), kv: bytes(kv), workspace: 0 })
    }

    fn fold(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let (matrices, vectors) = self.program.used_weights();
        let fold = |id| Ok((id, fold(&self.program.weights, id, checkpoint)?));
        let matrices = matrices.into_iter().map(fold).collect::<Result<_>>()?;
        let vectors = vectors.into_iter().map(|id| fold(id).map(|(id, m)| (id, m.values()))).collect::<Result<_>>()?;
        (self.weights, self.vectors) = (matrices, vectors);
        Ok(())
    }

    /// Runs a step and returns every node's result that `keep` asks for, by node.
    pub fn trace(&mut self, step: &Step, keep: impl Fn(usize) -> bool) -> Result<Vec<Option<Vec<f32>>>> {
        step.check(&self.capacity, self.vocabulary())?;
        self.trace_with(step, None, keep)
    }

    /// The same with an image.
    fn trace_with(
        &mut self,
        step: &Step,
        image: Option<Seen<'_>>,
        keep: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let token = |t: &Token| match *t {
            Token::Id(id) => id,
            Token::Sampled(slot) => self.sampled[slot as usize],
        };
        let context = Context {
            step,
            tokens: step.rows.iter().map(|r| token(&r.token)).collect(),
            ropes: self.program.ropes.iter().map(|r| rope_table(r, &step.rows)).collect(),
            image,
        };
        let mut values: Vec<Option<Vec<f32>>> = vec![None; self.program.nodes.len()];
        for i in 0..values.len() {
            let node = self.program.nodes[i].clone();
            let inputs: Vec<&[f32]> = node.inputs.iter().map(|j| values[*j].as_deref().unwrap_or(&[])).collect();
            let value = match &node.op {
                Op::Custom { .. } => custom::plain(&self.program, i, &inputs, |w| &self.vectors[&w])?,
                Op::Carried => return Err(Error::Request("the reference runs whole models alone".to_owned())),
                _ => self.eval(i, &inputs, &context),
            };
            values[i] = Some(value);
            for j in node.inputs {
                if self.last_use[j] == i && !keep(j) {
                    values[j] = None;
                }
            }
        }
        Ok(values)
    }

    fn eval(&mut self, i: usize, x: &[&[f32]], c: &Context<'_>) -> Vec<f32> {
        let node = self.program.nodes[i].clone();
        let dims = |n: usize| self.program.dims(node.inputs[n]);
        match &node.op {
            Op::Tokens => c.tokens.iter().map(|t| *t as f32).collect(),
            Op::Adapters => c.step.rows.iter().map(|r| r.adapter as f32).collect(),
            Op::Embedding { weight, scale } => {
                let (table, dim) = (&self.weights[weight], self.program.width(i));
                let mut out = vec![0.0; c.tokens.len() * dim];
                let is_tokens = matches!(self.program.nodes[node.inputs[0]].op, Op::Tokens);
                for (i, row) in out.chunks_exact_mut(dim).enumerate() {
                    let token = if is_tokens { c.tokens[i] as usize } else { x[0][i] as usize };
                    table.row(if token < table.rows() { token } else { 0 }, row);
                    row.iter_mut().for_each(|v| *v *= scale);
                }
                out
            }
            Op::MatMul(m) => self.matmul(m, x, dims(0).last().copied().unwrap_or(1)),
            Op::Norm { norm, post } => {
                fused::post(self.norm(norm, x[0], dims(0).last().copied().unwrap_or(1)), post, &x[1..])
            }
            Op::Map(steps) => fused::post(x[0].to_vec(), steps, &x[1..]),
            Op::Binary { op, post } => {
                fused::post(fused::binary(*op, x[0], &dims(0), x[1], &dims(1), &self.program.dims(i)), post, &x[2..])
            }
            Op::MulWeight { weight, post } => {
                let weight = &self.vectors[weight];
                let y = x[0].iter().enumerate().map(|(i, v)| v * weight[i % weight.len()]).collect();
                fused::post(y, post, &x[1..])
            }
            Op::Xielu(parameters) => {
                let p = &self.vectors[parameters];
                x[0].iter().map(|v| ops::xielu(*v, [p[0], p[1], p[2], p[3]])).collect()
            }
            Op::Mean => ops::mean(x[0], dims(0).last().copied().unwrap_or(1)),
            Op::RowMatMul => ops::row_matmul(x[0], x[1], dims(0)[0], dims(0)[1], dims(1)[1]),
            Op::HeadLinear(h) => self.head_linear(h, x[0], &dims(0)),
            Op::Conv(conv) => self.conv(conv, x, c),
            Op::Reshape => x[0].to_vec(),
            Op::Slice { dim, start } => fused::slice(x[0], &dims(0), dim - 1, *start, self.program.dims(i)[dim - 1]),
            Op::Concat => {
                let widths: Vec<usize> = (0..x.len()).map(|n| dims(n).last().copied().unwrap_or(1)).collect();
                fused::concat(x, &widths)
            }
            Op::Rope(rope) => self.rope(*rope, x[0], &dims(0), c),
            Op::Prepare(p) => self.prepare(p, &node.inputs, x, c),
            Op::Attend { cache, spec } => self.attend(*cache, spec, x[0], dims(0)[0], c),
            Op::Route(spec) => {
                let bias = spec.choice_bias.map(|b| self.vectors[&b].as_slice());
                moe::route(x[0], dims(0)[0], spec, bias)
            }
            Op::ExpertUp(up) => self.expert_up(up, x[0], x[1], [dims(0)[0], dims(1)[1]]),
            Op::ExpertDown(down) => fused::post(self.expert_down(down, x[0], x[1], &dims(0)), &down.post, &x[2..]),
            Op::Patches => c.image.as_ref().map(|s| s.image.ordered(&s.image.pixels).into_owned()).unwrap_or_default(),
            Op::PatchInput(name) => {
                let values =
                    c.image.as_ref().and_then(|s| Some(s.image.ordered(s.image.inputs.get(name)?).into_owned()));
                values.unwrap_or_default()
            }
            Op::MergeEmbeddings => self.with_images(i, x[0], c, 0, |out, row| *out = row),
            Op::AddEmbeddings(part) => self.with_images(i, x[0], c, *part, |out, row| *out += row),
            Op::Custom { .. } | Op::Carried => Vec::new(), // see `trace_with`
            Op::Outputs => {
                let width = self.program.width(i);
                c.step.outputs.iter().flat_map(|o| x[0][o.row as usize * width..][..width].to_vec()).collect()
            }
        }
    }

    /// Rows, and what becomes of those of images with a part of what the tower has made.
    fn with_images(&self, i: usize, x: &[f32], c: &Context<'_>, part: usize, f: impl Fn(&mut f32, f32)) -> Vec<f32> {
        let (width, mut y) = (self.program.width(i), x.to_vec());
        let whole = self.tower.as_ref().map_or(width, |t| t.vocabulary());
        for (row, out) in c.step.rows.iter().zip(y.chunks_exact_mut(width)) {
            let Some(at) = row.image else { continue };
            let image = &self.images[at as usize * whole + part * width..][..width];
            out.iter_mut().zip(image).for_each(|(out, v)| f(out, *v));
        }
        y
    }

    fn run(&mut self, step: &Step) -> Result<StepResult> {
        let output = self.program.output;
        let mut values = self.trace(step, |i| i == output)?;
        let logits = values[output].take().unwrap_or_default();
        let mut result = StepResult::default();
        for (row, o) in logits.chunks_exact(self.vocabulary()).zip(&step.outputs) {
            let token = ops::sample(row, o.inv_temperature, o.seed, o.counter);
            self.sampled[o.slot as usize] = token;
            result.tokens.push(token);
            result.logits.push(if o.logits { row.to_vec() } else { Vec::new() });
        }
        Ok(result)
    }
}

impl Executor for Reference {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn vocabulary(&self) -> usize {
        self.program.width(self.program.output)
    }

    fn submit(&mut self, step: &Step) -> Result<()> {
        let result = self.run(step)?;
        self.done.push_back(result);
        Ok(())
    }

    fn collect(&mut self) -> Result<StepResult> {
        self.done.pop_front().ok_or_else(|| crate::Error::Request("no step was submitted".to_owned()))
    }

    fn image_rows(&self) -> usize {
        self.tower.as_ref().map_or(0, |t| t.capacity.outputs)
    }

    fn patches(&self) -> usize {
        self.tower.as_ref().map_or(0, |t| t.capacity.rows)
    }

    fn see(&mut self, image: &ImagePatches, at: usize) -> Result<()> {
        let tower = self.tower.as_mut().ok_or_else(|| Error::Request("the model takes no images".to_owned()))?;
        let step = image.step();
        step.check(&tower.capacity, usize::MAX)?;
        let seen = Seen { image, windows: image.windows_step() };
        seen.windows.check(&tower.capacity, usize::MAX)?;
        let output = tower.program.output;
        let rows = tower.trace_with(&step, Some(seen), |i| i == output)?[output].take().unwrap_or_default();
        self.images[at * tower.vocabulary()..][..rows.len()].copy_from_slice(&rows);
        Ok(())
    }

    fn read_image_rows(&mut self, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let width = self.tower.as_ref().map_or(0, |t| t.vocabulary());
        Ok(self.images[rows.start * width..rows.end * width].to_vec())
    }

    /// Weights stay in the file, except for those that arithmetic has made; what a step needs, it gives back.
    fn memory(&self) -> MemoryUse {
        let bytes = |values: usize| (values * size_of::<f32>()) as u64;
        let vectors: usize = self.vectors.values().map(Vec::len).sum();
        let kv = self.caches.iter().map(Kept::len).sum();
        let own = MemoryUse { weights: bytes(vectors), kv: bytes(kv), workspace: 0 };
        match &self.tower {
            Some(tower) => own.with_tower(tower.memory(), bytes(self.images.len())),
            None => own,
        }
    }

    fn update(&mut self, checkpoint: &Checkpoint, _: &BTreeSet<String>) -> Result<()> {
        self.tower.as_mut().map_or(Ok(()), |tower| tower.fold(checkpoint))?;
        self.fold(checkpoint)
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        self.program.cache_widths()
    }

    fn read_cache(&mut self, cache: usize, pages: &[u32]) -> Result<Vec<f32>> {
        let slots = pages.iter().flat_map(|p| (0..PAGE).map(|i| *p as usize * PAGE + i));
        Ok(slots.flat_map(|slot| self.caches[cache].slot(slot).into_owned()).collect())
    }

    fn write_cache(&mut self, cache: usize, pages: &[u32], rows: &[f32]) -> Result<()> {
        let slots = pages.iter().flat_map(|p| (0..PAGE).map(|i| *p as usize * PAGE + i));
        for (slot, row) in slots.zip(rows.chunks_exact(self.program.caches[cache].width())) {
            self.caches[cache].set(slot, row);
        }
        Ok(())
    }

    fn device(&self) -> String {
        "reference (plain f32 on the processor)".to_owned()
    }
}
