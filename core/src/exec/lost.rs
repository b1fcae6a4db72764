//! What stands in for an executor whose device was lost.

use super::{Capacity, Executor, MemoryUse, Step, StepResult};
use crate::{Error, Result, checkpoint::Checkpoint};
use std::collections::BTreeSet;

/// What an executor was, without its device: what is left of the device's memory is free for the next one.
#[derive(Clone, PartialEq)]
pub(crate) struct Lost {
    capacity: Capacity,
    vocabulary: usize,
    image_rows: usize,
    patches: usize,
    widths: Vec<[usize; 2]>,
    device: String,
    is_software: bool,
}

impl Lost {
    /// What is known of an executor.
    pub fn of(executor: &dyn Executor) -> Lost {
        Lost {
            capacity: executor.capacity(),
            vocabulary: executor.vocabulary(),
            image_rows: executor.image_rows(),
            patches: executor.patches(),
            widths: executor.cache_widths(),
            device: executor.device(),
            is_software: executor.is_software(),
        }
    }

    /// Whether two executors serve the same requests, wherever they run.
    pub fn is_like(&self, other: &Lost) -> bool {
        Lost { device: self.device.clone(), is_software: self.is_software, ..other.clone() } == *self
    }

    /// An error that says what became of the device.
    pub fn because(&self, why: impl std::fmt::Display) -> Error {
        Error::DeviceLost(format!("{}: the device was lost, and {why}", self.device))
    }

    fn refuse<T>(&self) -> Result<T> {
        Err(self.because("the model is not loaded anew yet"))
    }
}

impl Executor for Lost {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn submit(&mut self, _: &Step) -> Result<()> {
        self.refuse()
    }

    fn collect(&mut self) -> Result<StepResult> {
        self.refuse()
    }

    fn image_rows(&self) -> usize {
        self.image_rows
    }

    fn patches(&self) -> usize {
        self.patches
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }

    fn update(&mut self, _: &Checkpoint, _: &BTreeSet<String>) -> Result<()> {
        self.refuse()
    }

    fn cache_widths(&self) -> Vec<[usize; 2]> {
        self.widths.clone()
    }

    fn read_cache(&mut self, _: usize, _: &[u32]) -> Result<Vec<f32>> {
        self.refuse()
    }

    fn write_cache(&mut self, _: usize, _: &[u32], _: &[f32]) -> Result<()> {
        self.refuse()
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn is_software(&self) -> bool {
        self.is_software
    }

    fn lost(&self) -> Option<Error> {
        self.refuse::<()>().err()
    }
}
