//! The scheduler and the thread, over an executor of which everything is known.

mod batching;
mod ending;
mod thread;
mod toy;
