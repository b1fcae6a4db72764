//! What a generation says while it runs.

use crate::text::{RejectedToolCall, ToolCall};
use std::{fmt, time::Duration};

/// What a generation says while it runs.
#[derive(Clone, PartialEq, Debug)]
pub enum Generation {
    /// A token that was generated. One that ended the generation is not among them.
    Token(u32),
    /// Text that tokens completed: whole characters, no part of a stop string, of a tool call or of reasoning.
    Chunk(String),
    /// What the model says to itself before it answers, likewise.
    Reasoning(String),
    /// The model wants a tool to be called.
    ToolCall(ToolCall),
    /// The model wrote something that was to be a call and is none.
    RejectedToolCall(RejectedToolCall),
    /// The end: the last event of every generation that does not fail.
    Info(GenerateCompletionInfo),
}

/// How a generation went.
#[derive(Clone, PartialEq, Debug)]
pub struct GenerateCompletionInfo {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in a prompt cache and not computed again.
    pub cached_prompt_tokens: usize,
    /// Tokens that came out.
    pub generation_tokens: usize,
    /// From the first step to the first token.
    pub prompt_time: Duration,
    /// From the first token to the last.
    pub generate_time: Duration,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Tokens that a draft model proposed.
    pub proposed_draft_tokens: usize,
    /// How many of them were right.
    pub accepted_draft_tokens: usize,
    /// Tool calls that were none.
    pub rejected_tool_calls: usize,
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// The model ended it, or a stop string appeared.
    Stop,
    /// As many tokens as were asked for, or as the context holds.
    Length,
    /// It was cancelled.
    Cancelled,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Stop => "stop",
            StopReason::Length => "length",
            StopReason::Cancelled => "cancelled",
        })
    }
}

impl GenerateCompletionInfo {
    /// How fast the prompt was read, as far as it was not cached; 0 where no time was measured.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        per_second(self.prompt_tokens - self.cached_prompt_tokens, self.prompt_time)
    }

    /// How fast tokens came out. The first one belongs to the prompt's time. 0 where no time was
    /// measured.
    pub fn tokens_per_second(&self) -> f64 {
        per_second(self.generation_tokens.saturating_sub(1), self.generate_time)
    }
}

fn per_second(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}
