//! The processor's executor with every instruction set that this machine has.

use tamarack::{
    checkpoint::Checkpoint,
    cpu::{CpuExecutor, CpuSettings, Instructions},
    exec::Capacity,
    program::Program,
};

/// Loads a program with each of them, the best first; two threads, so that work is shared out anywhere.
pub fn executors(
    program: &Program,
    checkpoint: &Checkpoint,
    capacity: Capacity,
) -> impl Iterator<Item = (String, CpuExecutor)> {
    settings().into_iter().map(move |(name, settings)| {
        let executor = CpuExecutor::load(settings, program.clone(), checkpoint, capacity);
        (name, executor.unwrap_or_else(|e| panic!("{e}")))
    })
}

/// Each instruction set, and what tests call it.
pub fn settings() -> Vec<(String, CpuSettings)> {
    let settings = CpuSettings { threads: Some(2), ..CpuSettings::new().unwrap_or_else(|e| panic!("{e}")) };
    let of =
        |instructions: Instructions| (format!("cpu {}", instructions.name()), CpuSettings { instructions, ..settings });
    Instructions::found().into_iter().map(of).collect()
}
