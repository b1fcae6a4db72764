//! The receiving end of a generation.

use super::{GenerateCompletionInfo, Generation};
use crate::{Error, Result, engine::Engine};
use futures::{Stream, StreamExt};
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc::UnboundedReceiver;

/// What a generation says, as it says it. Ends after [`Generation::Info`] or an error.
///
/// Dropping it cancels the generation within a step. It keeps the model loaded.
///
/// ```no_run
/// # async fn example(container: tamarack::ModelContainer) -> tamarack::Result<()> {
/// let input = container.prepare("Why is the sky blue?".into()).await?;
/// let (text, info) = container.generate(input, Default::default()).await?.text().await?;
/// println!("{text}\n{:.1} tokens/s", info.tokens_per_second());
/// # Ok(())
/// # }
/// ```
pub struct GenerationStream {
    events: UnboundedReceiver<Result<Generation>>,
    cancelled: Arc<AtomicBool>,
    ended: bool,
    _engine: Arc<Engine>,
}

impl GenerationStream {
    pub(crate) fn new(
        events: UnboundedReceiver<Result<Generation>>,
        cancelled: Arc<AtomicBool>,
        engine: Arc<Engine>,
    ) -> GenerationStream {
        GenerationStream { events, cancelled, ended: false, _engine: engine }
    }

    /// The next event.
    pub async fn next(&mut self) -> Option<Result<Generation>> {
        StreamExt::next(self).await
    }

    /// Asks the generation to end; the stream goes on to its [`Generation::Info`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// All of the text, without reasoning and tool calls, and how it went.
    ///
    /// # Errors
    /// The generation's own.
    pub async fn text(mut self) -> Result<(String, GenerateCompletionInfo)> {
        let mut text = String::new();
        while let Some(event) = self.next().await {
            match event? {
                Generation::Chunk(chunk) => text += &chunk,
                Generation::Info(info) => return Ok((text, info)),
                _ => {}
            }
        }
        Err(ended())
    }
}

impl fmt::Debug for GenerationStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Stream for GenerationStream {
    type Item = Result<Generation>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.events.poll_recv(context)).unwrap_or_else(|| Err(ended()));
        self.ended = matches!(event, Ok(Generation::Info(_)) | Err(_));
        Poll::Ready(Some(event))
    }
}

fn ended() -> Error {
    Error::Device("the engine ended in the middle of a generation".to_owned())
}
