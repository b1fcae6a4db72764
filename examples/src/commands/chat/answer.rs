//! One answer, as it comes.

use super::{output, sampling};
use serde_json::json;
use tamarack::{
    GenerateCompletionInfo, GenerateParameters, Generation, GenerationStream, ModelContainer, Result, SessionStream,
    StopReason,
};
use tokio::signal::ctrl_c;

/// How an answer ended.
pub struct Answer {
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Whether Ctrl-C was pressed a second time.
    pub is_over: bool,
}

/// Something that answers.
pub trait Answering {
    /// The next event.
    async fn next(&mut self) -> Option<Result<Generation>>;
    /// Asks it to end.
    fn cancel(&self);
}

impl Answering for GenerationStream {
    async fn next(&mut self) -> Option<Result<Generation>> {
        self.next().await
    }

    fn cancel(&self) {
        self.cancel();
    }
}

impl Answering for SessionStream<'_> {
    async fn next(&mut self) -> Option<Result<Generation>> {
        self.next().await
    }

    fn cancel(&self) {
        self.cancel();
    }
}

/// Prints what a generation says.
#[derive(Default)]
pub struct Printer {
    /// Events as JSON, and not the text alone.
    pub is_json: bool,
}

/// Prints an answer as it comes. Ctrl-C cancels it.
pub async fn show(stream: &mut impl Answering, printer: &Printer) -> anyhow::Result<Answer> {
    let mut answer = Answer { stop_reason: StopReason::Cancelled, is_over: false };
    let (mut interrupt, mut is_cancelled) = (Box::pin(ctrl_c()), false);
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            _ = &mut interrupt, if !answer.is_over => {
                interrupt = Box::pin(ctrl_c());
                stream.cancel();
                answer.is_over = is_cancelled;
                is_cancelled = true;
                continue;
            }
        };
        let Some(event) = event.transpose()? else { return Ok(answer) };
        printer.event(&event)?;
        if let Generation::Info(info) = event {
            answer.stop_reason = info.stop_reason;
        }
    }
}

impl Printer {
    /// Says what is going to answer, and how.
    pub fn start(&self, container: &ModelContainer, parameters: &GenerateParameters) -> anyhow::Result<()> {
        tracing::info!(
            "sampling: {}",
            sampling::settings(parameters).map(|(name, value)| format!("{name} {value}")).join(", ")
        );
        let parameters = sampling::as_json(parameters);
        match self.is_json {
            true => output::json_line(
                &json!({ "event": "model", "info": container.model_info(), "parameters": parameters }),
            ),
            false => Ok(()),
        }
    }

    /// The answer goes to stdout, and all about it to stderr.
    fn event(&self, event: &Generation) -> anyhow::Result<()> {
        match event {
            _ if self.is_json => return output::json_line(&as_json(event)),
            Generation::Token(_) => {}
            Generation::Chunk(text) => output::answer(text)?,
            Generation::Reasoning(text) => output::aside(text),
            Generation::ToolCall(call) => {
                output::aside(&format!(
                    "\n[calls {} {}]\n",
                    call.name,
                    serde_json::Value::from(call.arguments.clone())
                ));
            }
            Generation::RejectedToolCall(call) => {
                output::aside(&format!("\n[no call: {}: {}]\n", call.reason, call.message));
            }
            Generation::Info(info) => {
                output::text("\n")?;
                output::aside(&format!("{}\n", summary(info)));
            }
        }
        Ok(())
    }
}

fn as_json(event: &Generation) -> serde_json::Value {
    match event {
        Generation::Token(id) => json!({ "event": "token", "id": id }),
        Generation::Chunk(text) => json!({ "event": "text", "text": text }),
        Generation::Reasoning(text) => json!({ "event": "reasoning", "text": text }),
        Generation::ToolCall(call) => json!({ "event": "tool_call", "call": call }),
        Generation::RejectedToolCall(call) => json!({ "event": "rejected_tool_call", "call": call }),
        Generation::Info(info) => json!({
            "event": "done",
            "stop_reason": info.stop_reason.to_string(),
            "prompt_tokens": info.prompt_tokens,
            "cached_prompt_tokens": info.cached_prompt_tokens,
            "generation_tokens": info.generation_tokens,
            "prompt_tokens_per_second": info.prompt_tokens_per_second(),
            "tokens_per_second": info.tokens_per_second(),
            "proposed_draft_tokens": info.proposed_draft_tokens,
            "accepted_draft_tokens": info.accepted_draft_tokens,
        }),
    }
}

/// `prompt: 31 tokens, 96.0 tokens/s; answer: 8 tokens, 21.3 tokens/s`
fn summary(info: &GenerateCompletionInfo) -> String {
    let reason = match info.stop_reason {
        StopReason::Stop => "",
        StopReason::Length => "; cut off at the limit of tokens",
        StopReason::Cancelled => "; cancelled",
    };
    let (prompt, generation) = (info.prompt_tokens, info.generation_tokens);
    let (prompt_speed, speed) = (info.prompt_tokens_per_second(), info.tokens_per_second());
    let cached = match info.cached_prompt_tokens {
        0 => String::new(),
        cached => format!(" ({cached} kept)"),
    };
    let draft = match (info.accepted_draft_tokens, info.proposed_draft_tokens) {
        (_, 0) => String::new(),
        (accepted, proposed) => format!("; {accepted} of {proposed} guesses right"),
    };
    format!(
        "prompt: {prompt} tokens{cached}, {prompt_speed:.1} tokens/s; \
         answer: {generation} tokens, {speed:.1} tokens/s{draft}{reason}"
    )
}
