//! The scheduler and the thread, over an executor of which everything is known.

mod batching;
mod cache;
mod chat;
mod ending;
mod ropes;
mod speculation;
mod thread;
mod toy;
mod window;
