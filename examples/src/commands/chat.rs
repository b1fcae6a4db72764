//! `tamarack chat`: one answer, or a conversation.

mod answer;
mod session;

use super::{model::LoadArgs, output};
use crate::errors::{Interrupted, Usage};
use answer::Printer;
use clap::Args;
use std::io::{self, IsTerminal, Read};
use tamarack::{GenerateParameters, StopReason, UserInput, text::Message};

/// Answers a prompt, or holds a conversation.
#[derive(Args)]
#[command(args_override_self = true)]
#[command(after_help = "Examples:
  tamarack chat \"What is the capital of France?\"
  tamarack chat --model ./my-model --system \"Answer in one word.\" --temperature 0 \"Why?\"
  tamarack chat --model model.gguf                 a conversation; Ctrl-D ends it
  tamarack chat --raw --max-tokens 50 < story.txt  goes on with a text, without a chat template
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
    load: LoadArgs,
    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: Sampling,
}

/// How tokens are chosen, and how many.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
struct Sampling {
    /// Tokens of an answer at most [default: as many as the context holds]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// How much chance decides; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = GenerateParameters::default().temperature)]
    temperature: f32,
    /// Choose among the most likely tokens whose probabilities add up to this
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Choose among this many of the most likely tokens; 0 is all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among tokens at least this likely, relative to the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Sampling {
    fn parameters(&self) -> GenerateParameters {
        let Sampling { max_tokens, temperature, top_p, top_k, min_p, seed } = *self;
        GenerateParameters { max_tokens, temperature, top_p, top_k, min_p, seed, ..Default::default() }
    }
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
        let container = self.load.load(&self.model).await?;
        let system = self.system.map(Message::system);
        let input = match self.raw {
            true => UserInput::raw(question),
            false => UserInput::messages(system.into_iter().chain([Message::user(question)])),
        };
        let printer = Printer { is_json: self.json };
        printer.start(&container)?;
        let answer = answer::stream(&container, input, &self.sampling.parameters(), &printer).await?;
        match answer.stop_reason {
            StopReason::Cancelled => Err(Interrupted.into()),
            _ => Ok(()),
        }
    }

    async fn converse(self) -> anyhow::Result<()> {
        let container = self.load.load(&self.model).await?;
        let session = session::Session::new(container, self.sampling.parameters(), self.system, self.raw);
        session.run().await
    }
}
