//! Generation as a host app sees it: parameters, and the stream of what comes out.

mod components;
mod events;
mod parameters;
mod prompt_cache;
mod stream;

pub use components::{GenerationComponents, LogitProcessor, LogitSampler};
pub use events::{GenerateCompletionInfo, Generation, StopReason};
pub use parameters::GenerateParameters;
pub use prompt_cache::PromptCache;
pub use stream::GenerationStream;
