//! A conversation on a terminal.

use super::{
    Images,
    answer::{self, Answer, Printer},
    output, sampling,
};
use rustyline::{DefaultEditor, error::ReadlineError};
use tamarack::{ChatSession, GenerateParameters, Image, ModelContainer, Tool, UserInput, Video};

const HELP: &str = "\
/system TEXT      what the model is told before everything else; without a text nothing
/image FILE       an image that comes with the next question
/video PATH       a video likewise
/set NAME VALUE   changes how tokens are chosen; without a value says how they are
/reset            forgets the conversation
/save FILE        keeps it, with what was computed for it
/load FILE        goes on with one that was kept
/quit             ends, as Ctrl-D does
Ctrl-C stops an answer and forgets its question; the conversation goes on.";

/// A conversation. Each question sees all turns before it.
pub struct Session {
    chat: ChatSession,
    parameters: GenerateParameters,
    /// Questions go to the model as they are, and each for itself.
    is_raw: bool,
}

impl Session {
    /// A conversation without turns.
    pub fn new(
        container: ModelContainer,
        parameters: GenerateParameters,
        system: Option<String>,
        tools: Vec<serde_json::Value>,
        is_raw: bool,
    ) -> Session {
        let mut chat = ChatSession::new(container);
        chat.set_instructions(system);
        let chat = tools.into_iter().fold(chat, |chat, schema| chat.tool(Tool::declared(schema)));
        Session { chat, parameters, is_raw }
    }

    /// Asks and answers until the user leaves.
    pub async fn run(mut self, images: &Images) -> anyhow::Result<()> {
        images.begin(&mut self.chat);
        let mut editor = DefaultEditor::new()?;
        let container = self.chat.container();
        let (name, device) = (&container.configuration().name, container.device());
        output::note(format_args!("{name} on {device}. /help says what there is, Ctrl-D ends it."));
        let mut was_interrupted = false;
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) if !was_interrupted => {
                    output::note("Ctrl-C once more, or Ctrl-D, ends the conversation.");
                    was_interrupted = true;
                    continue;
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            was_interrupted = false;
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            // Only a convenience: a line that cannot be recalled is heard nevertheless.
            let _ = editor.add_history_entry(line);
            match line.strip_prefix('/') {
                Some("quit" | "exit") => return Ok(()),
                Some(command) => {
                    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
                    match self.command(name, rest.trim()).await {
                        Ok(done) => output::note(done),
                        Err(wrong) => output::note(format_args!("error: {wrong}")),
                    }
                }
                None => {
                    if self.ask(line).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Runs a command that begins with a slash; what there is to say, or what is wrong.
    async fn command(&mut self, name: &str, rest: &str) -> Result<String, String> {
        let text = |e: tamarack::Error| e.to_string();
        match (name, rest) {
            ("help", _) => Ok(HELP.to_owned()),
            ("system", "") => {
                self.chat.set_instructions(None);
                Ok("No instructions.".to_owned())
            }
            ("system", instructions) => {
                self.chat.set_instructions(Some(instructions.to_owned()));
                Ok("Noted.".to_owned())
            }
            ("image", "") => Err("expected /image FILE".to_owned()),
            ("video", "") => Err("expected /video PATH".to_owned()),
            ("video", path) => {
                self.chat.add_video(Video::parse(path));
                Ok("Noted.".to_owned())
            }
            ("image", file) => {
                self.chat.add_image(Image::parse(file));
                Ok("Noted.".to_owned())
            }
            ("reset" | "clear", _) => {
                self.chat.clear();
                Ok("Forgotten.".to_owned())
            }
            ("save" | "load", "") => Err(format!("expected /{name} FILE")),
            ("save", file) => {
                self.chat.save(file).await.map_err(text)?;
                Ok(format!("{} turns are in {file}.", self.chat.turns().len()))
            }
            ("load", file) => {
                self.chat.load(file).await.map_err(text)?;
                let (turns, tokens) = (self.chat.turns().len(), self.chat.prompt_cache().len());
                Ok(format!("{turns} turns, {tokens} tokens of them computed."))
            }
            ("set", rest) => self.set(rest),
            _ => Err(format!("no command /{name}\n{HELP}")),
        }
    }

    fn set(&mut self, rest: &str) -> Result<String, String> {
        let mut changed = self.parameters.clone();
        if let Some((name, value)) = rest.split_once(char::is_whitespace) {
            sampling::set(&mut changed, name, value.trim())?;
        }
        let all = sampling::settings(&changed);
        let name = rest.split_whitespace().next();
        let shown: Vec<String> =
            all.iter().filter(|(n, _)| name.is_none_or(|name| name == *n)).map(|(n, v)| format!("{n} {v}")).collect();
        if shown.is_empty() {
            sampling::set(&mut changed, rest, "")?;
        }
        self.parameters = changed;
        Ok(shown.join("\n"))
    }

    /// Answers a question; says whether the user wants to leave. A question that fails is forgotten, and what came with it, so
    /// that the conversation can go on.
    async fn ask(&mut self, question: &str) -> anyhow::Result<bool> {
        match self.answer(question).await {
            Ok(answer) => Ok(answer.is_over),
            Err(e) if e.is::<tamarack::Error>() => {
                self.chat.forget_media();
                output::note(format_args!("error: {e}"));
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    async fn answer(&mut self, question: &str) -> anyhow::Result<Answer> {
        let printer = Printer::default();
        if self.is_raw {
            let container = self.chat.container();
            let input = container.prepare(UserInput::raw(question)).await?;
            let mut stream = container.generate(input, self.parameters.clone()).await?;
            return answer::show(&mut stream, &printer).await;
        }
        *self.chat.parameters_mut() = self.parameters.clone();
        let mut stream = self.chat.stream_response(question).await?;
        answer::show(&mut stream, &printer).await
    }
}
