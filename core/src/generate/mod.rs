//! Generation as a host app sees it: parameters, and the stream of what comes out.

mod events;
mod parameters;
mod stream;

pub use events::{GenerateCompletionInfo, Generation, StopReason};
pub use parameters::GenerateParameters;
pub use stream::GenerationStream;
