//! Conversations: history, tools and a prompt cache around a container.

mod stream;
mod tool;

pub use stream::SessionStream;
pub use tool::Tool;

use crate::{
    Error, GenerateParameters, Image, ModelContainer, PromptCache, Result, UserInput,
    image::{self, ImageOptions, Sampling, Video},
    text::Message,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::Path};

/// A conversation with a model. Each answer sees all turns before it, of which nothing is computed twice.
///
/// A turn counts once its answer is complete: one that was cancelled, or that failed, leaves the conversation as it
/// was. Any number of sessions may share a container.
///
/// ```no_run
/// # async fn example(container: tamarack::ModelContainer) -> tamarack::Result<()> {
/// use tamarack::ChatSession;
///
/// let mut session = ChatSession::new(container).instructions("Answer in one sentence.");
/// println!("{}", session.respond("What is the capital of France?").await?);
/// println!("{}", session.respond("And of Italy?").await?);
/// # Ok(())
/// # }
/// ```
pub struct ChatSession {
    container: ModelContainer,
    instructions: Option<String>,
    history: Vec<Value>,
    parameters: GenerateParameters,
    tools: Vec<Tool>,
    context: Map<String, Value>,
    cache: PromptCache,
    /// What is in the history, and what comes with the next turn.
    media: Vec<Medium>,
    next_media: Vec<Medium>,
    image_options: ImageOptions,
    sampling: Sampling,
}

/// What a turn comes with beside its text.
#[derive(Clone)]
enum Medium {
    Image(Image),
    Video(Video),
}

impl ChatSession {
    /// A conversation without turns.
    pub fn new(container: ModelContainer) -> ChatSession {
        ChatSession {
            cache: container.prompt_cache(),
            parameters: container.generate_parameters(),
            container,
            instructions: None,
            history: Vec::new(),
            tools: Vec::new(),
            context: Map::new(),
            media: Vec::new(),
            next_media: Vec::new(),
            image_options: ImageOptions::default(),
            sampling: Sampling::default(),
        }
    }

    /// An image that comes with the next turn of the user.
    pub fn add_image(&mut self, image: impl Into<Image>) {
        self.next_media.push(Medium::Image(image.into()));
    }

    /// A video likewise.
    pub fn add_video(&mut self, video: impl Into<Video>) {
        self.next_media.push(Medium::Video(video.into()));
    }

    /// Forgets images and videos that were to come with the next turn.
    pub fn forget_media(&mut self) {
        self.next_media.clear();
    }

    /// What the model is told before everything else, the system prompt.
    pub fn instructions(mut self, text: impl Into<String>) -> ChatSession {
        self.set_instructions(Some(text.into()));
        self
    }

    /// How tokens are chosen, in place of [`ModelContainer::generate_parameters`].
    pub fn parameters(mut self, parameters: GenerateParameters) -> ChatSession {
        self.parameters = parameters;
        self
    }

    /// One more tool that the model may call.
    pub fn tool(mut self, tool: Tool) -> ChatSession {
        self.tools.push(tool);
        self
    }

    /// Turns that were there before, as chat templates read them.
    pub fn history(mut self, turns: impl IntoIterator<Item = impl Into<Value>>) -> ChatSession {
        self.history = turns.into_iter().map(Into::into).collect();
        self
    }

    /// Something else that the chat template reads: `enable_thinking`, say.
    pub fn context(mut self, name: impl Into<String>, value: impl Into<Value>) -> ChatSession {
        self.context.insert(name.into(), value.into());
        self
    }

    /// How images are prepared, those of earlier turns too.
    pub fn image_options_mut(&mut self) -> &mut ImageOptions {
        &mut self.image_options
    }

    /// Which frames of videos are looked at, of those of earlier turns too.
    pub fn sampling_mut(&mut self) -> &mut Sampling {
        &mut self.sampling
    }

    /// Changes what the model is told before everything else, from the next turn on.
    pub fn set_instructions(&mut self, text: Option<String>) {
        self.instructions = text;
    }

    /// How tokens are chosen from the next turn on.
    pub fn parameters_mut(&mut self) -> &mut GenerateParameters {
        &mut self.parameters
    }

    /// All turns but the instructions, those of tools included.
    pub fn turns(&self) -> &[Value] {
        &self.history
    }

    /// The model.
    pub fn container(&self) -> &ModelContainer {
        &self.container
    }

    /// What is kept of what was computed.
    pub fn prompt_cache(&self) -> &PromptCache {
        &self.cache
    }

