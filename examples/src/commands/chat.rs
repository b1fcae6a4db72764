//! `tamarack chat`: one answer, or a conversation.

mod answer;
mod prompt;
mod sampling;
mod session;

use super::{
    images::Images,
    model::{LoadArgs, adapter},
    output, text,
};
use crate::errors::{Interrupted, Usage};
use answer::Printer;
use clap::Args;
use prompt::Piped;
use sampling::Sampling;
use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};
use tamarack::{GenerateParameters, ModelContainer, StopReason, UserInput, text::Message};

/// Answers a prompt, or holds a conversation.
#[derive(Args)]
#[command(args_override_self = true)]
#[command(after_help = "Examples:
  tamarack chat \"What is the capital of France?\"
  tamarack chat --model ./my-model --system \"Answer in one word.\" --temperature 0 \"Why?\"
  tamarack chat --model model.gguf                 a conversation; /help says what it understands
  cat report.txt | tamarack chat \"Sum this up.\"    what is piped in, then the question
  tamarack chat --raw --max-tokens 50 < story.txt  goes on with a text, without a chat template
  tamarack chat --model ./my-vlm --image a.jpg --image b.jpg \"What differs?\"
  tamarack chat --model ./my-vlm --video wave.gif \"What happens?\"
  tamarack chat --json \"Hello\"                     one JSON event a line

What is piped in comes before PROMPT, with an empty line between them (with --raw nothing). Beside a PROMPT, a stdin that says
nothing for 15 seconds is left out. In a loop that reads lines from stdin, '< /dev/null' keeps them from being read here.

Where no option says how tokens are chosen, the model's generation_config.json does (temperature, top_p, top_k, min_p,
repetition_penalty, max_new_tokens, do_sample), or the general.sampling keys of a GGUF file; -v shows what counts.

Ctrl-C cancels the answer, twice ends the command. The answer goes to stdout, all else to stderr. Control characters of an
answer are shown as escapes on a terminal, and written as they are elsewhere.")]
pub struct Chat {
    /// What to ask, of what is piped in if there is something; without it that alone, and on a terminal a conversation
    #[arg(value_name = "PROMPT", allow_negative_numbers = true)]
    question: Option<String>,
    /// The same as PROMPT
    #[arg(long, value_name = "PROMPT", conflicts_with = "question", allow_negative_numbers = true)]
    prompt: Option<String>,
    /// A directory, a .gguf file or the id of a model on the hub
    #[arg(short, long, default_value = "HuggingFaceTB/SmolLM2-135M-Instruct")]
    model: String,
    /// Instructions that come before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Go on with the prompt as it is, without a chat template
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    load: LoadArgs,
    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,
    /// A JSON array of tools that the model may call, as chat templates take them; calls are shown and not made
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    tools: Option<PathBuf>,
    #[command(flatten)]
    sampling: Sampling,
}

/// How answers are chosen, with the adapter that was asked for.
async fn parameters(sampling: &Sampling, container: &ModelContainer) -> anyhow::Result<GenerateParameters> {
    Ok(GenerateParameters { adapter: adapter(container).await?, ..sampling.over(container.generate_parameters()) })
}

impl Chat {
    /// Runs the command.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let named = self.question.take().or(self.prompt.take());
        match (named, io::stdin().is_terminal()) {
            (None, true) if self.json => Err(Usage("--json takes one prompt: name it, or pipe it in".into()).into()),
            (None, true) => self.converse().await,
            (None, false) => {
                let question = prompt::joined(&Piped::begin().text()?, None, self.raw);
                match question.is_empty() {
                    true => Err(Usage("expected a prompt: name one, or pipe one in".into()).into()),
                    false => self.answer(question, None).await,
                }
            }
            (Some(named), true) => self.answer(named, None).await,
            (Some(named), false) => self.answer(named, Some(Piped::begin())).await,
        }
    }

    /// Answers a question, about what is piped in beside it.
    async fn answer(self, question: String, piped: Option<Piped>) -> anyhow::Result<()> {
        let tools = self.tool_schemas()?;
        let container = self.load.load(&self.model).await?;
        let question = match piped {
            Some(piped) => prompt::joined(&piped.text_if_any()?, Some(&question), self.raw),
            None => question,
        };
        let system = self.system.map(Message::system);
        let input = match self.raw {
            true => UserInput::raw(question),
            false => UserInput::messages(system.into_iter().chain([Message::user(question)])).tools(tools),
        };
        let printer = Printer { is_json: self.json };
        let parameters = parameters(&self.sampling, &container).await?;
        printer.start(&container, &parameters)?;
        let input = self.images.prepare(&container, input).await?;
        let mut stream = container.generate(input, parameters).await?;
        let answer = answer::show(&mut stream, &printer).await?;
        match answer.stop_reason {
            StopReason::Cancelled => Err(Interrupted.into()),
            _ => Ok(()),
        }
    }

    async fn converse(self) -> anyhow::Result<()> {
        self.images.check_conversation()?;
        let tools = self.tool_schemas()?;
        let container = self.load.load(&self.model).await?;
        let (images, parameters) = (self.images, parameters(&self.sampling, &container).await?);
        session::Session::new(container, parameters, self.system, tools, self.raw).run(&images).await
    }

    fn tool_schemas(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let Some(path) = &self.tools else { return Ok(Vec::new()) };
        let wrong = |e: &dyn std::fmt::Display| anyhow::anyhow!("{}: {e}", path.display());
        serde_json::from_str(&text::read(path)?).map_err(|e| wrong(&format!("expected a JSON array of tools: {e}")))
    }
}
