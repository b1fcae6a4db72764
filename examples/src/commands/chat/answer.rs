//! One answer, as it comes.

use super::output;
use serde_json::json;
use std::io::{self, Write};
use tamarack::{GenerateCompletionInfo, GenerateParameters, Generation, ModelContainer, StopReason, UserInput};
use tokio::signal::ctrl_c;

/// What came out.
pub struct Answer {
    /// All of the text.
    pub text: String,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Whether Ctrl-C was pressed a second time.
    pub is_over: bool,
}

/// Prints what a generation says.
pub struct Printer {
    /// Events as JSON, and not the text alone.
    pub is_json: bool,
}

/// Generates and prints an answer. Ctrl-C cancels it.
pub async fn stream(
    container: &ModelContainer,
    input: UserInput,
    parameters: &GenerateParameters,
    printer: &Printer,
) -> anyhow::Result<Answer> {
    let input = container.prepare(input).await?;
    let mut stream = container.generate(input, parameters.clone()).await?;
    let mut answer = Answer { text: String::new(), stop_reason: StopReason::Cancelled, is_over: false };
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
        match event {
            Generation::Token(_) => {}
            Generation::Chunk(text) => answer.text += &text,
            Generation::Info(info) => answer.stop_reason = info.stop_reason,
        }
    }
}

impl Printer {
    /// Says what is going to answer.
    pub fn start(&self, container: &ModelContainer) -> anyhow::Result<()> {
        match self.is_json {
            true => output::json_line(&json!({ "event": "model", "info": container.model_info() })),
            false => Ok(()),
        }
    }

    fn event(&self, event: &Generation) -> anyhow::Result<()> {
        match event {
            _ if self.is_json => output::json_line(&as_json(event)),
            Generation::Token(_) => Ok(()),
            Generation::Chunk(text) => output::text(text),
            Generation::Info(info) => {
                output::text("\n")?;
                // Nobody is left to tell if stderr is closed.
                let _ = writeln!(io::stderr(), "{}", summary(info));
                Ok(())
            }
        }
    }
}

fn as_json(event: &Generation) -> serde_json::Value {
    match event {
        Generation::Token(id) => json!({ "event": "token", "id": id }),
        Generation::Chunk(text) => json!({ "event": "text", "text": text }),
        Generation::Info(info) => json!({
            "event": "done",
            "stop_reason": info.stop_reason.to_string(),
            "prompt_tokens": info.prompt_tokens,
            "generation_tokens": info.generation_tokens,
            "prompt_tokens_per_second": info.prompt_tokens_per_second(),
            "tokens_per_second": info.tokens_per_second(),
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
    format!(
        "prompt: {prompt} tokens, {prompt_speed:.1} tokens/s; answer: {generation} tokens, {speed:.1} tokens/s{reason}"
    )
}
