//! `tamarack chat`: one answer, or a conversation.

mod answer;
mod sampling;
mod session;

use super::{
    images::Images,
    model::{LoadArgs, adapter},
    output,
};
use crate::errors::{Interrupted, Usage};
use answer::Printer;
use clap::Args;
use sampling::Sampling;
use std::{
    fs,
    io::{self, IsTerminal, Read},
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
  tamarack chat --raw --max-tokens 50 < story.txt  goes on with a text, without a chat template
  tamarack chat --model ./my-vlm --image a.jpg --image b.jpg \"What differs?\"
  tamarack chat --model ./my-vlm --video wave.gif \"What happens?\"
  tamarack chat --json \"Hello\"                     one JSON event a line

Ctrl-C cancels the answer, twice ends the command. The answer goes to stdout, all else to stderr.")]
pub struct Chat {
    /// What to ask; without it what is piped in, and on a terminal a conversation
    #[arg(value_name = "PROMPT")]
    question: Option<String>,
    /// The same as PROMPT
    #[arg(long, value_name = "PROMPT", conflicts_with = "question")]
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
    Ok(GenerateParameters { adapter: adapter(container).await?, ..sampling.parameters() })
}

impl Chat {
    /// Runs the command.
    pub async fn run(mut self) -> anyhow::Result<()> {
        match self.question()? {
            Some(question) => self.answer(question).await,
            None => self.converse().await,
        }
    }

    /// The only question; `None` if there is to be a conversation.
    fn question(&mut self) -> anyhow::Result<Option<String>> {
        if let Some(question) = self.question.take().or(self.prompt.take()) {
            return Ok(Some(question));
        }
        if io::stdin().is_terminal() {
            let usage = || Usage("--json takes one prompt: name it, or pipe it in".to_owned()).into();
            return if self.json { Err(usage()) } else { Ok(None) };
        }
        let mut piped = String::new();
        io::stdin().read_to_string(&mut piped).map_err(|e| anyhow::anyhow!("stdin: {e}"))?;
        // The line break that ends a text file is no part of the question.
        let question = if self.raw { &piped } else { piped.trim_end() };
        match question {
            "" => Err(Usage("expected a prompt: name one, or pipe one in".to_owned()).into()),
            question => Ok(Some(question.to_owned())),
        }
    }

    async fn answer(self, question: String) -> anyhow::Result<()> {
        let tools = self.tool_schemas()?;
        let container = self.load.load(&self.model).await?;
        let system = self.system.map(Message::system);
        let input = match self.raw {
            true => UserInput::raw(question),
            false => UserInput::messages(system.into_iter().chain([Message::user(question)])).tools(tools),
        };
        let printer = Printer { is_json: self.json };
        printer.start(&container)?;
        let input = self.images.prepare(&container, input).await?;
        let parameters = parameters(&self.sampling, &container).await?;
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
        let text = fs::read_to_string(path).map_err(|e| wrong(&e))?;
        serde_json::from_str(&text).map_err(|e| wrong(&format!("expected a JSON array of tools: {e}")))
    }
}
