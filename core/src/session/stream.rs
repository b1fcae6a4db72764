//! One turn of a conversation, as it happens.

use super::ChatSession;
use crate::{Error, GenerateCompletionInfo, Generation, GenerationStream, Result, StopReason, text::ToolCall};
use serde_json::{Value, json};

/// How many times a turn may call tools, one after the other. A model that goes on calling would never answer: its turn
/// fails, and with it goes the call without a result, which some templates refuse.
const ROUNDS: usize = 16;

/// What happens in one turn: the events of its generations, with one [`Generation::Info`] for all of them at the end.
///
/// Dropping it cancels the turn and leaves the conversation as it was. So does an error, such as [`Error::Request`] if
/// the model has called tools 16 times in a row and asks for more.
pub struct SessionStream<'a> {
    session: &'a mut ChatSession,
    generation: Option<GenerationStream>,
    /// What this turn adds to the conversation once it is complete.
    turns: Vec<Value>,
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    rounds: usize,
    sum: Option<GenerateCompletionInfo>,
}

impl<'a> SessionStream<'a> {
    pub(super) async fn begin(session: &'a mut ChatSession, turns: Vec<Value>) -> Result<SessionStream<'a>> {
        let mut stream = SessionStream {
            session,
            generation: None,
            turns,
            text: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            rounds: 0,
            sum: None,
        };
        stream.session.fetch().await?;
        stream.generate().await?;
        Ok(stream)
    }

    /// The next event.
    pub async fn next(&mut self) -> Option<Result<Generation>> {
        loop {
            let event = self.generation.as_mut()?.next().await?;
            match &event {
                Ok(Generation::Chunk(text)) => self.text += text,
                Ok(Generation::Reasoning(text)) => self.reasoning += text,
                Ok(Generation::ToolCall(call)) => self.calls.push(call.clone()),
                Ok(Generation::Info(info)) => {
                    self.generation = None;
                    let info = self.add(info.clone());
                    if info.stop_reason == StopReason::Cancelled {
                        return Some(Ok(Generation::Info(info)));
                    }
                    self.turns.push(self.answer());
                    if self.can_call() {
                        if self.rounds == ROUNDS {
                            return Some(Err(too_many_rounds(&self.calls)));
                        }
                        if let Err(e) = self.call_tools().await {
                            return Some(Err(e));
                        }
                        continue;
                    }
                    self.session.history.append(&mut self.turns);
                    let mut media = std::mem::take(&mut self.session.next_media);
                    self.session.media.append(&mut media);
                    return Some(Ok(Generation::Info(info)));
                }
                Ok(_) => {}
                Err(_) => self.generation = None,
            }
            return Some(event);
        }
    }

    /// Asks the turn to end; the stream goes on to its [`Generation::Info`], and the conversation stays as it was.
    pub fn cancel(&self) {
        if let Some(generation) = &self.generation {
            generation.cancel();
        }
    }

    /// The text of the answer so far.
    pub fn into_text(self) -> String {
        self.text
    }

    async fn generate(&mut self) -> Result<()> {
        let ChatSession { container, parameters, cache, .. } = &*self.session;
        let input = container.prepare(self.session.input(&self.turns)).await?;
        self.generation = Some(container.generate_from(input, parameters.clone(), cache).await?);
        Ok(())
    }

    /// The assistant's turn, as chat templates read it.
    fn answer(&self) -> Value {
        let mut turn = json!({ "role": "assistant", "content": self.text });
        if !self.reasoning.is_empty() {
            turn["reasoning_content"] = self.reasoning.clone().into();
        }
        if !self.calls.is_empty() {
            turn["tool_calls"] = self.calls.iter().map(ToolCall::to_message).collect();
        }
        turn
    }

    /// Whether there are calls, and a handler for each of them.
    fn can_call(&self) -> bool {
        let has_handler = |call: &ToolCall| self.session.tools.iter().any(|t| t.name() == call.name && t.has_handler());
        !self.calls.is_empty() && self.calls.iter().all(has_handler)
    }

    async fn call_tools(&mut self) -> Result<()> {
        self.rounds += 1;
        self.text.clear();
        self.reasoning.clear();
        for call in std::mem::take(&mut self.calls) {
            if let Some(tool) = self.session.tools.iter().find(|t| t.name() == call.name).cloned() {
                self.turns.push(tool.call(&call).await);
            }
        }
        self.generate().await
    }

    /// Adds up what the turn's generations took.
    fn add(&mut self, info: GenerateCompletionInfo) -> GenerateCompletionInfo {
        let sum = match self.sum.take() {
            None => info,
            Some(before) => GenerateCompletionInfo {
                prompt_tokens: before.prompt_tokens + info.prompt_tokens,
                cached_prompt_tokens: before.cached_prompt_tokens + info.cached_prompt_tokens,
                generation_tokens: before.generation_tokens + info.generation_tokens,
                prompt_time: before.prompt_time + info.prompt_time,
                generate_time: before.generate_time + info.generate_time,
                stop_reason: info.stop_reason,
                proposed_draft_tokens: before.proposed_draft_tokens + info.proposed_draft_tokens,
                accepted_draft_tokens: before.accepted_draft_tokens + info.accepted_draft_tokens,
                rejected_tool_calls: before.rejected_tool_calls + info.rejected_tool_calls,
            },
        };
        self.sum = Some(sum.clone());
        sum
    }
}

fn too_many_rounds(calls: &[ToolCall]) -> Error {
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    Error::Request(format!(
        "the model called tools {ROUNDS} times without an answer, and asks for {} again: the turn is given up, and the \
         conversation is as it was before; tell the model in the prompt when to stop, or offer it fewer tools",
        names.join(", ")
    ))
}
