//! Text: tokens, chat templates and incremental decoding.

mod answer;
mod decode;
#[cfg(test)]
pub(crate) mod fixtures;
mod gguf_tokenizer;
mod message;
mod pieces;
mod reasoning;
mod stop;
mod template;
mod tokenizer;
mod tokenizer_files;
mod tools;

pub(crate) use answer::{AnswerFormat, AnswerStream};
pub use decode::TextStream;
pub use message::{Message, plain_prompt};
pub use reasoning::ReasoningFormat;
pub use stop::{Checked, StopStrings};
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
pub(crate) use tools::Piece;
pub use tools::{RejectedToolCall, RejectionReason, ToolCall, ToolCallFormat};
