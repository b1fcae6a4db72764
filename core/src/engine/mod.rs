//! The engine: one thread that owns the device.
//!
//! Requests come through a channel, and each has a channel of its own for what it gives. Between steps
//! the thread looks for new requests, for those whose stream is gone, and for closures to run.

mod allocator;
mod penalties;
mod request;
mod sampler;
mod scheduler;
mod speculation;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use allocator::Trim;
pub(crate) use request::{About, MOST_OTHERS, Request};

use crate::{
    Error, Result,
    model::{ModelContext, Shared},
};
use allocator::{fix_thresholds, trim};
use scheduler::Scheduler;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvError, Sender, TryRecvError, channel},
    thread::{self, JoinHandle},
};
use tokio::sync::oneshot;

/// The stack of the engine's thread, on which wgpu translates shaders, those of plugins among them.
const STACK: usize = 8 << 20;

/// What a thread asks of the engine.
pub(crate) enum Command {
    /// Begin a generation.
    Generate(Box<Request>),
    /// Run this between steps.
    Perform(Box<dyn FnOnce(&mut ModelContext) + Send>),
    /// Free the model, say so, and end.
    Unload(oneshot::Sender<()>),
}

/// The engine's thread. Dropping it waits for the step that runs, and frees the device.
pub(crate) struct Engine {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, which loads the model and then serves it.
    pub async fn start(
        load: impl FnOnce() -> Result<(ModelContext, Shared)> + Send + 'static,
    ) -> Result<(Engine, Shared)> {
        fix_thresholds();
        let (commands, receive) = channel();
        let (send_loaded, loaded) = oneshot::channel();
        let run = move || match load() {
            Ok((context, shared)) => {
                if send_loaded.send(Ok(shared)).is_ok() {
                    serve(context, receive);
                }
            }
            Err(e) => {
                let _ = send_loaded.send(Err(e));
            }
        };
        let thread = thread::Builder::new().name("tamarack engine".to_owned()).stack_size(STACK).spawn(run);
        let thread = thread.map_err(|e| Error::Device(format!("no thread for the engine: {e}")))?;
        let shared = loaded.await.map_err(|_| Error::Device("loading panicked".to_owned()))??;
        Ok((Engine { commands: Some(commands), thread: Some(thread) }, shared))
    }

    /// Hands a command over.
    pub fn send(&self, command: Command) -> Result<()> {
        let sent = self.commands.as_ref().is_some_and(|c| c.send(command).is_ok());
        if sent { Ok(()) } else { Err(Error::Device("the model was unloaded".to_owned())) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.commands.take());
        // A closure that was the last to hold the container drops it on the engine's own thread.
        let thread = self.thread.take().filter(|t| t.thread().id() != thread::current().id());
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the engine's thread panicked");
        }
        trim();
    }
}

/// Runs until nobody can ask anything any more. Streams keep the engine, so nobody listens either.
fn serve(mut context: ModelContext, commands: Receiver<Command>) {
    let mut scheduler = Scheduler::new(context.model.capacity());
    loop {
        let idle = scheduler.is_idle();
        let next =
            if idle { commands.recv().map_err(|RecvError| TryRecvError::Disconnected) } else { commands.try_recv() };
        match next {
            Ok(Command::Generate(request)) => scheduler.add(*request),
            Ok(Command::Perform(work)) => {
                scheduler.drain(&mut context.model);
                scheduler.recover(&mut context.model);
                if catch_unwind(AssertUnwindSafe(|| work(&mut context))).is_err() {
                    tracing::error!("a closure panicked in perform");
                }
                if std::mem::take(&mut context.model.is_changed) {
                    scheduler.start_anew(&mut context.model);
                }
            }
            Ok(Command::Unload(done)) => {
                scheduler.drain(&mut context.model);
                scheduler.end_all(&mut context.model);
                drop(context);
                trim();
                // Whoever asks from now on is told that nobody is here.
                drop(commands);
                // Nobody has to wait for it.
                let _ = done.send(());
                return;
            }
            Err(TryRecvError::Empty) => scheduler.turn(&mut context.model),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}
