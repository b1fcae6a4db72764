//! Text: tokens, chat templates and incremental decoding.

mod message;
mod template;

pub use message::{Message, plain_prompt};
pub use template::ChatTemplate;
