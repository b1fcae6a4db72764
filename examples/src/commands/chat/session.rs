//! A conversation on a terminal.

use super::answer::{self, Printer};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::io::{self, Write};
use tamarack::{GenerateParameters, ModelContainer, UserInput, text::Message};

const HELP: &str = "Ctrl-C cancels an answer, /clear forgets the conversation, Ctrl-D ends it.";

/// A conversation. Each question sees all turns before it.
pub struct Session {
    container: ModelContainer,
    parameters: GenerateParameters,
    system: Option<Message>,
    /// Questions go to the model as they are, and each for itself.
    is_raw: bool,
    turns: Vec<Message>,
}

impl Session {
    /// A conversation without turns.
    pub fn new(
        container: ModelContainer,
        parameters: GenerateParameters,
        system: Option<String>,
        is_raw: bool,
    ) -> Session {
        Session { container, parameters, system: system.map(Message::system), is_raw, turns: Vec::new() }
    }

    /// Asks and answers until the user leaves.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut editor = DefaultEditor::new()?;
        let info = self.container.model_info();
        say(&format!("{} on {}. {HELP}", self.container.configuration().name, info.device));
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            match line.trim() {
                "" => continue,
                "/clear" => self.turns.clear(),
                question => {
                    // Only a convenience: a question that cannot be recalled is asked nevertheless.
                    let _ = editor.add_history_entry(question);
                    if self.ask(question).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Answers a question; says whether the user wants to leave. A question that fails is forgotten, so
    /// that the conversation can go on.
    async fn ask(&mut self, question: &str) -> anyhow::Result<bool> {
        self.turns.push(Message::user(question));
        let printer = Printer { is_json: false };
        match answer::stream(&self.container, self.input(question), &self.parameters, &printer).await {
            Ok(answer) => {
                self.turns.push(Message::assistant(answer.text));
                Ok(answer.is_over)
            }
            Err(e) if e.is::<tamarack::Error>() => {
                self.turns.pop();
                say(&format!("error: {e}"));
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    fn input(&self, question: &str) -> UserInput {
        match self.is_raw {
            true => UserInput::raw(question),
            false => UserInput::messages(self.system.iter().chain(&self.turns).cloned()),
        }
    }
}

/// Nobody is left to tell if stderr is closed.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
