//! Text: tokens, chat templates and incremental decoding.

mod decode;
#[cfg(test)]
pub(crate) mod fixtures;
mod gguf_tokenizer;
mod message;
mod pieces;
mod pretokenizers;
mod stop;
mod template;
mod tokenizer;
mod tokenizer_files;

pub use decode::TextStream;
pub use message::{Message, plain_prompt};
pub use stop::{Checked, StopStrings};
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