    /// Forgets all turns, and what was to come with the next one.
    pub fn clear(&mut self) {
        self.history.clear();
        self.media.clear();
        self.next_media.clear();
        self.cache.trim(usize::MAX);
    }

    /// Answers, and calls tools that have a handler until the answer needs no more. Gives the text of the last answer.
    ///
    /// # Errors
    /// Those of [`ModelContainer::prepare`] and [`ModelContainer::generate`], and [`Error::Request`] if the model has
    /// called tools 16 times in a row and asks for more: the conversation is then as it was before the turn.
    pub async fn respond(&mut self, prompt: impl Into<String>) -> Result<String> {
        let mut stream = self.stream_response(prompt).await?;
        while let Some(event) = stream.next().await {
            event?;
        }
        Ok(stream.into_text())
    }

    /// The same, event by event.
    ///
    /// # Errors
    /// Those of [`ModelContainer::prepare`] and [`ModelContainer::generate`].
    pub async fn stream_response(&mut self, prompt: impl Into<String>) -> Result<SessionStream<'_>> {
        let kind = |medium: &Medium| if matches!(medium, Medium::Image(_)) { "image" } else { "video" };
        let parts = self.next_media.iter().map(|medium| json!({ "type": kind(medium) }));
        let parts: Vec<Value> = parts.chain([json!({ "type": "text", "text": prompt.into() })]).collect();
        match self.next_media.is_empty() {
            true => self.stream_turns([json!({ "role": "user", "content": parts[0]["text"] })]).await,
            false => self.stream_turns([json!({ "role": "user", "content": parts })]).await,
        }
    }

    /// The same for any turns, of which there may be several: what tools without a handler gave, or parts other than
    /// text.
    ///
    /// # Errors
    /// Those of [`ModelContainer::prepare`] and [`ModelContainer::generate`].
    pub async fn stream_turns(
        &mut self,
        turns: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Result<SessionStream<'_>> {
        SessionStream::begin(self, turns.into_iter().map(Into::into).collect()).await
    }

    /// Writes the conversation to a file, along with what was computed for it. Images and videos are not kept: a
    /// conversation with some cannot be saved.
    ///
    /// # Errors
    /// Those of [`ModelContainer::save_prompt_cache`].
    pub async fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        if !self.media.is_empty() {
            return Err(Error::Request("a conversation with images or videos cannot be saved".to_owned()));
        }
        let mut texts = BTreeMap::from([("history".to_owned(), Value::from(self.history.clone()).to_string())]);
        texts.extend(self.instructions.clone().map(|text| ("instructions".to_owned(), text)));
        self.container.save_prompt_cache(&self.cache, path, &texts).await
    }

    /// Goes on with a conversation that was saved; the one so far is forgotten.
    ///
    /// # Errors
    /// Those of [`ModelContainer::load_prompt_cache`], and [`Error::File`] if there is no conversation in the file.
    pub async fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (cache, mut texts) = self.container.load_prompt_cache(path).await?;
        let history = texts.remove("history").and_then(|text| serde_json::from_str(&text).ok());
        self.media.clear();
        self.history =
            history.ok_or_else(|| Error::file(path, "expected a conversation, found a prompt cache alone"))?;
        self.instructions = texts.remove("instructions");
        self.cache = cache;
        Ok(())
    }

    /// Gets what comes from the web: once, and not again with each turn that follows.
    async fn fetch(&mut self) -> Result<()> {
        for medium in &mut self.next_media {
            match medium {
                Medium::Image(image) => image::fetch_image(image).await?,
                Medium::Video(video) => image::fetch_video(video).await?,
            }
        }
        Ok(())
    }

    /// The conversation with these turns after it.
    fn input(&self, turns: &[Value]) -> UserInput {
        let system = self.instructions.clone().map(|text| Message::system(text).into());
        let all = system.into_iter().chain(self.history.iter().chain(turns).cloned());
        let tools = self.tools.iter().map(|tool| tool.schema().clone());
        let mut input = UserInput::messages(all.collect::<Vec<Value>>()).tools(tools);
        for medium in self.media.iter().chain(&self.next_media).cloned() {
            match medium {
                Medium::Image(image) => input.images.push(image),
                Medium::Video(video) => input.videos.push(video),
            }
        }
        (input.image_options, input.sampling) = (self.image_options, self.sampling);
        self.context.iter().fold(input, |input, (name, value)| input.context(name, value.clone()))
    }
}
